"""PD3xx: the running PgCat processes against pgcat.toml, and how their pools fare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pgcat_stack.budget import peak
from pgcat_stack.doctor.case import ELSEWHERE, Case
from pgcat_stack.doctor.checks import check
from pgcat_stack.doctor.checks.postgresql import NEW_ONES_FAIL, blocked
from pgcat_stack.doctor.checks.processes import AWAY
from pgcat_stack.doctor.expected import Facts
from pgcat_stack.doctor.pgcat import Ban, PgcatAnswer, PgcatFacts
from pgcat_stack.doctor.side_by_side import Trouble
from pgcat_stack.endpoints import Address, Uri
from pgcat_stack.findings import Location, Problem
from pgcat_stack.reading.permify import Side

LONG_WAIT_SECONDS = 1.0
FAR_MS = 20.0
"""Between PgCat and PostgreSQL. Within one place it is well under a millisecond."""
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
    name = (
        workload.container.pod.manifest.name
        if workload and workload.container and workload.container.pod
        else "pgcat"
    )
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
    fix="Restart PgCat so that it takes the secrets as they are now, or give the doctor the password that it"
    " was started with.",
)
def admin_login_refused(case: Case) -> Iterator[Problem]:
    """Admin logins that were refused."""
    fix = f"is PGCAT_ADMIN_PASSWORD, or the secret, what it started with? {_restart(case.facts)}"
    place = case.facts.pgcat_at("general", "admin_password")
    yield from _across(
        (pgcat.name, place, f"{case.facts.admin_user} is refused by {{who}}: {pgcat.trouble.text}", fix)
        for pgcat in case.answers.pgcats
        if pgcat.trouble is not None and pgcat.trouble.kind not in (*AWAY, *ELSEWHERE)
    )


@check(
    code="PD302",
    name="pgcat-version-differs",
    severity="error",
    why="The validator judged pgcat.toml by another line of PgCat than the one that runs: keys may mean"
    " something else, or nothing.",
    fix="Apply the files again, or correct the image.",
)
def pgcat_version_differs(case: Case) -> Iterator[Problem]:
    """PgCat of another line than the image's."""
    image, line = case.facts.deployment.pgcat_image, case.facts.pgcat_version
    workload = case.facts.workload("pgcat")
    place = (
        workload.container.at("image") if workload and workload.container else case.facts.pgcat_at("general")
    )
    for pgcat, facts in _told(case):
        if facts.version and not facts.version.startswith(f"{line}."):
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
    fix="Restart PgCat, one process after the other.",
)
def pgcat_setting_differs(case: Case) -> Iterator[Problem]:
    """Settings of SHOW CONFIG against the file."""
    yield from _across(_settings(case))


def _settings(case: Case) -> Iterator[tuple[str, Location, str, str]]:
    file = case.facts.deployment.pgcat_config
    for pgcat, facts in _told(case) if file else ():
        for key, value in sorted(facts.config.items()):
            keys = tuple(key.split(".")) if key.startswith("pools.") else ("general", key)
            written = file.written.get(keys) if file else None
            if written is not None and key not in _PLACES and _spelt(written.value) != _spelt(value):
                message = f"{key} is {value} in {{who}}, the file says {_spelt(written.value)}"
                yield pgcat.name, written.location, message, _restart(case.facts)


def _spelt(value: Any) -> str:
    text = str(value).lower()
    return _SPELLINGS.get(text, text)


@check(
    code="PD304",
    name="pools-differ",
    severity="error",
    why="PgCat serves other pools, servers or sizes than the file has: the budget was judged by the file.",
    fix="Restart PgCat, one process after the other.",
)
def pools_differ(case: Case) -> Iterator[Problem]:
    """SHOW DATABASES against the pools of the file."""
    yield from _across(_pools(case))


