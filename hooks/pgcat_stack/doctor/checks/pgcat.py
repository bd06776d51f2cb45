"""PD3xx: the running PgCat processes against pgcat.toml, and how their pools fare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pgcat_stack.doctor.answers import UNPROVEN, Case
from pgcat_stack.doctor.asking import Trouble
from pgcat_stack.doctor.checks import check
from pgcat_stack.doctor.checks.reaching import AWAY
from pgcat_stack.doctor.facts import Facts
from pgcat_stack.doctor.pgcat import PgcatAnswer, PgcatFacts
from pgcat_stack.endpoints import Address
from pgcat_stack.findings import Location, Problem
from pgcat_stack.plain_data import dig

LONG_WAIT_SECONDS = 1.0
MOST_NAMES = 3

_PLACES = frozenset({"host", "port", "prometheus_exporter_port"})
"""Known by having been reached there; a mapped port is another."""
_SPELLINGS = {
    "loc": "least_outstanding_connections",
    "leastoutstandingconnections": "least_outstanding_connections",
}


def _restart(facts: Facts) -> str:
    if facts.platform == "docker":
        return "docker compose restart pgcat"
    workload = facts.workload("pgcat")
    name = workload.unit.pod.manifest.name if workload and workload.unit and workload.unit.pod else "pgcat"
    scope = f" -n {facts.namespace}" if facts.namespace else ""
    return f"kubectl apply -k ., then kubectl{scope} rollout restart deployment/{name}"


def _told(case: Case) -> Iterator[tuple[PgcatAnswer, PgcatFacts]]:
    for pgcat in case.answers.pgcats:
        if pgcat.facts is not None:
            yield pgcat, pgcat.facts


def _across(found: Iterable[tuple[str, Location, str, str]]) -> Iterator[Problem]:
    """One problem for all processes that have it: `{who}` in the message is their names."""
    names: dict[tuple[Location, str, str], list[str]] = {}
    for name, place, message, fix in found:
        names.setdefault((place, message, fix), []).append(name)
    for (place, message, fix), who in names.items():
        listed = list(dict.fromkeys(who))
        more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
        yield Problem(place, message.replace("{who}", "PgCat " + ", ".join(listed[:MOST_NAMES]) + more), fix)


@check(
    code="PD301",
    name="admin-login-refused",
    severity="error",
    why="PgCat refuses its administrator: it runs with another password or user than the secrets and the file"
    " have, so it was started from others.",
    mend="Restart PgCat so that it takes the secrets as they are now, or give the doctor the password that it"
    " was started with.",
)
def admin_login_refused(case: Case) -> Iterator[Problem]:
    """Admin logins that were refused."""
    fix = f"is PGCAT_ADMIN_PASSWORD, or the secret, what it started with? {_restart(case.facts)}"
    place = case.facts.pgcat_at("general", "admin_password")
    yield from _across(
        (pgcat.name, place, f"{case.facts.admin_user} is refused by {{who}}: {pgcat.trouble.text}", fix)
        for pgcat in case.answers.pgcats
        if pgcat.trouble is not None and pgcat.trouble.kind not in (*AWAY, *UNPROVEN, "unasked")
    )


@check(
    code="PD302",
    name="pgcat-version-differs",
    severity="error",
    why="The validator judged pgcat.toml by another line of PgCat than the one that runs: keys may mean"
    " something else, or nothing.",
    mend="Apply the files again, or correct the image.",
)
def pgcat_version_differs(case: Case) -> Iterator[Problem]:
    """PgCat of another line than the image's."""
    image, line = case.facts.deployment.pgcat_image, case.facts.pgcat_version
    workload = case.facts.workload("pgcat")
    place = workload.unit.at("image") if workload and workload.unit else case.facts.pgcat_at("general")
    for pgcat, facts in _told(case):
        if not facts.version.startswith(f"{line}."):
            message = (
                f"PgCat {pgcat.name} is version {facts.version}, and the image {image} is of the line {line}"
            )
            yield Problem(place, message, f"correct the image, or {_restart(case.facts)}")


@check(
    code="PD303",
    name="pgcat-setting-differs",
    severity="error",
    why="PgCat runs with another setting than the file has: it was not restarted after a change, or started"
    " from another file.",
    mend="Restart PgCat, one process after the other.",
)
def pgcat_setting_differs(case: Case) -> Iterator[Problem]:
    """Settings of SHOW CONFIG against the file."""
    yield from _across(_settings(case))


