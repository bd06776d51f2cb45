"""The real `copier` command on a git repository of template versions, found as gh:org/pgcat-stack."""

from __future__ import annotations

import atexit
import fcntl
import functools
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rendering import REPOSITORY, TEMPLATE_PARTS

URL = "gh:org/pgcat-stack"
COMPILED = REPOSITORY / "tests/compiled"
"""With it on PYTHONPATH Copier keeps what it compiles."""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours, and where the cursor goes."""


@dataclass(frozen=True)
class Home:
    """A home whose git knows nothing of the user who runs the tests, and finds the template below it."""

    folder: Path

    @property
    def template(self) -> Path:
        return self.folder / "pgcat-stack.git"

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("COPIER_", "XDG_", "GIT_"))
        }
        return {**kept, "PYTHONPATH": str(COMPILED), "HOME": str(self.folder)}

    def prepare(self) -> Home:
        (self.folder / ".gitconfig").write_text(
            "[user]\n\tname = Test\n\temail = test@example.com\n"
            f'[url "file://{self.template}"]\n\tinsteadOf = https://github.com/org/pgcat-stack.git\n'
        )
        self.template.mkdir()
        self.git(self.template, "init", "--quiet", "--initial-branch=main")
        return self

    def git(self, folder: Path, *arguments: str) -> str:
        run = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, env=self.environment
        )
        return run.stdout.strip()

    def commit(self, folder: Path, message: str = "changed") -> None:
        """Everything in the folder, which becomes a repository when it is in none."""
        if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
            self.git(folder, "init", "--quiet", "--initial-branch=main")
        self.git(folder, "add", "--all")
        self.git(folder, "commit", "--quiet", "--allow-empty", f"--message={message}")

    def release(self, version: str, commit: str = "", files: Mapping[str, str | None] | None = None) -> None:
        """A version of the template: the working tree or a commit of this project, with changed files.

        A file that is None is removed.
        """
        for part in TEMPLATE_PARTS:
            path = self.template / part
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if commit:
            archive = subprocess.run(
                ["git", "archive", commit, *_parts_of(commit)],
                cwd=REPOSITORY,
                capture_output=True,
                check=True,
            ).stdout
            subprocess.run(["tar", "--extract"], cwd=self.template, input=archive, check=True)
        else:
            _copy_working_tree(self.template)
        for name, text in (files or {}).items():
            path = self.template / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self.commit(self.template, version)
        self.git(self.template, "tag", version)

    def copier(
        self, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The command, by a Copier that is imported already; by a new Python where one is spoken of."""
        if any(name.startswith("PYTHON") for name in environment):
            return self.run(sys.executable, "-m", "copier", *arguments, cwd=cwd, **environment)
        return _ready_copier(arguments, cwd or self.folder, {**self.environment, **environment})

    def run(
        self, *command: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
            env={**self.environment, **environment},
        )

    def at_the_prompt(
        self, arguments: tuple[str, ...], dialogue: Mapping[str, str], columns: int = 1000
    ) -> tuple[int, str]:
        """Copier on a terminal, with keys pressed once a text is on the screen: exit code and screen."""
        outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "copier", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=self.folder,
            env={**self.environment, "COLUMNS": str(columns), "LINES": "50", "TERM": "xterm"},
        )
        os.close(inner)
        written, screen, left = b"", "", list(dialogue.items())
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            try:
                written += os.read(outer, 65536)
            except OSError:
                break
            screen = CONTROL.sub("", written.decode(errors="replace"))
            if left and left[0][0] in screen:
                time.sleep(0.5)
                os.write(outer, left.pop(0)[1].encode())
        os.close(outer)
        return process.wait(timeout=60), screen

    def deployment(self, folder: Path, version: str, *answers: str, cwd: Path | None = None) -> Path:
        """A committed deployment of a version, by the real command; answers are `key=value`."""
        run = self.copier(
            *("copy", "--trust", "--defaults", f"--vcs-ref={version}", *data(answers), URL, str(folder)),
            cwd=cwd,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        self.commit(folder, "deployment")
        return folder

    def status(self, folder: Path) -> str:
        """What differs from the last commit; nothing when the tree is as it was."""
        return self.git(folder, "status", "--porcelain")


@functools.cache
def _ready() -> tuple[subprocess.Popen[str], threading.Lock]:
    process = subprocess.Popen(
        [sys.executable, str(COMPILED / "ready_copier.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COMPILED)},
    )
    atexit.register(process.kill)
    return process, threading.Lock()


def _ready_copier(
    arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    process, one_at_a_time = _ready()
    assert process.stdin and process.stdout
    with tempfile.TemporaryDirectory() as written:
        files = {name: f"{written}/{name}" for name in ("stdout", "stderr")}
        command = {"arguments": arguments, "folder": str(folder), "environment": dict(environment), **files}
        with one_at_a_time:
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
        said = {name: Path(file).read_text() for name, file in files.items()}
    return subprocess.CompletedProcess(["copier", *arguments], code, **said)


def data(answers: tuple[str, ...] | list[str] | Mapping[str, Any]) -> list[str]:
    if isinstance(answers, Mapping):
        answers = [
            f"{key}={str(value).lower() if value is True or value is False else value}"
            for key, value in answers.items()
        ]
    return [part for answer in answers for part in ("--data", answer)]


def _parts_of(commit: str) -> list[str]:
    """The parts of the template that a version has: the oldest have no `src`."""
    listed = subprocess.run(
        ["git", "ls-tree", "--name-only", commit], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return [part for part in TEMPLATE_PARTS if part in listed.stdout.split()]


def _copy_working_tree(target: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *TEMPLATE_PARTS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target / name)
