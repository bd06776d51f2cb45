"""A thousand pods of Permify, as PgCat sees them: two pools each, statements like those of pgx."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import pq
from psycopg.generators import fetch_many, send

from live.support import LOOPBACK

# What a check looks up and what a write does, in the tables of Permify.
READ = """SELECT entity_id, subject_id FROM relation_tuples
WHERE tenant_id = %s AND entity_type = %s AND entity_id = %s AND relation = %s"""
DESCRIBED = READ.replace("%s", "{}").format("$1", "$2", "$3", "$4").encode()
WRITE = "INSERT INTO pods_wrote (pod) VALUES (%s)"

WRITER, READER = "permify_writer", "permify_reader"
OPENING = 50
"""Connections that are being opened at a time."""


@dataclass
class Outcome:
    opened: int = 0
    """Client connections that were open at once."""
    seconds: list[float] = field(default_factory=list)
    """How long each read and each write took."""
    failed: list[str] = field(default_factory=list)

    @property
    def queries(self) -> int:
        return len(self.seconds) + len(self.failed)


def run_pods(
    ports: Sequence[int],
    pods: int,
    seconds: float,
    user: str,
    password: str,
    *,
    connections: int = 1,
    pause_seconds: float = 1.0,
    lifetime_seconds: tuple[float, float] | None = None,
) -> Outcome:
    """Let pods read, and write now and then, each through connections of its own at one of the ports.

    A pod does about one thing in `pause_seconds` over each of its `connections` in each pool: it reads, or
    every tenth time writes. Connections are opened anew after a time drawn from `lifetime_seconds`, or kept.
    The role must be able to create a table through the writer pool. Statements are sent as pgx does in the
    mode cache_describe; its startup parameter plan_cache_mode is not, which PgCat would drop.
    """
    outcome = Outcome()
    end = math.inf

    async def connect(port: int, pool: str) -> psycopg.AsyncConnection:
        async with opening:
            connection = await psycopg.AsyncConnection.connect(
                host=LOOPBACK,
                port=port,
                dbname=pool,
                user=user,
                password=password,
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=30,
                sslmode="disable",
            )
            if pool == READER:
                await _describe(connection)
            return connection

    async def pod(number: int) -> None:
        draw = random.Random(number)
        port = ports[number % len(ports)]
        until = -math.inf
        opened: list[psycopg.AsyncConnection] = []

        async def open_both() -> None:
            nonlocal until
            for old in opened:
                await old.close()
            opened[:] = [await connect(port, WRITER), await connect(port, READER)]
            until = time.monotonic() + draw.uniform(*lifetime_seconds) if lifetime_seconds else math.inf

        try:
            await open_both()
            outcome.opened += 2
        except (psycopg.Error, OSError) as error:
            outcome.failed.append(f"connect: {error}")
        await ready.wait()
        await asyncio.sleep(draw.uniform(0, pause_seconds))
        count = 0
        while opened and time.monotonic() < end:
            count += 1
            began = time.monotonic()
            try:
                if began > until:
                    await open_both()
                if count % 10 == 0:
                    async with opened[0].transaction():
                        await opened[0].execute(WRITE, [number])
                else:
                    await opened[1].execute(READ, ["t1", "document", str(number % 6), "viewer"])
                outcome.seconds.append(time.monotonic() - began)
            except (psycopg.Error, OSError) as error:
                outcome.failed.append(str(error))
            await asyncio.sleep(pause_seconds * draw.uniform(0.5, 1.5))
        for connection in opened:
            await connection.close()

    async def everything() -> None:
        nonlocal end, opening, ready
        opening = asyncio.Semaphore(OPENING)
        ready = asyncio.Barrier(pods * connections + 1)
        async with await connect(ports[0], WRITER) as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS pods_wrote (pod int)")
        tasks = [asyncio.create_task(pod(number)) for number in range(pods) for _ in range(connections)]
        await ready.wait()
        end = time.monotonic() + seconds
        await asyncio.gather(*tasks)

    opening: asyncio.Semaphore
    ready: asyncio.Barrier
    asyncio.run(everything())
    return outcome


def connect_clients(
    port: int,
    clients: int,
    user: str,
    password: str,
    meanwhile: Callable[[], object] = lambda: None,
    full: Callable[[], bool] = lambda: False,
    seconds: float = 60,
) -> int:
    """How many clients logged in, each with a query answered, all connected at once.

    `meanwhile` is called before any of them is closed: when all have logged in, when `full` says that no more
    can, or when the time is up.
    """
    opened: list[psycopg.AsyncConnection] = []

    async def client(opening: asyncio.Semaphore, number: int) -> None:
        async with opening:
            connection = await psycopg.AsyncConnection.connect(
                host=LOOPBACK,
                port=port,
                dbname=(WRITER, READER)[number % 2],
                user=user,
                password=password,
                autocommit=True,
                prepare_threshold=None,
                sslmode="disable",
            )
            opened.append(connection)
            await connection.execute("SELECT 1")
            answered.append(number)

    async def everything() -> None:
        opening = asyncio.Semaphore(OPENING)
        tasks = [asyncio.create_task(client(opening, number)) for number in range(clients)]
        late: set[asyncio.Task[None]] = set(tasks)
        deadline = time.monotonic() + seconds
        while late and time.monotonic() < deadline and not full():
            _, late = await asyncio.wait(late, timeout=0.2)
        await asyncio.wait(tasks, timeout=1)  # those that are in have time for their query
        meanwhile()
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in opened:
            await connection.close()

    answered: list[int] = []
    asyncio.run(everything())
    return len(answered)


async def _describe(connection: psycopg.AsyncConnection) -> None:
    """Parse and Describe without a name, closed by one Sync: what pgx remembers a statement by."""
    pgconn = connection.pgconn
    pgconn.enter_pipeline_mode()
    pgconn.send_prepare(b"", DESCRIBED)
    pgconn.send_describe_prepared(b"")
    pgconn.pipeline_sync()
    await connection.wait(send(pgconn))
    results: list[pq.abc.PGresult] = []
    while not results or results[-1].status != pq.ExecStatus.PIPELINE_SYNC:
        results += await connection.wait(fetch_many(pgconn))
    pgconn.exit_pipeline_mode()
    if error := results[0].error_message:
        raise psycopg.OperationalError(error)
