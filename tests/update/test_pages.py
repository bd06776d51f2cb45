"""The commands of the pages that a machine without a cluster can run, in their order."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from live.repeats import repeats
from old_versions import stored
from pages import code_blocks
from rendering import REPOSITORY
from versions import Home

POLICIES = "kubernetes/network-policies.yaml"


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the working tree as 0.9.0, with a line changed as 1.0.0, and the pages' commands."""
    home = Home(tmp_path_factory.mktemp("released")).prepare()
    home.release("0.9.0")
    name = f"template/{POLICIES}.jinja"
    text = (REPOSITORY / name).read_text()
    assert "metadata:" in text
    home.release("1.0.0", files={name: text.replace("metadata:", "metadata: # newer", 1)})
    (home.folder / "bin").mkdir()
    for name, module in (("copier", "copier"), ("pgcat-stack", "pgcat_stack.cli")):
        command = home.folder / "bin" / name
        paths = REPOSITORY / "src"
        command.write_text(f"#!/bin/sh\nPYTHONPATH='{paths}' exec '{sys.executable}' -m {module} \"$@\"\n")
        command.chmod(0o755)
    # Nobody is there to answer, and Copier is here already.
    uvx = home.folder / "bin" / "uvx"
    uvx.write_text(
        '#!/bin/sh\nprogram=$1 operation=$2\nshift 2\nexec "$program" "$operation" --defaults "$@"\n'
    )
    uvx.chmod(0o755)
    return home


class Page:
    def __init__(self, name: str, home: Home) -> None:
        self.blocks = code_blocks((REPOSITORY / name).read_text())
        self.home = home
        self.ran: set[int] = set()

    def _next(self, beginning: str) -> int:
        number = next(
            n for n, block in enumerate(self.blocks) if n not in self.ran and block.startswith(beginning)
        )
        self.ran.add(number)
        return number

    def leave(self, beginning: str, because: str) -> None:
        """A block that is not run here, and why."""
        assert because
        self._next(beginning)

    def run(self, beginning: str, folder: Path, code: int = 0) -> str:
        """The next block that begins so; returns what it printed."""
        number = self._next(beginning)
        path = f"{self.home.folder / 'bin'}:{self.home.environment['PATH']}"
        run = self.home.run("sh", "-euc", self.blocks[number], cwd=folder, PATH=path)
        assert run.returncode == code, self.blocks[number] + run.stdout + run.stderr
        return run.stdout + run.stderr

    def check_all_ran(self) -> None:
        left = [block for number, block in enumerate(self.blocks) if number not in self.ran]
        assert not left, "\n".join(left)


