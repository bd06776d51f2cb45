from __future__ import annotations

import os
from pathlib import Path

import pytest

from handmade import edit, findings_of


def codes(folder: Path) -> list[tuple[str, str, int]]:
    return [(finding.code, finding.path, finding.line) for finding in findings_of(folder)]


def test_a_clean_deployment_has_no_findings(folder: Path) -> None:
    assert codes(folder) == []


def test_a_folder_in_place_of_a_file(folder: Path) -> None:
    (folder / "pgcat/pgcat.toml").unlink()
    (folder / "pgcat/pgcat.toml").mkdir()
    assert codes(folder) == [("PS101", "pgcat/pgcat.toml", 1)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights(folder: Path) -> None:
    (folder / "compose.yaml").chmod(0)
    assert codes(folder) == [("PS101", "compose.yaml", 1)]


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    assert codes(folder) == [("PS101", "pipe.yaml", 1)]


def test_a_loop_of_links(folder: Path) -> None:
    (folder / "loop.yaml").symlink_to("loop.yaml")
    assert codes(folder) == [("PS101", "loop.yaml", 1)]


def test_an_alias_bomb(folder: Path) -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 20))
    (folder / "bomb.yaml").write_text(text)
    assert [code for code, _, _ in codes(folder)] == ["PS101"]


def test_bytes_that_are_not_utf_8(folder: Path) -> None:
    (folder / "notes.md").write_bytes(b"one\ntwo \xe9\n")
    assert codes(folder) == [("PS102", "notes.md", 2)]


def test_broken_yaml(folder: Path) -> None:
    edit(folder, "compose.yaml", ("services:", "services: ["))
    assert codes(folder)[0][:2] == ("PS103", "compose.yaml")


def test_broken_toml(folder: Path) -> None:
    edit(folder, "pgcat/pgcat.toml", ("port = 6432", "port = "))
    assert codes(folder) == [("PS103", "pgcat/pgcat.toml", 3)]


def test_duplicate_keys(folder: Path) -> None:
    edit(
        folder,
        "permify/permify.yaml",
        ("  max_connections: 8\n", "  max_connections: 8\n  max_connections: 9\n"),
    )
    edit(folder, "pgcat/pgcat.toml", ("port = 6432", "port = 6432\nport = 6433"))
    assert codes(folder) == [("PS104", "permify/permify.yaml", 14), ("PS104", "pgcat/pgcat.toml", 4)]


def test_conflict_markers_are_named_and_nothing_else(folder: Path) -> None:
    ours, theirs = "  max_connections: 8\n", "  max_connections: 4\n"
    conflict = f"<<<<<<< before updating\n{ours}=======\n{theirs}>>>>>>> after updating\n"
    edit(folder, "permify/permify.yaml", ("  max_connections: 8\n", conflict))
    assert codes(folder) == [("PS105", "permify/permify.yaml", line) for line in (13, 15, 17)]


CONFLICT = "<<<<<<< before updating\nours\n=======\ntheirs\n>>>>>>> after updating\n"


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "postgres/bootstrap.sql", "pgcat/start.sh", "notes/x.json", "pgcat/pgcat.toml"),
        *("compose.yaml", ".gitignore", ".copier-answers.yml", ".copier-answers.pgcat-stack.yml", "Makefile"),
        "docs/ours.md",
    ],
)
@pytest.mark.parametrize("before", ["", "```bash\n"], ids=["plain", "in a code block"])
def test_conflicts_of_an_update_are_found_in_any_file(folder: Path, name: str, before: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(before + CONFLICT)
    first = 1 + before.count("\n")
    found = [(path, line) for code, path, line in codes(folder) if code == "PS105"]
    assert found in (
        [(name, first), (name, first + 2), (name, first + 4)],
        [(name, first), (name, first + 4)],
    )


def test_conflicts_of_a_merge_in_a_code_block(folder: Path) -> None:
    text = "```\n" + CONFLICT.replace("before updating", "HEAD").replace("after updating", "branch") + "```\n"
    (folder / "README.md").write_text(text)  # rendered: no place for examples
    (folder / "git.md").write_text(text)
    assert codes(folder) == [("PS105", "README.md", line) for line in (2, 4, 6)]


def test_underlined_headings_are_no_conflict(folder: Path) -> None:
    (folder / "README.md").write_text("Title\n=======\n\n    <<<<<<< quoted\n")
    assert codes(folder) == []


@pytest.mark.parametrize("suffix", [".rej", ".orig"])
def test_leftovers_of_an_update(folder: Path, suffix: str) -> None:
    (folder / f"compose.yaml{suffix}").write_text("@@ -1 +1 @@\n")
    assert codes(folder) == [("PS106", f"compose.yaml{suffix}", 1)]


def test_a_rej_file_is_said_to_hold_the_users_edit(folder: Path) -> None:
    (folder / "compose.yaml.rej").write_text("@@ -1 +1 @@\n")
    (finding,) = findings_of(folder)
    assert "an edit of yours" in finding.message
    assert finding.fix == "make the edit again in 'compose.yaml' if you still want it, then delete this file"


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("engine: postgres", "engine: postgres ", "trailing-spaces"),
        ("engine: postgres", "engine:  postgres", "colons"),
        ('port: "3478"', "port: '3478'  # " + "x " * 90, "line-length"),
        ("  http:\n    port", "  http:\n     port", "indentation"),
    ],
)
def test_yaml_style(folder: Path, old: str, new: str, rule: str) -> None:
    edit(folder, "permify/permify.yaml", (old, new))
    found = findings_of(folder)
    assert {finding.code for finding in found} == {"PS107"}
    assert any(f"[{rule}]" in finding.message for finding in found)
    assert all(finding.severity == "warning" for finding in found)


def test_answers_secrets_and_git_are_not_read(folder: Path) -> None:
    for name in (".copier-answers.yml", "secrets/password.yaml", ".git/config.yaml", "venv/pyvenv.cfg"):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("a: [\n")
    (folder / "other").mkdir()
    (folder / "other/pyvenv.cfg").write_text("home = /\n")
    (folder / "other/x.yaml").write_text("a: [\n")
    assert codes(folder) == []
