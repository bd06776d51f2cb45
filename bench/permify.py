"""Checks and writes through Permify: this stack, PgBouncer, the guide's configuration, no pooler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bed
from figures import spread, table

from live.stack import MAX_CONNECTIONS, Permify
from live.support import (
    Cluster,
    Process,
    clean_environment,
    free_port,
    listens,
    postgres_cluster,
    running,
)

CLIENTS = 32
CHECK_SECONDS = 3
WRITE_SECONDS = 2
SWEEP_SECONDS = 2
LATENCIES = (0, 1, 5)
SIZES = (1, 2, 4, 8, 16)
"""Of `permify_max_connections`."""

DIRECT = "no pooler"
STACK = "this stack, transaction mode"
NEWER = "the same with PgCat 1.3.0"
SESSION = "this stack, session mode"
BOUNCER = "PgBouncer, transaction mode"
GUIDE = "the guide's configuration"


@dataclass
class Way:
    """One Permify process and how it reaches PostgreSQL."""

    name: str
    permify: Permify
    poolers: Sequence[Process] = ()
    checks: dict[int, list[bed.Answers]] = field(default_factory=dict)
    """By added milliseconds."""
    writes: dict[int, list[bed.Answers]] = field(default_factory=dict)
    cpu: list[tuple[float, float, float]] = field(default_factory=list)
    """Milliseconds of Permify, pooler and PostgreSQL for each check."""


@contextlib.contextmanager
def guide(stack: bed.Deployment) -> Iterator[tuple[Process, Permify]]:
    """PgCat and Permify with the guide's files."""
    here = Path(__file__).parent / "guide"
    folder = stack.folder / "guide"
    folder.mkdir()
    port = free_port()
    text = (here / "pgcat.toml").read_text().replace("port = 6432", f"port = {port}")
    text = text.replace("DB_USER_PASSWORD", stack.password)
    for role, (_, (host, server_port)) in stack.moved.items():
        text = text.replace(f'"{role.upper()}_HOST", 5432', f'"{host}", {server_port}')
    (folder / "pgcat.toml").write_text(text)
    command = [str(stack.pgcat_program), str(folder / "pgcat.toml"), "--no-color"]
    with running(command, folder / "log", clean_environment()) as process:
        process.wait_until(lambda: listens(port))
        permify = (here / "permify.yaml").read_text().replace("DB_USER_PASSWORD", stack.password)
        with stack.permify(20, port, permify) as serving:
            yield process, serving


@contextlib.contextmanager
def ways(cluster: Cluster, folder: Path, added: bed.Latency | None) -> Iterator[list[Way]]:
    """All of them at once, and each idle but for its turns; behind Toxiproxy where there is to be latency."""
    by = added.by if added else None
    with contextlib.ExitStack() as stack:

        def rendered(name: str, pgcat: str = "pgcat", **answers: object) -> bed.Deployment:
            return bed.deployment(cluster, folder / name, pgcat, by=by, **answers)

        def behind_pgcat(title: str, name: str, pgcat: str = "pgcat", **answers: object) -> Way:
            deployment = rendered(name, pgcat, **answers)
            pooler = stack.enter_context(deployment.pgcat())
            permify = stack.enter_context(deployment.permify(0, pooler.port))
            return Way(title, permify, [pooler.process])

        plain = rendered("bouncer")
        # With as many connections in each of Permify's pools as behind PgCat.
        direct = rendered("direct", pooling="direct", permify_max_connections=8)
        found = [Way(DIRECT, stack.enter_context(direct.permify(0, None)))]
        found.append(behind_pgcat(STACK, "transaction"))
        found.append(behind_pgcat(NEWER, "newer", "pgcat-1.3.0"))
        process, port = stack.enter_context(bed.pgbouncer(cluster, plain))
        found.append(Way(BOUNCER, stack.enter_context(plain.permify(0, port)), [process]))
        found.append(behind_pgcat(SESSION, "session", pool_mode="session"))
        process, permify = stack.enter_context(guide(rendered("guide")))
        found.append(Way(GUIDE, permify, [process]))
        yield found