@pytest.mark.timeout(900)
@repeats
def test_update(released: Home, tmp_path: Path) -> None:
    page, home = Page("docs/update.md", released), released
    answers = ("topology=standalone", "primary_host=db")
    deploy = home.deployment(tmp_path / "deploy", "0.9.0", *answers)
    page.run("copier check-update --quiet", deploy, code=2)
    shown = home.copier("check-update", cwd=deploy)
    assert (shown.returncode, "New template version available" in shown.stdout) == (0, True)
    page.run("copier update --trust --defaults\ngit diff", deploy)
    home.commit(deploy)
    assert home.copier("check-update", "--quiet", cwd=deploy).returncode == 0
    assert "_commit: 1.0.0" in (deploy / ".copier-answers.yml").read_text()

    conflict = home.deployment(tmp_path / "conflict", "0.9.0", *answers)
    file = conflict / POLICIES
    file.write_text(file.read_text().replace("metadata:", "metadata: # ours", 1))
    home.commit(conflict)
    shown = page.run("copier update --trust --defaults --conflict rej", conflict)
    assert "PS106 an edit of yours" in shown and "metadata: # ours" in shown
    assert "metadata: # newer" in file.read_text() and "# ours" not in file.read_text()
    home.git(conflict, "reset", "--quiet", "--hard")
    home.git(conflict, "clean", "--quiet", "--force", "-d")
    run = home.copier("update", "--trust", "--defaults", cwd=conflict)
    assert run.returncode == 1
    assert "PS105 conflict marker" in run.stdout
    page.run("git checkout --theirs", conflict)
    assert home.status(conflict) == ""
    assert "metadata: # newer" in file.read_text()

    (deploy / "new.md").write_text("half-done\n")
    (deploy / "budget.yaml").write_text("")
    page.run("git reset", deploy)
    assert home.status(deploy) == ""

    shown = page.run("copier update --trust --defaults --vcs-ref :current:", deploy)
    assert "The budget changed" in shown
    home.commit(deploy)
    pgcat = deploy / "kubernetes/pgcat-deployment.yaml"
    pgcat.write_text("# ours\n" + pgcat.read_text())
    home.commit(deploy)
    page.run("PGCAT_STACK_DISCARD_EDITS=1 copier update", deploy)
    assert stored(deploy)["topology"] == "sidecar"
    assert not pgcat.exists()

    home.commit(deploy)
    readme = deploy / "README.md"
    readme.write_text("Ours.\n" + readme.read_text())
    home.commit(deploy)
    shown = page.run("copier recopy --trust --defaults --overwrite --vcs-ref :current:", deploy)
    assert "-Ours." in shown and "PS51" not in shown
    home.commit(deploy)

    several = tmp_path / "several"
    several.mkdir()
    home.git(several, "init", "--quiet")
    page.run("copier copy --trust --defaults --data topology=standalone", several)
    page.run("copier copy --trust --defaults --answers-file", several)

    forks = tmp_path / "forks"
    forks.mkdir()
    page.run("git clone", forks)
    (home.folder / ".gitconfig").write_text(
        (home.folder / ".gitconfig").read_text()
        + f'[url "file://{forks / "acme"}"]\n\tinsteadOf = https://github.com/acme/pgcat-stack.git\n'
    )
    changing = home.deployment(tmp_path / "changing", "0.9.0", *answers)
    before = stored(changing)
    page.run("sed -i 's#^_src_path", changing)
    assert before.items() <= stored(changing).items()
    assert "_commit: 1.0.0+acme.1" in (changing / ".copier-answers.yml").read_text()
    home.commit(changing)
    run = home.copier("update", "--trust", "--defaults", "--data=secrets=external-secrets", cwd=changing)
    assert run.returncode == 0, run.stdout + run.stderr
    assert stored(changing)["secret_store"] == "vault"

    home.commit(home.template, "not released")
    page.run("copier update --trust --defaults --vcs-ref HEAD", deploy)
    answers = deploy / ".copier-answers.yml"
    assert "_commit: 1.0.0-1-g" in answers.read_text()
    home.commit(deploy)
    run = home.copier("update", "--trust", "--defaults", cwd=deploy)
    assert run.returncode == 1 and "You are downgrading" in run.stderr
    home.git(home.template, "tag", "1.0.1")
    shallow = tmp_path / "shallow"
    home.git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{deploy}", str(shallow))
    run = home.copier("update", "--trust", "--defaults", "--skip-answered", cwd=shallow)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "_commit: 1.0.1" in (shallow / ".copier-answers.yml").read_text()
    answers.write_text(answers.read_text().replace("_commit: 1.0.0-1-g", "_commit: 1.0.0-1-gdeadbeef"))
    home.commit(deploy)
    run = home.copier("update", "--trust", "--defaults", cwd=deploy)
    assert run.returncode == 1 and "invalid reference: 1.0.0-1-gdeadbeef" in run.stderr
    page.run("git status --short", deploy)
    assert "_commit: 1.0.1" in answers.read_text()
    page.check_all_ran()


ONE_POOL = """
[general]
admin_username = "postgres"
admin_password = "admin-secret"
[pools.postgres]
pool_mode = "session"
query_parser_enabled = true
query_parser_read_write_splitting = true
[pools.postgres.users.0]
username = "postgres"
password = "user-secret"
pool_size = 20
[pools.postgres.shards.0]
servers = [["primary", 5432, "primary"], ["replica", 5432, "replica"]]
database = "permify"
"""
PERMIFY = """
database:
  engine: postgres
  writer: {uri: "postgresql://postgres:user-secret@pgcat:6432/postgres"}
  reader: {uri: "postgresql://postgres:user-secret@pgcat:6432/postgres"}
  max_open_connections: 1
"""


