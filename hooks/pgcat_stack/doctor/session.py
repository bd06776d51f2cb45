"""Asks everybody: opens the way, asks side by side, and gathers the answers into a case for the checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from pgcat_stack.deployment import Deployment
from pgcat_stack.doctor.answers import UNPROVEN, Answers, Case, ServerAnswer
from pgcat_stack.doctor.asking import Failed, Trouble, resolve, together
from pgcat_stack.doctor.credentials import Credentials, read_credentials
from pgcat_stack.doctor.exporter import ask_exporter
from pgcat_stack.doctor.facts import Facts, Login, Server
from pgcat_stack.doctor.permify import PermifyAnswer, ask_permify
from pgcat_stack.doctor.pgcat import PgcatAnswer, PgcatFacts, ask_pgcat, ask_through, may_be_asked
from pgcat_stack.doctor.postgres import Connector, Lag, ServerFacts, ask_facts, ask_lag
from pgcat_stack.doctor.reach import Options, Reach, Target, open_reach
from pgcat_stack.doctor.trust import Certificates
from pgcat_stack.doctor.write_check import WriteCheck, write_check
from pgcat_stack.endpoints import Address
from pgcat_stack.pools import Pool

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LAG_WATCH_SECONDS = 1.0
"""How long a replica may take to get what the primary has before it counts as behind."""

Progress = Callable[[str, int, int], None]
"""What is under way, how many parts have answered, of how many."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found out, before it is judged."""

    case: Case
    notes: tuple[str, ...]


