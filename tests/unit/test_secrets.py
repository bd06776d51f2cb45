from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import (
    KEYS_FILE,
    SECRETS,
    SecretsError,
    kubernetes_commands,
    make_secrets,
    pgpass_line,
    read_keys,
    reminders,
)
from rendering import render

ALL = ["secrets/database_password", "secrets/database.pgpass", "secrets/admin_password"]


def make(folder: Path) -> list[str]:
    return [one.path for one in make_secrets(Reading.load(folder))]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / "secrets" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_missing_secrets_are_made_once(folder: Path) -> None:
    assert make(folder) == ALL
    assert make(folder) == []


def test_modes(folder: Path) -> None:
    make(folder)
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (folder / "secrets").iterdir()} == {0o444}


def test_modes_do_not_depend_on_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        make(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "secrets/admin_password").stat().st_mode) == 0o444


def test_an_open_folder_is_closed(folder: Path) -> None:
    (folder / "secrets").mkdir(mode=0o755)
    make(folder)
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700


def test_passwords_are_long_and_plain(folder: Path) -> None:
    make(folder)
    passwords = [(folder / name).read_text() for name in (ALL[0], ALL[2])]
    assert passwords[0] != passwords[1]
    for password in passwords:
        assert (
            password.endswith("\n")
            and len(password) == 33
            and password.strip().isalnum()
            and password.isascii()
        )


def test_what_exists_is_kept(folder: Path) -> None:
    file = write(folder, "database_password", "mine")
    assert make(folder) == ALL[1:]
    assert file.read_text() == "mine"


def test_nothing_else_is_left_in_the_folder(folder: Path) -> None:
    make(folder)
    assert sorted(file.name for file in (folder / "secrets").iterdir()) == sorted(name[8:] for name in ALL)


def test_the_derived_file_escapes_the_password(folder: Path) -> None:
    write(folder, "database_password", "a:b\\c d'\"#é\n")
    make(folder)
    assert (folder / "secrets/database.pgpass").read_text() == "*:*:*:*:a\\:b\\\\c d'\"#é\n"
    assert pgpass_line("x") == "*:*:*:*:x\n"


def kept(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "secrets").iterdir() if file.is_file()}


@pytest.mark.parametrize("lost", ["database_password", "database.pgpass"])
@pytest.mark.parametrize("password", ["", "a:b", "a\\b", "\\:\\\\:", "é漢🐈 '\"#$"])
def test_a_password_that_another_file_holds_is_taken_from_there(
    folder: Path, lost: str, password: str
) -> None:
    if password:
        write(folder, "database_password", password)
    make(folder)
    before = {name: content.removesuffix(b"\n") for name, content in kept(folder).items()}
    (folder / "secrets" / lost).unlink()
    (made,) = make_secrets(Reading.load(folder))
    assert made.path == f"secrets/{lost}" and made.source in ALL[:2] and made.source != made.path
    assert {name: content.removesuffix(b"\n") for name, content in kept(folder).items()} == before
    assert make(folder) == []


def test_a_password_is_taken_from_a_file_that_compose_does_not_name(folder: Path) -> None:
    (folder / "compose.yaml").write_text("secrets:\n  p:\n    file: ./secrets/database_password\n")
    write(folder, "database.pgpass", "*:*:*:*:a\\:b\n")
    assert make(folder) == ["secrets/database_password"]
    assert (folder / "secrets/database_password").read_text() == "a:b\n"