def test_readme(released: Home, tmp_path: Path) -> None:
    page = Page("README.md", released)
    shown = page.run("uvx copier copy", tmp_path)
    assert "0 errors, 0 warnings" in shown and "docker compose up --wait" in shown
    page.leave("cd deploy && docker compose up", "tests/live/test_compose.py starts what the defaults render")
    page.leave("uv tool install", "it asks GitHub; the workflow of a release installs the wheel")
    (tmp_path / "pgcat.toml").write_text(ONE_POOL)
    (tmp_path / "permify.yaml").write_text(PERMIFY)
    shutil.rmtree(tmp_path / "deploy/secrets")  # as in a fresh clone
    shown = page.run("pgcat-stack validate", tmp_path)
    for expected in ("0 errors", "The budget holds.", "made secrets/", "pool_mode: session"):
        assert expected in shown, expected
    # Nothing runs: the doctor says so, in the way that its page has it.
    shown = page.run("pgcat-stack doctor", tmp_path, code=2)
    assert "nothing of this deployment could be asked" in shown
    page.leave("./dev copier copy", "tests/render/test_copier.py copies from a git repository")
    page.leave("./dev pytest", "this is it")
    page.check_all_ran()


def test_examples_page(released: Home, tmp_path: Path) -> None:
    page = Page("examples/README.md", released)
    shutil.copytree(REPOSITORY / "examples/sidecar", tmp_path / "examples/sidecar")
    assert "(sidecar) is in" in page.run("copier copy", tmp_path)
    page.leave(
        "./dev python examples/rebuild.py", "tests/render/test_examples.py does it into another folder"
    )
    page.check_all_ran()


@repeats
def test_adopt(released: Home, tmp_path: Path) -> None:
    page = Page("docs/adopt.md", released)
    (tmp_path / "pgcat.toml").write_text(ONE_POOL)
    (tmp_path / "permify.yaml").write_text(PERMIFY)
    page.run("pgcat-stack adopt", tmp_path)
    page.leave("tr -d", "keys of callers that exist; tests/live/test_callers.py writes some")
    shown = page.run("copier copy", tmp_path)
    assert "The budget holds." in shown
    page.run("printf", tmp_path / "deploy")
    assert "enabled: true" in (tmp_path / "deploy/permify/permify.yaml").read_text()
    everything = "".join(
        path.read_text()
        for path in (tmp_path / "deploy").rglob("*")
        if path.is_file() and ".git" not in path.parts
    )
    assert "user-secret" not in everything and "admin-secret" not in everything
    assert stored(tmp_path / "deploy")["pool_mode"] == "session"
    page.check_all_ran()


ELSEWHERE = {
    "CONTRIBUTING.md": "a newcomer's tour; tests/unit/test_markdown.py knows that all of it is there",
    "docs/maintaining.md": "releases, programs; tests/unit/test_markdown.py knows that all is there",
    "docs/doctor.md": "tests/live/test_doctor.py compares what it shows",
    "docs/kubernetes.md": "custom resources of operators; tests/unit/test_markdown.py reads them",
    "docs/monitoring.md": "tests/live/test_compose.py starts the profile",
    "docs/benchmarks.md": "half an hour of measuring; each table is written by its command",
    "docs/operations.md": "tests/live/test_runbook.py finds and ends what took the connections",
}
"""Pages whose blocks no test of this module runs, and what holds them."""


def test_every_page_with_commands_is_run_or_held_elsewhere() -> None:
    pages = {
        name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md")
    } | {page.relative_to(REPOSITORY).as_posix() for page in (REPOSITORY / "docs").glob("*.md")}
    languages = ("bash", "console", "sql", "yaml", "toml", "ini")
    with_blocks = {
        name
        for name in pages
        if any(code_blocks((REPOSITORY / name).read_text(), language) for language in languages)
    }
    here = {"README.md", "examples/README.md", "docs/update.md", "docs/adopt.md"}
    assert with_blocks == here | ELSEWHERE.keys()
