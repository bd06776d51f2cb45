"""What a deployment's git repository and its files may do to the hooks: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pgcat_stack import cli
from pgcat_stack.checks.scraping import _NAMES, _QUOTED
from pgcat_stack.checks.secrets_in_clear import _IN_URI
from pgcat_stack.files import git
from pgcat_stack.files.folder import MAX_FILE_BYTES
from pgcat_stack.report.update import _committed

SOURCES = Path(__file__).resolve().parents[2] / "src"

REGULAR, LINK, TREE = b"100644", b"120000", b"40000"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository without a commit."""
    place = tmp_path / "repository"
    place.mkdir()
    ask(place, "init", "--quiet")
    return place


def ask(place: Path, *arguments: str, given: bytes = b"") -> str:
    """What git says."""
    options = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(
        ["git", "-C", place, *options, *arguments], input=given, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def stored(place: Path, kind: str, content: bytes) -> str:
    """The name of an object that git keeps as it is, sound or not."""
    return ask(place, "hash-object", "-w", "-t", kind, "--literally", "--stdin", given=content)


def tree(place: Path, *entries: tuple[bytes, bytes, str]) -> str:
    """A folder of these entries: mode, name, object."""
    return stored(
        place, "tree", b"".join(b"%b %b\0%b" % (mode, name, bytes.fromhex(at)) for mode, name, at in entries)
    )


@pytest.mark.parametrize("first", [LINK, TREE])
def test_a_commit_with_a_file_behind_a_link_is_not_written_outside(
    repository: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """A tree may name a link and a folder alike, and two links may lead where neither leads alone."""
    outside = repository.parent / "outside"
    outside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(outside.parent))
    up = tree(
        repository,
        (TREE, b"a", tree(repository, (LINK, b"up", stored(repository, "blob", b"../..")))),
    )
    # By its text it stays inside; through `up` it leads beside the temporary folder.
    climbing = stored(repository, "blob", b"a/a/up/../outside")
    twins = [
        (LINK, b"b", climbing),
        (TREE, b"b", tree(repository, (REGULAR, b"x", stored(repository, "blob", b"x")))),
    ]
    if first == TREE:
        twins.reverse()
    files = [
        (TREE, b"a", up),
        *twins,
        (REGULAR, b"compose.yaml", stored(repository, "blob", b"services: {}\n")),
    ]
    commit = ask(repository, "commit-tree", tree(repository, *files), "-m", "x")
    ask(repository, "update-ref", "HEAD", commit)
    with _committed(repository) as before:
        assert before is None or before.compose
        assert list(outside.iterdir()) == []


@pytest.mark.parametrize("old", [False, True], ids=["this git", "one without GIT_NO_LAZY_FETCH"])
def test_a_missing_object_starts_no_program_that_the_repository_names(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    (repository / "compose.yaml").write_text("services: {}\n")
    ask(repository, "add", ".")
    ask(repository, "commit", "--quiet", "-m", "x")
    name = ask(repository, "rev-parse", "HEAD:compose.yaml")
    (repository / ".git/objects" / name[:2] / name[2:]).unlink()
    ran = tmp_path / "ran"
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": str(tmp_path),
        "remote.origin.uploadPack": f"touch '{ran}'; git-upload-pack",
    }.items():
        ask(repository, "config", key, value)
    if old:
        monkeypatch.delitem(git._QUIET, "GIT_NO_LAZY_FETCH")
    with pytest.raises(git.GitError):
        git.committed_files(repository)
    assert not ran.exists()


def test_a_huge_file_of_a_commit_is_not_read(repository: Path) -> None:
    (repository / "compose.yaml").write_text("services: {}\n")
    (repository / "huge").write_bytes(bytes(MAX_FILE_BYTES + 1))
    (repository / "full").write_bytes(bytes(MAX_FILE_BYTES))
    ask(repository, "add", ".")
    ask(repository, "commit", "--quiet", "-m", "x")
    assert set(git.committed_files(repository)) == {"compose.yaml", "full"}


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pgcat_stack.report import update as update_report
from pgcat_stack import cli
def plan(deployment):
    print("planning", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
update_report.plan = plan
sys.exit(cli.hook(Path(sys.argv[2])))
"""


def test_an_interruption_leaves_no_copy_of_the_last_commit(repository: Path, tmp_path: Path) -> None:
    (repository / "compose.yaml").write_text("services: {}\n")
    (repository / "budget.yaml").write_text("servers: []\n")
    ask(repository, "add", ".")
    ask(repository, "commit", "--quiet", "-m", "x")
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"STAGE": "after", "TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, SOURCES, repository],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "planning\n", "")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("name", ["a\\0b", "a\\ud800b"])
def test_a_secret_that_no_file_can_be_called(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with (folder / "compose.yaml").open("a") as stream:
        stream.write(f'\nsecrets: {{odd: {{file: "./secrets/{name}"}}}}\n')
    assert cli.main(["secrets", str(folder)]) in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    assert cli.main(["validate", str(folder)]) == 1


@pytest.mark.parametrize("text", ["a", "a.", "postgres://:", "a://b:", "a://b:c", "a:"])
def test_a_long_text_without_an_address_is_soon_read(text: str) -> None:
    """A tenth of a second; without limits it was minutes."""
    assert _IN_URI.search(text * (200_000 // len(text))) is None
    assert _NAMES.search(text * (200_000 // len(text))) is None


@pytest.mark.parametrize("text", ['"\\', "'\\", '"\\\n', "`"])
def test_quotes_without_an_end_are_soon_read(text: str) -> None:
    assert "pgcat" not in _QUOTED.sub("", text + "pgcat" + text * 100_000 + "pgcat")
    assert _QUOTED.sub("", 'a{b="c\\"d"} + \'e\' + `f`g') == "a{b=} +  + g"
