"""Git, as the hooks ask it: only reading, by its plumbing, and starting nothing that a configuration names.

A repository's configuration may name programs: a file system monitor, external diffs, filters, hooks. The
commands that are used here (ls-files, ls-tree, cat-file, rev-parse) start none of them, and what git would
start by itself is switched off.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pgcat_stack.files.folder import MAX_FILE_BYTES

ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
)
"""Variables that lead git to another repository or index, as it sets them for its own hooks."""
_OPTIONS = ("--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false")
# A git that is older than GIT_NO_LAZY_FETCH (2.45, and fixes of 2.39 to 2.44) allows no way to fetch instead.
_QUIET = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "", "GIT_TERMINAL_PROMPT": "0"}


class GitError(Exception):
    """Git is missing, or refuses; the message is one line."""


def git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    """What git prints in a folder, with `given` as its standard input. Raises `GitError`."""
    environment = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    try:
        done = subprocess.run(
            [_program(), *_OPTIONS, *arguments],
            cwd=folder,
            input=given,
            capture_output=True,
            check=False,
            env=environment | _QUIET,
        )
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror or error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise GitError(said[0] if said else f"git {arguments[0]} ended with {done.returncode}")
    return done.stdout


def _program() -> str:
    """Where git is. A relative entry of PATH would mean a program in the user's folder."""
    folders = [
        entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(entry).is_absolute()
    ]
    found = shutil.which("git", path=os.pathsep.join(folders))
    if found is None:
        raise GitError("git is not on PATH")
    return found


def paths(output: bytes) -> list[str]:
    """The paths in what git prints with `-z`, each once."""
    return list(dict.fromkeys(os.fsdecode(path) for path in output.split(b"\0") if path))


def blob(folder: Path, name: str) -> bytes:
    """A file as git has it, such as `HEAD:./a.yaml`, or `:./a.yaml` in the index. Raises `GitError`."""
    return git(folder, "cat-file", "blob", name)


def committed_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The files below a folder in the last commit: mode and content by path. Raises `GitError`.

    Without those that are larger than what is read of a deployment.
    """
    entries: dict[str, tuple[int, bytes]] = {}
    for line in git(folder, "ls-tree", "-r", "-l", "-z", "HEAD").split(b"\0"):
        about, _, path = line.partition(b"\t")
        words = about.split()
        huge = len(words) == 4 and words[3].isdigit() and int(words[3]) > MAX_FILE_BYTES
        if len(words) == 4 and words[1] == b"blob" and not huge:
            entries[os.fsdecode(path)] = (int(words[0], 8), words[2])
    contents = _contents(folder, [name for _, name in entries.values()])
    return {
        path: (mode, content) for (path, (mode, _)), content in zip(entries.items(), contents, strict=True)
    }


def _contents(folder: Path, names: list[bytes]) -> list[bytes]:
    """What each of these objects holds. Raises `GitError` where git does not have one."""
    output = git(folder, "cat-file", "--batch", given=b"".join(name + b"\n" for name in names))
    found: list[bytes] = []
    at = 0
    for name in names:
        end = output.index(b"\n", at)
        words = output[at:end].split(b" ")
        if len(words) != 3:
            raise GitError(f"git does not have {name.decode()}")
        start, at = end + 1, end + 2 + int(words[2])
        found.append(output[start : at - 1])
    return found
