"""Asks everybody: opens the way, asks side by side, and gathers the answers into a case for the checks."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from pgcat_stack.doctor.case import UNPROVEN, Answers, Case, ServerAnswer
from pgcat_stack.doctor.credentials import Credentials, Password, read_credentials
from pgcat_stack.doctor.expected import Facts, Login, Server
from pgcat_stack.doctor.exporter import ask_exporter
from pgcat_stack.doctor.permify import PermifyAnswer, ask_permify
from pgcat_stack.doctor.pgcat import PgcatAnswer, PgcatFacts, ask_pgcat, ask_through, may_be_asked, spare
from pgcat_stack.doctor.platforms import FileLimit, docker_file_limit
from pgcat_stack.doctor.postgres import (
    Connector,
    Lag,
    ServerFacts,
    ask_facts,
    ask_lag,
    ask_round_trips,
    with_round_trip,
)
from pgcat_stack.doctor.routes import Options, Reach, Target, open_reach
from pgcat_stack.doctor.side_by_side import Failed, Questions, Trouble, resolve
from pgcat_stack.doctor.trust import Certificates
from pgcat_stack.doctor.write_check import WriteCheck, write_check
from pgcat_stack.endpoints import Address
from pgcat_stack.pgcat.config import Pool
from pgcat_stack.reading.reading import Reading

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

AGAIN_SECONDS = 0.3
"""After so long a question is put once more whose connection ended before the answer came."""
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
    deployment: Reading,
    options: Options,
    environment: Mapping[str, str] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Diagnosis:
    """Ask the living parts of a deployment.

    Raises `DeploymentError` for a `--reach` of a name that the deployment does not have.
    """
    facts = Facts(deployment)
    environment = os.environ if environment is None else environment
    questions = Questions()
    with contextlib.suppress(Exception):
        progress("looking for the processes", 0, 0)
    diagnosis = None
    with open_reach(facts, options, questions) as reach:
        diagnosis = questions.step(
            "everything", lambda: _diagnosis(facts, options, environment, reach, questions, progress), None
        )
    if diagnosis is None:
        diagnosis = Diagnosis(Case(facts, Answers(), _NO_CREDENTIALS), ())
    case = diagnosis.case
    answers = replace(case.answers, broken=tuple(dict.fromkeys(questions.broken)))
    notes = tuple(dict.fromkeys([*diagnosis.notes, *questions.unseen]))
    return Diagnosis(replace(case, answers=answers), notes)


_NO_CREDENTIALS = Credentials(Password(None, "not looked for"), Password(None, "not looked for"))


def _diagnosis(
    facts: Facts,
    options: Options,
    environment: Mapping[str, str],
    reach: Reach,
    questions: Questions,
    progress: Progress,
) -> Diagnosis:
    cluster = reach.cluster
    credentials = questions.step(
        "which passwords there are",
        lambda: read_credentials(facts, environment, cluster.secret if cluster else None),
        _NO_CREDENTIALS,
    )
    with Certificates(facts, environment, cluster.value if cluster else None) as certificates:
        return _Session(facts, options, reach, credentials, certificates, questions, progress).diagnosis()


class _Session:
    def __init__(
        self,
        facts: Facts,
        options: Options,
        reach: Reach,
        credentials: Credentials,
        certificates: Certificates,
        questions: Questions,
        progress: Progress,
    ) -> None:
        self.facts, self.options, self.reach = facts, options, reach
        self.credentials, self.certificates = credentials, certificates
        self.questions, self.progress = questions, progress
        self.seconds = options.timeout_seconds
        self.notes: list[str] = list(reach.notes)

    def _together(
        self, what: str, jobs: Mapping[K, tuple[str, Callable[[], V]]], steps: float
    ) -> dict[K, V | Trouble]:
        """Questions with their words that each take at most so many steps, with their progress."""
        ended: list[K] = []

        def done(key: K) -> None:
            ended.append(key)
            self.progress(what, len(ended), len(jobs))

        with contextlib.suppress(Exception):
            self.progress(what, 0, len(jobs))
        again = {key: (words, _again(job)) for key, (words, job) in jobs.items()}
        return self.questions.together(again, steps * max(2.0, self.seconds) + 2, done)

    def diagnosis(self) -> Diagnosis:
        """Everything that is asked; side by side what does not disturb the other."""
        put = self.questions.step
        first = self._first()
        pgcats = put("what PgCat says", lambda: self._pgcats(first), ())
        pgcats = put("what comes back through PgCat", lambda: self._through(pgcats), pgcats)
        servers = {server.address: self._answer(server, first, pgcats) for server in self.facts.servers}
        servers = put("how far the replicas are behind", lambda: self._lags(servers), servers)
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
            write_check=put("the write check", lambda: self._write_check(permifys), None),
            hint=self.reach.hint,
        )
        case = Case(self.facts, answers, self.credentials)
        put("how everything was asked", lambda: self._note_ways(servers), None)
        put("the round trips", lambda: self.notes.extend(_round_trips(case)), None)
        put("what was not seen", lambda: self.notes.extend(_not_seen(case)), None)
        return Diagnosis(case, tuple(self.notes))

    def _first(self) -> dict[tuple[str, int | Address], object]:
        """What every part says by itself."""
        jobs: dict[tuple[str, int | Address], tuple[str, Callable[[], object]]] = {}
        for server in self.facts.servers:
            jobs["server", server.address] = (
                f"the {server.role} {server.address}",
                lambda server=server: self._direct(server),  # type: ignore[misc]
            )
        for number, target in enumerate(self.reach.pgcats):
            jobs["pgcat", number] = (
                f"PgCat {target.name}",
                lambda target=target: self._pgcat(target),  # type: ignore[misc]
            )
            jobs["exporter", number] = (
                f"the exporter of PgCat {target.name}",
                lambda target=target: self._exporter(target),  # type: ignore[misc]
            )
            jobs["files", number] = (
                f"the open files of PgCat {target.name}",
                lambda target=target: self._files(target),  # type: ignore[misc]
            )
        for number, target in enumerate(self.reach.permifys):
            jobs["permify", number] = (
                f"Permify {target.name}",
                lambda target=target: self._permify(target),  # type: ignore[misc]
            )
        return dict(self._together("asking PostgreSQL, PgCat and Permify", jobs, 12))

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
        name = str(server.address)
        with self._connector(server).connected() as ask:
            facts = ask_facts(ask, direct=True, questions=self.questions, name=name)
            times = self.questions.part(f"the round trip to {name}", lambda: ask_round_trips(ask), {})
            return with_round_trip(facts, times)

    def _answer(
        self,
        server: Server,
        first: Mapping[tuple[str, int | Address], object],
        pgcats: tuple[PgcatAnswer, ...],
    ) -> ServerAnswer:
        def answer() -> ServerAnswer:
            return self._server_answer(server, first["server", server.address], pgcats)

        return self.questions.step(f"what {server.address} says", answer, ServerAnswer())

    def _server_answer(self, server: Server, direct: object, pgcats: tuple[PgcatAnswer, ...]) -> ServerAnswer:
        if isinstance(direct, ServerFacts):
            return ServerAnswer(direct)
        pool, facts = self._by_pool(server, pgcats)
        trouble = _trouble(direct)
        refused = "connection refused" in trouble.text  # somebody answers there, and no server
        if facts is None and trouble.kind == "unreachable" and not refused and self._served(server, pgcats):
            trouble = replace(trouble, kind="unmet")
        return ServerAnswer(facts, trouble, pool)

    def _served(self, server: Server, pgcats: tuple[PgcatAnswer, ...]) -> bool:
        """Whether a pool with this server answered by others alone, and none has banned it."""
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

        def job(server: Server, facts: ServerFacts) -> tuple[str, Callable[[], Lag]]:
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

            return f"how far {server.address} is behind", watch

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
        self.notes += [
            f"how far {address} is behind was not seen: {lag.text}"
            for address, lag in watched.items()
            if isinstance(lag, Trouble) and lag.kind != "broken"
        ]
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
        return ask_pgcat(connector, self.facts.admin_user, self.questions, target.name)

    def _files(self, target: Target) -> FileLimit | None:
        process, cluster = target.process, self.reach.cluster
        if process is None:
            return None
        if cluster is not None:
            return cluster.file_limit(process.name, process.program)
        return docker_file_limit(self.facts.deployment.root.resolve(), process.name, 2 * self.seconds)

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
            files = first["files", number]
            if isinstance(files, Trouble) and files.kind != "broken":
                self.notes.append(f"the open files of PgCat {target.name} were not seen: {files.text}")
            found.append(
                PgcatAnswer(
                    target.name,
                    facts=said if isinstance(said, PgcatFacts) else None,
                    trouble=None if isinstance(said, PgcatFacts) else _trouble(said),
                    exporter=exported if isinstance(exported, (dict, Trouble)) else None,
                    files=files if isinstance(files, FileLimit) else None,
                    at=target.main(self.facts.pgcat_port),
                )
            )
        return tuple(found)

    def _through(self, pgcats: tuple[PgcatAnswer, ...]) -> tuple[PgcatAnswer, ...]:
        """Ask through every pool of every PgCat that has a connection to spare."""
        jobs: dict[tuple[int, str], tuple[str, Callable[[], tuple[ServerFacts, ...]]]] = {}
        for number, pgcat in enumerate(pgcats):
            if pgcat.trouble is not None and pgcat.trouble.kind in ("unreachable", "mute", *UNPROVEN):
                continue
            for pool in self.facts.pools:
                told = pgcat.facts.servers if pgcat.facts is not None else None
                served = told is None or any(s.pool == pool.name for s in told)
                if not served:
                    continue
                if pgcat.facts is not None and told is not None and not may_be_asked(pgcat.facts, pool.name):
                    why = "it has nothing to spare"
                    if pgcat.facts.paused(pool.name):
                        why = "it is paused"
                    elif not pgcat.facts.samples:
                        why = "how busy it is could not be read"
                    self.notes.append(f"PgCat {pgcat.name}: the pool {pool.name} was not asked, {why}")
                    continue
                if self.credentials.database.value is not None:
                    jobs[number, pool.name] = self._through_pool(self.reach.pgcats[number], pool, pgcat.facts)
        if not jobs:
            return pgcats
        said = self._together("asking through PgCat's pools", jobs, 6)
        return tuple(
            replace(
                pgcat, through={pool: answer for (index, pool), answer in said.items() if index == number}
            )
            for number, pgcat in enumerate(pgcats)
        )

    def _through_pool(
        self, target: Target, pool: Pool, facts: PgcatFacts | None
    ) -> tuple[str, Callable[[], tuple[ServerFacts, ...]]]:
        user = pool.users[0].name if pool.users else self.facts.client_user
        servers = len({server.address for server in pool.servers})
        most = spare(facts, pool.name) if facts is not None else servers
        name = f"PgCat {target.name}"

        def ask() -> tuple[ServerFacts, ...]:
            connector = self._pool_connector(target)
            return ask_through(connector, pool.name, user, servers, most, self.questions, name)

        return f"the pool {pool.name} of PgCat {target.name}", ask

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


def _again(job: Callable[[], V]) -> Callable[[], V]:
    """The job, and the same once more where its connection ended before the answer came."""

    def twice() -> V:
        try:
            return job()
        except Failed as failed:
            if not failed.lost:
                raise
        time.sleep(AGAIN_SECONDS)
        return job()

    return twice


def _round_trips(case: Case) -> Iterator[str]:
    """How long each server takes to answer the smallest question, from here and from PgCat."""
    pooled: dict[str, list[float]] = {}
    for pgcat in case.answers.pgcats:
        here = pgcat.facts.round_trip_ms if pgcat.facts is not None else None
        for pool, said in pgcat.through.items():
            for facts in said if isinstance(said, tuple) else ():
                if facts.round_trip_ms is not None and here is not None:
                    ms = max(facts.round_trip_ms - here, 0.0)
                    pooled.setdefault(case.address_of(pool, facts), []).append(ms)
    for server, answer in case.servers:
        ways = []
        if answer.facts is not None and not answer.pool and answer.facts.round_trip_ms is not None:
            ways.append(f"{_ms(answer.facts.round_trip_ms)} from here")
        if found := pooled.get(str(server.address)):
            ways.append(f"{_ms(max(found))} from PgCat")
        if ways:
            yield f"round trip to {server.address}: {', '.join(ways)}"


def _ms(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"


def _not_seen(case: Case) -> Iterator[str]:
    """What could hide a fault and was not looked at."""
    login = case.facts.login
    user = login.user if login is not None else "the role"
    for server, facts in case.told:
        if facts.hidden:
            others = ", ".join(facts.hidden[:3])
            yield (
                f"on {server.address} {user} does not see the statements of {others} in its database,"
                f" nor since when (GRANT pg_monitor TO {user}, or ask as an administrator)"
            )
    if any(pgcat.facts for pgcat in case.answers.pgcats) and case.answers.processes is None:
        yield "the open files of PgCat were not looked at: only docker and kubectl show them"


def _trouble(said: object) -> Trouble:
    return said if isinstance(said, Trouble) else Trouble("failed", "no answer")
