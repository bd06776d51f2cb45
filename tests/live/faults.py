"""Faults under a steady load: what users see of each, for how long, and whether it mends itself.

A site is a rendered deployment with a PostgreSQL cluster of its own; a fault happens at a site while clients
check and write through it, and leaves an outcome. Sites run side by side, each in a thread of its own.
"""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from live.load import Load, Request
from live.network import Toxiproxy, in_own_network, packets_vanish, toxiproxy
from live.service import Service, service
from live.stack import (
    EXTERNAL,
    MAX_CONNECTIONS,
    SCHEMA,
    TENANT,
    Permify,
    PgCat,
    Stack,
    check_body,
    pgcat_program,
    relation_tuple,
    tuples,
    write_body,
)
from live.support import (
    LOOPBACK,
    Cluster,
    Server,
    listens,
    post,
    postgres_cluster,
)

STANDALONE = {"topology": "standalone", **EXTERNAL}
SIDECAR = {"topology": "sidecar", **EXTERNAL}
NO_REPLICA = {"replica_hosts": ""}

SLOW_SECONDS = 0.5
"""A request that takes longer is counted as slow."""
MUTE_SECONDS = 25.0
"""For so long a server does not answer: longer than the statement_timeout of the reader pool."""
CALM_SECONDS = 3.0
"""For so long nothing may fail or be slow before a fault is over."""
LONGEST_SITE_SECONDS = 900.0
"""A thread that keeps processes of a site alive ends then, whatever happened."""

Settings = Mapping[tuple[str, str], int]
"""Numbers and booleans to change in pgcat.toml: by table (`general`, `pools.permify_reader`) and key."""


@dataclass
class Outcome:
    requests: list[Request]
    began: float
    """When the fault began, by `time.monotonic()`."""
    mended: float
    """From when all could be well again: the fault itself, where others can take over, or its end."""
    lost: set[str]
    """Writes that were acknowledged and are not in the database."""
    errors: str
    """The different errors and how often each was."""
    seen: dict[str, Any] = field(default_factory=dict)
    """What else a fault tells of."""

    @property
    def failed(self) -> list[Request]:
        return [request for request in self.requests if request.error]

    @property
    def slow(self) -> list[Request]:
        """Those that took long, failed or not."""
        return [request for request in self.requests if request.seconds > SLOW_SECONDS]

    @property
    def slowest_seconds(self) -> float:
        return max(request.seconds for request in self.requests)

    @property
    def recovered_seconds(self) -> float:
        """From `mended` until the last one that failed or was slow has ended."""
        bad = [*self.failed, *self.slow]
        return max([0.0, *(request.began + request.seconds - self.mended for request in bad)])

    @property
    def failed_until_seconds(self) -> float:
        """From `mended` until the last one that failed has ended."""
        return max([0.0, *(request.began + request.seconds - self.mended for request in self.failed)])


# Sites