def _pools(case: Case) -> Iterator[tuple[str, Location, str, str]]:
    at, fix = case.facts.pgcat_at, _restart(case.facts)
    written: dict[tuple[str, str, Address], tuple[int, Location]] = {}
    for pool in case.facts.topology.pgcat.opened if case.facts.topology.pgcat else ():
        for server in pool.servers:
            if server.role != "mirror":
                written[pool.pool, pool.user.name, server.address] = pool.size.value, pool.size.location
    databases = {pool.name: {shard.database.value for shard in pool.shards} for pool in case.facts.pools}
    for pgcat, facts in _told(case):
        if facts.servers is None:
            continue  # PD110 says so
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
    fix="`RESUME` in PgCat's admin database.",
)
def pool_paused(case: Case) -> Iterator[Problem]:
    """Pools that pass on nothing."""
    fix = f"RESUME as {case.facts.admin_user} in its database pgcat, which ask_pgcat in README.md does"
    yield from _across(
        (
            pgcat.name,
            case.facts.pgcat_at("pools", name),
            f"{name} is paused in {{who}}: its clients wait",
            fix,
        )
        for pgcat, facts in _told(case)
        for name in sorted({server.pool for server in facts.servers or () if server.paused})
    )


@check(
    code="PD306",
    name="clients-wait",
    severity="error",
    why="Clients wait for a server connection. After connect_timeout they get an error, and a replica is"
    " banned. With all connections of the pool in use, statements are slow or blocked, or the load is more"
    " than the pool carries. With none in use, PgCat gets no connection: no larger pool helps.",
    fix="None in use: PD101, PD201 or PD203 names the server that does not answer, refuses or is full;"
    " PgCat's log says it otherwise. All in use: PD223 names who blocks them; else look for slow statements"
    " in pg_stat_activity. If they are quick and many, the load is real: larger pools within the budget"
    " (`pgcat-stack plan .`), or more max_connections.",
)
def clients_wait(case: Case) -> Iterator[Problem]:
    """Pools where somebody waited each time, or for long."""
    for pgcat, facts in _told(case):
        for name in sorted({state.pool for sample in facts.samples for state in sample}):
            states = [state for sample in facts.samples for state in sample if state.pool == name]
            fewest = min(state.waiting for state in states)
            longest_seconds = max((s.longest_wait_seconds for s in states if s.waiting), default=0.0)
            if facts.paused(name) or (not fewest and longest_seconds < LONG_WAIT_SECONDS):
                continue
            most, in_use = max(state.waiting for state in states), max(s.active_servers for s in states)
            size = facts.size(name)
            message = (
                f"{most} {'client waits' if most == 1 else 'clients wait'} for {name} in PgCat {pgcat.name},"
                f" the longest {longest_seconds:.1f} s, with {in_use} of {size} server connections in use to"
                f" {', '.join(map(str, _addresses(case, name)))}"
            )
            place = case.facts.pgcat_at("pools", name, "users", "0", "pool_size")
            yield Problem(place, message, _shortage(case, name, in_use, size))


def _addresses(case: Case, pool: str) -> list[Address]:
    """The servers of a pool, each once."""
    found = case.facts.topology.pools.get(pool)
    return list(dict.fromkeys(server.address for server in found.servers)) if found else []


def _shortage(case: Case, name: str, in_use: int, size: int) -> str:
    """What to do where clients wait, by how many connections are in use."""
    known = known_cause(case, _addresses(case, name))
    if in_use == 0:
        return known or "PgCat gets no connection: its log says why; a larger pool would not help"
    if in_use < size:
        return known or "not all are in use: is one of these servers away, or slow to take connections?"
    if known:
        return known
    servers = [s for s in case.facts.servers if s.row is not None and s.address in _addresses(case, name)]
    spare = min(
        (s.row.server.capacity - s.row.demand for s in servers if s.row and s.row.server.capacity), default=0
    )
    looks = "look for slow statements in pg_stat_activity; if the load is real,"
    workload = case.facts.workload("pgcat")
    if workload is not None and spare >= peak(workload).count > 0:
        return f"{looks} raise pool_size: the plan has {spare} connections to spare"
    return f"{looks} the plan has none to spare for a larger pool_size: more max_connections, or less load"


