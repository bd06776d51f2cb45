"""What one PgCat takes: the reason for its memory and CPU requests on Kubernetes."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import bed
from figures import spread, table

from live.stack import MAX_CONNECTIONS, PgCat
from live.support import LOOPBACK, clean_environment, postgres_cluster, postgres_program, run

CLIENTS = (0, 100, 1000)
SECONDS = 4


def resources(folder: Path, runs: int) -> str:
    """Memory at its highest and CPU time, of a PgCat that has just started each time."""
    rows = []
    numbers = itertools.count()
    with postgres_cluster(MAX_CONNECTIONS, {}) as cluster:
        for title, name in (("PgCat 1.2.0", "pgcat"), ("PgCat 1.3.0", "pgcat-1.3.0")):
            here = bed.deployment(cluster, folder / name, name, replica_hosts="")
            here.prepare()
            for clients in CLIENTS:
                seen = [_once(here, clients, folder, next(numbers)) for _ in range(runs)]
                memory, transactions, per_transaction, cores = zip(*seen, strict=True)
                cells = [
                    spread(memory, 0),
                    spread(transactions, 0),
                    spread(per_transaction, 2),
                    spread(cores, 2),
                ]
                rows.append(
                    [f"{title}, {clients:,} clients", *(cells if clients else [cells[0], "", "", ""])]
                )
    head = ["", "memory at most, MiB", "transactions/s", "CPU ms a transaction", "cores"]
    return table(head, rows)


def _once(here: bed.Deployment, clients: int, folder: Path, number: int) -> tuple[float, float, float, float]:
    script = folder / "select.sql"
    script.write_text("SELECT repeat('x', 1000);\n")
    with here.pgcat(number) as pgcat:
        if not clients:
            time.sleep(1)
            return highest_memory_mebibytes(pgcat), 0.0, 0.0, 0.0
        before = bed.cpu_seconds(pgcat.process)
        command = [postgres_program("pgbench"), "-n", "-M", "extended", "-c", str(clients), "-j", "2"]
        command += ["-T", str(SECONDS), "-f", str(script), "-h", LOOPBACK, "-p", str(pgcat.port)]
        output = run(
            [*command, "-U", here.user, "permify_reader"],
            clean_environment(PGPASSWORD=here.password, PGSSLMODE="disable"),
        )
        used_seconds = bed.cpu_seconds(pgcat.process) - before
        found = re.search(r"number of transactions actually processed: (\d+)", output)
        assert found, output
        done = int(found[1])
        return (
            highest_memory_mebibytes(pgcat),
            done / SECONDS,
            1000 * used_seconds / done,
            used_seconds / SECONDS,
        )


def highest_memory_mebibytes(pgcat: PgCat) -> float:
    """The most memory that the process has had so far (VmHWM), in MiB."""
    status = Path(f"/proc/{pgcat.process.popen.pid}/status").read_text()
    found = re.search(r"(?m)^VmHWM:\s+(\d+) kB$", status)
    assert found, status
    return int(found[1]) / 1024
