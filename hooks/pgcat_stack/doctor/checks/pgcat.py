"""PD3xx: the running PgCat processes against pgcat.toml, and how their pools fare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from pgcat_stack.doctor.answers import Case
from pgcat_stack.doctor.asking import Trouble
from pgcat_stack.doctor.checks import check
from pgcat_stack.doctor.checks.reaching import AWAY
from pgcat_stack.doctor.facts import Facts
from pgcat_stack.doctor.pgcat import PgcatAnswer, PgcatFacts
from pgcat_stack.endpoints import Address
from pgcat_stack.findings import Location, Problem
from pgcat_stack.sources import dig

LONG_WAIT_SECONDS = 1.0

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
    for pgcat in case.answers.pgcats:
        if pgcat.trouble is not None and pgcat.trouble.kind not in (*AWAY, "unasked"):
            message = f"PgCat {pgcat.name} refuses {case.facts.admin_user}: {pgcat.trouble.text}"
            fix = f"is PGCAT_ADMIN_PASSWORD, or the secret, what it started with? {_restart(case.facts)}"
            yield Problem(case.facts.pgcat_at("general", "admin_password"), message, fix)


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
    source = case.facts.pgcat_source
    if source is None:
        return
    for pgcat, facts in _told(case):
        for key, value in facts.config.items():
            keys = tuple(key.split(".")) if key.startswith("pools.") else ("general", key)
            written = dig(source.data, *keys)
            if key in _PLACES or written is None or isinstance(written, dict):
                continue
            if _spelt(written) != _spelt(value):
                message = f"PgCat {pgcat.name} runs with {key} = {value}, the file says {_spelt(written)}"
                yield Problem(source.at(*keys), message, _restart(case.facts))


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
    for pgcat, facts in _told(case):
        running = {(s.pool, s.user, s.address): s for s in facts.servers if s.role != "mirror"}
        written: dict[tuple[str, str, Address], tuple[int, str, Location]] = {}
        for pool in case.facts.topology.pgcat.pools if case.facts.topology.pgcat else ():
            for server in pool.servers:
                if server.role != "mirror":
                    written[pool.pool, pool.user, server.address] = (
                        pool.size.value,
                        server.role,
                        pool.size.location,
                    )
        databases = {pool.name: {shard.database for shard in pool.shards} for pool in case.facts.pools}
        for key, (size, _, place) in written.items():
            name, _, address = key
            state = running.get(key)
            if state is None:
                message = f"PgCat {pgcat.name} does not serve {address} in {name}"
                server_place = case.facts.pool_server(case.facts.topology.pools[name], address)
                yield Problem(server_place.location if server_place else place, message, _restart(case.facts))
            elif state.size != size:
                message = f"PgCat {pgcat.name} runs {name} with pool_size {state.size}, the file says {size}"
                yield Problem(place, message, _restart(case.facts))
            elif state.database not in databases.get(name, ()):
                message = (
                    f"PgCat {pgcat.name} leads {name} to the database {state.database}, not as the file says"
                )
                database_place = case.facts.pgcat_at("pools", name, "shards", "0", "database")
                yield Problem(database_place, message, _restart(case.facts))
        for key in running.keys() - written.keys():
            name, user, address = key
            message = f"PgCat {pgcat.name} serves {address} in {name} for {user}, which is not in the file"
            yield Problem(case.facts.pgcat_at("pools", name), message, _restart(case.facts))


@check(
    code="PD305",
    name="pool-paused",
    severity="error",
    why="Somebody paused the pool: clients wait, and nothing ends that but RESUME or a restart.",
    mend="`RESUME` in PgCat's admin database.",
)
def pool_paused(case: Case) -> Iterator[Problem]:
    """Pools that pass on nothing."""
    for pgcat, facts in _told(case):
        for name in sorted({server.pool for server in facts.servers if server.paused}):
            message = f"{name} is paused in PgCat {pgcat.name}: its clients wait"
            fix = f"RESUME as {case.facts.admin_user} in the database pgcat of that PgCat"
            yield Problem(case.facts.pgcat_at("pools", name), message, fix)


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
            longest_seconds = max(state.longest_wait_seconds for state in states)
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
    for pgcat, name, trouble in _refused(case):
        if not _wrong_password(trouble):
            message = f"{name} in PgCat {pgcat.name} does not serve: {trouble.text}"
            servers = ", ".join(
                str(address)
                for address in dict.fromkeys(s.address for s in case.facts.topology.pools[name].servers)
            )
            fix = f"can PgCat reach and log in to {servers}? its log says more"
            if "No pool configured" in trouble.text:
                fix = f"it runs from another file: {_restart(case.facts)}"
            yield Problem(case.facts.pgcat_at("pools", name), message, fix)


@check(
    code="PD310",
    name="writes-reach-a-replica",
    severity="error",
    why="The writer pool's server only follows: every write of Permify fails with `cannot execute … in a"
    " read-only transaction`.",
    mend="Answer `primary_host` with the server that is the primary now, update, and restart PgCat.",
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
                yield Problem(case.facts.pgcat_at("pools", name, "shards", "0", "servers"), message, fix)


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
    """No client in any pool of any PgCat, while Permify answers."""
    told = [facts for _, facts in _told(case)]
    workload = case.facts.workload("pgcat")
    serving = [permify for permify in case.answers.permifys if permify.place and not permify.trouble]
    if not serving or not told or workload is None or len(told) < workload.replicas.value:
        return
    for side, uri in case.facts.permify.sides if case.facts.permify else ():
        if not case.facts.topology.pooled(uri):
            continue
        clients = sum(
            state.clients for facts in told for state in facts.samples[-1] if state.pool == uri.database
        )
        if not clients:
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
    for pgcat in dict.fromkeys(
        pgcat.name for pgcat, _, trouble in _refused(case) if _wrong_password(trouble)
    ):
        message = (
            f"PgCat {pgcat} refuses {case.facts.client_user}: it runs with another password than the secret"
        )
        place = case.facts.pgcat_at("pools", case.facts.pools[0].name, "users", "0", "password")
        yield Problem(place, message, f"is DATABASE_PASSWORD right? then {_restart(case.facts)}")


def _refused(case: Case) -> Iterator[tuple[PgcatAnswer, str, Trouble]]:
    for pgcat in case.answers.pgcats:
        for name, said in pgcat.through.items():
            if isinstance(said, Trouble) and said.kind != "unasked":
                yield pgcat, name, said


def _wrong_password(trouble: Trouble) -> bool:
    return trouble.kind == "login" and "password" in trouble.text
