from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest

HOOKS = Path(__file__).resolve().parents[2] / "hooks"
HOOK = HOOKS / "post_generate.py"

FAKE_UV = """\
#!{python}
import pathlib, sys, venv
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(arguments[:2]) + (" offline" if "--offline" in arguments else "") + "\\n")
if {fails}:
    sys.exit("no network: a noisy message")
if arguments[0] == "venv":
    venv.create(arguments[-1], symlinks=True, with_pip=False)
else:
    python = pathlib.Path(arguments[arguments.index("--python") + 1])
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    (site / "all.pth").write_text({site!r})
"""


class Machine:
    """An interpreter without our dependencies, an empty cache folder, and a uv that copies ours."""

    def __init__(self, root: Path) -> None:
        self.root, self.cache, self.bin = root, root / "cache", root / "bin"
        self.log = root / "uv.log"
        self.bin.mkdir()
        venv.create(root / "bare", symlinks=True, with_pip=False)
        self.python = root / "bare/bin/python"

    def install_uv(self, fails: bool = False) -> None:
        import yaml

        site = str(Path(yaml.__file__).parents[1])
        uv = self.bin / "uv"
        uv.write_text(FAKE_UV.format(python=sys.executable, log=str(self.log), fails=fails, site=site))
        uv.chmod(0o755)

    def run(self, folder: Path, python: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.root),
            "XDG_CACHE_HOME": str(self.cache),
            "PIP_NO_INDEX": "1",
        }
        command = [str(python or self.python), str(HOOK)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)

    def cached(self, kind: str) -> list[Path]:
        return sorted((self.cache / "pgcat-stack").glob(f"{kind}-*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def is_judged(done: subprocess.CompletedProcess[str]) -> bool:
    return " warnings in 3 files" in done.stdout and done.stderr == ""


def test_with_all_dependencies_no_environment_is_made(machine: Machine, folder: Path) -> None:
    done = machine.run(folder, Path(sys.executable))
    assert is_judged(done)
    assert machine.cached("environment") == []


def test_docker_secrets_are_made(machine: Machine, folder: Path) -> None:
    machine.run(folder, Path(sys.executable))
    assert (folder / "secrets/database_password").exists()


def test_uv_makes_an_environment_once(machine: Machine, folder: Path) -> None:
    machine.install_uv()
    assert is_judged(machine.run(folder))
    assert is_judged(machine.run(folder))
    assert machine.log.read_text().splitlines() == ["venv --no-project", "pip install offline"]
    assert len(machine.cached("environment")) == 1


def test_what_is_cached_needs_no_uv(machine: Machine, folder: Path) -> None:
    machine.install_uv()
    machine.run(folder)
    (machine.bin / "uv").unlink()
    assert is_judged(machine.run(folder))


def test_nothing_half_made_stays(machine: Machine, folder: Path) -> None:
    machine.install_uv()
    machine.run(folder)
    assert machine.cached("draft") == []


def test_a_broken_environment_is_made_anew(machine: Machine, folder: Path) -> None:
    machine.install_uv()
    machine.run(folder)
    (environment,) = machine.cached("environment")
    (pth,) = environment.glob("lib/python*/site-packages/all.pth")
    pth.unlink()
    assert is_judged(machine.run(folder))


def test_an_environment_whose_python_is_gone_is_made_anew(machine: Machine, folder: Path) -> None:
    machine.install_uv()
    machine.run(folder)
    (environment,) = machine.cached("environment")
    for link in (environment / "bin").glob("python*"):
        link.unlink()
    (environment / "bin/python").symlink_to("/nonexistent/python")
    assert is_judged(machine.run(folder))


def test_without_uv_pip_and_network_there_is_one_line(machine: Machine, folder: Path) -> None:
    machine.install_uv(fails=True)
    done = machine.run(folder)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install pydantic pyyaml yamllint" in done.stderr
    assert machine.cached("environment") == machine.cached("draft") == []


def test_a_cache_folder_that_cannot_be_written(machine: Machine, folder: Path) -> None:
    machine.cache.write_text("a file in its place")
    assert is_judged(machine.run(folder, Path(sys.executable)))


def test_the_exit_code_is_that_of_the_validator(machine: Machine, folder: Path) -> None:
    machine.install_uv()
    (folder / "pgcat/pgcat.toml").write_text("[general]\n")
    assert machine.run(folder).returncode == 1
    assert machine.run(machine.root).returncode == 2


@pytest.fixture
def hook() -> ModuleType:
    specification = importlib.util.spec_from_file_location("post_generate", HOOK)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_an_old_python_gets_one_line(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    assert hook.main([]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "3.11" in error and "3.10.4" in error


def test_old_drafts_are_removed(hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "cache_folder", lambda: tmp_path)
    for name, age_seconds in (("draft-old", 2 * hook.STALE_SECONDS), ("draft-new", 0)):
        (tmp_path / name).mkdir()
        when = (tmp_path / name).stat().st_mtime - age_seconds
        os.utime(tmp_path / name, (when, when))
    hook.make_once("thing", lambda draft: True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["draft-new", "thing"]


def test_the_faster_of_two_runs_wins(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "cache_folder", lambda: tmp_path)

    def make(draft: Path) -> bool:
        (draft / "slow").write_text("")
        (tmp_path / "thing").mkdir()
        (tmp_path / "thing/fast").write_text("")
        return True

    assert hook.make_once("thing", make) == tmp_path / "thing"
    assert [entry.name for entry in (tmp_path / "thing").iterdir()] == ["fast"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["thing"]


def test_an_interruption_leaves_nothing(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "cache_folder", lambda: tmp_path)

    def make(draft: Path) -> bool:
        (draft / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hook.make_once("thing", make)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_package_is_copied_anew(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(hook, "HOOKS", tmp_path)
    monkeypatch.setattr(hook, "PACKAGE", tmp_path / "pgcat_stack")
    (tmp_path / "pgcat_stack").mkdir()
    module = tmp_path / "pgcat_stack/__init__.py"
    module.write_text("one = 1\n")
    first = hook.cached_package()
    assert hook.cached_package() == first
    module.write_text("two = 2\n")
    second = hook.cached_package()
    assert second != first and (second / "pgcat_stack/__init__.py").read_text() == "two = 2\n"
