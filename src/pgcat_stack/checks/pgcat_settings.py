"""PS2xx: pgcat.toml against the strict model of what PgCat of the deployment's version reads."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.checks._settings import rules_for
from pgcat_stack.files.issues import UNKNOWN_KEY
from pgcat_stack.files.quantities import whole
from pgcat_stack.findings import Problem
from pgcat_stack.reading.reading import Reading

_rule = rules_for("pgcat", lambda reading: reading.pgcat, lambda reading: reading.pgcat_config)

_rule(
    "PS201",
    "unknown-key",
    "PgCat ignores keys that it does not know, so a misspelt setting silently keeps its default.",
    "Correct the spelling, move the key to the table it belongs in, or remove it.",
)
_rule(
    "PS202",
    "wrong-type",
    'PgCat reads every value as one type and does not start with another: `"5"` is not 5.',
    "Write the value as the type that is named.",
)
_rule(
    "PS203",
    "missing-key",
    "PgCat has no default for this key and does not start without it.",
    "Add the key.",
)
_rule(
    "PS204",
    "out-of-range",
    "PgCat does not start, or never serves, with a number outside this range. Times are"
    " milliseconds unless their key says otherwise, and the exporter's port ends at 32767.",
    "Choose a value inside the range.",
)
_rule(
    "PS205",
    "unknown-value",
    "PgCat knows only these words here and does not start with another.",
    "Use one of the values that are named.",
)
_rule(
    "PS206",
    "newer-key",
    "The setting came after the version of PgCat that this deployment runs, which ignores it silently.",
    "Remove it, or run an image of the line that has it.",
)
_rule(
    "PS207",
    "pool-sizes",
    "PgCat refuses a pool that shall keep more connections than it may open.",
    "Lower `min_pool_size` or raise `pool_size`, and look at the budget.",
)
_rule(
    "PS208",
    "servers",
    "PgCat takes at most one primary a shard and each server once; a pool needs a server of its role.",
    "List each server once with its role.",
)
_rule(
    "PS209",
    "shards",
    "Shards are numbered, and the default shard must be one of them, or PgCat does not start.",
    "Number the shards from 0 and name an existing one.",
)
_rule(
    "PS210",
    "parser",
    "Splitting and plugins work on parsed queries only; PgCat does not start with half of a routing rule.",
    "Switch the query parser on, or remove what needs it.",
)
_rule(
    "PS211",
    "authentication",
    "Each user needs a password here, or a complete auth_query that finds it; PgCat refuses anything else.",
    "Add the key that is named.",
)
_rule(
    "PS212",
    "exporter-host",
    "The metrics exporter listens on `host`, which it takes as an address: with a name PgCat exits at start.",
    "Use an IP address, such as 0.0.0.0, or [::] for IPv6 and IPv4. IPv6 stands in brackets here.",
)
_rule(
    "PS213",
    "tls-pair",
    "TLS settings that lack their other half stop PgCat, or leave connections unencrypted without a word.",
    "Set both halves or none.",
)
_rule(
    "PS214",
    "pool-name",
    "Clients pick a pool by its name, and two names belong to the admin database.",
    "Give the pool another name, here and in Permify's URIs.",
)
_rule(
    "PS215",
    "regex",
    "PgCat compiles the expression at start and refuses a wrong one. Its dialect has no look-around.",
    "Mend the expression.",
)
_rule(
    "PS216",
    "duplicate-user",
    "PgCat keeps one pool for each name and user: of two entries one is lost; without users nobody gets in.",
    "Keep exactly one entry for each user.",
)
_rule(
    "PS217",
    "server-address",
    "PgCat joins host and port by a colon and connects to the result: the host is a name or an address,"
    " without port, scheme or interface, and not 0.0.0.0 or ::, which are the machine itself.",
    "Write the host alone, IPv6 without brackets: fd00::10.",
)
_rule(
    "PS221",
    "brackets-with-tls",
    "With `server_tls` PgCat checks that the host is a name or an address, and panics at one in brackets: the"
    " pool never gets a connection.",
    "Write the address without brackets.",
)
_rule(
    "PS222",
    "brackets-with-dns-cache",
    "With `dns_cache_enabled` PgCat looks up each host that is no address. One in brackets is none to it:"
    " each new connection asks DNS in vain and logs a warning.",
    "Write the address without brackets.",
    severity="warning",
)


_MILLISECONDS = (
    "connect_timeout",
    "healthcheck_timeout",
    "idle_timeout",
    "server_lifetime",
    "shutdown_timeout",
    "idle_client_in_transaction_timeout",
    "tcp_user_timeout",
    "statement_timeout",
)
_LEAST_MILLISECONDS = 100
_MOST_BAN_SECONDS = 3600


@check(
    code="PS218",
    name="pgcat-suspicious-unit",
    severity="warning",
    why="PgCat's timeouts are milliseconds, `ban_time` is seconds, and the names do not say so: five"
    " milliseconds end every query, and a ban of 60000 seconds leaves a replica alone for most of a day.",
    fix="Write timeouts in milliseconds, `ban_time` in seconds.",
)
def suspicious_unit(reading: Reading) -> Iterator[Problem]:
    """Timeouts that look like seconds, and a ban that looks like milliseconds."""
    pgcat = reading.pgcat_config
    unknown = {issue.keys for issue in pgcat.issues if issue.kind == UNKNOWN_KEY} if pgcat else set()
    for keys, setting in pgcat.written.items() if pgcat else ():
        key, value = keys[-1], whole(setting.value)
        if value is None or keys in unknown:
            continue
        if key in _MILLISECONDS and 0 < value < _LEAST_MILLISECONDS:
            text = f"`{key}` is {value} milliseconds, which looks like seconds"
            yield Problem(setting.location, text, f"did you mean {value}000?")
        if key == "ban_time" and value >= _MOST_BAN_SECONDS:
            text = f"`ban_time` is {value} seconds, which looks like milliseconds"
            yield Problem(setting.location, text, f"did you mean {max(value // 1000, 1)}?")