def known_cause(case: Case, addresses: Collection[Address], pools: Collection[str] = ()) -> str:
    """`see PD…`, where another finding says what is wrong with one of the servers or pools; else empty."""
    codes = {"limit": "PD203", "login": "PD201", "database": "PD202", "untrusted": "PD112"}
    for server, answer in case.servers:
        if server.address not in addresses:
            continue
        trouble, facts = answer.trouble, answer.facts
        if trouble is not None and trouble.kind in codes:
            return f"{server.address} is the cause, see {codes[trouble.kind]}"
        if trouble is not None and trouble.kind in AWAY and facts is None:
            return f"{server.address} does not answer, see PD101"
        if trouble is not None and trouble.kind in NEW_ONES_FAIL:
            return f"{server.address} answers no new connection, see PD231"
        if facts is not None and blocked(case, facts):
            return f"sessions on {server.address} wait for a lock, see PD223"
    for pgcat, facts_of in _told(case):
        paused = [name for name in pools if facts_of.paused(name)]
        if paused:
            return f"{paused[0]} is paused in PgCat {pgcat.name}, see PD305"
    return ""


@check(
    code="PD307",
    name="server-banned",
    severity="error",
    why="PgCat leaves a server alone for ban_time after it failed: the others carry its share, with replicas"
    " gone the primary all reads.",
    fix="The reason says what failed. FailedCheckout: no connection within connect_timeout, the server is"
    " away or the pool exhausted. FailedHealthCheck, MessageSendFailed, MessageReceiveFailed: the connection"
    " broke. StatementTimeout: a statement took longer than statement_timeout. AdminBan: somebody's BAN."
    " After a crash of the server PgCat may still hold dead connections to it, and ban it for each: a restart"
    " of PgCat ends that.",
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
            servers = (
                f"{_banned(case, facts, ban)} is" if count == 1 else f"{count} servers at {ban.host} are"
            )
            message = (
                f"{servers} banned from {ban.pool} in PgCat {pgcat.name} for {ban.remaining_seconds} s more:"
                f" {ban.reason}"
            )
            fix = "it comes back by itself once the server is well; banned again and again: restart PgCat"
            if known := known_cause(case, _addresses(case, ban.pool)):
                fix = f"{known}; it comes back by itself afterwards"
            if ban.reason.startswith("AdminBan"):
                fix = f"somebody banned it: UNBAN {ban.host} in PgCat's admin database"
            yield Problem(place, message, fix)


def _banned(case: Case, facts: PgcatFacts, ban: Ban) -> str:
    """The server of a ban with its port, which SHOW BANS does not tell."""
    host = Address.of(ban.host).host
    marked = [
        s.address for s in facts.servers or () if s.pool == ban.pool and s.banned and s.address.host == host
    ]
    found = marked or [address for address in _addresses(case, ban.pool) if address.host == host]
    return " or ".join(dict.fromkeys(map(str, found))) or ban.host


@check(
    code="PD308",
    name="checkouts-fail",
    severity="error",
    why="While the doctor watched for a second, PgCat could not give clients a connection to a server: it did"
    " not reach it, or the pool had none left within connect_timeout. Each was an error for a request, or a"
    " move to another server.",
    fix="PgCat's log says which: `Connection checkout error` with `TimedOut`, or the server's own refusal."
    " With PD306 and all connections in use the pool is exhausted, otherwise the server is away or refuses.",
)
def checkouts_fail(case: Case) -> Iterator[Problem]:
    """Servers whose count of failed checkouts grew."""
    for pgcat, facts in _told(case):
        for name, count in facts.errors.items():
            if count > 0:
                pool, _, rest = name.rpartition("_shard_")
                role = rest.partition("_")[2].partition("_")[0]
                times = "once" if count == 1 else f"{count} times"
                server = facts.server_named(name)
                where = f", {server.address}" if server is not None else ""
                message = (
                    f"PgCat {pgcat.name} failed {times} within a second to reach a {role} of {pool}{where}"
                )
                servers = _addresses(case, pool)
                fix = known_cause(case, servers if server is None else [server.address])
                if not fix and (elsewhere := known_cause(case, servers)):
                    fix = f"{elsewhere}, and its requests come here"
                yield Problem(case.facts.pgcat_at("pools", pool), message, fix or "PgCat's log says why")


@check(
    code="PD309",
    name="pool-does-not-serve",
    severity="error",
    why="A query through the pool, as Permify sends them, comes back with an error.",
    fix="The message is PgCat's own. `AllServersDown`: it reaches no server of the pool. `No pool"
    " configured`: it runs from another file. `password authentication failed`: see PD313.",
)
def pool_does_not_serve(case: Case) -> Iterator[Problem]:
    """Pools that answered the doctor's query with an error."""
    yield from _across(_unserved(case))


def _unserved(case: Case) -> Iterator[tuple[str, Location, str, str]]:
    for pgcat, name, trouble in _refused(case):
        if _wrong_password(trouble):
            continue
        servers = _addresses(case, name)
        fix = known_cause(case, servers)
        fix = fix or f"can PgCat reach and log in to {', '.join(map(str, servers))}? its log says more"
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
    fix="Where the primary's name leads to a primary, restart PgCat: its connection is from before the name"
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
    fix="See what listens there; on one machine two PgCat need two exporter ports.",
)
def exporter_differs(case: Case) -> Iterator[Problem]:
    """Exporters that tell of another PgCat."""
    for pgcat, facts in _told(case):
        if isinstance(pgcat.exporter, dict):
            running = {(server.pool, server.role): server.size for server in facts.servers or ()}
            if facts.servers is not None and pgcat.exporter != running:
                message = f"the exporter reached with PgCat {pgcat.name} gives other pools than it serves"
                place = case.facts.pgcat_at("general", "prometheus_exporter_port")
                yield Problem(place, message, "see which process listens on that port")


