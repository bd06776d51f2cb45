"""The page of questions, made from copier.yml and what it includes.

`./dev python docs/questions.py > docs/questions.md` writes it.

Help and defaults are Jinja that reads other answers. Here Copier answers the whole interview for each of
`CASES` and renders them; what is the same in all of them is said once.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from copier._main import Worker
from copier._user_data import Question

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / part) for part in ("src", "tests")]

from pages import anchor  # noqa: E402
from rendering import environment, template  # noqa: E402

_EXTERNAL = {"primary_host": "db-1", "replica_hosts": "db-2"}
CASES: dict[str, dict[str, Any]] = {
    "docker": {},
    "docker with a database of yours": {"database": "external", **_EXTERNAL},
    "docker direct": {"pooling": "direct"},
    "standalone": {"topology": "standalone", **_EXTERNAL},
    "standalone direct": {"topology": "standalone", "pooling": "direct", **_EXTERNAL},
    "sidecar": {"topology": "sidecar", **_EXTERNAL},
}
"""Answers that differ in what is asked, proposed and said; all of them with the advanced questions."""

FIRST = "1.0.0"
"""The version whose questions the table does not mark."""
GONE: dict[str, dict[str, str]] = {}
"""For each version the questions that it renamed or removed, and what became of each."""


@dataclass
class Asked:
    """One question: its possible answers, when it is asked, and its words in each case where it is."""

    key: str
    kind: str
    condition: str
    advanced: bool
    help: dict[str, str] = field(default_factory=dict)
    default: dict[str, str] = field(default_factory=dict)


def render_page() -> str:
    """The page as Markdown, with a line end at its end."""
    sections = _sections()
    version_of = since()
    parts = [
        "# Questions\n",
        "What `copier copy` asks, in its order. The names are the keys of `--data` and of an answers file.\n"
        "This page is made from the questions by `./dev python docs/questions.py > docs/questions.md`.\n"
        "Editors with JSON Schema take [answers.schema.json](answers.schema.json) for a `--data-file`.\n",
        "A default of `0`, or an empty one, mostly means: derived afresh at every render, so that a stored\n"
        "answer never goes stale. Answers that cannot work, alone or together, are refused in one line with\n"
        "the remedy, before anything is written.\n",
        "| about | questions |\n|---|---|\n"
        + "".join(
            f"| [{title}](#{anchor(title)}) | {' · '.join(f'[{q.key}](#{q.key})' for q in questions)} |\n"
            for title, questions in sections
        ),
    ]
    for title, questions in sections:
        parts.append(f"## {title}\n")
        if questions[0].advanced:
            parts.append("Asked when `advanced` is true; a condition below is a further one.\n")
        parts += [_entry(question, version_of[question.key]) for question in questions]
    parts.append(history())
    return "\n".join(parts)


def _sections() -> list[tuple[str, list[Asked]]]:
    """Title and visible questions of each file that copier.yml includes, where it has any."""
    asked = _asked()
    found = []
    for name, about in re.findall(
        r"^!include (\S+) # (.+)$", (REPOSITORY / "copier.yml").read_text(), re.MULTILINE
    ):
        questions = [asked[key] for key in yaml.safe_load((REPOSITORY / name).read_text()) if key in asked]
        if questions:
            found.append((about[0].upper() + about[1:], questions))
    return found


def table() -> Any:
    """questions/table.jinja as a module."""
    return environment().get_template("questions/table.jinja").module


def _asked() -> dict[str, Asked]:
    rules = table()
    found: dict[str, Asked] = {}
    for case, answers in CASES.items():
        for question, details in _interview({**answers, "advanced": True}):
            key = question.var_name
            if key not in rules.keys:
                continue
            asked = found.setdefault(key, Asked(key, _kind(key, rules), *_condition(details.get("when"))))
            if question.get_when():
                asked.help[case] = _prose(question.render_value(question.help), key, rules)
                asked.default[case] = _default(question, details)
            elif case == "standalone":  # for what is asked in none of the cases
                asked.help[""] = _prose(question.render_value(question.help), key, rules)
                asked.default[""] = _default(question, details)
    for asked in found.values():
        if len(asked.help) > 1:
            asked.help.pop("", None)
            asked.default.pop("", None)
    return found


def helps() -> dict[str, str]:
    """The help of each question in one line, as it is asked in the first of `CASES` that asks it."""
    return {key: " ".join(next(iter(asked.help.values())).split()) for key, asked in _asked().items()}


def _interview(data: Mapping[str, Any]) -> list[tuple[Question, Mapping[str, Any]]]:
    """Every question after all of them were answered: by `data`, the others by their defaults."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Worker(src_path=str(template()), dst_path=Path(folder), data=dict(data), defaults=True) as worker,
    ):
        worker._ask()
        return [
            (
                Question(
                    answers=worker.answers,
                    context=worker._render_context(),
                    jinja_env=worker.jinja_env,
                    var_name=key,
                    **details,
                ),
                details,
            )
            for key, details in worker.template.questions_data.items()
        ]


