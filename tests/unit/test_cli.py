from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handmade import edit
from pgcat_stack import __version__, checks, cli

SOURCES = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(autouse=True)
def only_our_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small deployment is judged by the families that it is made for."""
    ours = tuple(rule for rule in checks.registry.all_checks() if rule.code.startswith(("PS1", "PS2", "PS3")))
    monkeypatch.setattr(checks.registry, "all_checks", lambda: ours)


def test_a_clean_deployment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", str(folder)]) == 0
    assert capsys.readouterr().out == "0 errors, 0 warnings in 3 files\n"


def test_errors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, "pgcat/pgcat.toml", ("pool_mode", "pol_mode"))
    assert cli.main(["validate", str(folder)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("pgcat/pgcat.toml:11: PS201 ") and first.endswith("(did you mean `pool_mode`?)")
    assert last == "1 error, 0 warnings in 3 files"


def test_warnings_count_only_when_strict(folder: Path) -> None:
    edit(folder, "permify/permify.yaml", ("max_connections", "max_open_connections"))
    assert cli.main(["validate", str(folder)]) == 0
    assert cli.main(["validate", "--strict", str(folder)]) == 1


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, "pgcat/pgcat.toml", ("pool_mode", "pol_mode"))
    assert cli.main(["validate", str(folder), "--format", "json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["code"], finding["severity"], finding["line"]) == ("PS201", "error", 11)


@pytest.mark.parametrize("command", ["validate", "secrets"])
def test_a_folder_that_cannot_be_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, str(tmp_path / "no\nthing")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def test_secrets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["secrets", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("made secrets/database_password, ")
    assert cli.main(["secrets", str(folder)]) == 0
    assert capsys.readouterr().out == "Nothing to make: every docker secret is there.\n"


def test_a_secret_that_is_taken_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["secrets", str(folder)])
    assert "note: secrets/database_password is new: " in capsys.readouterr().out
    (folder / "secrets/database_password").unlink()
    assert cli.main(["secrets", str(folder)]) == 0
    assert capsys.readouterr().out == "made secrets/database_password from secrets/database.pgpass\n"


def test_names_of_secrets_are_printed_without_control_characters(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "compose.yaml").write_text(
        'secrets: {a: {file: "./secrets/red\\e[31m\\u202e"}, b: {file: "./secrets/\\e]0;title\\a"}}\n'
    )
    assert cli.main(["secrets", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out == "made secrets/red\\x1b[31m\\u202e, secrets/\\x1b]0;title\\x07\n"
    (folder / "secrets/red\x1b[31m\u202e").write_bytes(b"")
    os.truncate(folder / "secrets/red\x1b[31m\u202e", 0)
    assert cli.main(["secrets", str(folder)]) == 1
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["secrets", "validate", "plan", "doctor"])
def test_a_folder_with_escape_sequences_in_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    bad = tmp_path / "\x1b]0;title\x07\x1b[31m"
    for folder in (bad, tmp_path):
        assert cli.main([command, str(folder)]) == 2
        bad.mkdir(exist_ok=True)
    with pytest.raises(SystemExit):
        cli.main([command, str(tmp_path), "--no-such-option\x1b[31m\n"])
    captured = capsys.readouterr()
    assert not set(captured.out + captured.err) & {"\x1b", "\x07"}


def test_a_folder_of_secrets_in_a_folder_with_escape_sequences(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = folder.rename(folder.with_name("\x1b[31m"))
    (bad / "secrets").write_text("")
    assert cli.main(["secrets", str(bad)]) == 1
    (bad / "secrets").unlink()
    assert cli.main(["secrets", str(bad)]) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err and "made " in captured.out


def test_no_password_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["secrets", str(folder)])
    captured = capsys.readouterr()
    for file in (folder / "secrets").iterdir():
        assert file.read_text().strip() not in captured.out + captured.err


def test_secrets_that_cannot_be_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "secrets").mkdir()
    (folder / "secrets/admin_password").write_text("")
    assert cli.main(["secrets", str(folder)]) == 1
    assert capsys.readouterr().err.startswith("pgcat-stack: secrets/admin_password: empty")


def test_secrets_without_docker(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").unlink()
    assert cli.main(["secrets", str(folder)]) == 0
    assert capsys.readouterr().out == "Nothing to make: this deployment has no docker secrets.\n"


def test_secrets_on_kubernetes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "compose.yaml").unlink()
    (folder / "kustomization.yaml").write_text("resources: [pod.yaml]\n")
    (folder / "pod.yaml").write_text(
        "kind: Pod\nspec: {containers: [{env: [{valueFrom: {secretKeyRef: {name: s, key: k}}}]}]}\n"
    )
    assert cli.main(["secrets", str(folder)]) == 0
    command = "  tr -d '\\n' <s.k | kubectl create secret generic s --from-file=k=/dev/stdin\n"
    assert command in capsys.readouterr().out


def test_the_hook_makes_secrets_and_judges(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.hook(folder) == 0
    made, counted = capsys.readouterr().out.splitlines()
    assert made.startswith("made ") and counted == "0 errors, 0 warnings in 3 files"
    edit(folder, "pgcat/pgcat.toml", ("pool_mode", "pol_mode"))
    assert cli.hook(folder) == 1


def test_the_hook_judges_although_a_secret_is_unusable(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "secrets").mkdir()
    (folder / "secrets/admin_password").write_text("")
    assert cli.hook(folder) == 1
    assert "0 errors" in capsys.readouterr().out


def test_the_hook_on_a_folder_that_is_no_deployment(tmp_path: Path) -> None:
    assert cli.hook(tmp_path) == 2


def test_ctrl_c_is_quiet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> list[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(checks, "run_checks", interrupt)
    assert cli.main(["validate", str(folder)]) == 130


INTERRUPTION = """\
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.write(2, b"interrupted")
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


