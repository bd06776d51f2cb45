"""What Copier runs of ours, with which command and option, and what it runs it with."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from live.repeats import repeats
from rendering import REPOSITORY
from versions import URL, Home, data

RECORDED = REPOSITORY / "tests/recorded"
COPIER = str(Path(sys.executable).with_name("copier"))
"""The command, because `python -m copier` itself imports from the current folder."""
PAGE = REPOSITORY / "SECURITY.md"
HOOKS = {
    "copy": ["hook post_generate.py"],
    "recopy": ["hook post_generate.py"],
    "update": ["hook update.py before", "hook update.py after"],
}
"""What runs, in this order, where something does."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home")).prepare()
    home.release("0.1.0")
    home.release("0.2.0", files={"template/NEWS.md": "new in 0.2.0\n"})
    return home


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record"


def recorded(record: Path, kind: str = "hook") -> list[str]:
    lines = record.read_text().splitlines() if record.exists() else []
    return [line.strip() for line in lines if line.startswith(kind)]


def environment(record: Path, path: str = str(RECORDED)) -> dict[str, str]:
    return {"PYTHONPATH": path, "PGCAT_STACK_TEST_RECORD": str(record), "PYTHONDONTWRITEBYTECODE": "1"}


def table() -> dict[tuple[str, str], str]:
    """The table of the page: what happens by command and options."""
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith(("| | `--trust`", "| `copier "))
    ]
    head, *body = rows
    return {(row[0], option): cell for row in body for option, cell in zip(head[1:], row[1:], strict=True)}


CASES = {(command, options): expected for (command, options), expected in table().items()}


def test_the_page_has_the_table() -> None:
    assert {command for command, _ in CASES} == {"copier copy", "copier update", "copier recopy"}
    assert {options for _, options in CASES} >= {"--trust", "--trust --skip-tasks", "--skip-tasks", "neither"}


@pytest.fixture(scope="session")
def committed(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed deployment of 0.1.0, rendered without hooks."""
    folder = tmp_path_factory.mktemp("committed") / "deploy"
    answers = data(["topology=standalone", "primary_host=db"])
    run = home.copier("copy", "--skip-tasks", "--defaults", "--vcs-ref=0.1.0", *answers, URL, str(folder))
    assert run.returncode == 0, run.stderr
    home.commit(folder)
    return folder


REPEATED = {("copier recopy", options) for _, options in CASES if options != "--trust"}
REPEATED |= {("copier copy", "--trust --skip-tasks"), ("copier copy", "--trust --pretend")}


@pytest.mark.parametrize(
    ("command", "options"),
    [pytest.param(*case, marks=[repeats] if case in REPEATED else []) for case in CASES],
    ids=lambda part: part.replace(" ", ""),
)
def test_what_runs(
    home: Home, committed: Path, tmp_path: Path, record: Path, command: str, options: str
) -> None:
    name = command.split()[1]
    deploy = tmp_path / "deploy"
    arguments = ["--defaults", *(options.split() if options != "neither" else [])]
    if name == "copy":
        arguments += [*data(["topology=standalone", "primary_host=db"]), URL, str(deploy)]
    else:
        shutil.copytree(committed, deploy)
        arguments += [*(["--overwrite"] if name == "recopy" else []), str(deploy)]
    run = home.run(COPIER, name, *arguments, **environment(record))
    expected = CASES[command, options]
    said = run.stdout + run.stderr
    if expected.startswith("refused"):
        assert run.returncode == 4 and "--trust" in run.stderr, said
        assert recorded(record) == []
        assert not deploy.exists() if name == "copy" else home.status(deploy) == ""
        return
    assert run.returncode == 0, said
    assert recorded(record) == (HOOKS[name] if expected == "the hooks" else []), said
    assert ("Nothing was written" in said) == ("--pretend" in options)
    assert ("Next, from that folder" in said) == (name == "copy" and "--pretend" not in options)
    assert ("git diff" in said) == (name != "copy" and "--pretend" not in options)
    if "--pretend" in options:
        assert not deploy.exists() if name == "copy" else home.status(deploy) == ""
    elif expected == "nothing":
        assert "The hooks were skipped" in said
    else:
        assert "0 errors" in said
        assert {line.split()[1] for line in recorded(record, "process")} <= {shutil.which("git")}
        assert recorded(record, "connection") == []


def test_the_remedy_of_a_message_works_on_update(home: Home, committed: Path, tmp_path: Path) -> None:
    """Where Copier's packages are broken for the hooks alone, --skip-tasks updates all the same."""
    deploy, broken = tmp_path / "deploy", tmp_path / "broken"
    shutil.copytree(committed, deploy)
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys\nif sys.orig_argv[1].endswith('update.py'): sys.version_info = (3, 10, 4, 'final', 0)\n"
    )
    run = home.run(COPIER, "update", "--trust", "--defaults", str(deploy), PYTHONPATH=str(broken))
    (said,) = [line for line in run.stderr.splitlines() if line.startswith("pgcat-stack: ")]
    assert run.returncode == 1 and "or skip the hooks with --skip-tasks" in said
    assert "Traceback" not in run.stderr
    assert home.status(deploy) == ""
    run = home.run(
        COPIER, "update", "--trust", "--skip-tasks", "--defaults", str(deploy), PYTHONPATH=str(broken)
    )
    assert run.returncode == 0, run.stderr
    assert (deploy / "NEWS.md").exists()


