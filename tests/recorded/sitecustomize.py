"""What Python runs at its start in processes that a test records: PYTHONPATH has this folder.

Each hook that Copier starts, and each process or connection that a hook begins, becomes a line of the file
PGCAT_STACK_TEST_RECORD.
"""

import os
import sys
from pathlib import Path

HOOKS = ("post_generate.py", "update.py")
EVENTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile")
CONNECTIONS = ("socket.connect", "socket.getaddrinfo", "socket.sendto")


def note(*words: object) -> None:
    with Path(os.environ["PGCAT_STACK_TEST_RECORD"]).open("a") as record:
        record.write(" ".join(str(word) for word in words) + "\n")


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in EVENTS:
        note("process", arguments[0])
    elif event in CONNECTIONS:
        note("connection", *arguments[1:])


if len(sys.orig_argv) > 1 and sys.orig_argv[1].endswith(HOOKS):
    stage = sys.orig_argv[2] if sys.orig_argv[1].endswith("update.py") else ""
    note("hook", Path(sys.orig_argv[1]).name, stage)
    sys.addaudithook(watch)

if any(argument.endswith(("copier", "update.py")) for argument in sys.orig_argv[1:]):
    sys.path.append(str(Path(__file__).resolve().parent.parent / "compiled"))
    from copier_cache import keep_compiled

    keep_compiled()