def _kind(key: str, rules: Any) -> str:
    if key in rules.choices:
        return "one of " + ", ".join(f"`{choice}`" for choice in rules.choices[key])
    if key in rules.numbers:
        low, high = rules.numbers[key]
        return f"whole number, {low} to {high}"
    return "true or false" if key in rules.booleans else "text"


def _condition(when: str | None) -> tuple[str, bool]:
    """The question's `when` as its file has it, without `advanced`, and whether that was in it."""
    text = " ".join((when or "").replace("{{", "").replace("}}", "").split())
    rest = re.sub(r"^advanced( and )?", "", text)
    return rest, rest != text


def _default(question: Question, details: Mapping[str, Any]) -> str:
    if "default" not in details:
        return "none, it must be answered"
    value = str(question.render_value(details["default"], extra_answers={"UNSET": ""}))
    if question.get_type_name() == "bool":
        value = value.lower()
    return f"`{value}`" if value else "empty"


def _prose(text: str, key: str, rules: Any) -> str:
    """A help text as Markdown: what it says of one answer becomes an item of a list."""
    answers = "|".join(["Empty", "0", *rules.choices.get(key, [])])
    lines: list[str] = []
    items = False
    for line in text.strip().splitlines():
        answer = re.match(rf"({answers}): (?=\S)", line)
        if answer:
            name = answer[1] if answer[1] == "Empty" else f"`{answer[1]}`"
            lines += [""] * (not items)
            lines.append(f"- {name}: {line[answer.end() :]}")
            items = True
        else:
            lines.append(f"  {line}" if items else line)
    marked = "\n".join(lines).strip("\n")
    for other in rules.keys:
        if "_" in other:
            marked = re.sub(rf"(?<![\w`/]){other}(?![\w`])", f"`{other}`", marked)
    return marked


def _same(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Each different text with the cases that have it."""
    groups: dict[str, list[str]] = {}
    for case, text in texts.items():
        groups.setdefault(text, []).append(case)
    return groups


def _named(cases: list[str], asked: Mapping[str, str]) -> str:
    """These cases in words: a platform where they are all of it in which the question is asked."""
    docker = [case for case in asked if case.startswith("docker")]
    kubernetes = [case for case in asked if case not in docker]
    words: list[str] = []
    for platform, members in (("docker", docker), ("Kubernetes", kubernetes)):
        inside = [case for case in cases if case in members]
        words += [platform] if inside == members and len(members) > 1 else inside
    return ", ".join(words)


def _entry(question: Asked, since: str) -> str:
    defaults, helps = _same(question.default), _same(question.help)
    default = "; ".join(
        text + (f" ({_named(cases, question.default)})" if len(defaults) > 1 else "")
        for text, cases in defaults.items()
    )
    facts = [question.kind, f"default {default}"]
    if question.condition:
        facts.append(f"asked when `{question.condition}`")
    if since != FIRST:
        facts.append(f"since {since}")
    lines = [f"### {question.key}\n", f"*{' · '.join(facts)}*\n"]
    for text, cases in helps.items():
        if len(helps) > 1:
            lines.append(f"**{_named(cases, question.help)}**\n")
        lines.append(text + "\n")
    return "\n".join(lines)


def since() -> dict[str, str]:
    """The version that brought each question, by the table."""
    return {key: rule.get("since", FIRST) for key, rule in table().questions.items()}


def history() -> str:
    """The section of that name."""
    new: dict[str, list[str]] = {FIRST: ["all that no later version names"]}
    for key, version in since().items():
        if version != FIRST:
            new.setdefault(version, []).append(key)
    rows = []
    for version in dict.fromkeys((*new, *GONE)):
        gone = "; ".join(f"{key}: {became}" for key, became in GONE.get(version, {}).items())
        rows.append(f"| {version} | {', '.join(new.get(version, ())) or '–'} | {gone or '–'} |\n")
    return "## History\n\n| since | new questions | renamed or gone |\n|---|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(render_page())