NAMES = (
    *("logging.py", "yaml.py", "json.py", "subprocess.py", "sitecustomize.py", "usercustomize.py"),
    *("copier.py", "jinja2/__init__.py", "pydantic/__init__.py", "pgcat_stack/__init__.py"),
    *("pgcat_stack/cli.py", "post_generate.py", "git", "uv", ".venv/bin/python"),
)
INDEX = {
    "pyproject.toml": '[project]\nname = "x"\nversion = "1"\n[[tool.uv.index]]\nurl = "http://127.0.0.1:9/"\n',
    "uv.toml": 'index-url = "http://127.0.0.1:9/"\n',
    ".python-version": "3.6\n",
}


def make_hostile(folder: Path, record: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".py":
            file.write_text(f"open({str(record)!r}, 'a').write('hostile {name}\\n')\nraise SystemExit(3)\n")
        else:
            file.write_text(f"#!/bin/sh\necho hostile {name} >>'{record}'\nexit 3\n")
            file.chmod(0o755)
    for name, text in INDEX.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("python_path", "path"),
    [
        pytest.param(str(RECORDED), ".", id="as usual", marks=repeats),
        pytest.param(f":{RECORDED}", "", id="empty entry", marks=repeats),
        pytest.param(f".:{RECORDED}", ".", id="current folder"),
        pytest.param(f"pydantic/..:{RECORDED}", "", id="relative", marks=repeats),
    ],
)
def test_nothing_in_or_above_the_deployment_runs(
    home: Home, tmp_path: Path, record: Path, python_path: str, path: str
) -> None:
    """Copier is started elsewhere: there it would itself import from its current folder."""
    above = tmp_path / "repository"
    deploy, elsewhere = above / "deploy", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in (above, deploy):
        make_hostile(folder, record)
    variables = {**environment(record, python_path), "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    answers = data(["topology=standalone", "primary_host=db"])
    run = home.run(
        *(COPIER, "copy", "--trust", "--defaults", "--overwrite", "--vcs-ref=0.1.0"),
        *(*answers, URL, str(deploy)),
        cwd=elsewhere,
        **variables,
    )
    assert recorded(record, "hostile") == [], run.stderr
    assert recorded(record) == HOOKS["copy"], run.stdout + run.stderr
    home.commit(above)
    toml = deploy / "kubernetes/pgcat-deployment.yaml"
    toml.write_text("# ours\n" + toml.read_text())
    home.commit(above)
    for extra, code in ((["--data=topology=sidecar"], 1), ([], 0)):
        record.unlink(missing_ok=True)
        run = home.run(
            COPIER, "update", "--trust", "--defaults", *extra, str(deploy), cwd=elsewhere, **variables
        )
        assert recorded(record, "hostile") == [], run.stderr
        assert recorded(record) == HOOKS["update"][: 1 if code else 2], run.stdout + run.stderr
        assert ("files that you have edited" in run.stderr) == bool(code), run.stderr
        assert {line.split()[1] for line in recorded(record, "process")} == {shutil.which("git")}
        assert recorded(record, "connection") == []


def test_git_starts_nothing_that_a_repository_names(
    home: Home, committed: Path, tmp_path: Path, record: Path
) -> None:
    """A file system monitor, external diff, filter, hook or alias of the user is not for our questions."""
    deploy = tmp_path / "deploy"
    shutil.copytree(committed, deploy)
    program = tmp_path / "named"
    program.write_text(f'#!/bin/sh\necho "hostile $0" >>"{record}"\nexec cat\n')
    program.chmod(0o755)
    (deploy / ".gitattributes").write_text("* diff=named filter=named\n")
    home.commit(deploy)
    for key in ("diff.external", "diff.named.textconv", "filter.named.clean", "filter.named.smudge"):
        home.git(deploy, "config", key, str(program))
    home.git(deploy, "config", "core.fsmonitor", str(program))
    home.git(deploy, "config", "alias.ls-files", f"!{program}")
    hook = deploy / ".git/hooks/post-index-change"
    shutil.copy(program, hook)
    record.unlink(missing_ok=True)  # what our own commands started
    for file in deploy.glob("kubernetes/*.yaml"):
        file.touch()
    for stage, rest in (("before", ["{}"]), ("after", [])):
        run = home.run(
            *(sys.executable, str(REPOSITORY / "hooks/update.py"), stage, str(deploy), ".copier-answers.yml"),
            *(str(tmp_path), *rest),
            cwd=REPOSITORY / "hooks",
            STAGE=stage,
            **environment(record),
        )
        assert run.returncode == 0, run.stdout + run.stderr
    assert recorded(record, "hostile") == []
    assert len(recorded(record, "process")) >= 2


def test_an_update_from_a_hook_of_git(home: Home, committed: Path, tmp_path: Path) -> None:
    """Git tells its hooks where its folder and index are, and they are not those of our questions."""
    deploy = tmp_path / "deploy"
    shutil.copytree(committed, deploy)
    other = tmp_path / "other"
    other.mkdir()
    home.git(other, "init", "--quiet")
    run = home.run(
        *(sys.executable, str(REPOSITORY / "hooks/update.py"), "after", str(deploy), ".copier-answers.yml"),
        str(tmp_path),
        cwd=REPOSITORY / "hooks",
        STAGE="after",
        GIT_DIR=str(other / ".git"),
        GIT_INDEX_FILE=str(other / ".git/index"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^0 errors", run.stdout, re.MULTILINE)