def _settings(case: Case) -> Iterator[tuple[str, Location, str, str]]:
    source = case.facts.pgcat_source
    for pgcat, facts in _told(case) if source is not None else ():
        for key, value in sorted(facts.config.items()):
            keys = tuple(key.split(".")) if key.startswith("pools.") else ("general", key)
            written = dig(source.data, *keys) if source is not None else None
            if key in _PLACES or written is None or isinstance(written, dict):
                continue
            if _spelt(written) != _spelt(value):
                message = f"{key} is {value} in {{who}}, the file says {_spelt(written)}"
                yield pgcat.name, case.facts.pgcat_at(*keys), message, _restart(case.facts)


def _spelt(value: Any) -> str:
    text = str(value).lower()
    return _SPELLINGS.get(text, text)


@check(
    code="PD304",
    name="pools-differ",
    severity="error",
    why="PgCat serves other pools, servers or sizes than the file has: the budget was judged by the file.",
    mend="Restart PgCat, one process after the other.",
)
def pools_differ(case: Case) -> Iterator[Problem]:
    """SHOW DATABASES against the pools of the file."""
    yield from _across(_pools(case))


def _pools(case: Case) -> Iterator[tuple[str, Location, str, str]]:
    at, fix = case.facts.pgcat_at, _restart(case.facts)
    written: dict[tuple[str, str, Address], tuple[int, Location]] = {}
    for pool in case.facts.topology.pgcat.pools if case.facts.topology.pgcat else ():
        for server in pool.servers:
            if server.role != "mirror":
                written[pool.pool, pool.user, server.address] = pool.size.value, pool.size.location
    databases = {pool.name: {shard.database for shard in pool.shards} for pool in case.facts.pools}
    for pgcat, facts in _told(case):
        running = {(s.pool, s.user, s.address): s for s in facts.servers if s.role != "mirror"}
        for key, (size, place) in written.items():
            name, _, address = key
            state = running.get(key)
            if state is None:
                found = case.facts.pool_server(case.facts.topology.pools[name], address)
                message = f"{address} is not served in {name} by {{who}}"
                yield pgcat.name, found.location if found else place, message, fix
            elif state.size != size:
                message = f"{name} has pool_size {state.size} in {{who}}, the file says {size}"
                yield pgcat.name, place, message, fix
            elif state.database not in databases.get(name, ()):
                message = f"{name} leads to the database {state.database} in {{who}}, not as the file says"
                yield pgcat.name, at("pools", name, "shards", "0", "database"), message, fix
        for name, user, address in sorted(running.keys() - written.keys()):
            message = f"{address} is served in {name} for {user} by {{who}}, and is not in the file"
            yield pgcat.name, at("pools", name), message, fix


@check(
    code="PD305",
    name="pool-paused",
    severity="error",
    why="Somebody paused the pool: clients wait, and nothing ends that but RESUME or a restart.",
    mend="`RESUME` in PgCat's admin database.",
)
def pool_paused(case: Case) -> Iterator[Problem]:
    """Pools that pass on nothing."""
    fix = f"RESUME as {case.facts.admin_user} in the database pgcat of that PgCat"
    yield from _across(
        (
            pgcat.name,
            case.facts.pgcat_at("pools", name),
            f"{name} is paused in {{who}}: its clients wait",
            fix,
        )
        for pgcat, facts in _told(case)
        for name in sorted({server.pool for server in facts.servers if server.paused})
    )


@check(
    code="PD306",
    name="clients-wait",
    severity="error",
    why="Clients wait for a server connection: all of the pool's are in use. After connect_timeout they get"
    " an error, and a replica is banned.",
    mend="Look for slow or stuck statements in pg_stat_activity first. If the load is real, larger pools"
    " within the budget, or more max_connections.",
)
def clients_wait(case: Case) -> Iterator[Problem]:
    """Pools where somebody waited each time, or for long."""
    for pgcat, facts in _told(case):
        paused = {server.pool for server in facts.servers if server.paused}
        for name in sorted({state.pool for sample in facts.samples for state in sample} - paused):
            states = [state for sample in facts.samples for state in sample if state.pool == name]
            fewest = min(state.waiting for state in states)
            longest_seconds = max((s.longest_wait_seconds for s in states if s.waiting), default=0.0)
            if not fewest and longest_seconds < LONG_WAIT_SECONDS:
                continue
            most, last = max(state.waiting for state in states), states[-1]
            size = sum(server.size for server in facts.servers if server.pool == name)
            message = (
                f"{most} {'client waits' if most == 1 else 'clients wait'} for {name} in PgCat {pgcat.name},"
                f" the longest {longest_seconds:.1f} s, with {last.active_servers} of {size} server"
                " connections in use"
            )
            fix = "look for stuck statements in pg_stat_activity; if the load is real, raise pool_size"
            yield Problem(case.facts.pgcat_at("pools", name, "users", "0", "pool_size"), message, fix)


