"""For every old version and topology: an update gives what a copy gives, and keeps what users wrote."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from copier.errors import TaskError
from packaging.version import Version

from old_versions import ANSWERS, NEXT, InProcess, stored, tree
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading

MARK = "pgcat-stack-test"
UNCHANGED = {"authn": "none", "probe": False}
"""Answers that an update gives to questions which came later, so that a deployment stays as it is."""


def test_without_edits_an_update_equals_a_copy(
    in_process: InProcess, tmp_path: Path, old: str, topology: str
) -> None:
    deploy = in_process.copy(tmp_path / "deploy", old, ANSWERS[topology])
    answers = {**UNCHANGED, **stored(deploy)}
    in_process.update_without_hooks(deploy)
    assert tree(deploy) == in_process.render(tmp_path / "fresh", NEXT, answers)


test_without_edits_an_update_equals_a_copy.draw = 4  # type: ignore[attr-defined]


def test_edits_are_kept(in_process: InProcess, tmp_path: Path, old: str, topology: str) -> None:
    """In each file a line is changed and one is added, a file is added in each folder, and one is deleted."""
    deploy = in_process.copy(tmp_path / "deploy", old, ANSWERS[topology])
    fresh = in_process.render(tmp_path / "fresh", NEXT, {**UNCHANGED, **stored(deploy)})
    edited = {}
    for path, content in tree(deploy).items():
        if path in fresh and path != ".copier-answers.yml":
            text, after = content.decode(), fresh[path].decode()
            line = kept_line(text, after)
            if not line:  # written anew: an edit of it is a conflict
                continue
            edited[path] = after.replace(line, changed(line, path) + added(path), 1)
            (deploy / path).write_text(text.replace(line, changed(line, path) + added(path), 1))
    for folder in {Path(path).parent for path in edited}:
        edited[(folder / "ours.md").as_posix()] = f"{MARK}\n"
        (deploy / folder / "ours.md").write_text(f"{MARK}\n")
    assert len(edited) > 8
    deleted = "postgres/bootstrap.sql"
    del edited[deleted]
    (deploy / deleted).unlink()
    in_process.home.commit(deploy, "edits")

    in_process.update_without_hooks(deploy)

    found = tree(deploy)
    assert deleted not in found
    assert {path: text.encode() for path, text in edited.items()} == {path: found[path] for path in edited}


def test_an_edit_of_a_line_that_changed_is_a_conflict(
    in_process: InProcess, tmp_path: Path, old: str, topology: str
) -> None:
    deploy = in_process.copy(tmp_path / "deploy", old, ANSWERS[topology])
    fresh = in_process.render(tmp_path / "fresh", NEXT, {**UNCHANGED, **stored(deploy)})
    edited = {}
    for path, content in tree(deploy).items():
        line = changed_line(content.decode(), fresh.get(path, b"").decode())
        if line and path != ".copier-answers.yml":
            edited[path] = line
            (deploy / path).write_text(content.decode().replace(line, f"{line[:-1]} {MARK}\n", 1))
    if not edited:  # a release may replace no line of a topology, and the newest one replaces none at all
        assert Version(old) >= Version("1.0.0"), "what stands for earlier versions differs in every topology"
        return
    in_process.home.commit(deploy, "edits")

    with pytest.raises(TaskError):
        in_process.update(deploy)

    found = {path: text.decode() for path, text in tree(deploy).items()}
    reported = {
        (finding.path, finding.line)
        for finding in run_checks(Reading.load(deploy))
        if finding.code == "PS105"
    }
    for path in edited:
        assert MARK in found[path], f"{path}: the edit is lost"
        marked = [
            number
            for number, line in enumerate(found[path].splitlines(), 1)
            if line in ("<<<<<<< before updating", ">>>>>>> after updating")
        ]
        assert marked, f"{path}: changed on both sides and merged in silence"
        assert {(path, number) for number in marked} <= reported


test_an_edit_of_a_line_that_changed_is_a_conflict.draw = 2  # type: ignore[attr-defined]


def kept_line(before: str, after: str) -> str:
    """A line in the middle of the longest run that is in both, and nowhere else in them; or nothing.

    Three lines on each side are what a merge goes by.
    """
    a, b = before.splitlines(keepends=True), after.splitlines(keepends=True)
    blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    for block in sorted(blocks, key=lambda block: -block.size):
        middle = block.a + block.size // 2
        at_edges = 0 if a == b else 3
        lines = range(block.a + at_edges, block.a + block.size - at_edges)
        for index in sorted(lines, key=lambda index: abs(index - middle)):
            line = a[index]
            if line.strip() and before.count(line) == after.count(line) == 1:
                return line
    return ""


def changed_line(before: str, after: str) -> str:
    """A line that the new version replaces, or nothing."""
    a, b = before.splitlines(keepends=True), after.splitlines(keepends=True)
    for tag, first, last, _, _ in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for line in a[first:last] if tag == "replace" else ():
            if line.strip() and before.count(line) == 1:
                return line
    return ""


def changed(line: str, path: str) -> str:
    return f"{line[:-1]} {comment(path)} {MARK}\n"


def added(path: str) -> str:
    return f"{comment(path)} {MARK} added\n"


def comment(path: str) -> str:
    return {".sql": "--", ".md": "*"}.get(Path(path).suffix, "#")