@pytest.mark.parametrize(
    ("content", "password"),
    [
        ("*:*:*:*:old", "old"),
        ("# kept by hand\r\n\r\n*:*:*:*:old\r\n", "old"),
        ("db:5432:permify:permify:old\nreplica:5432:*:permify:old\n", "old"),
        ("*:*:*:*:first\n*:*:*:*:never read\nnor: this\n", "first"),
        ("d\\:b:5432:*:*:o\\\\ld\\:\n", "o\\ld:"),
    ],
)
def test_a_password_file_by_hand(folder: Path, content: str, password: str) -> None:
    file = write(folder, "database.pgpass", content)
    assert make(folder) == [ALL[0], ALL[2]]
    assert (folder / "secrets/database_password").read_text() == f"{password}\n"
    assert file.read_bytes() == content.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no line with a password"),
        ("# only a comment\n\n", "holds no line with a password"),
        ("*:*:*:*:", "empty"),
        ("password", "line 1 is not host:port"),
        ("# a\n*:*:*:x", "line 2 is not host:port"),
        ("*:*:*:*:a:b", "line 1 is not host:port"),
        ("*:*:*:*:a\\b", "line 1 is not host:port"),
        ("*:*:*:*:a\\", "line 1 is not host:port"),
        ("*:*:*:*: a", "blank"),
        ("*:*:*:*:a\x1b[31m", "control character"),
        ("db:*:*:*:one\n*:*:*:*:two", "2 different passwords; write the right one into secrets/database_pas"),
        (b"*:*:*:*:\xff", "UTF-8"),
    ],
)
def test_a_password_file_that_gives_no_password_leaves_all_as_it_is(
    folder: Path, content: str | bytes, message: str
) -> None:
    write(folder, "database.pgpass", content)
    before = kept(folder)
    with pytest.raises(SecretsError, match=f"^secrets/database.pgpass: .*{message}") as caught:
        make(folder)
    assert kept(folder) == before and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["*:*:*:*:other", "db:*:*:*:other\n*:*:*:*:another"])
def test_files_that_disagree_are_both_named_and_left(folder: Path, content: str) -> None:
    write(folder, "database_password", "mine")
    write(folder, "database.pgpass", content)
    before = kept(folder)
    with pytest.raises(
        SecretsError,
        match=r"^secrets/database.pgpass: holds another password than secrets/database_password; delete the",
    ):
        make(folder)
    assert kept(folder) == before


def test_a_password_of_a_megabyte_is_taken(folder: Path) -> None:
    write(folder, "database_password", "x:" * 500_000)
    make(folder)
    (folder / "secrets/database_password").unlink()
    assert make(folder) == [ALL[0]]
    assert (folder / "secrets/database_password").read_text() == "x:" * 500_000 + "\n"


def test_a_file_of_any_size_is_no_password(folder: Path) -> None:
    with write(folder, "database.pgpass", "*:*:*:*:x").open("ab") as stream:
        stream.truncate(2**25)
    with pytest.raises(SecretsError, match=r"^secrets/database.pgpass: larger than any password"):
        make(folder)


def test_a_mistake_in_a_later_file_keeps_the_first_from_being_made(folder: Path) -> None:
    write(folder, "admin_password", "")
    with pytest.raises(SecretsError):
        make(folder)
    assert sorted(kept(folder)) == ["admin_password"]