@check(
    code="PD312",
    name="nobody-uses-pgcat",
    severity="error",
    why="Permify keeps at least one connection in each of its two pools. Where it serves and PgCat has no"
    " client, it goes past PgCat, and past its limits.",
    fix="Look at the URIs that Permify runs with: environment variables win over the file.",
)
def nobody_uses_pgcat(case: Case) -> Iterator[Problem]:
    """No client in any pool of any PgCat, while Permify reads well.

    At no moment that was looked at: Permify renews its connections, and has none for a moment. A Permify
    whose reads fail, or a pool that serves nobody, tells nothing.
    """
    for side, uri in _unused(case):
        if side == "reader" and _reads_by_the_writer_pool(case):
            continue
        message = f"Permify serves, and no PgCat has a client in {uri.database}: its {side} goes elsewhere"
        fix = "look at the database settings that Permify runs with; PERMIFY_DATABASE_… wins over the file"
        if others := _others(case):
            fix = f"{fix}; the role is connected as {others}"
        yield Problem(uri.location, message, fix)


@check(
    code="PD314",
    name="reads-in-the-writer-pool",
    severity="warning",
    why="Permify reads, no PgCat has a client in the reader pool, and nobody has the role's connections but"
    " PgCat: both of Permify's pools lead to the writer pool. The primary carries all reads, and replicas"
    " none.",
    fix="Look at the URIs that Permify runs with: PERMIFY_DATABASE_READER_URI and its like win over the"
    " file.",
)
def reads_in_the_writer_pool(case: Case) -> Iterator[Problem]:
    """A reader pool without a client, where nothing of Permify goes past PgCat."""
    for side, uri in _unused(case):
        if side == "reader" and _reads_by_the_writer_pool(case):
            writers = ", ".join(sorted(case.facts.writer_pools))
            message = f"Permify reads, and no PgCat has a client in {uri.database}: its reads go to {writers}"
            fix = "look at the URIs that Permify runs with; PERMIFY_DATABASE_READER_URI wins over the file"
            yield Problem(uri.location, message, fix)


