"""Old versions of the template, deployments of theirs, and updates in this process.

The tests of `tests/render/test_copier.py` and some of these run the real command. The matrix of versions and
topologies runs what the command calls, in this process, where compiled templates are kept: a second each
instead of four.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from copier._template import Template
from packaging.version import InvalidVersion, Version
from plumbum import local

from rendering import REPOSITORY
from versions import URL, Home

SINCE = {"component": "0.3.0"}
"""The first version with this topology."""
NEXT = "1000.0.0"
"""The version that the working tree is released as."""

ANSWERS: dict[str, dict[str, Any]] = {
    "docker": {},
    "standalone": {"topology": "standalone", "replica_hosts": "db-2"},
    "sidecar": {"topology": "sidecar", "monitoring": "prometheus-operator"},
    "direct": {"topology": "standalone", "pooling": "direct", "secrets": "external-secrets"},
    "component": {"topology": "sidecar", "permify_install": "none", "replica_hosts": "db-2"},
    "helm": {"topology": "standalone", "permify_install": "helm", "permify_max_replicas": 3},
}
for _answers in ANSWERS.values():
    if _answers:
        _answers["primary_host"] = "db-1"


def _tags() -> dict[str, str]:
    listed = subprocess.run(["git", "tag"], cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    found = {}
    for tag in listed:
        with contextlib.suppress(InvalidVersion):
            found[str(Version(tag))] = tag
    return found


VERSIONS: dict[str, str] = {
    **tomllib.loads((REPOSITORY / "tests" / "update" / "versions.toml").read_text()),
    **_tags(),
    "999.0.0": "HEAD",
}
"""Each old version and the commit or tag that holds it, oldest first; the last is as if tagged now."""
VERSIONS = dict(sorted(VERSIONS.items(), key=lambda item: Version(item[0])))


def is_here(commit: str) -> bool:
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=REPOSITORY, capture_output=True
    )
    return found.returncode == 0


def has(version: str, topology: str) -> bool:
    return Version(version) >= Version(SINCE.get(topology, "0"))


class InProcess:
    """Copier in this process, as the command calls it."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def copy(self, folder: Path, version: str, answers: dict[str, Any]) -> Path:
        """A committed deployment, without hooks."""
        self.render(folder, version, answers)
        self.home.commit(folder, "deployment")
        return folder

    def render(self, folder: Path, version: str, answers: dict[str, Any]) -> dict[str, bytes]:
        with self.at_home():
            copier.run_copy(
                URL, folder, data=answers, defaults=True, quiet=True, vcs_ref=version, skip_tasks=True
            )
        return tree(folder)

    def update(self, folder: Path, to: str = NEXT, **answers: Any) -> None:
        """With the hooks but for the one before, which others test. Raises `TaskError` where one fails."""
        with self.at_home(), local.env(PGCAT_STACK_DISCARD_EDITS="1"):
            copier.run_update(
                folder, data=answers, vcs_ref=to, defaults=True, overwrite=True, quiet=True, unsafe=True
            )

    def update_without_hooks(self, folder: Path, to: str = NEXT, **answers: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Template, "migration_tasks", lambda *_: [])
            self.update(folder, to, **answers)

    @contextlib.contextmanager
    def at_home(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.home.environment)
        try:
            with local.env(HOME=str(self.home.folder)):
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a deployment by their paths, without git's and without secrets."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in (".git", "secrets")
    }


def stored(folder: Path, answers_file: str = ".copier-answers.yml") -> dict[str, Any]:
    """The answers that a deployment remembers."""
    answers = yaml.safe_load((folder / answers_file).read_text())
    # `rendered_from` is no answer: it is the address that the files name.
    return {
        key: value for key, value in answers.items() if not key.startswith("_") and key != "rendered_from"
    }