def test_what_cannot_be_read_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(folder, "database.pgpass", "*:*:*:*:x")
    opened = os.open

    def refuse(name: str, *more: int, **options: int) -> int:
        if name == file.name:
            raise PermissionError(13, "Permission denied", name)
        return opened(name, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(SecretsError, match=r"^secrets/database.pgpass: permission denied$"):
            make(folder)
    assert sorted(kept(folder)) == ["database.pgpass"]


@pytest.mark.parametrize("make_it", [Path.mkdir, lambda path: os.mkfifo(path)])
def test_what_is_no_file_in_place_of_the_twin_is_refused(
    folder: Path, make_it: Callable[[Path], object]
) -> None:
    (folder / "secrets").mkdir()
    make_it(folder / "secrets/database.pgpass")
    with pytest.raises(SecretsError, match=r"^secrets/database.pgpass: not a file"):
        make(folder)
    assert len(list((folder / "secrets").iterdir())) == 1


def test_a_twin_that_is_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("*:*:*:*:x\n")
    (folder / "secrets").mkdir()
    (folder / "secrets/database.pgpass").symlink_to(tmp_path / "outside")
    with pytest.raises(SecretsError, match=r"^secrets/database.pgpass: .* leads out of secrets/"):
        make(folder)
    assert not (folder / "secrets/database_password").exists()


BUNDLED = "".join(
    f"  {name}: {{file: ./secrets/{name}}}\n"
    for name in ("database_password", "database.pgpass", "postgres_password", "replication_password")
)


def reminded(folder: Path) -> list[str]:
    deployment = Reading.load(folder)
    return [line.partition(" is new")[0] for line in reminders(deployment, make_secrets(deployment))]


def test_what_somebody_remembers_is_said_of_new_values_alone(folder: Path) -> None:
    assert reminded(folder) == ["secrets/database_password"]
    (folder / "secrets/database_password").unlink()
    assert reminded(folder) == []
    (folder / "compose.yaml").write_text("secrets:\n" + BUNDLED)
    assert reminded(folder) == ["secrets/postgres_password", "secrets/replication_password"]
    for file in (folder / "secrets").iterdir():
        file.unlink()
    assert "secrets/database_password" not in reminded(folder)  # the bundled server gets it at every start


def test_every_secret_says_who_uses_it_and_can_be_read_back() -> None:
    assert len({secret.file for secret in SECRETS}) == len(SECRETS)
    for secret in SECRETS:
        value = "one,t-w.o~+/=" if secret.format == KEYS_FILE else "a:\\b é"
        assert secret.used_by and secret.format.read(secret.format.write(value)) == (value,)


def test_the_derived_file_alone_makes_the_password(folder: Path) -> None:
    (folder / "compose.yaml").write_text("secrets:\n  p:\n    file: ./secrets/database.pgpass\n")
    assert make(folder) == ["secrets/database_password", "secrets/database.pgpass"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b" x", "blank"),
        (b"x \n", "blank"),
        (b"x\ny", "line end"),
        (b"x\n\n", "line end"),
        (b"x\ty", "control character"),
        (b"x\0y", "control character"),
        (b"x\xff", "UTF-8"),
    ],
)
def test_unusable_passwords_are_refused_by_name(folder: Path, content: bytes, message: str) -> None:
    write(folder, "admin_password", content)
    with pytest.raises(SecretsError, match=f"^secrets/admin_password: .*{message}"):
        make(folder)


@pytest.mark.parametrize("content", ["x\n", "x\r\n", "x"])
def test_one_line_end_is_not_part_of_the_password(folder: Path, content: str) -> None:
    write(folder, "database_password", content)
    make(folder)
    assert (folder / "secrets/database.pgpass").read_text() == "*:*:*:*:x\n"


def test_links_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (folder / "secrets").mkdir()
    (folder / "secrets/admin_password").symlink_to(tmp_path / "outside")
    with pytest.raises(SecretsError, match="leads out of secrets/"):
        make(folder)


def test_links_to_nothing_are_refused(folder: Path) -> None:
    (folder / "secrets").mkdir()
    (folder / "secrets/admin_password").symlink_to("nothing")
    with pytest.raises(SecretsError, match="link to nothing"):
        make(folder)


def test_a_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "secrets").symlink_to(tmp_path)
    with pytest.raises(SecretsError, match="symbolic link"):
        make(folder)


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "secrets").write_text("")
    with pytest.raises(SecretsError, match="not a folder"):
        make(folder)


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "secrets/admin_password").mkdir(parents=True)
    with pytest.raises(SecretsError, match="not a file"):
        make(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_one_line(folder: Path) -> None:
    folder.chmod(0o500)
    try:
        with pytest.raises(SecretsError, match="secrets"):
            make(folder)
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "../secrets/x", "secrets/a/b", "secrets/..", "other/x", "", "5"]
)
def test_files_elsewhere_are_not_ours(folder: Path, file: str) -> None:
    (folder / "compose.yaml").write_text(f"secrets:\n  x:\n    file: '{file}'\n")
    assert make(folder) == []
    assert not (folder / "secrets").exists()