def _unused(case: Case) -> Iterator[tuple[Side, Uri]]:
    """The sides of Permify whose pool has no client in any PgCat, although Permify reads."""
    told = [(pgcat, facts) for pgcat, facts in _told(case) if facts.samples]
    workload = case.facts.workload("pgcat")
    reading = [permify for permify in case.answers.permifys if isinstance(permify.tenants, frozenset)]
    if not reading or not told or workload is None or len(told) < workload.replicas.value:
        return
    for side, uri in case.facts.permify.sides if case.facts.permify else ():
        pool = uri.database
        down = any(facts.paused(pool) or isinstance(p.through.get(pool), Trouble) for p, facts in told)
        if not down and case.facts.topology.pooled(uri) and not _clients(case, pool):
            yield side, uri


def _clients(case: Case, pool: str) -> int:
    """The most clients of a pool that were seen at a moment, over all PgCat."""
    return sum(
        max((s.clients for sample in facts.samples for s in sample if s.pool == pool), default=0)
        for _, facts in _told(case)
    )


def _reads_by_the_writer_pool(case: Case) -> bool:
    """Whether the writer pools have clients, and on no server anybody but PgCat has the role."""
    told = [facts for _, facts in case.told]
    whole = len(told) == len(case.facts.servers)
    return whole and not _others(case) and any(_clients(case, pool) for pool in case.facts.writer_pools)


def _others(case: Case) -> str:
    """The applications that have the role's connections and are not PgCat, with where they come from."""
    found = {
        f"{group.application or 'no application name'} from {group.client}"
        for _, facts in case.told
        for group in facts.groups
        if group.application != "pgcat"
    }
    return ", ".join(sorted(found)[:MOST_NAMES])


@check(
    code="PD316",
    name="pgcat-far-from-postgresql",
    severity="warning",
    why="The way between PgCat and PostgreSQL is slow: every statement of every request takes that time, and"
    " a server connection is in use for as long, so the pools carry less.",
    fix="Look at where both run: another region or zone, a VPN, a proxy, a saturated link. The notes name"
    " the round trip to every server.",
)
def pgcat_far(case: Case) -> Iterator[Problem]:
    """Pools whose servers are far from PgCat, without the way from here to PgCat."""
    for pgcat, facts in _told(case):
        for name, said in pgcat.through.items():
            for server in said if isinstance(said, tuple) else ():
                if server.round_trip_ms is None or facts.round_trip_ms is None:
                    continue
                ms = server.round_trip_ms - facts.round_trip_ms
                if ms >= FAR_MS:
                    message = (
                        f"the round trip from PgCat {pgcat.name} to {case.address_of(name, server)} takes"
                        f" {ms:.0f} ms"
                    )
                    fix = "every statement takes that long; look at the network between them"
                    yield Problem(case.facts.pgcat_at("pools", name, "shards", "0", "servers"), message, fix)


@check(
    code="PD313",
    name="pgcat-has-another-password",
    severity="error",
    why="PgCat knows its clients by the password that it was started with. Permify with another is refused as"
    " soon as it opens a new connection.",
    fix="Restart PgCat so that it takes the secret as it is now; see the section on rotation in the"
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
            if isinstance(said, Trouble) and said.kind not in ELSEWHERE:
                yield pgcat, name, said


def _wrong_password(trouble: Trouble) -> bool:
    return trouble.kind == "login" and "password" in trouble.text
