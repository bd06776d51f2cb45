"""The start of the hooks: where they import from, and the one line when Copier's environment does not do."""

from __future__ import annotations

import importlib.util
import os
import site
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

HOOKS = Path(__file__).resolve().parents[2] / "hooks"
HOOK = HOOKS / "post_generate.py"


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The hook as Copier starts it: in its own folder."""
    return subprocess.run(
        [sys.executable, str(HOOK), str(folder)],
        cwd=HOOKS,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def is_judged(done: subprocess.CompletedProcess[str]) -> bool:
    return " warnings in 3 files" in done.stdout and done.stderr == ""


@pytest.fixture
def hook() -> ModuleType:
    specification = importlib.util.spec_from_file_location("post_generate", HOOK)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_docker_secrets_are_made(folder: Path) -> None:
    assert is_judged(run(folder))
    assert (folder / "secrets/database_password").exists()


def test_the_exit_code_is_that_of_the_validator(folder: Path, tmp_path: Path) -> None:
    (folder / "pgcat/pgcat.toml").write_text("[general]\n")
    assert run(folder).returncode == 1
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty").returncode == 2


def test_nothing_is_left_in_the_cache_folder(folder: Path, tmp_path: Path) -> None:
    assert is_judged(run(folder, XDG_CACHE_HOME=str(tmp_path / "cache"), HOME=str(tmp_path)))
    assert not (tmp_path / "cache").exists() and not (tmp_path / ".cache").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PYTHONPATH", ":"),
        ("PYTHONPATH", "{folder}"),
        ("PYTHONPATH", "{folder}/.."),
        ("PYTHONPATH", "{folder}/inside"),
        ("PYTHONSAFEPATH", "1"),
    ],
)
def test_modules_of_the_user_are_not_imported(folder: Path, variable: str, value: str) -> None:
    inside = folder / "inside"
    inside.mkdir()
    for place in (folder, folder.parent, inside):
        for name in ("yaml", "pydantic", "packaging", "pgcat_stack", "yamllint"):
            (place / f"{name}.py").write_text("raise SystemExit('ran')\n")
    try:
        done = run(folder, **{variable: value.format(folder=folder)})
    finally:
        for module in folder.parent.glob("*.py"):
            module.unlink()
    assert " warnings in " in done.stdout and done.stderr == ""
    assert "ran" not in done.stdout.split()


def test_an_entry_in_or_above_the_deployment_goes_unless_copier_is_there(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "repository/deploy"
    copiers = root / ".venv/lib/python3.13/site-packages"
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "python"))
    monkeypatch.setattr(site, "USER_BASE", str(tmp_path / "home/.local"))
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setenv("PYTHONPATH", f"relative{os.pathsep}{tmp_path}/elsewhere")
    monkeypatch.chdir(tmp_path)
    kept = [
        str(copiers),
        str(tmp_path / "python/lib/python3.13"),
        str(tmp_path / "home/.local/lib/python3.13/site-packages"),
        str(tmp_path / "elsewhere"),
        str(tmp_path / "repository/other"),
    ]
    gone = [
        "",
        str(hook.HOOKS),
        str(root),
        str(root / "src"),
        str(tmp_path / "repository"),
        str(tmp_path / "relative"),
        "/",
    ]
    assert hook.trusted([*gone, *kept], root) == kept
    assert str(tmp_path / "home/.local/lib/x") in hook.trusted(
        [str(tmp_path / "home/.local/lib/x")], tmp_path / "home"
    ), "a deployment in the home folder itself does not hide `pip install --user`"


INSTALLED = {
    "uv tool": "uv tool upgrade --reinstall copier",
    "uvx": "uvx --reinstall copier ...",
    "pipx": "pipx reinstall copier",
    "pipx run": "pipx run --no-cache copier ...",
    "pip": "-m pip install --force-reinstall 'pydantic>=2.4.2' pyyaml packaging",
}
NEWER = {
    "uv tool": "uv tool install --python 3.13 copier",
    "uvx": "uvx --python 3.13 copier ...",
    "pipx": "pipx reinstall --python 3.13 copier",
    "pipx run": "pipx run --python 3.13 copier ...",
    "pip": "uvx --python 3.13 copier ...",
}


@pytest.fixture(params=INSTALLED)
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An interpreter whose environment looks as each tool makes it."""
    folders = {"uvx": "uv/archive-v0/1aB", "pipx": "pipx/venvs/copier", "pipx run": ".cache/2f5"}
    prefix = tmp_path / folders.get(request.param, "copier")
    prefix.mkdir(parents=True)
    if request.param == "uv tool":
        (prefix / "uv-receipt.toml").touch()
    if request.param.startswith("pipx"):
        (prefix / "pipx_metadata.json").touch()
    monkeypatch.setattr(sys, "prefix", str(prefix))
    return str(request.param)


def test_an_old_python_gets_one_line(
    hook: ModuleType,
    installed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    assert hook.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "3.11" in error and "3.10.4" in error
    assert f"run `{NEWER[installed]}`" in error


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("VERSION = '1.10.26'", "pydantic 1.10.26 is installed, and Copier requires 2.4.2 or newer"),
        ("raise RuntimeError('two\\nlines')", "cannot be imported (RuntimeError: two lines)"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("1 +", "SyntaxError"),
        ("", "has no attribute 'VERSION'"),
    ],
)
def test_a_broken_package_gets_one_line(folder: Path, tmp_path: Path, broken: str, said: str) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "pydantic.py").write_text(broken + "\n")
    done = run(folder, PYTHONPATH=str(packages))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert "run `" in done.stderr and "--skip-tasks" in done.stderr


def test_the_remedy_fits_how_copier_was_installed(
    hook: ModuleType, installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    problem = hook.packages_problem()
    assert problem.count("`") == 2 and INSTALLED[installed] in problem


def test_a_mistake_of_the_validator_is_not_hidden(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: Path) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr("pgcat_stack.cli.hook", fail)
    with pytest.raises(ZeroDivisionError):
        hook.main([str(tmp_path)])


def test_a_complaint_is_one_printable_line(hook: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert hook.complain("you edited a\nb\x1b[31m.yaml") == 1
    assert capsys.readouterr().err == "pgcat-stack: you edited a\\nb\\x1b[31m.yaml\n"