@check(
    code="PD307",
    name="server-banned",
    severity="error",
    why="PgCat leaves a server alone for ban_time after it failed: the others carry its share, with replicas"
    " gone the primary all reads.",
    mend="The reason says what failed. FailedCheckout: no connection within connect_timeout, the server is"
    " away or the pool exhausted. FailedHealthCheck, MessageSendFailed, MessageReceiveFailed: the connection"
    " broke. StatementTimeout: a statement took longer than statement_timeout. AdminBan: somebody's BAN.",
)
def server_banned(case: Case) -> Iterator[Problem]:
    """Servers under a ban."""
    for pgcat, facts in _told(case):
        for ban, count in Counter(facts.bans).items():
            pool = case.facts.topology.pools.get(ban.pool)
            place = next(
                (
                    server.location
                    for server in pool.servers
                    if server.address.host == Address.of(ban.host).host
                )
                if pool
                else iter(()),
                case.facts.pgcat_at("pools", ban.pool),
            )
            servers = f"{ban.host} is" if count == 1 else f"{count} servers at {ban.host} are"
            message = (
                f"{servers} banned from {ban.pool} in PgCat {pgcat.name} for {ban.remaining_seconds} s more:"
                f" {ban.reason}"
            )
            fix = "mend the server; it comes back by itself"
            if ban.reason.startswith("AdminBan"):
                fix = f"somebody banned it: UNBAN {ban.host} in PgCat's admin database"
            yield Problem(place, message, fix)


@check(
    code="PD308",
    name="checkouts-fail",
    severity="error",
    why="While the doctor watched for a second, PgCat could not give clients a connection to a server: it did"
    " not reach it, or the pool had none left within connect_timeout. Each was an error for a request, or a"
    " move to another server.",
    mend="PgCat's log says which: `Connection checkout error` with `TimedOut`, or the server's own refusal.",
)
def checkouts_fail(case: Case) -> Iterator[Problem]:
    """Servers whose count of failed checkouts grew."""
    for pgcat, facts in _told(case):
        for name, count in facts.errors.items():
            if count > 0:
                pool, _, rest = name.rpartition("_shard_")
                role = rest.partition("_")[2].partition("_")[0]
                times = "once" if count == 1 else f"{count} times"
                message = f"PgCat {pgcat.name} failed {times} within a second to reach a {role} of {pool}"
                yield Problem(case.facts.pgcat_at("pools", pool), message, "PgCat's log says why")


@check(
    code="PD309",
    name="pool-does-not-serve",
    severity="error",
    why="A query through the pool, as Permify sends them, comes back with an error.",
    mend="The message is PgCat's own. `AllServersDown`: it reaches no server of the pool. `No pool"
    " configured`: it runs from another file. `password authentication failed`: see PD313.",
)
def pool_does_not_serve(case: Case) -> Iterator[Problem]:
    """Pools that answered the doctor's query with an error."""
    yield from _across(_unserved(case))


def _unserved(case: Case) -> Iterator[tuple[str, Location, str, str]]:
    for pgcat, name, trouble in _refused(case):
        if _wrong_password(trouble):
            continue
        servers = dict.fromkeys(server.address for server in case.facts.topology.pools[name].servers)
        fix = f"can PgCat reach and log in to {', '.join(map(str, servers))}? its log says more"
        if "No pool configured" in trouble.text:
            fix = f"it runs from another file: {_restart(case.facts)}"
        message = f"{name} does not serve in {{who}}: {trouble.text}"
        yield pgcat.name, case.facts.pgcat_at("pools", name), message, fix


@check(
    code="PD310",
    name="writes-reach-a-replica",
    severity="error",
    why="The writer pool's server only follows: every write of Permify fails with `cannot execute … in a"
    " read-only transaction`.",
    mend="Where the primary's name leads to a primary, restart PgCat: its connection is from before the name"
    " moved. Otherwise answer `primary_host` with the server that is the primary now, update, and restart"
    " PgCat.",
)
def writes_reach_a_replica(case: Case) -> Iterator[Problem]:
    """Writer pools whose server is in recovery, unless PD212 says it already."""
    if any(server.role == "primary" and facts.in_recovery for server, facts in case.told):
        return
    for pgcat in case.answers.pgcats:
        for name in sorted(case.facts.writer_pools):
            said = pgcat.through.get(name)
            if isinstance(said, tuple) and any(facts.in_recovery for facts in said):
                message = f"{name} in PgCat {pgcat.name} leads to a read-only replica: every write fails"
                fix = "correct the primary of this pool, then restart PgCat"
                if moved := _named_primaries(case, name):
                    message = (
                        f"{name} in PgCat {pgcat.name} keeps connections to a read-only replica: writes fail,"
                        f" although {moved} leads to a primary"
                    )
                    fix = f"{_restart(case.facts)}; dns_cache_enabled = true in [general] follows the name"
                yield Problem(case.facts.pgcat_at("pools", name, "shards", "0", "servers"), message, fix)