def test_two_runs_at_once_agree(folder: Path) -> None:
    deployment = Reading.load(folder)
    with ThreadPoolExecutor(8) as pool:
        made = [one.path for names in pool.map(lambda _: make_secrets(deployment), range(8)) for one in names]
    assert sorted(made) == sorted(ALL)
    password = (folder / "secrets/database_password").read_text().strip()
    assert (folder / "secrets/database.pgpass").read_text() == pgpass_line(password)


def test_without_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **folders: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert make(folder) == ALL


def test_commands_for_kubernetes(folder: Path) -> None:
    (folder / "compose.yaml").unlink()
    (folder / "pod.yaml").write_text(
        """\
kind: Pod
metadata: {name: p}
spec:
  containers:
    - name: pgcat
      env:
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: pgcat, key: password}}
        - name: OTHER
          valueFrom: {secretKeyRef: {name: made-elsewhere, key: x}}
  volumes:
    - name: v
      secret: {secretName: permify, items: [{key: database.pgpass, path: p}]}
    - name: w
      projected: {sources: [{secret: {name: pgcat, items: [{key: admin, path: a}]}}]}
---
kind: ExternalSecret
metadata: {name: e}
spec: {target: {name: made-elsewhere}}
"""
    )
    (folder / "kustomization.yaml").write_text("namespace: ns\nresources: [pod.yaml]\n")
    create = "kubectl -n ns create secret generic"
    assert kubernetes_commands(Reading.load(folder)) == [
        f"{create} pgcat --from-file=password=<(tr -d '\\n' <pgcat.password)"
        " --from-file=admin=<(tr -d '\\n' <pgcat.admin)",
        f"tr -d '\\n' <permify.database.pgpass | {create} permify --from-file=database.pgpass=/dev/stdin",
    ]


STAND_IN = """\
#!/bin/bash
for last; do :; done
name=${@: -2:1}
cat "${last##*=}" >"made.$name"
"""
"""For kubectl: writes the value into a file called after the Secret."""


def test_commands_for_kubernetes_followed_literally(folder: Path) -> None:
    (folder / "compose.yaml").unlink()
    items = "items: [{key: password, path: p}]"
    (folder / "pod.yaml").write_text(
        f"""\
kind: Pod
spec:
  containers: [{{name: pgcat}}]
  volumes:
    - secret: {{secretName: permify-database, {items}}}
    - secret: {{secretName: pgcat-admin, {items}}}
"""
    )
    (folder / "kustomization.yaml").write_text("namespace: ns\nresources: [pod.yaml]\n")
    (folder / "permify-database.password").write_text("of the database\n")
    (folder / "kubectl").write_text(STAND_IN)
    (folder / "kubectl").chmod(0o755)
    commands = kubernetes_commands(Reading.load(folder))
    path = f"{folder}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-ec", "\n".join(commands)], cwd=folder, check=True, env={**os.environ, "PATH": path}
    )
    assert (folder / "made.permify-database").read_text() == "of the database"
    assert re.fullmatch("[0-9a-f]{32}", (folder / "made.pgcat-admin").read_text())


WITH_KEYS = """\
services:
  permify: {image: permify, env_file: [./secrets/permify.env]}
  other: {image: x, env_file: ./secrets/permify.env}
secrets:
  database_password: {file: ./secrets/database_password}
"""


