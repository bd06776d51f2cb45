"""Every page of the repository: its links lead somewhere, its tables are whole, its commands exist."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pages import anchors, broken_links, broken_tables, called, code_blocks, subcommands, text_without_code
from rendering import REPOSITORY

PAGES = [
    name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if not name.startswith("template/") and (REPOSITORY / name).exists()
]
OWN = [name for name in PAGES if "/deploy/" not in name]
"""Those of the project; the others are rendered, and tests/render/test_runbook_page.py knows more of them."""


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    assert list(broken_links(REPOSITORY / name)) == []


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_whole(name: str) -> None:
    assert list(broken_tables((REPOSITORY / name).read_text())) == []


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_read_by_bash(name: str) -> None:
    for block in code_blocks((REPOSITORY / name).read_text()):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{block}"


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_yaml_is_read(name: str) -> None:
    for block in code_blocks((REPOSITORY / name).read_text(), "yaml"):
        assert isinstance(yaml.safe_load(block), dict | list), block


@pytest.mark.parametrize("name", PAGES)
def test_every_block_ends(name: str) -> None:
    """An odd fence would hide the rest of the page from the other tests."""
    fences = re.findall(r"^\s*```", (REPOSITORY / name).read_text(), re.MULTILINE)
    assert len(fences) % 2 == 0


@pytest.mark.parametrize("name", OWN)
def test_pgcat_stack_knows_its_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = subcommands()
    for words in called((REPOSITORY / name).read_text(), "pgcat-stack"):
        if words[:1] == ["--version"]:
            continue
        assert words[0] in known, words
        flags = {flag.partition("=")[0] for flag in words[1:] if flag.startswith("-")}
        unknown = flags - set(known[words[0]]._option_string_actions)
        assert not unknown, words
        if len(words) > 1 and "DIR" not in words:
            try:
                known[words[0]].parse_args(words[1:])
            except SystemExit:
                pytest.fail(f"{words}: {capsys.readouterr().err}")


def missing_parts(words: list[str]) -> Iterator[str]:
    """What a `./dev …` command names and is not there: the program, its module, files, tests."""
    program, *rest = words
    if not shutil.which(program, path=Path(sys.executable).parent):
        yield f"the program {program}"
    if program == "python" and rest[:1] == ["-m"]:
        module, *rest = rest[1:]
        if importlib.util.find_spec(module) is None:
            yield f"the module {module}"
    for word in rest:
        path, _, test = word.partition("::")
        if re.fullmatch(r"[\w./-]+\.\w+|tests/\S*", path) and not re.search(r"[A-Z]{2}|_x\.|\.\./", path):
            if not (REPOSITORY / path).exists():
                yield f"the file {path}"
            elif test and f"def {test}(" not in (REPOSITORY / path).read_text():
                yield f"the test {test}"


@pytest.mark.parametrize("name", OWN)
def test_dev_runs_what_is_there(name: str) -> None:
    for words in called((REPOSITORY / name).read_text(), "./dev"):
        assert list(missing_parts(words)) == [], words


@pytest.mark.parametrize("name", OWN)
def test_the_tests_that_it_names_are_there(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    for found in re.findall(r"`((?:tests/\w+/)?test_\w+(?:\.py)?(?:::\w+)?)`", text):
        path, _, test = found.partition("::")
        if not path.endswith(".py"):
            path, test = "", path
        files = list((REPOSITORY / "tests").rglob(Path(path).name if path else "*.py"))
        if "/" in path:
            files = [REPOSITORY / path]
        assert files and all(file.exists() for file in files), found
        assert not test or any(f"def {test}(" in file.read_text() for file in files), found


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = set(), [REPOSITORY / "README.md"]
    while left:
        page = left.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for link in re.findall(r"\]\(([^)#\s]+)", text_without_code(page.read_text())):
            if not re.match(r"[a-z]+:", link) and (page.parent / link).is_file():
                left.append((page.parent / link).resolve())
    assert {REPOSITORY / name for name in OWN} - reached == set()


def test_anchors_are_those_of_github() -> None:
    page = "# One\n## `a_b` and [c](d.md): e—f\n```bash\n# no heading\n```\n## One\n### Two × 3, 4\n"
    assert anchors(page) == {"one", "a_b-and-c-ef", "one-1", "two--3-4"}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[x](#two)", "#two: no such heading"),
        ("[x](other.md)", "other.md: no such file"),
        ("[x](page.md#two)", "page.md#two: no such heading"),
        ("[x](https://github.com/org/pgcat-stack/blob/main/docs/gone.md)", "no such file"),
        ("![x](picture.png)", "picture.png: no such file"),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "page.md").write_text(f"# One\n\n{text}\n")
    (found,) = broken_links(tmp_path / "page.md")
    assert found.endswith(wrong)


@pytest.mark.parametrize(
    "text",
    ["words\n| a |\n|---|\n| b |", "| a | b |\n|---|---|\n| c |", "| a |\n|---|", "| a |\n| b |\n| c |"],
)
def test_a_broken_table_is_found(text: str) -> None:
    assert list(broken_tables(text))


@pytest.mark.parametrize(
    "words",
    [
        "nothing",
        "python -m pgcat_stack.nothing",
        "python bench/nothing.py",
        "pytest tests/unit/test_markdown.py::test_no",
    ],
)
def test_a_command_that_is_not_there_is_found(words: str) -> None:
    assert len(list(missing_parts(words.split()))) == 1
