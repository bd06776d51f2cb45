"""The template as a tagged git repository, and deployments that `copier update` changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from live.support import run
from rendering import template
from versions import COMPILED

TAG = "0.1.0"
GIT_CONFIGURATION = "[user]\n\tname = Test\n\temail = test@example.com\n"


@dataclass(eq=False)
class Template:
    home: Path
    """A home whose git and Copier know nothing of the user who runs the tests."""

    def __post_init__(self) -> None:
        self.repository = self.home / "pgcat-stack"
        (self.home / ".gitconfig").write_text(GIT_CONFIGURATION)
        shutil.copytree(template(), self.repository)
        self.commit(self.repository)
        self.git(self.repository, "tag", TAG)

    @property
    def environment(self) -> dict[str, str]:
        """Of its git and Copier."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COPIER_", "XDG_"))}
        return {**kept, "PYTHONPATH": str(COMPILED), "HOME": str(self.home)}

    def git(self, folder: Path, *arguments: str) -> str:
        return run(("git", *arguments), self.environment, cwd=folder)

    def commit(self, folder: Path) -> None:
        """Everything in the folder, which becomes a repository when it is none."""
        self.git(folder, "init", "--quiet")
        self.git(folder, "add", "--all")
        self.git(folder, "commit", "--quiet", "--message=changed")

    def copy(self, folder: Path, answers: Sequence[str] = ()) -> Path:
        """A committed deployment, by `copier copy` with its hooks; answers are `key=value`."""
        self._copier("copy", *_data(answers), str(self.repository), str(folder))
        self.commit(folder)
        return folder

    def update(self, folder: Path, answers: Sequence[str]) -> None:
        """The same deployment with other answers, committed."""
        self._copier("update", *_data(answers), str(folder))
        self.commit(folder)

    def _copier(self, command: str, *arguments: str) -> None:
        copier = (sys.executable, "-m", "copier", command, "--trust", "--defaults", *arguments)
        done = subprocess.run(
            copier,
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{' '.join(copier)} ended with {done.returncode}:\n{done.stdout}"


def _data(answers: Sequence[str]) -> list[str]:
    return [part for answer in answers for part in ("--data", answer)]