def examine(
    deployment: Deployment,
    options: Options,
    environment: Mapping[str, str] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Diagnosis:
    """Ask the living parts of a deployment.

    Raises `DeploymentError` for a `--reach` of a name that the deployment does not have.
    """
    facts = Facts(deployment)
    environment = os.environ if environment is None else environment
    progress("looking for the processes", 0, 0)
    with open_reach(facts, options) as reach:
        cluster = reach.cluster
        credentials = read_credentials(facts, environment, cluster.secret if cluster else None)
        with Certificates(facts, environment, cluster.value if cluster else None) as certificates:
            return _Session(facts, options, reach, credentials, certificates, progress).diagnosis()


class _Session:
    def __init__(
        self,
        facts: Facts,
        options: Options,
        reach: Reach,
        credentials: Credentials,
        certificates: Certificates,
        progress: Progress,
    ) -> None:
        self.facts, self.options, self.reach = facts, options, reach
        self.credentials, self.certificates, self.progress = credentials, certificates, progress
        self.seconds = options.timeout_seconds
        self.notes: list[str] = list(reach.notes)

    def _together(self, what: str, jobs: Mapping[K, Callable[[], V]], steps: float) -> dict[K, V | Trouble]:
        """Jobs that each take at most so many steps, with their progress."""
        ended: list[K] = []
        self.progress(what, 0, len(jobs))

        def done(key: K) -> None:
            ended.append(key)
            self.progress(what, len(ended), len(jobs))

        return together(jobs, steps * max(2.0, self.seconds) + 2, done)

    def diagnosis(self) -> Diagnosis:
        jobs: dict[tuple[str, int | Address], Callable[[], object]] = {}
        for server in self.facts.servers:
            jobs["server", server.address] = lambda server=server: self._direct(server)  # type: ignore[misc]
        for number, target in enumerate(self.reach.pgcats):
            jobs["pgcat", number] = lambda target=target: self._pgcat(target)  # type: ignore[misc]
            jobs["exporter", number] = lambda target=target: self._exporter(target)  # type: ignore[misc]
        for number, target in enumerate(self.reach.permifys):
            jobs["permify", number] = lambda target=target: self._permify(target)  # type: ignore[misc]
        first = self._together("asking PostgreSQL, PgCat and Permify", jobs, 12)
        pgcats = self._pgcats(first)
        pgcats = self._through(pgcats)
        servers = {
            server.address: self._server_answer(server, first["server", server.address], pgcats)
            for server in self.facts.servers
        }
        servers = self._lags(servers)
        permifys = tuple(
            answer
            if isinstance(answer, PermifyAnswer)
            else PermifyAnswer(target.name, trouble=_trouble(answer))
            for number, target in enumerate(self.reach.permifys)
            for answer in [first["permify", number]]
        )
        answers = Answers(
            servers=servers,
            pgcats=pgcats,
            permifys=permifys,
            processes=self.reach.processes,
            write_check=self._write_check(permifys),
            hint=self.reach.hint,
        )
        self._note_ways(servers)
        if not self.reach.permifys and self.facts.permify is not None and self.reach.processes is None:
            self.notes.append(
                "Permify was not asked: nothing says where it is"
                f" (--reach permify=HOST:{self.facts.permify_port})"
            )
        return Diagnosis(Case(self.facts, answers, self.credentials), tuple(dict.fromkeys(self.notes)))

    # PostgreSQL

    def _connector(self, server: Server) -> Connector:
        login, password = self.facts.login, self.credentials.database.value
        if login is None:
            raise Failed("unasked", "the files name no user and database")
        target = self.reach.servers[server.address]
        place, address = target.open(server.address.port, self.seconds)
        if password is None:
            raise Failed("unasked", "no password")
        trust = self.certificates.trust(self.facts.encryption(server.address), pooled=False)
        return Connector(place, address, trust, login, password, self.seconds)

    def _direct(self, server: Server) -> ServerFacts:
        with self._connector(server).connected() as ask:
            return ask_facts(ask, direct=True)

    def _server_answer(self, server: Server, direct: object, pgcats: tuple[PgcatAnswer, ...]) -> ServerAnswer:
        if isinstance(direct, ServerFacts):
            return ServerAnswer(direct)
        pool, facts = self._by_pool(server, pgcats)
        trouble = _trouble(direct)
        if facts is None and trouble.kind == "unreachable" and self._served(server, pgcats):
            self.notes.append(
                f"{server.address} was not asked: {trouble.text}, and PgCat gave other servers of its pool"
            )
            trouble = replace(trouble, kind="unasked")
        return ServerAnswer(facts, trouble, pool)

    def _served(self, server: Server, pgcats: tuple[PgcatAnswer, ...]) -> bool:
        """Whether a pool with this server answered, and none has banned it."""
        banned = {
            (b.pool, Address.of(b.host).host) for pgcat in pgcats if pgcat.facts for b in pgcat.facts.bans
        }
        names = [p.name for p in self.facts.pools if self.facts.pool_server(p, server.address) is not None]
        return any(
            isinstance(pgcat.through.get(name), tuple) and (name, server.address.host) not in banned
            for name in names
            for pgcat in pgcats
        )

    def _by_pool(self, server: Server, pgcats: tuple[PgcatAnswer, ...]) -> tuple[str, ServerFacts | None]:
        """What the server said through PgCat, by its place in a pool or else its address."""
        for pool in self.facts.pools:
            if self.facts.pool_server(pool, server.address) is None:
                continue
            for pgcat in pgcats:
                said = pgcat.through.get(pool.name)
                for facts in said if isinstance(said, tuple) else ():
                    if self._is(server, pool, facts):
                        return pool.name, facts
        return "", None

    def _is(self, server: Server, pool: Pool, facts: ServerFacts) -> bool:
        """Whether what a pool's server says comes from this server."""
        members = {member.address for member in pool.servers}
        if len(members) == 1:
            return True
        following = members - {self.facts.primary.address} if self.facts.primary else members
        if server.role == "primary":
            return not facts.in_recovery
        if len(following) == 1:
            return facts.in_recovery
        try:
            return facts.port == server.address.port and facts.address in resolve(
                server.address.host, server.address.port, self.seconds
            )
        except Failed:
            return False

    def _note_ways(self, servers: Mapping[Address, ServerAnswer]) -> None:
        for address, answer in servers.items():
            if answer.pool and answer.trouble is not None and answer.trouble.kind == "unreachable":
                self.notes.append(
                    f"{address} was asked through PgCat's pool {answer.pool}: {answer.trouble.text}"
                )

    def _lags(self, servers: dict[Address, ServerAnswer]) -> dict[Address, ServerAnswer]:
        """Watch each replica until it has what the primary has now."""
        primary = self.facts.primary
        at = servers[primary.address].facts if primary else None
        if at is None or at.in_recovery or not at.position:
            return servers
        position = at.position

        def job(server: Server, facts: ServerFacts) -> Callable[[], Lag]:
            def watch() -> Lag:
                pool = servers[server.address].pool
                connector, database = (
                    (self._pool_connector(self.reach.pgcats[0]), pool)
                    if pool
                    else (self._connector(server), "")
                )
                user = self.facts.client_user if pool else ""
                with connector.connected(database, user) as ask:
                    return ask_lag(ask, position, facts.identity, min(LAG_WATCH_SECONDS, self.seconds))

            return watch

        jobs = {
            server.address: job(server, facts)
            for server in self.facts.replicas
            for facts in [servers[server.address].facts]
            if facts is not None and facts.in_recovery and facts.position and facts.system in ("", at.system)
        }
        if not jobs:
            return servers
        watched = self._together("watching the replicas", jobs, 4)
        found = {address: lag for address, lag in watched.items() if isinstance(lag, Lag)}
        return {
            address: replace(answer, lag=found.get(address)) if address in found else answer
            for address, answer in servers.items()
        }

    # PgCat

    def _pool_connector(self, target: Target) -> Connector:
        login = self.facts.login
        if login is None:
            raise Failed("unasked", "the files name no pool")
        return self._pgcat_connector(target, login, self.credentials.database.value)

    def _pgcat_connector(self, target: Target, login: Login, password: str | None) -> Connector:
        place, address = target.open(self.facts.pgcat_port, self.seconds)
        if password is None:
            raise Failed("unasked", "no password")
        trust = self.certificates.trust(self.facts.pgcat_encryption, pooled=True)
        return Connector(place, address, trust, login, password, self.seconds)

    def _pgcat(self, target: Target) -> PgcatFacts:
        login = self.facts.login
        if login is None:
            raise Failed("unasked", "no password")
        connector = self._pgcat_connector(target, login, self.credentials.admin.value)
        return ask_pgcat(connector, self.facts.admin_user)

    def _exporter(self, target: Target) -> dict[tuple[str, str], int] | None:
        port = self.facts.exporter_port
        if port is None or (port not in target.places and target.trouble is None):
            return None
        place, address = target.open(port, self.seconds)
        return ask_exporter(replace(place, host=address), self.seconds)

    def _pgcats(self, first: Mapping[tuple[str, int | Address], object]) -> tuple[PgcatAnswer, ...]:
        found = []
        for number, target in enumerate(self.reach.pgcats):
            said, exported = first["pgcat", number], first["exporter", number]
            found.append(
                PgcatAnswer(
                    target.name,
                    facts=said if isinstance(said, PgcatFacts) else None,
                    trouble=None if isinstance(said, PgcatFacts) else _trouble(said),
                    exporter=exported if isinstance(exported, (dict, Trouble)) else None,
                )
            )
        return tuple(found)

    def _through(self, pgcats: tuple[PgcatAnswer, ...]) -> tuple[PgcatAnswer, ...]:
        """Ask through every pool of every PgCat that has a connection to spare."""
        jobs: dict[tuple[int, str], Callable[[], tuple[ServerFacts, ...]]] = {}
        for number, pgcat in enumerate(pgcats):
            if pgcat.trouble is not None and pgcat.trouble.kind in ("unreachable", "mute", *UNPROVEN):
                continue
            for pool in self.facts.pools:
                served = pgcat.facts is None or any(s.pool == pool.name for s in pgcat.facts.servers)
                if not served:
                    continue
                if pgcat.facts is not None and not may_be_asked(pgcat.facts, pool.name):
                    self.notes.append(
                        f"PgCat {pgcat.name}: the pool {pool.name} was not asked, it has nothing to spare"
                    )
                    continue
                if self.credentials.database.value is not None:
                    jobs[number, pool.name] = self._through_pool(self.reach.pgcats[number], pool)
        if not jobs:
            return pgcats
        said = self._together("asking through PgCat's pools", jobs, 6)
        return tuple(
            replace(
                pgcat, through={pool: answer for (index, pool), answer in said.items() if index == number}
            )
            for number, pgcat in enumerate(pgcats)
        )

    def _through_pool(self, target: Target, pool: Pool) -> Callable[[], tuple[ServerFacts, ...]]:
        user = pool.users[0].name if pool.users else self.facts.client_user
        servers = len({server.address for server in pool.servers})

        def ask() -> tuple[ServerFacts, ...]:
            return ask_through(self._pool_connector(target), pool.name, user, servers)

        return ask

    # Permify

    def _permify(self, target: Target) -> PermifyAnswer:
        place, address = target.open(self.facts.permify_port, self.seconds)
        return ask_permify(
            target.name,
            replace(place, host=address),
            self.credentials.token,
            self.seconds,
            needs_key=self.facts.asks_for_a_key,
        )

    def _write_check(self, permifys: tuple[PermifyAnswer, ...]) -> WriteCheck | None:
        serving = [
            (f"Permify {answer.name}", answer.place)
            for answer in permifys
            if answer.place is not None and answer.trouble is None and not answer.refuses_key
        ]
        if not self.options.write_check:
            return None
        if not serving:
            self.notes.append("nothing was written: no Permify answers, or takes the key")
            return None
        self.progress("writing, checking, removing what was written", 0, 0)
        result = write_check(serving, self.credentials.token, self.seconds)
        took = ", ".join(f"{step.what} {step.ms:.0f} ms" for step in result.steps)
        if took:
            self.notes.append(f"write check: {took}")
        return result


def _trouble(said: object) -> Trouble:
    return said if isinstance(said, Trouble) else Trouble("failed", "no answer")
