"""What a PgCat process is asked in its admin database, and its typed answer."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pgcat_stack.doctor.asking import Trouble
from pgcat_stack.doctor.postgres import ADMIN_DATABASE, Ask, Connector, ServerFacts, ask_facts
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
    """What a PgCat process says of itself."""

    version: str
    config: dict[str, str]
    servers: tuple[PoolServerState, ...]
    samples: tuple[tuple[PoolState, ...], ...]
    bans: tuple[Ban, ...]
    errors: dict[str, int]
    """How often each server gave clients no connection while this was watching (PgCat counts checkouts)."""


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


def ask_pgcat(connector: Connector, user: str) -> PgcatFacts:
    """Ask the admin database, and watch the pools for about a second. Raises `Failed`."""
    with connector.connected(ADMIN_DATABASE, user) as ask:
        ((version,),) = ask("SHOW VERSION")
        config = {row[0]: row[1] for row in ask("SHOW CONFIG")}
        before = _errors(ask)
        samples = []
        for number in range(SAMPLES):
            samples.append(tuple(_pool(row) for row in ask("SHOW POOLS")))
            if number < SAMPLES - 1:
                time.sleep(SAMPLE_SECONDS)
        after = _errors(ask)
        return PgcatFacts(
            version=str(version).removeprefix("PgCat "),
            config=config,
            servers=tuple(_server(row) for row in ask("SHOW DATABASES")),
            samples=tuple(samples),
            bans=tuple(Ban(row[0], row[3], row[4], int(row[7])) for row in ask("SHOW BANS")),
            errors={name: after[name] - before.get(name, 0) for name in after},
        )


def _errors(ask: Ask) -> dict[str, int]:
    return {row[0]: _int(row[10]) for row in ask("SHOW STATS")}


def _pool(row: tuple[Any, ...]) -> PoolState:
    return PoolState(
        pool=row[0],
        clients=_int(row[3]) + _int(row[4]) + _int(row[5]),
        waiting=_int(row[5]),
        active_servers=_int(row[7]),
        longest_wait_seconds=_int(row[12]) + _int(row[13]) / 1e6,
    )


def _server(row: tuple[Any, ...]) -> PoolServerState:
    pool, _, rest = str(row[0]).rpartition("_shard_")
    role = rest.partition("_")[2].partition("_")[0]
    return PoolServerState(
        pool=pool,
        role=role,
        address=Address.of(row[1], int(row[2])),
        database=row[3],
        user=row[4],
        size=_int(row[5]),
        paused=bool(_int(row[11])),
    )


def _int(value: Decimal | int | str) -> int:
    return int(value)


def may_be_asked(facts: PgcatFacts, pool: str) -> bool:
    """Whether a question through the pool disturbs nobody.

    Asking a pool that has no connection to spare would wait, take one from others, and may end with the ban
    of a replica. What is so in a single sample has passed.
    """
    servers = [server for server in facts.servers if server.pool == pool]
    if not servers or any(server.paused for server in servers):
        return False
    size = sum(server.size for server in servers)
    states = [state for sample in facts.samples for state in sample if state.pool == pool]
    return not all(state.waiting or state.active_servers >= size for state in states)


def ask_through(connector: Connector, pool: str, user: str, servers: int) -> tuple[ServerFacts, ...]:
    """What the servers behind a pool say, each once. Raises `Failed` where none answers.

    PgCat gives a transaction, or in session mode a client, to the server with the fewest under way. So a few
    attempts, with as many connections open as there are servers, mostly meet them all.
    """
    found: dict[tuple[str, int], ServerFacts] = {}
    with contextlib.ExitStack() as opened:
        for _ in range(servers):
            ask = opened.enter_context(connector.connected(pool, user))
            for _ in range(servers):
                facts = ask_facts(ask, direct=servers == 1)
                found.setdefault(facts.identity, facts)
                if len(found) == servers:
                    return tuple(found.values())
    return tuple(found.values())
