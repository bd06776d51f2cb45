"""PS1xx: files that can be read at all, and YAML that reads well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pgcat_stack.checks import check
from pgcat_stack.files.nodes import ProblemKind
from pgcat_stack.files.sources import BYTE_ORDER_MARK, Source
from pgcat_stack.findings import Problem
from pgcat_stack.printable import show
from pgcat_stack.reading.reading import Reading

if TYPE_CHECKING:
    from yamllint.config import YamlLintConfig

_CONFLICT = re.compile(r"^(?:<<<<<<< |>>>>>>> )", re.MULTILINE)
_COPIERS = ("<<<<<<< before updating", ">>>>>>> after updating")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LEFTOVERS = {
    ".rej": (
        "an edit of yours that `copier update --conflict rej` could not carry over, or a patch that failed",
        "make the edit again in {file} if you still want it, then delete this file",
    ),
    ".orig": ("a copy of a file from before a merge", "see whether {file} lacks it, then delete this file"),
}

_STYLE = """
rules:
  braces: {min-spaces-inside: 0, max-spaces-inside: 1}
  brackets: {min-spaces-inside: 0, max-spaces-inside: 1}
  colons: {max-spaces-before: 0, max-spaces-after: 1}
  indentation: {spaces: consistent, indent-sequences: consistent}
  line-length: {max: 160, allow-non-breakable-inline-mappings: true}  # a URI cannot be broken
  new-line-at-end-of-file: enable
  new-lines: {type: unix}
  trailing-spaces: enable
  truthy: {check-keys: false}
"""


def _of_kind(reading: Reading, *kinds: ProblemKind) -> Iterator[tuple[Source, Problem]]:
    for source in reading.sources.values():
        for problem in source.problems:
            if problem.kind in kinds:
                yield source, Problem(source.here(problem.line), problem.message)


@check(
    code="PS101",
    name="unreadable-file",
    severity="error",
    why="A file that cannot be read cannot be judged, and the program that needs it will not start either.",
    fix="Make it a regular file that you may read, of the size that a configuration has.",
)
def unreadable_file(reading: Reading) -> Iterator[Problem]:
    """Folders in place of files, missing rights, sizes and nesting that no deployment has."""
    for _, problem in _of_kind(reading, "unreadable", "limit"):
        yield problem


@check(
    code="PS102",
    name="not-utf-8",
    severity="error",
    why="PgCat, Permify, Compose and kubectl read UTF-8 and stop at the first byte that is not.",
    fix="Save the file as UTF-8.",
)
def not_utf_8(reading: Reading) -> Iterator[Problem]:
    """Bytes that are not UTF-8."""
    for _, problem in _of_kind(reading, "encoding"):
        yield Problem(problem.location, problem.message, "save the file as UTF-8")


@check(
    code="PS103",
    name="does-not-parse",
    severity="error",
    why="The program that reads this file refuses it and does not start.",
    fix="Mend the syntax on the line that is named, or just before it.",
)
def does_not_parse(reading: Reading) -> Iterator[Problem]:
    """TOML, YAML and JSON whose syntax does not hold."""
    for source, problem in _of_kind(reading, "syntax"):
        if source.path in reading.made_of and not _CONFLICT.search(source.text):  # else PS105 says so
            fix = "save it without" if source.text.startswith(BYTE_ORDER_MARK) else ""
            yield Problem(problem.location, f"not {source.language.upper()}: {problem.message}", fix)


@check(
    code="PS104",
    name="duplicate-key",
    severity="error",
    why="Of two values for one key a program takes one and drops the other, or refuses the file.",
    fix="Keep one of them.",
)
def duplicate_key(reading: Reading) -> Iterator[Problem]:
    """Keys and tables that stand twice in the same place."""
    for source, problem in _of_kind(reading, "duplicate-key"):
        if source.path in reading.made_of:
            yield Problem(problem.location, problem.message, "keep one of them")


@check(
    code="PS105",
    name="conflict-marker",
    severity="error",
    why="An update or a merge left both versions in the file, and nobody has chosen yet.",
    fix="Choose one version, or write a third, and remove the lines of <<<<<<<, ======= and >>>>>>>.",
)
def conflict_marker(reading: Reading) -> Iterator[Problem]:
    """Markers of an unresolved merge in any text file, Copier's answers too.

    A code block of Markdown may show an example of one, but not in the README.md that is rendered, and not
    with the words that Copier puts into its own.
    """
    for source in (*reading.sources.values(), *reading.answers):
        if "<<<<<<< " not in source.text and ">>>>>>> " not in source.text:
            continue
        is_open = False
        for number, line, is_example in _with_examples(source):
            if is_example and not line.startswith(_COPIERS):
                continue
            is_open = is_open or line.startswith("<<<<<<< ")
            if line.startswith(("<<<<<<< ", ">>>>>>> ")) or (is_open and line == "======="):
                yield Problem(
                    source.here(number),
                    f"conflict marker {line[:7]}",
                    "choose a version and remove the marker",
                )
            is_open = is_open and not line.startswith(">>>>>>> ")


def _with_examples(source: Source) -> Iterator[tuple[int, str, bool]]:
    """The lines of a file with their numbers, and whether they are in a code block of a user's Markdown."""
    markdown = source.path.lower().endswith((".md", ".markdown")) and source.path != "README.md"
    fence = ""
    for number, line in enumerate(source.text.splitlines(), 1):
        mark = _FENCE.match(line) if markdown else None
        yield number, line, bool(fence)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not line.strip(" \t`~"):
            fence = ""


@check(
    code="PS106",
    name="leftover-of-an-update",
    severity="error",
    why="After `copier update --conflict rej` the file itself is the template's, and the .rej file beside it"
    " holds your edit of it, which is nowhere else now. A .orig file is what a merge replaced.",
    fix="Make the edit again where you still want it, then delete the file. `git diff` shows what the update"
    " changed.",
)
def leftover(reading: Reading) -> Iterator[Problem]:
    """Files that patches and merges leave behind."""
    for path, source in reading.sources.items():
        for suffix, (meaning, fix) in _LEFTOVERS.items():
            if path.endswith(suffix):
                yield Problem(source.here(), meaning, fix.format(file=show(path.removesuffix(suffix))))


@check(
    code="PS107",
    name="yaml-style",
    severity="warning",
    why="Uneven indentation and blanks at line ends make reviews harder; words like `yes` mean"
    " different things to different programs.",
    fix="Write it as yamllint asks. Copier's own environment has no yamllint, so its hooks leave this check"
    " out.",
)
def yaml_style(reading: Reading) -> Iterator[Problem]:
    """What yamllint says about YAML files that parse, where it is installed: the hooks do without."""
    if not _has_yamllint():
        return
    for source in reading.sources.values():
        if source.language == "yaml" and source.parsed and source.path in reading.made_of:
            for line, message in _style_faults(source.text):
                yield Problem(source.here(line), message)


@cache
def _has_yamllint() -> bool:
    return find_spec("yamllint") is not None


@lru_cache(maxsize=512)
def _style_faults(text: str) -> tuple[tuple[int, str], ...]:
    """Line and message of each; kept, since this is most of a validation and most files seldom change."""
    from yamllint import linter

    # Only the style: syntax is judged already, and another pass over it would double the time.
    found = linter.get_cosmetic_problems(text, _style(), None)
    return tuple((problem.line, f"{problem.desc} [{problem.rule}]") for problem in found)


@cache
def _style() -> YamlLintConfig:
    from yamllint.config import YamlLintConfig

    return YamlLintConfig(_STYLE)