def measure(way: Way, cluster: Cluster, milliseconds: int, writes: bool = True) -> None:
    postgres = [server.process for server in cluster.servers]

    def cpu() -> tuple[float, float, float]:
        return (
            bed.cpu_seconds(way.permify.process),
            bed.cpu_seconds(*way.poolers),
            bed.cpu_seconds(*postgres),
        )

    before = cpu()
    checks = bed.load("check", way.permify.port, CHECK_SECONDS, CLIENTS)
    used = [(end - begin) * 1000 / checks.answers for begin, end in zip(before, cpu(), strict=True)]
    if not milliseconds:
        way.cpu.append((used[0], used[1], used[2]))
    way.checks.setdefault(milliseconds, []).append(checks)
    if writes:
        written = bed.load("write", way.permify.port, WRITE_SECONDS, CLIENTS)
        way.writes.setdefault(milliseconds, []).append(written)


def failures(results: Sequence[bed.Answers]) -> str:
    failed, every = sum(result.failed for result in results), sum(result.answers for result in results)
    return f"{failed:,} of {every:,}"


def ratio(results: Sequence[bed.Answers], others: Sequence[bed.Answers]) -> str:
    if not all(other.per_second for other in others):
        return "–"
    pairs = zip(results, others, strict=True)
    return spread([one.per_second / other.per_second for one, other in pairs])


def rates(found: list[Way], milliseconds: int, kind: str) -> str:
    results = {way.name: (way.checks if kind == "checks" else way.writes)[milliseconds] for way in found}
    rows = [
        (
            name,
            spread([result.per_second for result in each], 0),
            ratio(each, results[DIRECT]),
            ratio(each, results[BOUNCER]),
            f"{spread([result.p50 for result in each], 0)}",
            f"{spread([result.p99 for result in each], 0)}",
            failures(each),
        )
        for name, each in results.items()
    ]
    head = [
        f"{kind}, +{milliseconds} ms",
        "per second",
        "÷ no pooler",
        "÷ PgBouncer",
        "p50 ms",
        "p99 ms",
        "failed",
    ]
    return table(head, rows)


def sweep(cluster: Cluster, folder: Path, added: bed.Latency, runs: int) -> str:
    """`permify_max_connections` behind one PgCat."""
    rows = []
    with contextlib.ExitStack() as stack:
        near = bed.deployment(cluster, folder / "near")
        far = bed.deployment(cluster, folder / "far", by=added.by)
        pgcats = {name: stack.enter_context(one.pgcat()).port for name, one in [("near", near), ("far", far)]}
        permifys: dict[tuple[str, int], Permify] = {}
        for name, one in [("near", near), ("far", far)]:
            for size in SIZES:
                text = bed.deployment(cluster, folder / f"{name}-{size}", permify_max_connections=size).file(
                    "permify/permify.yaml"
                )
                permifys[name, size] = stack.enter_context(one.permify(size, pgcats[name], text))
        for milliseconds in LATENCIES:
            added.set(milliseconds)
            results: dict[int, list[bed.Answers]] = {size: [] for size in SIZES}
            for _ in range(runs):
                for size in SIZES:
                    port = permifys["far" if milliseconds else "near", size].port
                    results[size].append(bed.load("check", port, SWEEP_SECONDS, CLIENTS))
            for size, each in results.items():
                rows.append(
                    (
                        f"+{milliseconds} ms, {size}",
                        spread([result.per_second for result in each], 0),
                        ratio(each, results[8]),
                        spread([result.p99 for result in each], 0),
                        failures(each),
                    )
                )
    return table(
        ["latency, `permify_max_connections`", "checks per second", "÷ those with 8", "p99 ms", "failed"],
        rows,
    )


def permify(folder: Path, runs: int) -> str:
    with postgres_cluster(4 * MAX_CONNECTIONS, {}) as cluster, bed.latency(cluster, folder) as added:
        bed.fill(cluster, folder / "base")
        parts = []
        with (
            ways(cluster, folder / "near", None) as near,
            ways(cluster, folder / "far", added) as far,
        ):
            for way in [*near, *far]:
                bed.load("check", way.permify.port, 1, CLIENTS)  # fills caches, opens connections
            for milliseconds in LATENCIES:
                added.set(milliseconds)
                found = far if milliseconds else near
                for _ in range(runs):
                    for way in found:
                        measure(way, cluster, milliseconds)
                parts += [rates(found, milliseconds, "checks"), rates(found, milliseconds, "writes")]
            cpu = [
                (way.name, *(spread([one[number] for one in way.cpu]) for number in range(3))) for way in near
            ]
        parts.append(
            table(["CPU milliseconds for each check, no latency", "Permify", "pooler", "PostgreSQL"], cpu)
        )
        parts.append(sweep(cluster, folder / "sweep", added, runs))
    heads = "Minimum / median / maximum everywhere; ratios are of neighbours in the same run."
    return "\n\n".join([heads, *parts])
