"""The examples on the page of checks: each is found by its check, and by no other that is not named."""

from __future__ import annotations

import pytest

from cases import DIRECT, DOCKER, SIDECAR, STANDALONE, codes, rendered
from pgcat_stack.checks import registry
from pgcat_stack.examples import Example, examples

DEPLOYMENTS = {"standalone": STANDALONE, "sidecar": SIDECAR, "direct": DIRECT, "docker": DOCKER}
EXAMPLES = examples(registry.package)


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_is_what_its_check_finds(code: str) -> None:
    example = EXAMPLES[code]
    files = rendered(DEPLOYMENTS[example.deployment], **example.answers)
    before = codes(files, "PS")
    after = codes({**files, example.file: example.planted(files[example.file])}, "PS")
    assert code not in before
    assert after - before == {code, *example.also}


def test_checks_have_examples() -> None:
    assert set(EXAMPLES) == {rule.code for rule in registry.all_checks()} - WITHOUT.keys()


def test_an_example_names_lines_that_the_file_has_once() -> None:
    example = Example("a.yaml", good="b: 1\nc:\n  d: 2\n", bad="c:\n  e: 3\n")
    assert example.planted("a:\n  b: 1\n  c:\n    d: 2\n") == "a:\n  c:\n    e: 3\n"
    with pytest.raises(ValueError, match="2 times"):
        example.planted("b: 1\nc:\n  d: 2\n" * 2)
    with pytest.raises(ValueError, match="0 times"):
        example.planted("b: 1\nc:\n    d: 2\n")


NO_TEXT, ANSWERS = "a file, its mode or its name, no text of a rendered file", "the answers file"
WITHOUT = {
    **dict.fromkeys(("PS101", "PS102", "PS106", "PS108", "PS109", "PS110", "PS111"), NO_TEXT),
    **dict.fromkeys(("PS435", "PS437", "PS454", "PS708", "PS709", "PS829"), NO_TEXT),
    **dict.fromkeys(("PS518", "PS711", "PS712"), ANSWERS),
    "PS473": "several rules at once",
    "PS903": "needs the extra `kubernetes`",
}
"""Checks without an example, and what they judge."""
