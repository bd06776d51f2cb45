"""Copier as people install it, from the oldest that copier.yml allows to the newest, without a network."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from old_versions import NEXT, stored
from rendering import REPOSITORY
from versions import URL, Home

_found = re.search(r'_min_copier_version: "(.*)"', (REPOSITORY / "copier.yml").read_text())
assert _found
OLDEST = (f"copier=={_found[1]}", "pydantic==2.4.2", "pyyaml==6.0.1")
"""With the oldest of what the hooks import. Newer Pythons cannot build PyYAML 5.3.1, which Copier allows."""
NEWEST = ("copier",)


def uv() -> str:
    found = shutil.which("uv") or shutil.which("uv", path=REPOSITORY / ".tools/bin")
    if found is None:
        pytest.skip("uv is missing")
    return found


@dataclass(frozen=True)
class Installed:
    """A command that runs Copier, and what its environment must have."""

    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


def _install(*command: str, **variables: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**environment, **variables}
    )
    if done.returncode:
        pytest.skip(f"{' '.join(command[:4])} failed (no network?): {done.stderr.strip()[-300:]}")


def by_pip(folder: Path, packages: tuple[str, ...], python: str) -> Installed:
    _install(python, "-m", "venv", str(folder))
    _install(str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *packages)
    return Installed((str(folder / "bin/copier"),))


def by_pip_user(folder: Path, packages: tuple[str, ...], python: str) -> Installed:
    """The packages are in the user's folder, which `python -I` would not see."""
    variables = {"PYTHONUSERBASE": str(folder), "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    options = ("--user", "--quiet", "--ignore-installed", "--no-warn-script-location")
    _install(python, "-m", "pip", "install", *options, *packages, **variables)
    return Installed((str(folder / "bin/copier"),), {"PYTHONUSERBASE": str(folder)})


def by_uv_tool(folder: Path, packages: tuple[str, ...], python: str) -> Installed:
    variables = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    extra = [option for package in packages[1:] for option in ("--with", package)]
    _install(uv(), "tool", "install", "--quiet", "--python", python, *extra, packages[0], **variables)
    return Installed((str(folder / "bin/copier"),))


def by_uvx(folder: Path, packages: tuple[str, ...], python: str) -> Installed:
    extra = [option for package in packages[1:] for option in ("--with", package)]
    command = (uv(), "tool", "run", "--quiet", "--python", python, *extra, "--from", packages[0], "copier")
    _install(*command, "--version")
    cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache/uv")
    return Installed(command, {"UV_CACHE_DIR": cache, "UV_OFFLINE": "1"})


def by_pipx(folder: Path, packages: tuple[str, ...], python: str) -> Installed:
    pipx = (shutil.which("pipx") or "",) if shutil.which("pipx") else (uv(), "tool", "run", "pipx")
    variables = {"PIPX_HOME": str(folder), "PIPX_BIN_DIR": str(folder / "bin")}
    _install(*pipx, "install", "--quiet", "--python", python, packages[0], **variables)
    if packages[1:]:
        _install(*pipx, "inject", "--quiet", "copier", *packages[1:], **variables)
    return Installed((str(folder / "bin/copier"),))


WAYS: dict[str, Callable[[Path, tuple[str, ...], str], Installed]] = {
    "pip": by_pip,
    "pip --user": by_pip_user,
    "pipx": by_pipx,
    "uv tool": by_uv_tool,
    "uvx": by_uvx,
}
CASES = {
    f"{way}, {age}": (way, packages)
    for way in WAYS
    for age, packages in (("oldest", OLDEST), ("newest", NEWEST))
}


@functools.cache
def without_network() -> tuple[str, ...]:
    """The command in front of one that must not have a network, where this machine lets us take it away."""
    for command in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True).returncode == 0
        ):
            return command
    return ()


def offline(home: Home, copier: Installed, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    dead = "http://127.0.0.1:9"
    variables = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), dead)
    return home.run(
        *without_network(),
        *copier.command,
        *arguments,
        cwd=cwd,
        PYTHONPATH="",
        **variables,
        **copier.variables,
    )


