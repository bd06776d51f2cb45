"""PS517 and PS518: answers file and files that do not belong together."""

from __future__ import annotations

import pytest

from cases import STANDALONE, Files, codes, edit, one, rendered
from pgcat_stack.checks.rendered import answers_digest
from pgcat_stack.files.sources import parse_source
from pgcat_stack.reading.reading import Reading

ANSWERS, BUDGET = ".copier-answers.yml", "budget.yaml"


def released(version: str = "1.1.0") -> Files:
    """A deployment as from a tag of the template."""
    files = rendered(STANDALONE)
    files = edit(files, ANSWERS, "^_src_path", f"_commit: {version}\n_src_path")
    return edit(files, BUDGET, "^rendered:\n", f'rendered:\n  version: "{version}"\n')


def found(files: Files) -> set[str]:
    return codes(files, "PS51") & {"PS517", "PS518"}


def test_what_belongs_together_has_no_finding() -> None:
    assert found(released()) == set()
    assert found(rendered(STANDALONE)) == set()
    assert found(released("1e45678")) == set()  # a short hash that Go's YAML takes for a number


@pytest.mark.parametrize(
    ("path", "pattern", "replacement", "expected"),
    [
        (ANSWERS, r"\Z", "\n#copier updated", "PS517"),
        (ANSWERS, r"\Z", "\n#copier updated\n", "PS517"),
        (ANSWERS, "_commit: 1.1.0", "_commit: 1.2.0", "PS517"),
        (ANSWERS, "_commit: 1.1.0", "_commit: 1.1.0-3-g0123abc", "PS517"),
        (ANSWERS, "_commit: 1.1.0\n", "", "PS517"),
        (BUDGET, r'  version: "1.1.0"\n', "", "PS517"),
        (BUDGET, "1.1.0", "1.0.9", "PS517"),
        (BUDGET, r"rendered:\n(?:  .*\n)+", "", "PS517"),  # as a deployment of 1.0.0 whose update failed
        (ANSWERS, "pgcat_replicas: 2", "pgcat_replicas: 3", "PS518"),
        (ANSWERS, "pgcat_replicas: 2", "pgcat_replicas: '2'", "PS518"),
        (ANSWERS, "advanced: false", "advanced: 0", "PS518"),
        (ANSWERS, "pgcat_replicas: 2\n", "", "PS518"),
        (ANSWERS, "topology", "another: ''\ntopology", "PS518"),
        (ANSWERS, "replica_hosts: db2", "replica_hosts: ''", "PS518"),
        (ANSWERS, "pgcat_replicas: 2", "pgcat_replicas: [", "PS518"),
        (ANSWERS, r"(?s)\A.*\Z", "", "PS518"),
        (BUDGET, r'  answers: ".*"', "", "PS518"),
        (BUDGET, r'  answers: ".*"', "  answers: 12", "PS518"),
        (BUDGET, "answers_file: .*", "answers_file: ../elsewhere.yml", "PS518"),
        (BUDGET, "  answers_file", "  note: x\n  answers_file", "PS518"),
    ],
)
def test_what_does_not_is_found(path: str, pattern: str, replacement: str, expected: str) -> None:
    assert expected in found(edit(released(), path, pattern, replacement))


def test_one_mistake_is_one_finding() -> None:
    files = edit(released(), ANSWERS, "_commit: 1.1.0", "_commit: 1.2.0")
    assert found(edit(files, ANSWERS, "pgcat_replicas: 2", "pgcat_replicas: 3")) == {"PS517"}


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("_src_path: .*", "_src_path: gh:acme/pgcat-stack"),  # the one line that may be edited
        ("rendered_from: .*", "rendered_from: ''"),
        ("# Written by Copier.*", "# Ours"),
        ("pgcat_replicas: 2\n", ""),
    ],
)
def test_what_is_no_answer_does_not_count(pattern: str, replacement: str) -> None:
    files = edit(released(), ANSWERS, pattern, replacement)
    if replacement == "":
        files = edit(files, ANSWERS, "pooling", "pgcat_replicas: 2\npooling")  # the order, for one
    assert found(files) == set()


def test_markers_in_the_answers_file_are_one_finding() -> None:
    conflict = "<<<<<<< HEAD\npgcat_replicas: 2\n=======\npgcat_replicas: 3\n>>>>>>> theirs"
    assert found(edit(released(), ANSWERS, "pgcat_replicas: 2", conflict)) == set()  # PS105 names it


def test_a_missing_answers_file_is_said() -> None:
    files = released()
    del files[ANSWERS]
    problem = one(files, "PS518")
    assert (problem.path, problem.severity) == (BUDGET, "warning")
    assert "'.copier-answers.yml' is missing" in problem.message


def test_files_of_1_0_0_are_left_alone_until_their_update() -> None:
    files = edit(released("1.0.0"), BUDGET, r"rendered:\n(?:  .*\n)+", "")
    assert found(files) == set()
    for version in ("1.1.0", "1.1.0+acme.1", "'2.0'"):
        problem = one(edit(files, ANSWERS, "_commit: 1.0.0", f"_commit: {version}"), "PS517")
        assert (problem.path, problem.severity) == (ANSWERS, "error")
    for version in ("1.0.0-4-g0123abc", "0123abc", "1.0.9"):  # nothing is known of what is between releases
        assert found(edit(files, ANSWERS, "_commit: .*", f"_commit: {version} #")) == set()


def test_another_templates_file_beside_it_is_not_looked_at() -> None:
    files = edit(released("1.0.0"), BUDGET, r"rendered:\n(?:  .*\n)+", "")
    files[".copier-answers.other.yml"] = "_commit: 7.0.0\n_src_path: gh:somebody/else\ntopology: theirs\n"
    assert found(files) == set()


def test_the_file_that_is_named_counts(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Whatever its name, next to another template's, read from a folder."""
    files = edit(released(), BUDGET, "answers_file: .*", "answers_file: .copier-answers.pgcat.yml")
    files[".copier-answers.pgcat.yml"] = files[ANSWERS]
    files[ANSWERS] = "_commit: 7.0.0\n_src_path: gh:somebody/else\ntopology: theirs\n"
    assert found(files) == set()
    files[".copier-answers.pgcat.yml"] += "another: 1\n"
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    loaded = Reading.load(tmp_path)
    assert {source.path for source in loaded.answers} == {ANSWERS, ".copier-answers.pgcat.yml"}
    from pgcat_stack.checks.rendered import answers_out_of_step

    (problem,) = answers_out_of_step(loaded)
    assert problem.location.path == ".copier-answers.pgcat.yml"


def test_a_digest_is_of_values_with_their_types() -> None:
    kinds = [
        "",
        "''",
        "'0'",
        "0",
        "false",
        "'false'",
        "[]",
        "{}",
        '"a\\nb"',
        "ä",
        "1",
        "1.0",
        "'1'",
        "0E0",
        "0.0",
    ]
    texts = [f"key: {kind}\n" for kind in kinds] + ["other: ''\n", "{}"]
    digests = {answers_digest(parse_source("a.yml", text.encode())) for text in texts}
    assert len(digests) == len(texts) and None not in digests


@pytest.mark.parametrize(
    "text", ["", "- a", "a: [", "a: 2026-13-45", "a: !!python/none x", "\x00", "[" * 5000]
)
def test_what_is_no_answers_file_has_no_digest(text: str) -> None:
    assert answers_digest(parse_source("a.yml", text.encode())) is None


def test_aliases_are_not_expanded_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert answers_digest(parse_source("a.yml", "\n".join(lines).encode())) is None
