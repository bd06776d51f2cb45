"""Copier, imported once: each command that is asked for is a fork of this process, which saves a second.

A line of JSON on standard input is a command: arguments, folder, environment, and the files that take what it
prints. Its exit code is a line of the answer.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from copier_cache import spare_copier

spare_copier()

from copier.__main__ import CopierApp  # noqa: E402
from plumbum import local  # noqa: E402


def run(arguments: list[str], folder: str, environment: dict[str, str], stdout: str, stderr: str) -> int:
    """The command in a process of its own, which begins as `python -m copier` does."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    local.env.clear()
    local.env.update(environment)
    local.cwd.chdir(Path.cwd())
    tempfile.tempdir = None
    sys.argv = ["copier", *arguments]
    code = 1
    try:
        CopierApp.run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


for line in sys.stdin:
    print(run(**json.loads(line)), flush=True)
