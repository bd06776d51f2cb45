"""What a PgCat process is asked in its admin database, and its typed answer."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from pgcat_stack.doctor.platforms import FileLimit
from pgcat_stack.doctor.postgres import (
    ADMIN_DATABASE,
    ROUND_TRIPS,
    Ask,
    Connector,
    ServerFacts,
    ask_facts,
    ask_round_trips,
    with_round_trip,
)
from pgcat_stack.doctor.side_by_side import Questions, Trouble
from pgcat_stack.endpoints import Address

SAMPLES = 3
SAMPLE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class PoolServerState:
    """A row of SHOW DATABASES: a server of a pool in this process."""

    pool: str
    role: str
    address: Address
    database: str
    user: str
    size: int
    paused: bool
    name: str = ""
    """As PgCat calls it in SHOW STATS."""
    banned: bool = False


@dataclass(frozen=True, slots=True)
class PoolState:
    """A row of SHOW POOLS: how busy a pool is at one moment."""

    pool: str
    clients: int
    waiting: int
    active_servers: int
    longest_wait_seconds: float


@dataclass(frozen=True, slots=True)
class Ban:
    """A row of SHOW BANS."""

    pool: str
    host: str
    reason: str
    remaining_seconds: int


@dataclass(frozen=True, slots=True)
class PgcatFacts:
    """What a PgCat process says of itself; what could not be read is empty, or None."""

    version: str
    config: dict[str, str]
    servers: tuple[PoolServerState, ...] | None
    samples: tuple[tuple[PoolState, ...], ...]
    bans: tuple[Ban, ...]
    errors: dict[str, int]
    """How often each server gave clients no connection while this was watching (PgCat counts checkouts)."""
    round_trip_ms: float | None = None
    """The fastest of some answers of PgCat itself."""

    def server_named(self, name: str) -> PoolServerState | None:
        """The server that SHOW STATS calls so."""
        return next((server for server in self.servers or () if server.name == name), None)

    def paused(self, pool: str) -> bool:
        """Whether somebody paused the pool."""
        return any(server.paused for server in self.servers or () if server.pool == pool)

    def size(self, pool: str) -> int:
        """The most server connections of a pool, over all its servers."""
        return sum(server.size for server in self.servers or () if server.pool == pool)


@dataclass(frozen=True, slots=True)
class PgcatAnswer:
    """One PgCat process: what it said, or the trouble; and what came back through its pools."""

    name: str
    facts: PgcatFacts | None = None
    trouble: Trouble | None = None
    through: dict[str, tuple[ServerFacts, ...] | Trouble] = field(default_factory=dict)
    """By pool. A pool that is paused, or has none to spare, is not asked."""
    exporter: dict[tuple[str, str], int] | Trouble | None = None
    """The pool sizes that its exporter gives, by pool and role."""
    has_exporter: bool = True
    """Whether anything says where its exporter is."""
    files: FileLimit | None = None
    """Its limit of open files; None where nobody can tell."""
    at: str = ""
    """Host and port that it was asked at; empty where it was not reached."""


def ask_pgcat(connector: Connector, user: str, questions: Questions, name: str) -> PgcatFacts:
    """Ask the admin database, and watch the pools for about a second. Raises `Failed`.

    What PgCat says of one thing and cannot be read costs nothing else.
    """
    with connector.connected(ADMIN_DATABASE, user) as ask:
        said = f"what PgCat {name} says of its"
        times: list[float] = []

        def version() -> str:
            for _ in range(ROUND_TRIPS):
                begun = time.monotonic()
                ((text,),) = ask("SHOW VERSION")
                times.append((time.monotonic() - begun) * 1000)
            return str(text).removeprefix("PgCat ")

        def samples() -> tuple[tuple[PoolState, ...], ...]:
            found = []
            for number in range(SAMPLES):
                found.append(tuple(_pool(row) for row in ask("SHOW POOLS")))
                if number < SAMPLES - 1:
                    time.sleep(SAMPLE_SECONDS)
            return tuple(found)

        facts = PgcatFacts(
            version=questions.put(f"{said} version", version, ""),
            config=questions.put(
                f"{said} settings", lambda: {str(row[0]): str(row[1]) for row in ask("SHOW CONFIG")}, {}
            ),
            errors=(before := questions.put(f"{said} failed checkouts", lambda: _errors(ask), {})),
            samples=questions.put(f"{said} pools", samples, ()),
            servers=questions.put(
                f"{said} servers", lambda: tuple(_server(row) for row in ask("SHOW DATABASES")), None
            ),
            bans=questions.put(f"{said} bans", lambda: tuple(_ban(row) for row in ask("SHOW BANS")), ()),
            round_trip_ms=min(times, default=None),
        )
        after = questions.put(f"{said} failed checkouts", lambda: _errors(ask), before)
        return replace(facts, errors={key: after[key] - before.get(key, 0) for key in after})


_POOL, _BAN = TypeAdapter(PoolState), TypeAdapter(Ban)
_SERVER, _ERRORS = TypeAdapter(PoolServerState), TypeAdapter(dict[str, int])


def _errors(ask: Ask) -> dict[str, int]:
    return _ERRORS.validate_python({row[0]: row[10] for row in ask("SHOW STATS")})


def _pool(row: tuple[Any, ...]) -> PoolState:
    return _POOL.validate_python(
        {
            "pool": row[0],
            "clients": int(row[3]) + int(row[4]) + int(row[5]),
            "waiting": row[5],
            "active_servers": row[7],
            "longest_wait_seconds": int(row[12]) + int(row[13]) / 1e6,
        }
    )


def _ban(row: tuple[Any, ...]) -> Ban:
    return _BAN.validate_python(
        {"pool": row[0], "host": row[3], "reason": row[4], "remaining_seconds": int(row[7])}
    )


def _server(row: tuple[Any, ...]) -> PoolServerState:
    pool, _, rest = str(row[0]).rpartition("_shard_")
    role = rest.partition("_")[2].partition("_")[0]
    return _SERVER.validate_python(
        {
            "pool": pool,
            "role": role,
            "address": Address.of(row[1], int(row[2])),
            "database": row[3],
            "user": row[4],
            "size": int(row[5]),
            "paused": bool(int(row[11])),
            "banned": bool(int(row[12])),
            "name": row[0],
        }
    )


def may_be_asked(facts: PgcatFacts, pool: str) -> bool:
    """Whether a question through the pool disturbs nobody.

    Asking a pool that has no connection to spare would wait, take one from others, and may end with the ban
    of a replica. What is so in a single sample has passed.
    """
    if not any(server.pool == pool for server in facts.servers or ()) or facts.paused(pool):
        return False
    size = facts.size(pool)
    states = [state for sample in facts.samples for state in sample if state.pool == pool]
    return not all(state.waiting or state.active_servers >= size for state in states)


def spare(facts: PgcatFacts, pool: str) -> int:
    """How many connections of the pool nobody used at the busiest moment that was seen; at least 1."""
    busiest = max((s.active_servers for sample in facts.samples for s in sample if s.pool == pool), default=0)
    return max(1, facts.size(pool) - busiest)


def ask_through(
    connector: Connector, pool: str, user: str, servers: int, most: int, questions: Questions, name: str
) -> tuple[ServerFacts, ...]:
    """What the servers behind a pool say, each once, by at most so many connections.

    Raises `Failed` where none answers.

    PgCat gives a transaction, or in session mode a client, to the server with the fewest under way. So as
    many transactions as there are servers, open at once, mostly meet them all.
    """
    found: dict[tuple[str, int], ServerFacts] = {}
    with contextlib.ExitStack() as opened:
        for _ in range(min(servers + 1, most) if servers > 1 else 1):
            ask = opened.enter_context(connector.connected(pool, user, hold=servers > 1))
            facts = ask_facts(ask, direct=servers == 1, questions=questions, name=f"{name} behind {pool}")
            if facts.identity not in found:
                question = f"the round trip through {pool} of {name}"
                times = questions.part(question, lambda ask=ask: ask_round_trips(ask), {})  # type: ignore[misc]
                found[facts.identity] = with_round_trip(facts, times)
            if len(found) == servers:
                break
    return tuple(found.values())
