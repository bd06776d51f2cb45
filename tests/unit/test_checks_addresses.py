"""Tokens in the address of the template and in other addresses: found in every form, never printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cases import DOCKER, STANDALONE, Files, load, rendered
from pgcat_stack.checks import registry
from pgcat_stack.cli import main
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Finding
from pgcat_stack.reading.reading import Reading

ANSWERS = ".copier-answers.yml"
SECRET = "s3cr3t-Value"
GITHUB = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
HEX = "0123456789abcdef0123456789abcdef01234567"

TOKENS = [
    f"https://oauth2:{SECRET}@gitlab.example.com/org/x.git",
    f"https://x-access-token:{GITHUB}@github.com/org/x.git",
    f"https://gitlab-ci-token:{SECRET}@gitlab.example.com/org/x.git",
    f"https://{GITHUB}@github.com/org/x.git",
    f"https://{HEX}@github.com/org/x.git",
    f"https://{SECRET}:x-oauth-basic@github.com/org/x.git",
    f"https://{SECRET}:@github.com/org/x.git",
    f"https://:{SECRET}@git.example.com/org/x.git",
    f"https://alice@example.com:{SECRET}@git.example.com/org/x.git",
    f"https://alice:{SECRET.replace('-', '%2D')}@git.example.com/org/x.git",
    "https://glpat-abcdefghij@gitlab.com/org/x.git",
    f"git+https://oauth2:{SECRET}@gitlab.example.com/org/x.git",
    f"HTTPS://oauth2:{SECRET}@gitlab.example.com/org/x.git",
    f"http://oauth2:{SECRET}@10.0.0.1:8080/org/x.git",
    f"https://oauth2:{SECRET}@[fd00::1]:8443/org/x.git",
    f"ssh://git:{SECRET}@git.example.com/org/x.git",
    f"https://gitlab.example.com/org/x.git?private_token={SECRET}",
    f"https://gitlab.example.com/org/x.git?depth=1&access_token={SECRET}",
    f"https://git.example.com/org/x.git?token={SECRET}#main",
]
NAMES = ["https://alice@github.com/org/x.git", f"https://{SECRET}@git.example.com/org/x.git"]
HARMLESS = [
    "gh:org/pgcat-stack",
    "https://github.com/org/x.git",
    "git@github.com:org/x.git",
    "ssh://git@github.com/org/x.git",
    "git+ssh://alice@git.example.com/org/x.git",
    "https://git@github.com/org/x.git",
    "https://org@dev.azure.com/org/project/_git/x",
    "https://oauth2:${TOKEN}@gitlab.example.com/org/x.git",
    "https://$TOKEN@github.com/org/x.git",
    "https://gitlab.example.com/org/x.git?private_token=<TOKEN>",
    "https://gitlab.example.com/org/x.git?ref=main",
    "/home/alice@example.com/pgcat-stack",
    "../pgcat-stack",
]


def in_answers(files: Files, text: str, name: str = ANSWERS) -> list[Finding]:
    """What the checks say of an answers file with this text: of Copier's own name, or another."""
    files = {path: content for path, content in files.items() if path != ANSWERS}
    if name == ANSWERS:
        plain = load(files)
        deployment = Reading(plain.root, plain.sources, (Source(ANSWERS, text),))
    else:
        deployment = load({**files, name: text})
    return judged(deployment)


def judged(deployment: Reading) -> list[Finding]:
    """What the checks of secrets say."""
    rules = [rule for rule in registry.all_checks() if rule.code.startswith("PS7")]
    found = {
        Finding(rule.code, rule.severity, p.location.path, p.location.line, p.message, p.fix)
        for rule in rules
        for p in rule.run(deployment)
    }
    return sorted(found, key=lambda finding: finding.order)


@pytest.mark.parametrize("name", [ANSWERS, "answers.yml", "config/pgcat.yaml", ".answers"])
@pytest.mark.parametrize("address", TOKENS)
def test_a_token_in_the_address_of_the_template(address: str, name: str) -> None:
    found = in_answers(rendered(DOCKER), f"_commit: 1.0.0\n_src_path: {address}\ntopology: docker\n", name)
    assert [(one.code, one.severity, one.path, one.line) for one in found] == [("PS711", "error", name, 2)]
    assert "template's address" in found[0].message
    for word in ("credential helper", "history", "revoke"):
        assert word in found[0].fix
    shown = found[0].message + found[0].fix
    assert SECRET not in shown and GITHUB not in shown and HEX not in shown and "example.com" not in shown


@pytest.mark.parametrize("address", NAMES)
def test_a_name_that_may_be_a_token(address: str) -> None:
    (found,) = in_answers(rendered(DOCKER), f"_src_path: {address}\n")
    assert (found.code, found.severity, found.line) == ("PS712", "warning", 1)
    assert SECRET not in found.message + found.fix and "alice" not in found.message + found.fix


@pytest.mark.parametrize("address", HARMLESS)
def test_an_address_without_a_secret(address: str) -> None:
    assert in_answers(rendered(DOCKER), f"_src_path: {address}\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "_src_path: '{address}'\n",
        '"_src_path": "{address}"\n',
        "_src_path: >-\n  {address}\n",
        "{{_src_path: {address}, topology: docker}}\n",
        "<<<<<<< before updating\n_src_path: gh:org/x\n=======\n_src_path: {address}\n>>>>>>> after\n",
        "_src_path: {address}\n: [ not YAML\n",
    ],
    ids=["single quotes", "double quotes", "folded", "flow", "conflict", "broken"],
)
def test_however_it_is_written(text: str) -> None:
    found = in_answers(rendered(DOCKER), text.format(address=TOKENS[0]))
    assert [one.code for one in found] == ["PS711"]


@pytest.mark.parametrize("forge", ["none", "github"])
def test_forge_makes_no_difference(forge: str) -> None:
    files = rendered(STANDALONE, forge=forge, advanced=True)
    answers = files[ANSWERS].replace("_src_path: ", f"_src_path: {TOKENS[0]} # ")
    assert answers != files[ANSWERS]
    assert [(one.code, one.path) for one in in_answers(files, answers)] == [("PS711", ANSWERS)]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("renovate.json", json.dumps({"overridePackageName": TOKENS[0]}), {"PS711"}),
        (".github/workflows/x.yml", f"run: pipx run --spec 'git+{TOKENS[0]}@1.0.0'\n", {"PS702"}),
        (".github/workflows/x.yml", f"run: pipx run --spec 'git+{TOKENS[3]}@1.0.0'\n", {"PS711"}),
        (".github/workflows/x.yml", "run: git clone https://alice@github.com/org/x\n", set()),
        ("notes.yaml", "see: 'https://oauth2:${TOKEN}@gitlab.example.com/x'\n", set()),
    ],
)
def test_other_files(path: str, text: str, expected: set[str]) -> None:
    files = {**rendered(DOCKER), path: text}
    found = [one for one in judged(load(files)) if one.path == path]
    assert {one.code for one in found} == expected and len(found) == len(expected)
    assert not any(SECRET in one.message + one.fix or GITHUB in one.message + one.fix for one in found)


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_command_does_not_print_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    for path, text in rendered(DOCKER).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    lines = [f"_src_path: {address}" for address in TOKENS + NAMES]
    (tmp_path / ANSWERS).write_text("\n".join(lines))
    assert main(["validate", "--format", form, str(tmp_path)]) == 1
    shown = "".join(capsys.readouterr())
    assert (shown.count("PS711"), shown.count("PS712")) == (len(TOKENS), len(NAMES))
    assert not any(secret in shown for secret in (SECRET, GITHUB, HEX, "glpat-", "alice"))
