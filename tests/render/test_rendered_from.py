"""What the files say of the template, its version and their answers, and what of it reaches anything that runs."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePath
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pgcat_stack.checks.rendered import answers_digest
from pgcat_stack.sources import read_source
from rendering import KUBERNETES, environment, render

texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.sampled_from(
        ["", "0", "1", "yes", "no", "null", "~", "1e3", "0x10", "2026-01-31", "1:30", "a\nb\n", "\n", " x "]
        + [
            "ä€😀",
            "#c",
            "- a",
            "{a: b}",
            "'",
            '"',
            "\\",
            "\u2028",
            "\x85",
            "\t",
            "*a",
            "&a",
            "!a",
            "|",
            "=",
            "<<",
        ]
    ),
    st.lists(st.one_of(texts, st.integers(), st.booleans()), max_size=3),
)
stored = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True), values, max_size=6)


def module(answers: dict[str, Any], **conf: Any) -> Any:
    """questions/template.jinja with these answers in scope, as the files import it."""
    context = {
        "_copier_answers": answers,
        "_copier_conf": {"data": {}, "answers_file": PurePath(".copier-answers.yml"), **conf},
    }
    return environment().get_template("questions/template.jinja").make_module(context), context


@settings(max_examples=300, deadline=None)
@given(stored)
def test_template_and_check_digest_the_same_answers(answers: dict[str, Any]) -> None:
    answers = {"_commit": "1.2.3", "_src_path": "gh:org/x", **answers}
    answers.pop("rendered_from", None)
    template, context = module(answers)
    name = "template/{{ _copier_conf.answers_file }}.jinja"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "answers.yml").write_text(environment().get_template(name).render(context))
        source = read_source(Path(folder), "answers.yml")
    assert source.parsed, source.problems
    assert answers_digest(source) == template.answers_digest()


@pytest.mark.parametrize(
    "answers",
    [{}, {"topology": "standalone", **KUBERNETES, "advanced": True, "pgcat_image": "", "drain_seconds": 90}],
)
def test_a_deployment_carries_the_digest_of_what_is_stored(answers: dict[str, Any], tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", answers)
    budget = yaml.safe_load((deploy / "budget.yaml").read_text())
    digest = answers_digest(read_source(deploy, ".copier-answers.yml"))
    assert digest and budget["rendered"] == {"answers_file": ".copier-answers.yml", "answers": digest}