def interrupted(folder: Path, module: str, *arguments: str) -> tuple[int, str]:
    """Exit code and complaints of the command, sent SIGINT at the moment in which it imports a module."""
    here = folder / "interruption"
    here.mkdir(exist_ok=True)
    (here / "sitecustomize.py").write_text(INTERRUPTION.format(module=module))
    done = run(*arguments, PYTHONPATH=f"{here}{os.pathsep}{SOURCES}", PYTHONDONTWRITEBYTECODE="1")
    assert done.stderr.startswith("interrupted"), f"{module} was not imported"
    return done.returncode, done.stderr.removeprefix("interrupted")


@pytest.mark.parametrize(
    ("command", "modules"),
    [
        (
            "validate",
            ["pgcat_stack.interrupts", "argparse", "pgcat_stack.reading.deployment", "yaml", "pydantic"],
        ),
        ("plan", ["argparse", "pgcat_stack.budget"]),
        ("secrets", ["pathlib", "pgcat_stack.files.sources"]),
        ("doctor", ["pgcat_stack.cli", "psycopg", "pgcat_stack.doctor.routes"]),
    ],
)
def test_ctrl_c_while_the_command_imports_is_quiet(
    folder: Path, tmp_path: Path, command: str, modules: list[str]
) -> None:
    for module in modules:
        assert interrupted(tmp_path, module, command, str(folder)) == (130, ""), module


def test_ctrl_c_is_nothing_to_who_has_it_ignored(folder: Path, tmp_path: Path) -> None:
    """As a background job of a script has it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interrupted(tmp_path, "argparse", "secrets", str(folder)) == (0, "")
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_while_secrets_are_written_leaves_nothing_half_written(folder: Path) -> None:
    program = f"""\
import os, signal
from pgcat_stack.interrupts import leave_at_once
leave_at_once()
from pgcat_stack import cli
os.link = lambda *names, **folders: os.kill(os.getpid(), signal.SIGTERM)
cli.main(["secrets", {str(folder)!r}])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
    assert list((folder / "secrets").iterdir()) == []


def test_ctrl_c_ends_the_hook_at_once_in_a_process_that_is_not_ours(folder: Path) -> None:
    """Where it comes in a callback of the interpreter, an exception would be printed and forgotten."""
    program = f"""\
import os, signal
from pathlib import Path
from pgcat_stack import cli, checks

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def run_checks(_):
    Interrupted()
    return []

checks.run_checks = run_checks
cli.hook(Path({str(folder)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    assert (done.returncode, done.stderr) == (130, "")
    before = signal.getsignal(signal.SIGINT)
    cli.hook(folder)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["validate", "--help"], ["validate", "."]])
def test_a_reader_that_has_gone_is_no_traceback(folder: Path, arguments: list[str]) -> None:
    here, there = os.pipe()
    os.close(here)
    done = subprocess.run(
        [sys.executable, "-m", "pgcat_stack", *arguments],
        stdout=there,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCES), "PYTHONUNBUFFERED": ""},
    )
    os.close(there)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_while_secrets_are_written_leaves_nothing_half_written(folder: Path) -> None:
    program = f"""\
import os, signal
from pgcat_stack.interrupts import leave_at_once
leave_at_once()
from pgcat_stack import cli
link = os.link
os.link = lambda *names, **folders: os.kill(os.getpid(), signal.SIGINT)
code = cli.main(["secrets", {str(folder)!r}])
os.link = link
os.kill(os.getpid(), signal.SIGINT)
os._exit(code + 1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert list((folder / "secrets").iterdir()) == []


def test_ctrl_c_is_left_as_it_was_to_who_imports_the_command(folder: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["secrets", str(folder)]) == 0
    assert signal.getsignal(signal.SIGINT) is before


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), **variables}
    command = [sys.executable, "-m", "pgcat_stack", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_module_is_the_command() -> None:
    assert run("--version").stdout == f"pgcat-stack {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["validate"], ["validate", ".", "--format", "xml"]])
def test_wrong_arguments_exit_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and "usage:" in done.stderr and "Traceback" not in done.stderr


def test_a_closed_pipe_is_quiet(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    command = [sys.executable, "-m", "pgcat_stack", "validate", str(folder)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert done.returncode == 141 and done.stderr == b""


@pytest.mark.parametrize("command", ["validate", "plan", "secrets"])
@pytest.mark.parametrize(
    ("redirection", "message"),
    [(">&-", "standard output is closed"), (">/dev/full", "No space left")],
)
def test_an_output_that_cannot_be_written_is_one_line(
    folder: Path, command: str, redirection: str, message: str
) -> None:
    (folder / "budget.yaml").write_text(
        "servers:\n  - {host: db, port: 5432, role: primary, max_connections: 100, other_connections: 20}\n"
    )
    done = shell(f"{command} {folder} {redirection}")
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("pgcat-stack: ")


@pytest.mark.parametrize("redirection", [">&- 2>&-", ">/dev/full 2>&-", ">/dev/full 2>/dev/full"])
def test_without_any_output_the_exit_code_tells(folder: Path, redirection: str) -> None:
    done = shell(f"validate {folder} {redirection}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def shell(arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    command = f"'{sys.executable}' -m pgcat_stack {arguments}"
    return subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)


def test_a_terminal_without_unicode(folder: Path) -> None:
    edit(folder, "pgcat/pgcat.toml", ("pool_mode", '"pol_möde"'))
    done = run("validate", str(folder), PYTHONIOENCODING="ascii")
    assert "pol_m\\xf6de" in done.stdout and "Traceback" not in done.stderr
