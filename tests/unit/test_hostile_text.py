"""Text planted in every value, key and name of every kind of file comes out as printable single lines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import yaml

import draws
from cases import DOCKER, STANDALONE, Files, rendered
from live.repeats import repeats
from pgcat_stack import cli
from pgcat_stack.checks import kubernetes_schema
from pgcat_stack.files.sources import parse_source

HOSTILE = "h\n\x1b[31m\u202e\u200b\x07\r::error::x##[error]\u2028" + "l" * 3000
VISIBLE = "\\x1b[31m\\u202e\\u200b"


def planted(data: Any, *, keys: bool) -> Any:
    """Every text in the data with the hostile one after it; every key, where those are wanted."""
    if isinstance(data, dict):
        return {
            (f"{key}{HOSTILE}" if keys and isinstance(key, str) else key): planted(value, keys=keys)
            for key, value in data.items()
        }
    if isinstance(data, list):
        return [planted(item, keys=keys) for item in data]
    return f"{data}{HOSTILE}" if isinstance(data, str) and not keys else data


def written(path: str, documents: tuple[Any, ...]) -> str:
    if path.endswith(".toml"):
        return tomli_w.dumps(documents[0])
    if path.endswith(".json"):
        return json.dumps(documents[0])
    return yaml.safe_dump_all(documents, allow_unicode=True, sort_keys=False)


def sets_of_files(answers: dict[str, object]) -> Iterator[tuple[bool, Files]]:
    """Whether to run every command, and the files with something planted: in all of them, then in one."""
    files = rendered(answers)
    sources = {path: parse_source(path, text.encode()) for path, text in files.items() if path[0] != "."}
    values, keys = (
        {
            path: written(path, tuple(planted(one, keys=keys) for one in source.documents))
            for path, source in sources.items()
            if source.documents
        }
        for keys in (False, True)
    )
    broken = {path: f"{text}\n{HOSTILE}: [\n*{HOSTILE}\n" for path, text in files.items()}
    for changed in (values, keys, broken):
        yield True, {**files, **changed}
    for path in values:
        yield False, {**files, path: values[path]}
        yield False, {**files, path: keys[path]}


def check_lines(captured: str) -> int:
    """Every line is printable and of a sane length. Returns how many there are."""
    lines = captured.split("\n")
    for line in lines:
        assert line.isprintable() and not line.lstrip().startswith("::") and "##[" not in line, line[:300]
        assert len(line) <= 10_000 and "Traceback" not in line and "itself failed" not in line, line[:300]
    return len(lines)


@pytest.mark.parametrize(
    "answers", [pytest.param(DOCKER, id="docker", marks=repeats), pytest.param(STANDALONE, id="standalone")]
)
def test_every_command_prints_single_visible_lines(
    answers: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = 0
    for number, (everything, files) in enumerate(sets_of_files(answers)):
        if not everything and number % 5 and not draws.every:
            continue
        folder = tmp_path / str(number)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        more = [
            ["validate", "--format", "json", str(folder)],
            ["plan", str(folder)],
            ["plan", "--format", "json", str(folder)],
            ["secrets", str(folder)],
            ["adopt", str(folder / "pgcat/pgcat.toml"), str(folder / "permify/permify.yaml")],
            ["adopt", str(folder / "permify/permify.yaml")],
        ]
        if not everything:  # the schemas have had their turn, and take most of the time
            monkeypatch.setattr(kubernetes_schema, "enable", lambda: False)
            monkeypatch.setattr(kubernetes_schema, "ENABLED", False)
        for command in (["validate", str(folder)], *(more if everything else [])):
            status = cli.main(command)
            captured = capsys.readouterr()
            assert check_lines(captured.out) + check_lines(captured.err) > 1, command
            shown += VISIBLE in captured.out.replace("\\\\", "\\") + captured.err
            if "json" in command and status != 2:
                json.loads(captured.out)
            if command[0] == "adopt" and status == 0:
                yaml.safe_load(captured.out)
    assert shown > 10  # else nothing was planted where it is shown


def test_the_report_of_an_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    files = rendered(STANDALONE)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    (tmp_path / "pgcat/pgcat.toml").write_text(
        files["pgcat/pgcat.toml"].replace("[pools.permify_writer", '[pools."h\\n\\u001b[31m\\u202e"')
    )
    monkeypatch.setenv("STAGE", "after")
    cli.hook(tmp_path)
    captured = capsys.readouterr()
    assert "The budget changed" in captured.out and "h\\n\\x1b[31m\\u202e" in captured.out
    check_lines(captured.out)
    check_lines(captured.err)


def test_a_note_of_adopt_stays_a_comment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key with a line end in it was an answer of its own."""
    files = rendered(STANDALONE)
    text = files["pgcat/pgcat.toml"].replace("[general]", '[general]\n"x\\nprimary_host: evil" = 1', 1)
    (tmp_path / "pgcat.toml").write_text(text)
    permify = files["permify/permify.yaml"] + '"x\\nprimary_host: evil": 1\n'
    (tmp_path / "permify.yaml").write_text(permify)
    assert cli.main(["adopt", str(tmp_path / "pgcat.toml"), str(tmp_path / "permify.yaml")]) == 0
    out = capsys.readouterr().out
    assert "x\\nprimary_host: evil" in out and yaml.safe_load(out)["primary_host"] == "db1"
