"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from figures import table

from live.support import postgres_program, program, run


def machine(_folder: Path, _runs: int) -> str:
    def said(command: list[str]) -> str:
        found = re.search(r"\d+(\.\d+)+", run(command))
        assert found, command
        return found[0]

    models = re.findall(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {
        "PgCat": f"{said([program('pgcat'), '--version'])}, {said([program('pgcat-1.3.0'), '--version'])}",
        "Permify": said([program("permify"), "version"]),
        "PostgreSQL": said([postgres_program("postgres"), "--version"]),
        "PgBouncer": said([program("pgbouncer"), "--version"]),
        "Python, Copier": f"{platform.python_version()}, {version('copier')}",
    }
    rows = [("processor", f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}")]
    rows += [("memory", f"{memory:.0f} GiB"), *versions.items()]
    return table(["machine", "all programs share it"], rows)