@dataclass
class Site:
    cluster: Cluster
    stack: Stack
    exits: contextlib.ExitStack
    service: Service | None
    """Between Permify and PgCat, where PgCat is a Deployment of its own."""
    pgcats: list[PgCat] = field(default_factory=list)
    permifys: list[Permify] = field(default_factory=list)
    _started: int = 0

    def start_pgcat(self, ready: bool = True) -> PgCat:
        """One more, ready or only listening."""
        self._started += 1
        pgcat = self.exits.enter_context(self.stack.pgcat(self._started, ready))
        self.pgcats.append(pgcat)
        if self.service is not None:
            self.service.add(pgcat.port)
        return pgcat

    def end_pgcat(self, pgcat: PgCat, how: signal.Signals = signal.SIGINT) -> None:
        """Without any drain."""
        self.pgcats.remove(pgcat)
        if self.service is not None:
            self.service.remove(pgcat.port)
        pgcat.process.stop(how)

    def start_permify(self, number: int = 0, within_seconds: float = 75) -> Permify:
        """One more, ready; as a sidecar's neighbour it talks to the PgCat of that number."""
        self._started += 1
        port = None
        if not self.stack.direct:
            port = self.pgcats[number].port if self.service is None else self.service.port
        permify = self.exits.enter_context(self.stack.permify(self._started, port, seconds=within_seconds))
        self.permifys.append(permify)
        return permify

    def prepare(self) -> None:
        """Role, database and tables."""
        self.stack.bootstrap()
        self.stack.migrate()
        self.cluster.catch_up()

    def start(self) -> None:
        """As many of each as the manifests say, with data."""
        for _ in range(self.stack.pgcat_count):
            self.start_pgcat()
        for number in range(self.stack.permify_count):
            self.start_permify(number)
        self.permifys[0].write(self.cluster)

    def load(self, **options: Any) -> Load:
        options = {"checkers": 3, "writers": 1, "pause_seconds": 0.1, **options}
        return Load([permify.port for permify in self.permifys], **options)

    def outcome(self, load: Load, began: float, mended: float, **seen: Any) -> Outcome:
        """Ends the load and looks every acknowledged write up."""
        load.stop()
        primary = self.cluster.primary
        with psycopg.connect(
            host=str(primary.folder), port=primary.port, user="postgres", dbname=self.stack.database
        ) as connection:
            lost = load.lost(connection)
        return Outcome(load.requests(since=began), began, mended, lost, "\n".join(load.errors()), seen)

    @property
    def ban_seconds(self) -> float:
        return float(self.stack.pgcat_config["general"]["ban_time"])

    def sessions(self, server: Server) -> int:
        """How many connections the role has to a server."""
        return int(
            server.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", self.stack.user)[0][0]
        )

    def wait_for_use(self, server: Server, within_seconds: float) -> bool:
        """Whether the role comes to use a server from now on; sessions that are left over do not count."""
        now = server.sql("SELECT clock_timestamp()")[0][0]
        statement = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE usename = %s AND greatest(backend_start, query_start) > %s"
        )
        return wait_until(lambda: server.sql(statement, self.stack.user, now)[0][0] > 0, within_seconds)

    def pgcat_log(self) -> str:
        return "".join(
            text for path, text in self.stack.logs().items() if path.parent.name.startswith("pgcat-")
        )


_making = threading.Lock()  # PostgreSQL clusters are made one at a time, for that keeps a machine busy


@contextlib.contextmanager
def site(
    folder: Path,
    answers: Mapping[str, Any] = STANDALONE,
    pgcat: str = "pgcat",
    settings: Settings | None = None,
    make_cluster: Callable[[], contextlib.AbstractContextManager[Cluster]] | None = None,
) -> Iterator[Site]:
    """A deployment of which nothing runs yet but PostgreSQL, without the role."""
    direct = answers.get("pooling") == "direct"
    program_path = None if direct else pgcat_program(pgcat)
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as exits:
        with _making:
            make = make_cluster or functools.partial(postgres_cluster, MAX_CONNECTIONS, {})
            cluster = exits.enter_context(make())
        stack = Stack(cluster, answers, program_path, folder / "deployment", folder / "live")
        if settings:
            toml = stack.rendered / "pgcat" / "pgcat.toml"
            toml.write_text(with_settings(toml.read_text(), settings))
        balancer = None
        if not stack.sidecar and not direct:
            balancer = exits.enter_context(service(cluster.primary.folder / "service"))
        yield Site(cluster, stack, exits, balancer)


@contextlib.contextmanager
def started(folder: Path, *arguments: Any, **options: Any) -> Iterator[Site]:
    with site(folder, *arguments, **options) as here:
        here.prepare()
        here.start()
        yield here


def with_settings(text: str, settings: Settings) -> str:
    """A pgcat.toml with other numbers; a key that its table lacks is added."""
    for (table, key), value in settings.items():
        begins = text.index(f"[{table}]\n") + len(f"[{table}]\n")
        ends = text.find("\n[", begins) if "\n[" in text[begins:] else len(text)
        line = f"{key} = {str(value).lower()}"
        body, replaced = re.subn(rf"(?m)^{key} = (\d+|true|false)", line, text[begins:ends])
        text = text[:begins] + (body if replaced else f"{line}\n{body}") + text[ends:]
    return text