def _named_primaries(case: Case, pool: str) -> str:
    """The hosts of a pool that are names and, asked directly, lead to a primary now."""
    asked = {
        server.address
        for server, answer in case.servers
        if answer.facts is not None and not answer.pool and not answer.facts.in_recovery
    }
    addresses = dict.fromkeys(server.address for server in case.facts.topology.pools[pool].servers)
    return ", ".join(str(address) for address in addresses if address.is_name and address in asked)


@check(
    code="PD311",
    name="exporter-differs",
    severity="warning",
    why="The exporter gives other pools or sizes than the PgCat beside it: the port is another process's.",
    mend="See what listens there; on one machine two PgCat need two exporter ports.",
)
def exporter_differs(case: Case) -> Iterator[Problem]:
    """Exporters that tell of another PgCat."""
    for pgcat, facts in _told(case):
        if isinstance(pgcat.exporter, dict):
            running = {(server.pool, server.role): server.size for server in facts.servers}
            if pgcat.exporter != running:
                message = f"the exporter reached with PgCat {pgcat.name} gives other pools than it serves"
                place = case.facts.pgcat_at("general", "prometheus_exporter_port")
                yield Problem(place, message, "see which process listens on that port")


@check(
    code="PD312",
    name="nobody-uses-pgcat",
    severity="error",
    why="Permify keeps at least one connection in each of its two pools. Where it serves and PgCat has no"
    " client, it goes past PgCat, and past its limits.",
    mend="Look at the URIs that Permify runs with: environment variables win over the file.",
)
def nobody_uses_pgcat(case: Case) -> Iterator[Problem]:
    """No client in any pool of any PgCat, while Permify answers.

    At no moment that was looked at: Permify renews its connections, and has none for a moment.
    """
    told = [facts for _, facts in _told(case)]
    workload = case.facts.workload("pgcat")
    serving = [permify for permify in case.answers.permifys if permify.place and not permify.trouble]
    if not serving or not told or workload is None or len(told) < workload.replicas.value:
        return
    for side, uri in case.facts.permify.sides if case.facts.permify else ():
        if not case.facts.topology.pooled(uri):
            continue
        clients = [
            state.clients
            for facts in told
            for sample in facts.samples
            for state in sample
            if state.pool == uri.database
        ]
        if not any(clients):
            message = (
                f"Permify serves, and no PgCat has a client in {uri.database}: its {side} goes elsewhere"
            )
            fix = (
                "look at the database settings that Permify runs with; PERMIFY_DATABASE_… wins over the file"
            )
            yield Problem(uri.location, message, fix)


@check(
    code="PD313",
    name="pgcat-has-another-password",
    severity="error",
    why="PgCat knows its clients by the password that it was started with. Permify with another is refused as"
    " soon as it opens a new connection.",
    mend="Restart PgCat so that it takes the secret as it is now; see the section on rotation in the"
    " deployment's README.",
)
def pgcat_has_another_password(case: Case) -> Iterator[Problem]:
    """Pools that refuse the database password."""
    message = f"{case.facts.client_user} is refused by {{who}}, which has another password than the secret"
    fix = f"is DATABASE_PASSWORD right? then {_restart(case.facts)}"
    yield from _across(
        (pgcat.name, case.facts.pgcat_at("pools", name, "users", "0", "password"), message, fix)
        for pgcat, name, trouble in _refused(case)
        if _wrong_password(trouble) and name == case.facts.pools[0].name
    )


def _refused(case: Case) -> Iterator[tuple[PgcatAnswer, str, Trouble]]:
    for pgcat in case.answers.pgcats:
        for name, said in pgcat.through.items():
            if isinstance(said, Trouble) and said.kind not in ("unasked", *UNPROVEN):
                yield pgcat, name, said


def _wrong_password(trouble: Trouble) -> bool:
    return trouble.kind == "login" and "password" in trouble.text
