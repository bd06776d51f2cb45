"""What an `or` in a schema does under load: statements that Permify cancels, and checks that fail of them."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import bed
from figures import table

from live.stack import MAX_CONNECTIONS, SCHEMA, TENANT, Permify, PgCat, relation_tuple, write_body
from live.support import post, postgres_cluster

CLIENTS = 32
DOCUMENTS = 6
WRITE_SECONDS = 0.05
"""Between two writes of the one writer."""
SECONDS = 10
"""Of each way and schema in a run."""

OR_SCHEMA = SCHEMA.replace("permission view = viewer", "permission view = owner or viewer")
CANCELLED = "issued a cancel query request"
_CODE = re.compile(r"ERROR_CODE_\w+")


@contextlib.contextmanager
def writes(port: int) -> Iterator[None]:
    """A writer: after each write Permify asks the database again for what it has remembered."""
    done = threading.Event()

    def write() -> None:
        while not done.wait(WRITE_SECONDS):
            written = relation_tuple(f"new-{secrets.token_hex(8)}", "viewer", 1)
            with contextlib.suppress(Exception):  # what fails is counted among the checks
                post(port, f"{TENANT}/data/write", write_body(written))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass
class Way:
    """How Permify reaches PostgreSQL."""

    name: str
    permify: Permify
    pgcat: PgCat | None = None
    checks: list[bed.Answers] = field(default_factory=list)
    cancelled: int = 0

    def cancels(self) -> int:
        """Cancelled queries in PgCat's log."""
        return self.pgcat.process.log.read_text().count(CANCELLED) if self.pgcat else 0

    def measure(self) -> None:
        before = self.cancels()
        with writes(self.permify.port):
            self.checks.append(bed.load("check", self.permify.port, SECONDS, CLIENTS, DOCUMENTS))
        self.cancelled += self.cancels() - before

    @property
    def row(self) -> tuple[str, ...]:
        every, failed = sum(one.answers for one in self.checks), sum(one.failed for one in self.checks)
        codes = {code for one in self.checks for code in _CODE.findall(one.example)}
        return (
            self.name,
            f"{every:,}",
            f"{failed:,}",
            f"{failed / every * 1e4:.1f}",
            ", ".join(sorted(codes)) or "–",
            f"{self.cancelled / every * 1000:.0f}" if self.pgcat else "–",
        )


def or_schema(folder: Path, runs: int) -> str:
    """Checks with and without `or`, behind PgCat and direct."""
    assert OR_SCHEMA != SCHEMA
    with postgres_cluster(MAX_CONNECTIONS, {}) as cluster, contextlib.ExitStack() as stack:
        pooled = bed.deployment(cluster, folder / "pooled")
        direct = bed.deployment(cluster, folder / "direct", pooling="direct", permify_max_connections=8)
        pooled.prepare()
        pooled.lift_limit()
        pgcat = stack.enter_context(pooled.pgcat())
        behind = stack.enter_context(pooled.permify(0, pgcat.port))
        straight = stack.enter_context(direct.permify(0, None))
        bed.write_tuples(behind, cluster)
        found = []
        for words, schema in (("`owner or viewer`", OR_SCHEMA), ("`viewer`", SCHEMA)):
            ways = [Way(f"{words}, behind PgCat", behind, pgcat), Way(f"{words}, direct", straight)]
            post(behind.port, f"{TENANT}/schemas/write", {"schema": schema})
            cluster.catch_up()
            for _ in range(runs):
                for way in ways:
                    way.measure()
            found += ways
    head = (
        *("permission view", "checks", "failed", "failed of 10,000", "error"),
        "cancelled queries in PgCat's log for 1,000 checks",
    )
    words = f"Runs: {runs} of {SECONDS} s; {CLIENTS} clients check {DOCUMENTS} documents, and one writes."
    return f"{words}\n\n{table(head, [way.row for way in found])}"