def wait_until(true: Callable[[], bool], within_seconds: float) -> bool:
    end = time.monotonic() + within_seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def calm(load: Load, within_seconds: float = 60) -> None:
    """Waits until checks and writes have been answered well for a while; fails when the time is up."""

    def well() -> bool:
        latest = [
            request
            for request in load.requests()
            if request.began + request.seconds > time.monotonic() - CALM_SECONDS
        ]
        return {request.kind for request in latest} == {"check", "write"} and not any(
            request.error or request.seconds > SLOW_SECONDS for request in latest
        )

    time.sleep(CALM_SECONDS)
    if not wait_until(well, within_seconds):
        errors = "\n".join(load.errors())
        raise TimeoutError(f"{within_seconds} s long requests failed or were slow:\n{errors}")


# Faults: servers


def replica_stopped(here: Site, how: signal.Signals, **options: Any) -> Outcome:
    """Gone and, once all is calm, back; the options are those of the load."""
    with here.load(**options) as load:
        calm(load)
        began = time.monotonic()
        here.cluster.replica.stop(how)
        calm(load)
        here.cluster.replica.start()
        back = time.monotonic()
        again = here.wait_for_use(here.cluster.replica, here.ban_seconds + 30)
        reads_after = time.monotonic() - back
        calm(load)
        return here.outcome(load, began, began, used_again=again, reads_after_seconds=reads_after)


def replica_gone_for_bans(here: Site, bans: float = 2.5) -> Outcome:
    """Gone for so many times `ban_time`; meanwhile a Permify starts anew."""
    with here.load() as load:
        calm(load)
        began = time.monotonic()
        here.cluster.replica.stop(signal.SIGINT)
        time.sleep(here.ban_seconds * bans / 2)
        starting = time.monotonic()
        here.start_permify()
        starts_seconds = time.monotonic() - starting
        time.sleep(max(0.0, began + here.ban_seconds * bans - time.monotonic()))
        outcome = here.outcome(load, began, began, permify_starts_seconds=starts_seconds)
    here.cluster.replica.start()
    return outcome


def started_without_replica(here: Site) -> Outcome:
    """All of the deployment starts, works, and takes the replica in when it comes."""
    here.prepare()
    here.cluster.replica.stop(signal.SIGINT)
    began = time.monotonic()
    for _ in range(here.stack.pgcat_count):
        here.start_pgcat()
    for number in range(here.stack.permify_count):
        here.start_permify(number)
    starts_seconds = time.monotonic() - began
    write_all(here.permifys[0].port)
    with here.load() as load:
        calm(load)
        here.cluster.replica.start()
        here.cluster.catch_up()
        level = time.monotonic()
        again = here.wait_for_use(here.cluster.replica, here.ban_seconds + 30)
        calm(load)
        seen = {"permifys_start_seconds": starts_seconds, "caught_up": level, "used_again": again}
        return here.outcome(load, began, began, **seen)


def write_all(port: int) -> None:
    """The schema and the data of the checks, while there is no replica to wait for."""
    post(port, f"{TENANT}/schemas/write", {"schema": SCHEMA})
    post(port, f"{TENANT}/data/write", write_body(*tuples()))


def primary_restarted(here: Site, how: signal.Signals, away_seconds: float = 0, **options: Any) -> Outcome:
    """Stays away for so long after it has ended; the options are those of the load."""
    with here.load(**options) as load:
        calm(load)
        began = time.monotonic()
        here.cluster.primary.stop(how)
        gone = time.monotonic()
        with port_kept(here.cluster.primary.port):
            time.sleep(away_seconds)
        here.cluster.primary.start()
        mended = time.monotonic()
        calm(load)
        return here.outcome(load, began, mended, gone=gone)


