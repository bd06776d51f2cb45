"""No message shows a value that may be a secret, even where it has the wrong type or place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pgcat_stack import cli, printable

SECRET = "hunter2SECRET"


def replaced(file: Path, pattern: str, text: str) -> None:
    """Put `text` in place of the first match of `pattern`, which must be there."""
    new, count = re.subn(pattern, lambda _: text, file.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    file.write_text(new)


@pytest.mark.parametrize(
    "text",
    [f'["{SECRET}"]', f'{{a = "{SECRET}"}}', f'"a${{{SECRET} b"', "5318008"],
    ids=["list", "table", "half a placeholder", "number"],
)
@pytest.mark.parametrize("key", ["admin_password", "password"])
def test_a_password_in_pgcat_toml(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str, text: str
) -> None:
    replaced(folder / "pgcat/pgcat.toml", rf"^{key} = .*", f"{key} = {text}")
    assert cli.main(["validate", str(folder)]) == 1
    said = capsys.readouterr().out
    assert key in said and SECRET not in said and "5318008" not in said


@pytest.mark.parametrize(
    "text",
    [
        f"authn: {{preshared: {{keys: {{{SECRET}: 1}}}}}}",
        f"authn: {{preshared: {SECRET}}}",
        f"authn: {SECRET}",
        f"tracer: {{headers: [[{SECRET}]]}}",
        f"database: {{uri: [postgres://u:{SECRET}@h/d]}}",
        f"database: postgres://u:{SECRET}@h/d",
    ],
)
def test_a_secret_in_permify_yaml(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (folder / "permify/permify.yaml").write_text(text + "\n")
    assert cli.main(["validate", "--format", "json", str(folder)]) == 1
    said = capsys.readouterr().out
    assert any(one["path"] == "permify/permify.yaml" for one in json.loads(said)) and SECRET not in said


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (["password"], 1234, "a number"),
        (["spec", "containers", 0, "env", 0, "value"], 1234, "a number"),
        (["stringData", "pin"], 1234, "a number"),
        (["PGPASSWORD"], 1.5, "a number"),
        (["host"], "https://user:word@h", "text"),
        (["anything"], ["word"], "a list"),
        (["password"], True, "True"),
        (["authn", "method"], "odic", "'odic'"),
        (["pool_mode"], "sesion", "'sesion'"),
        ([], 5, "5"),
    ],
)
def test_what_a_message_shows_of_a_value(keys: list[object], value: object, said: str) -> None:
    assert printable.show_at(keys, value) == said
