from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
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
    folder = arguments[-2] if arguments[-1] == "--no-cache" else arguments[-1]
    venv.create(folder, symlinks=True, with_pip=False)
else:
    if {needs_no_cache} and "--no-cache" not in arguments:
        sys.exit("my cache cannot be written")
    python = pathlib.Path(arguments[arguments.index("--python") + 1])
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    (site / "all.pth").write_text({site!r})
"""


class Machine:
    """An interpreter without our dependencies, an empty cache folder, and a uv that copies ours."""

    def __init__(self, root: Path) -> None:
        self.root, self.cache, self.bin = root, root / "cache", root / "bin"
        self.log = root / "uv.log"
        self.temporary = root / "temporary"
        self.bin.mkdir()
        self.temporary.mkdir()
        venv.create(root / "bare", symlinks=True, with_pip=False)
        self.python = root / "bare/bin/python"

    def install_uv(self, fails: bool = False, needs_no_cache: bool = False) -> None:
        import yaml

        site = str(Path(yaml.__file__).parents[1])
        uv = self.bin / "uv"
        uv.write_text(
            FAKE_UV.format(
                python=sys.executable,
                log=str(self.log),
                fails=fails,
                needs_no_cache=needs_no_cache,
                site=site,
            )
        )
        uv.chmod(0o755)

    def run(self, folder: Path, python: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.root),
            "XDG_CACHE_HOME": str(self.cache),
            "PIP_NO_INDEX": "1",
            "TMPDIR": str(self.temporary),
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
    assert "installing failed (no network?): run `uvx --with pydantic,pyyaml,yamllint copier" in done.stderr
    assert machine.cached("environment") == machine.cached("draft") == []


def test_a_cache_folder_that_cannot_be_written(machine: Machine, folder: Path) -> None:
    machine.cache.write_text("a file in its place")
    assert is_judged(machine.run(folder, Path(sys.executable)))


@pytest.mark.parametrize("needs_no_cache", [False, True])
def test_a_temporary_environment_where_the_cache_folder_cannot_be_written(
    machine: Machine, folder: Path, needs_no_cache: bool
) -> None:
    machine.cache.write_text("a file in its place")
    machine.install_uv(needs_no_cache=needs_no_cache)
    assert is_judged(machine.run(folder))
    assert list(machine.temporary.iterdir()) == []


def test_without_cache_folder_and_network_there_is_one_line(machine: Machine, folder: Path) -> None:
    machine.cache.write_text("a file in its place")
    done = machine.run(folder)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "installing failed" in done.stderr and "install uv and run `uvx --with" in done.stderr
    assert list(machine.temporary.iterdir()) == []


def test_without_any_folder_the_line_says_so(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(hook, "make_once", refuse)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(hook, "missing_modules", lambda: ["yamllint"])
    assert hook.main([]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "folder can be written" in error and "network" not in error


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("own", [True, False], ids=["environment", "interpreter of Copier"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda package: truncate(package / "cli.py"),
        lambda package: (package / "findings.py").unlink(),
        lambda package: (package / "more.py").write_text(""),
        lambda package: [truncate(file) for file in package.glob("__pycache__/cli.*.pyc")],
    ],
    ids=["truncated", "missing", "more", "compiled"],
)
def test_a_damaged_package_is_copied_anew(
    machine: Machine, folder: Path, own: bool, damage: Callable[[Path], object]
) -> None:
    machine.install_uv()
    python = None if own else Path(sys.executable)
    machine.run(folder, python)
    (package,) = machine.cached("package")
    before = contents(package)
    damage(package / "pgcat_stack")
    assert is_judged(machine.run(folder, python))
    assert is_judged(machine.run(folder, python))
    assert contents(package) == before


def contents(package: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in package.rglob("*.py")}


@pytest.mark.parametrize("code", ["raise ImportError", "", "import os; os.kill(os.getpid(), 11)"])
def test_a_damaged_environment_is_made_anew(machine: Machine, folder: Path, code: str) -> None:
    machine.install_uv()
    machine.run(folder)
    (environment,) = machine.cached("environment")
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "yaml").mkdir()
    (site / "yaml/__init__.py").write_text(code)
    assert is_judged(machine.run(folder))
    (environment,) = machine.cached("environment")
    assert not list(environment.glob("lib/python*/site-packages/yaml"))


def test_an_environment_that_cannot_be_run_is_made_anew(machine: Machine, folder: Path) -> None:
    machine.install_uv()
    machine.run(folder)
    (environment,) = machine.cached("environment")
    (environment / "bin/python").unlink()
    (environment / "bin/python").write_text("no program")
    assert is_judged(machine.run(folder))


def test_a_mistake_of_the_validator_is_not_hidden(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("pgcat_stack.cli.hook", fail)
    monkeypatch.setattr(hook, "cached_package", lambda: hook.HOOKS)
    assert hook.validate(last=False) == hook.UNUSABLE
    with pytest.raises(ZeroDivisionError):
        hook.validate(last=True)


@pytest.mark.parametrize(
    ("files", "programs", "expected"),
    [
        (["uv-receipt.toml"], ["uv"], "run `uv tool install copier --with yamllint`"),
        (["pipx_metadata.json"], [], "run `pipx inject copier yamllint`"),
        ([], ["pip"], f"run `'{sys.executable}' -m pip install yamllint`"),
        ([], ["uv"], "run `uvx --with yamllint copier ...`"),
        ([], [], "install uv and run `uvx --with yamllint copier ...`"),
    ],
)
def test_the_remedy_fits_how_copier_was_installed(
    hook: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: list[str],
    programs: list[str],
    expected: str,
) -> None:
    prefix = tmp_path / "copier"
    prefix.mkdir()
    for name in files:
        (prefix / name).write_text("")
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(shutil, "which", lambda program: program if program in programs else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in programs else None)
    assert hook.remedy(["yamllint"]) == expected


def test_the_remedy_for_what_pipx_ran_once(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pipx_metadata.json").write_text("")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert hook.remedy(["yamllint"]) == "run `pipx install copier && pipx inject copier yamllint`"


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
    hook.make_once("thing", lambda draft: True, Path.is_dir)
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

    assert hook.make_once("thing", make, Path.is_dir) == tmp_path / "thing"
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
        hook.make_once("thing", make, Path.is_dir)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_package_is_copied_anew(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(hook, "HOOKS", tmp_path)
    (tmp_path / "pgcat_stack").mkdir()
    module = tmp_path / "pgcat_stack/__init__.py"
    module.write_text("one = 1\n")
    first = hook.cached_package()
    assert hook.cached_package() == first
    module.write_text("two = 2\n")
    second = hook.cached_package()
    assert second != first and (second / "pgcat_stack/__init__.py").read_text() == "two = 2\n"