@pytest.fixture
def base_python() -> str:
    """The Python below that of the tests, outside of their environment."""
    found = Path(sysconfig.get_config_var("BINDIR")) / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return str(found) if found.exists() else sys.executable


@pytest.mark.repeats
@pytest.mark.parametrize("name", CASES)
def test_copy_and_update(home: Home, tmp_path: Path, base_python: str, name: str) -> None:
    way, packages = CASES[name]
    copier = WAYS[way](tmp_path / "installed", packages, base_python)
    ready = home.run(*copier.command, "--version", PYTHONPATH="", **copier.variables)
    assert ready.returncode == 0, ready.stderr
    if packages is OLDEST:
        assert OLDEST[0].removeprefix("copier==") in ready.stdout

    deploy = tmp_path / "deploy"
    answers = ("--data=topology=standalone", "--data=primary_host=db")
    run = offline(
        home,
        copier,
        "copy",
        "--trust",
        "--defaults",
        f"--vcs-ref={NEXT}",
        *answers,
        URL,
        str(deploy),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 errors, 0 warnings" in run.stdout
    home.commit(deploy)
    before = stored(deploy)

    toml, gone = deploy / "pgcat/pgcat.toml", deploy / "kubernetes/pgcat-deployment.yaml"
    for file in (toml, gone):
        file.write_text("# ours\n" + file.read_text())
    home.commit(deploy)
    update = ("update", "--trust", "--defaults", "--data=topology=sidecar")
    run = offline(home, copier, *update, cwd=deploy)
    assert run.returncode == 1
    assert "files that you have edited: kubernetes/pgcat-deployment.yaml; nothing" in run.stderr
    assert home.status(deploy) == ""

    home.git(deploy, "reset", "--quiet", "--hard", "HEAD~1")
    toml.write_text("# ours\n" + toml.read_text())
    home.commit(deploy)
    run = offline(home, copier, *update, cwd=deploy)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 errors" in run.stdout
    assert toml.read_text().startswith("# ours\n")
    assert not gone.exists()
    after = stored(deploy)
    assert {key: after[key] for key in before if key in after} == {
        **{key: before[key] for key in before if key in after},
        "topology": "sidecar",
    }


@pytest.fixture(scope="session")
def old_python() -> Iterator[str]:
    """Python 3.10, which Copier still takes."""
    found = shutil.which("python3.10")
    if not found or subprocess.run([found, "-c", ""], capture_output=True).returncode:
        pytest.skip("python3.10 is missing")
    yield found


@pytest.mark.repeats
def test_on_python_3_10_there_is_one_line_and_a_remedy(home: Home, old_python: str, tmp_path: Path) -> None:
    copier = by_uv_tool(tmp_path / "installed", NEWEST, old_python)
    answers = ("--data=topology=standalone", "--data=primary_host=db")
    deploy = tmp_path / "deploy"
    copy = ("copy", "--defaults", f"--vcs-ref={NEXT}", *answers)
    run = offline(home, copier, *copy, "--trust", URL, str(deploy), cwd=tmp_path)
    said = [line for line in run.stderr.splitlines() if line.startswith("pgcat-stack: ")]
    assert run.returncode == 1 and len(said) == 1 and "Traceback" not in run.stderr
    assert "run `uv tool install --python 3.13 copier`, or skip the hooks with --skip-tasks" in said[0]
    assert not deploy.exists()
    run = offline(home, copier, *copy, "--skip-tasks", URL, str(deploy), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    home.commit(deploy)
    run = offline(home, copier, "update", "--defaults", "--trust", "--data=topology=sidecar", cwd=deploy)
    assert run.returncode == 1 and "or skip the hooks with --skip-tasks" in run.stderr
    assert home.status(deploy) == ""
    run = offline(
        home, copier, "update", "--defaults", "--trust", "--skip-tasks", "--data=topology=sidecar", cwd=deploy
    )
    assert run.returncode == 0, run.stderr
    assert stored(deploy)["topology"] == "sidecar"