@contextlib.contextmanager
def port_kept(port: int) -> Iterator[None]:
    """Connections are refused as before, and no other test gets the port meanwhile."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((LOOPBACK, port))
        yield


def connections_taken(here: Site, seconds: float = 12, within_seconds: float = 60) -> Outcome:
    """Another application takes every connection of the primary that PgCat does not hold, and those, too."""
    primary, user = here.cluster.primary, here.stack.user
    primary.sql("CREATE ROLE another LOGIN PASSWORD 'another'")
    with here.load() as load, contextlib.ExitStack() as taken:
        calm(load)
        began = time.monotonic()
        while not taken_all(primary, taken) or here.sessions(primary):
            if taken_all(primary, taken):
                primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", user)
            if time.monotonic() > began + within_seconds:
                raise TimeoutError(f"connections were still free or PgCat's after {within_seconds} s")
        held = time.monotonic()
        time.sleep(seconds)
        taken.close()
        mended = time.monotonic()
        calm(load)
        return here.outcome(load, began, mended, held=held)


def taken_all(server: Server, taken: contextlib.ExitStack) -> bool:
    """Connects once more; whether that was refused."""
    try:
        taken.enter_context(
            psycopg.connect(
                host=LOOPBACK, port=server.port, dbname="postgres", user="another", password="another"
            )
        )
    except psycopg.OperationalError:
        return True
    return False


# Faults: the deployment's own parts


def pgcat_killed(here: Site) -> Outcome:
    """SIGKILL; the kubelet starts the container again, and the Service forgets it until then."""
    with here.load() as load:
        calm(load)
        began = time.monotonic()
        killed = here.pgcats[0]
        killed.process.kill()
        killed.process.wait(10)
        time.sleep(1)
        if here.service is not None:
            here.service.remove(killed.port)
        again = killed.process.again()
        here.exits.callback(again.stop)
        again.wait_until(lambda: listens(killed.port))
        if here.service is not None:
            here.service.add(killed.port)
        mended = time.monotonic()
        calm(load)
        return here.outcome(load, began, mended, away_seconds=mended - began)


def started_before(here: Site, mend: Callable[[], None], after_seconds: float = 6) -> Outcome:
    """PgCat and Permify start, and wait for what they need until `mend` brings it; nothing is restarted."""
    mended: list[float] = []
    over = threading.Event()

    def bring() -> None:
        time.sleep(after_seconds)
        mend()
        mended.append(time.monotonic())
        over.wait(LONGEST_SITE_SECONDS)  # for what it started ends with this thread

    began = time.monotonic()
    here.start_pgcat(ready=False)
    here.exits.callback(over.set)
    threading.Thread(target=bring, daemon=True).start()
    here.start_permify()
    ready = time.monotonic()
    assert wait_until(lambda: bool(mended), 60)
    comes_seconds = max(0.0, ready - mended[0])
    log = here.pgcat_log()
    wait_until(lambda: here.sessions(here.cluster.primary) > 0, 10)
    here.permifys[0].write(here.cluster)
    with here.load() as load:
        calm(load)
        return here.outcome(load, began, mended[0], comes_seconds=comes_seconds, log=log)


def password_rotated(here: Site, password: str) -> tuple[Outcome, Outcome]:
    """First the role, then PgCat, then Permify; the second outcome is of the new Permify processes."""
    stack = here.stack
    with here.load() as load:
        calm(load)
        began = time.monotonic()
        stack.bootstrap(password)
        here.cluster.catch_up()
        calm(load)
        role_only = len(load.failed(since=began))
        stack.password = stack.environment["PGPASSWORD"] = password
        (stack.secrets / "database_password").write_text(password)
        restarted = time.monotonic()
        for pgcat in list(here.pgcats):
            here.start_pgcat()
            here.end_pgcat(pgcat)
        time.sleep(5)
        old = here.outcome(load, began, restarted, failed_before_pgcat=role_only)
    here.permifys.clear()
    for _ in range(stack.permify_count):
        here.start_permify()
    with here.load() as load:
        began = time.monotonic()
        calm(load)
        return old, here.outcome(load, began, began)


# Faults: the network


def server_vanished(here: Site, server: Server, seconds: float) -> Outcome:
    """The network to a server swallows packets for a while, as when its machine has died."""
    replica = server is here.cluster.replica
    with here.load() as load:
        calm(load)
        began = time.monotonic()
        with packets_vanish(server.port):
            time.sleep(seconds)
        back = time.monotonic()
        again = here.wait_for_use(server, here.ban_seconds + 30)
        calm(load)
        mended = began if replica else back
        return here.outcome(load, began, mended, used_again=again, away_seconds=seconds)


def server_mute(here: Site, proxy: Toxiproxy, server: Server, seconds: float) -> Outcome:
    """A server whose machine takes packets and never answers, as when its disk hangs."""
    with here.load() as load:
        calm(load)
        began = time.monotonic()
        with proxy.mute(server):
            time.sleep(seconds)
        back = time.monotonic()
        calm(load)
        return here.outcome(load, began, back, away_seconds=seconds)


# Faults: a replica that lags


@dataclass
class Lag:
    """Checks of what was written while the replica replayed nothing; all of them should be allowed."""

    checks: int = 0
    denied: int = 0
    denied_with_token: int = 0
    """Among as many checks with the snap_token that the write returned."""
    denied_caught_up: int = 0
    """Of the same documents, once the replica had it all and before another write."""
    denied_caught_up_with_token: int = 0
    denied_after_write: int = 0
    """Once something else had been written."""


def replica_lags(here: Site, documents: int = 12) -> Lag:
    cluster, lag, tokens = here.cluster, Lag(), {}
    ask = [(permify.port, number) for number in range(documents) for permify in here.permifys]
    cluster.replica.sql("SELECT pg_wal_replay_pause()")
    for number in range(documents):
        tokens[number] = write_viewer(here.permifys[0].port, f"lag-{number}")
    for _ in range(4):
        for port, number in ask:
            lag.checks += 1
            lag.denied += not viewer_allowed(port, f"lag-{number}")
            lag.denied_with_token += not viewer_allowed(port, f"lag-{number}", tokens[number])
    cluster.replica.sql("SELECT pg_wal_replay_resume()")
    cluster.catch_up()
    for _ in range(4):
        for port, number in ask:
            lag.denied_caught_up += not viewer_allowed(port, f"lag-{number}")
            lag.denied_caught_up_with_token += not viewer_allowed(port, f"lag-{number}", tokens[number])
    write_viewer(here.permifys[0].port, "something-else")
    cluster.catch_up()
    for _ in range(4):
        for port, number in ask:
            lag.denied_after_write += not viewer_allowed(port, f"lag-{number}")
    return lag


def write_viewer(port: int, document: str) -> str:
    """User 1 may view a document; returns the snap_token."""
    written = post(port, f"{TENANT}/data/write", write_body(relation_tuple(document, "viewer", 1)))
    return str(written["snap_token"])


def viewer_allowed(port: int, document: str, snap_token: str = "") -> bool:
    body = check_body(document, "view", 1, snap_token)
    return bool(post(port, f"{TENANT}/permissions/check", body)["can"] == "CHECK_RESULT_ALLOWED")


# What happens at which site

Told = Iterator[tuple[str, Any]]
"""The name of a fault and its outcome, one after the other."""


def _servers(folder: Path, settings: Settings, pgcat: str, answers: Mapping[str, Any] = STANDALONE) -> Told:
    with started(folder, answers, pgcat, settings) as here:
        if here.stack.has_replica:
            yield "replica stopped", replica_stopped(here, signal.SIGINT)
            yield "replica crashed", replica_stopped(here, signal.SIGKILL)
            yield "replica gone for several bans", replica_gone_for_bans(here)
        yield "primary restarted", primary_restarted(here, signal.SIGINT)
        yield "primary crashed", primary_restarted(here, signal.SIGQUIT)
        yield "primary away for 8 s", primary_restarted(here, signal.SIGINT, 8)


def _parts(folder: Path, settings: Settings) -> Told:
    with started(folder, settings=settings) as here:
        yield "replica lags", replica_lags(here)
        yield "one of two PgCat killed", pgcat_killed(here)
        yield "connections of the primary all taken", connections_taken(here)
        before, after = password_rotated(here, "another password")
        yield "password rotated, until Permify is restarted", before
        yield "password rotated, after that", after


def _sidecar(folder: Path, settings: Settings) -> Told:
    with started(folder, SIDECAR, settings=settings) as here:
        yield "PgCat killed", pgcat_killed(here)
        yield "replica stopped", replica_stopped(here, signal.SIGINT)
        yield "primary restarted", primary_restarted(here, signal.SIGINT)
        yield "primary away for 8 s", primary_restarted(here, signal.SIGINT, 8)


def _without_replica(folder: Path, settings: Settings) -> Told:
    with site(folder, settings=settings) as here:
        yield "started without the replica", started_without_replica(here)


def _before_postgres(folder: Path, settings: Settings) -> Told:
    with site(folder, settings=settings) as here:
        here.prepare()
        for server in reversed(here.cluster.servers):
            server.stop()

        def start() -> None:
            for server in here.cluster.servers:
                server.start()

        yield "started before PostgreSQL", started_before(here, start)


def _wrong_password(folder: Path, settings: Settings) -> Told:
    with site(folder, settings=settings) as here:
        here.prepare()
        here.stack.bootstrap("not what the Secret says")
        here.cluster.catch_up()
        yield "another password in the Secret", started_before(here, here.stack.bootstrap)


def _missing_database(folder: Path, settings: Settings) -> Told:
    with site(folder, settings=settings) as here:
        here.prepare()
        here.cluster.primary.sql(f'DROP DATABASE "{here.stack.database}"')
        here.cluster.catch_up()
        yield "database missing", started_before(here, here.prepare)


def _vanished(folder: Path, settings: Settings) -> Told:
    def work() -> list[tuple[str, Outcome]]:
        with started(folder, settings=settings) as here:
            replica = server_vanished(here, here.cluster.replica, 20)
            primary = server_vanished(here, here.cluster.primary, 20)
            return [("packets to the replica vanish", replica), ("packets to the primary vanish", primary)]

    yield from in_own_network(work)


def _mute(folder: Path, settings: Settings) -> Told:
    with site(folder, settings=settings) as here, toxiproxy(here.stack.folder) as proxy:
        here.stack.by.update({server.role: proxy.add(server) for server in here.stack.servers})
        here.prepare()
        here.start()
        yield "replica does not answer", server_mute(here, proxy, here.cluster.replica, MUTE_SECONDS)
        yield "primary does not answer", server_mute(here, proxy, here.cluster.primary, MUTE_SECONDS)


SITES: dict[str, Callable[[Path, Settings], Told]] = {
    "standalone": functools.partial(_servers, pgcat="pgcat"),
    "standalone, PgCat 1.3.0": functools.partial(_servers, pgcat="pgcat-1.3.0"),
    "standalone, parts": _parts,
    "standalone, started without the replica": _without_replica,
    "standalone, started before PostgreSQL": _before_postgres,
    "standalone, wrong password": _wrong_password,
    "standalone, database missing": _missing_database,
    "standalone, vanished": _vanished,
    "standalone, mute": _mute,
    "standalone, no replica": functools.partial(
        _servers, pgcat="pgcat", answers={**STANDALONE, **NO_REPLICA}
    ),
    "sidecar": _sidecar,
}


def visit(name: str, folder: Path, settings: Settings) -> dict[str, Any]:
    """All that happens at a site, by the name of the fault."""
    return dict(SITES[name](folder, settings))
