"""More clients than the limit of open files that a container starts with: who connects, memory, log."""

from __future__ import annotations

import itertools
import logging
import re
import time
from pathlib import Path

import bed
from figures import spread, table
from resources import highest_memory_mebibytes

from live.pods import connect_clients
from live.stack import MAX_CONNECTIONS
from live.support import CONTAINER_OPEN_FILES, open_files, postgres_cluster

CLIENTS = (1100, 2000)
LOG_SECONDS = 5
STORM_BYTES = 1_000_000
"""So much log says that PgCat accepts nobody any more."""
RAISES = re.compile(r"(?m)^for files in .*\n(?:.*\n)*?done\n")


def limits(folder: Path, runs: int) -> str:
    """PgCat as rendered, and without the lines of start.sh that raise the limit; started anew each time."""
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # of clients that hang until PgCat is ended
    rows = []
    numbers = itertools.count()
    with postgres_cluster(MAX_CONNECTIONS, {}) as cluster:
        for title, name in (("PgCat 1.2.0", "pgcat"), ("PgCat 1.3.0", "pgcat-1.3.0")):
            for raised in (True, False):
                here = bed.deployment(cluster, folder / f"{name}-{raised}", name, replica_hosts="")
                here.prepare()
                if not raised:
                    script = here.rendered / "pgcat" / "start.sh"
                    text, count = RAISES.subn("", script.read_text())
                    assert count == 1
                    script.write_text(text)
                for clients in CLIENTS if raised else CLIENTS[:1]:
                    seen = [_once(here, clients, next(numbers)) for _ in range(runs)]
                    connected, memory, log = zip(*seen, strict=True)
                    what = "raised" if raised else "not raised"
                    cells = spread(connected, 0), spread(memory, 0), spread(log, 1)
                    rows.append([f"{title}, {what}, {clients:,} clients", *cells])
    soft, hard = open_files()
    assert soft == CONTAINER_OPEN_FILES < max(CLIENTS) < hard
    note = f"Open files: {soft:,} by the soft limit, {hard:,} by the hard one, to which start.sh raises it."
    head = ["", "connected", "memory at most, MiB", f"log in {LOG_SECONDS} s, MB"]
    return f"{note}\n\n{table(head, rows)}"


def _once(here: bed.Deployment, clients: int, number: int) -> tuple[int, float, float]:
    """How many clients were connected at once, PgCat's memory, and what it logged while they were."""
    with here.pgcat(number) as pgcat:
        log = pgcat.process.log
        seen: list[float] = []

        def watch() -> None:
            before = log.stat().st_size
            time.sleep(LOG_SECONDS)
            seen.extend((highest_memory_mebibytes(pgcat), (log.stat().st_size - before) / 1e6))
            pgcat.process.kill()  # or a storm would go on until the clients have left

        def full() -> bool:
            return log.stat().st_size > STORM_BYTES

        connected = connect_clients(pgcat.port, clients, here.user, here.password, watch, full)
        log.write_bytes(b"")
        memory, written = seen
        return connected, memory, written