def test_the_key_of_callers_is_made_once(folder: Path) -> None:
    (folder / "compose.yaml").write_text(WITH_KEYS)
    assert make(folder) == ["secrets/database_password", "secrets/permify.env"]
    file = folder / "secrets/permify.env"
    assert re.fullmatch(r"PERMIFY_AUTHN_PRESHARED_KEYS=[A-Za-z0-9]{32}\n", file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    before = file.read_text()
    assert make(folder) == []
    assert file.read_text() == before
    assert read_keys(file) == [before.strip().partition("=")[2]]


def test_keys_of_others_are_kept_or_refused(folder: Path) -> None:
    (folder / "compose.yaml").write_text(WITH_KEYS)
    file = write(folder, "permify.env", "PERMIFY_AUTHN_PRESHARED_KEYS=one,two\n")
    assert make(folder) == ["secrets/database_password"]
    assert read_keys(file) == ["one", "two"]
    for content in (
        "OTHER=1\n",
        "PERMIFY_AUTHN_PRESHARED_KEYS=one,\n",
        "PERMIFY_AUTHN_PRESHARED_KEYS=o ne\n",
    ):
        file.write_text(content)
        with pytest.raises(SecretsError, match=r"secrets/permify\.env: (has|sets) "):
            make(folder)
        assert file.read_text() == content


@pytest.mark.parametrize(
    ("content", "words", "line"),
    [
        ("", "is empty", 1),
        ("\n", "is empty", 1),
        ("# ours\nV=one\n", "line 1 that", 1),
        ("V=one\n# ours\n", "line 2 that", 2),
        ("V=one\n\n", "line 2 that", 2),
        ("\nV=one\n", "line 1 that", 1),
        ("export V=one\n", "line 1 that", 1),
        (" V=one\n", "line 1 that", 1),
        ("V =one\n", "line 1 that", 1),
        ("V\n", "line 1 that", 1),
        ("\ufeffV=one\n", "line 1 that", 1),
        ("V=one\nV=two\n", "again in line 2", 2),
        ("V=one\nOTHER=1\n", "sets another variable in line 2", 2),
        ("c2VjcmV0IQ==\n", "sets another variable in line 1", 1),
        ("OTHER=1\nV=one\n", "sets another variable in line 1", 1),
        ("V='one,two'\n", "quotes", 1),
        ('V="one"\n', "quotes", 1),
        ("V=one # ours\n", "no caller can send", 1),
        ("V=one\r\n", "carriage return", 1),
        ("V=one\r", "carriage return", 1),
        ("V=one\rV=two\n", "control character", 1),
        ("V=one\x0ctwo\n", "control character", 1),
        ("V=one\0\n", "control character", 1),
        ("V=one\u2028\n", "no caller can send", 1),
        ("V=one \n", "no caller can send", 1),
        ("V=\n", "empty key", 1),
        ("V=,one\n", "empty key", 1),
    ],
)
def test_the_file_of_keys_is_one_bare_line(folder: Path, content: str, words: str, line: int) -> None:
    """Whatever else it holds, the commands of the runbook would destroy."""
    (folder / "compose.yaml").write_text(WITH_KEYS)
    file = write(folder, "permify.env", content.replace("V", "PERMIFY_AUTHN_PRESHARED_KEYS"))
    before = file.read_bytes()
    with pytest.raises(SecretsError, match=r"^secrets/permify\.env: .*; write one line PERMIFY_A") as caught:
        make(folder)
    message = str(caught.value)
    assert words in message and "\n" not in message and caught.value.line == line
    assert "c2VjcmV0IQ" not in message
    assert ("or delete it" in message) == (words == "is empty")
    assert file.read_bytes() == before


def test_no_environment_file_no_key(folder: Path) -> None:
    (folder / "compose.yaml").write_text(WITH_KEYS.replace("secrets/permify.env", "secrets/other.env"))
    assert make(folder) == ["secrets/database_password"]


def test_commands_for_what_a_chart_reads(tmp_path: Path) -> None:
    answers = {"topology": "standalone", "primary_host": "db", "permify_install": "helm"}
    (*_, last) = kubernetes_commands(Reading.load(render(tmp_path / "deploy", answers)))
    assert last == (
        "openssl rand -hex 16 | tr -d '\\n' |"
        " kubectl -n permify create secret generic permify-authn --from-file=keys=/dev/stdin"
    )
    external = render(tmp_path / "external", answers, secrets="external-secrets")
    assert kubernetes_commands(Reading.load(external)) == []
