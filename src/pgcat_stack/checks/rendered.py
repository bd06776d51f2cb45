"""PS517, PS518: whether the files are those of the version and the answers that Copier believes they are.

budget.yaml carries under `rendered` what the template wrote there: its version, the answers file, and a
digest of the answers. Each of these leaves the two out of step, and Copier ends most of them with exit 0: an
answers file edited by hand, `copier recopy` that replaced nothing, one side of a merge, a bot's pull request.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import as_mapping, as_text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import BUDGET
from pgcat_stack.printable import show
from pgcat_stack.reading.reading import Reading

DIGITS = 16
"""Of the digest, in hexadecimal: enough, because nothing here is secret or guards against an attacker."""

_KEYS = frozenset({"version", "answers_file", "answers"})
_OURS = frozenset({"topology", "postgres_max_connections"})
"""Answers that every deployment of this template stores: another template's file does not have both."""
_FIRST_RELEASE = (1, 1)
"""The first whose budget.yaml says what it was rendered from."""
_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.\d+)*(?:\+[A-Za-z0-9.]+)?")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's own rules, in C where it was built with it."""
_NO_ANSWER = "rendered_from"
"""In the answers file, and no answer: the address that the files name."""
_RENOVATE = re.compile(r"^#copier updated\s*$", re.MULTILINE)
"""What Renovate appends before it runs Copier, whose success writes the whole file anew
(lib/modules/manager/copier/update.ts of renovatebot/renovate)."""
_MARKER = re.compile(r"^(?:<<<<<<< |>>>>>>> )", re.MULTILINE)


@check(
    code="PS517",
    name="update-did-not-happen",
    severity="error",
    needs=(BUDGET,),
    why="The answers file and the files are of different versions: an update was refused or failed after"
    " Renovate had marked the answers file, or one side of a merge was dropped. The next update would take"
    " the difference for edits of yours.",
    fix="Restore the answers file, `git checkout COMMIT -- .copier-answers.yml` with the commit before the"
    " attempt, and run `copier update` yourself.",
)
def update_did_not_happen(reading: Reading) -> Iterator[Problem]:
    """Renovate's mark in the answers file; a version there that is not the one in budget.yaml."""
    source = _answers_file(reading)
    if source is not None:
        for location, text in _other_version(source, _rendered(reading)):
            fix = f"restore {source.path} as it was before the update, and run `copier update` again"
            yield Problem(location, text, fix)


def _other_version(source: Source, rendered: dict[str, Any] | None) -> Iterator[tuple[Location, str]]:
    """Where and why an answers file is not of the version of the files; at most one."""
    mark = _RENOVATE.search(source.text)
    if mark:
        line = source.text.count("\n", 0, mark.start()) + 1
        yield source.here(line), "Renovate's mark of an update that failed: none of it is here"
        return
    stored = _stored(source)
    if stored is None:
        return
    commit = as_text(stored.get("_commit"))
    if rendered is None:
        release = _RELEASE.fullmatch(commit)
        if release and (int(release[1]), int(release[2])) >= _FIRST_RELEASE:
            text = f"the answers file says version {show(commit)}, and the files are of an older one"
            yield source.at("_commit"), text
    elif as_text(rendered.get("version")) != commit:
        theirs = as_text(rendered.get("version"))
        text = (
            f"the answers file says version {show(commit) if commit else 'none'},"
            f" {BUDGET} {show(theirs) if theirs else 'none'}"
        )
        yield source.at("_commit"), text


@check(
    code="PS518",
    name="answers-out-of-step",
    severity="warning",
    needs=(BUDGET,),
    why="Copier takes the answers file for what the files were rendered from. Where that is not so, as after"
    " an answer changed by hand, or a `copier recopy` that replaced no file, the next update takes the"
    " difference for edits of yours and keeps it.",
    fix="To have the answers follow the files, restore the answers file from git, and give a new answer by"
    " `copier update --trust --defaults --vcs-ref :current: --data KEY=VALUE`. To have the files follow the"
    " answers, run `copier recopy --trust --defaults --overwrite --vcs-ref :current:`, and bring back your"
    " edits from `git diff`.",
)
def answers_out_of_step(reading: Reading) -> Iterator[Problem]:
    """Answers other than those that the files were rendered from; an answers file that is gone."""
    rendered = _rendered(reading)
    if rendered is None:
        return
    budget = reading.sources[BUDGET]
    wrong = [key for key, value in rendered.items() if key not in _KEYS or not isinstance(value, str)]
    if wrong or not rendered.keys() >= _KEYS - {"version"}:
        text = "`rendered` is version, answers_file and answers, each in quotes"
        yield Problem(budget.at("rendered", *wrong[:1]), text, f"restore it: `git log -p {BUDGET}` has it")
        return
    source = _answers_file(reading)
    if source is None:
        text = f"{show(rendered['answers_file'])} is missing: nothing can be updated"
        fix = "restore it from git; if it has another name now, correct `answers_file` here"
        yield Problem(budget.at("rendered", "answers_file"), text, fix)
        return
    digest = answers_digest(source)
    if digest is None:
        if not _MARKER.search(source.text):  # else PS105 says so
            yield Problem(source.here(), "cannot be read: nothing can be updated", "restore it from git")
    elif digest != rendered["answers"] and not any(_other_version(source, rendered)):
        text = "these are not the answers that the files were rendered from"
        fix = "restore them from git, and give a new answer by `copier update --data KEY=VALUE`"
        yield Problem(source.here(), text, fix)


def answers_digest(source: Source) -> str | None:
    """The digest of the answers in an answers file, as budget.yaml has it; None where it cannot be read.

    What Copier keeps for itself (`_commit`, `_src_path`) is no answer.
    """
    stored = _stored(source)
    if stored is None:
        return None
    answers = {
        str(key): value for key, value in stored.items() if not str(key).startswith("_") and key != _NO_ANSWER
    }
    text = json.dumps(answers, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _stored(source: Source) -> dict[Any, Any] | None:
    """An answers file as PyYAML reads it, and so Copier: a `Source` takes the commit 1e45678 for a number."""
    if not source.parsed:
        return None
    try:
        stored = yaml.load(source.text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) else None


def _rendered(reading: Reading) -> dict[str, Any] | None:
    """What budget.yaml says of its origin; None where it says nothing, as until 1.0.0."""
    budget = reading.budget
    if budget is None or "rendered" not in budget.mapping:
        return None
    return as_mapping(budget.mapping["rendered"])


def _answers_file(reading: Reading) -> Source | None:
    """The answers file that budget.yaml names, or else the one that has this template's answers."""
    known = {**reading.sources, **{source.path: source for source in reading.answers}}
    rendered = _rendered(reading)
    if rendered is not None:
        return known.get(as_text(rendered.get("answers_file")))
    found = (source for source in known.values() if source.path.startswith(".copier-answers"))
    return next((source for source in found if source.mapping.keys() >= _OURS), None)
