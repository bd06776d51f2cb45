from __future__ import annotations

import os
import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgcat_stack.deployment import Deployment
from pgcat_stack.secrets import SecretsError, kubernetes_commands, make_secrets, pgpass_line

ALL = ["secrets/database_password", "secrets/admin_password", "secrets/database.pgpass"]


def make(folder: Path) -> list[str]:
    return make_secrets(Deployment.load(folder))


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
    passwords = [(folder / name).read_text() for name in ALL[:2]]
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


def test_a_derived_file_that_disagrees_is_refused(folder: Path) -> None:
    make(folder)
    (folder / "secrets/database_password").unlink()
    with pytest.raises(
        SecretsError, match=r"secrets/database.pgpass: disagrees .* delete database.pgpass and run"
    ):
        make(folder)


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
    deployment = Deployment.load(folder)
    with ThreadPoolExecutor(8) as pool:
        made = [name for names in pool.map(lambda _: make_secrets(deployment), range(8)) for name in names]
    assert sorted(made) == sorted(ALL)
    password = (folder / "secrets/database_password").read_text().strip()
    assert (folder / "secrets/database.pgpass").read_text() == pgpass_line(password)


def test_without_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
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
    assert kubernetes_commands(Deployment.load(folder)) == [
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
    commands = kubernetes_commands(Deployment.load(folder))
    path = f"{folder}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-ec", "\n".join(commands)], cwd=folder, check=True, env={**os.environ, "PATH": path}
    )
    assert (folder / "made.permify-database").read_text() == "of the database"
    assert re.fullmatch("[0-9a-f]{32}", (folder / "made.pgcat-admin").read_text())
