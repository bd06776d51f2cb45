"""A refused update leaves the tree as it was, however it is called."""

from __future__ import annotations

from pathlib import Path

import copier
import pytest
from copier.errors import UserMessageError

from live.repeats import repeats
from old_versions import ANSWERS, NEXT, InProcess
from versions import Home

IMPOSSIBLE = "other_connections: 99"


def deployment(in_process: InProcess, folder: Path) -> Path:
    deploy = in_process.copy(folder, NEXT, ANSWERS["standalone"])
    file = deploy / "pgcat/pgcat.toml"
    file.write_text(file.read_text() + "# ours\n")
    in_process.home.commit(deploy, "edit")
    return deploy


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"other_connections": 99}, "refuses budget|refuses other_connections"),
        ({"pool_mode": "session", "advanced": True, "permify_replicas": 90}, "refuses session mode"),
        pytest.param({"topology": "swarm"}, "refuses topology", marks=repeats),
        ({"replicas": 3}, 'refuses "replicas": is not an answer'),
        pytest.param({"permify_replicas": "lots"}, "refuses permify_replicas", marks=repeats),
        ({"drain_seconds": 90}, "answer advanced=true, too"),
        pytest.param({"topology": "sidecar", "pooling": "direct"}, "refuses pooling", marks=repeats),
    ],
    ids=str,
)
def test_by_data(in_process: InProcess, tmp_path: Path, answer: dict[str, object], why: str) -> None:
    deploy = deployment(in_process, tmp_path / "deploy")
    with pytest.raises(UserMessageError, match=why):
        in_process.update_without_hooks(deploy, **answer)
    assert in_process.home.status(deploy) == ""


@pytest.mark.parametrize(
    ("given", "edited", "why"),
    [
        ("other_connections: 20", "other_connections: 99", "refuses budget|refuses other_connections"),
        ("topology: standalone", "topology: swarm", "refuses topology"),
        ("permify_replicas: 2", "permify_replicas: many", "refuses permify_replicas"),
        ("advanced: false", "advanced: maybe", "refuses advanced"),
        ("primary_host: db-1\n", "", "refuses primary_host: is missing"),
    ],
)
def test_by_a_hand_in_the_answers_file(
    in_process: InProcess, tmp_path: Path, given: str, edited: str, why: str
) -> None:
    deploy = deployment(in_process, tmp_path / "deploy")
    file = deploy / ".copier-answers.yml"
    text = file.read_text()
    assert given in text
    file.write_text(text.replace(given, edited))
    in_process.home.commit(deploy, "hand")
    with pytest.raises(UserMessageError, match=why):
        in_process.update_without_hooks(deploy)
    assert in_process.home.status(deploy) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--defaults", "--conflict", "rej", "--data-file", "impossible.yml", "."],
        pytest.param(["--skip-answered", "--data", "other_connections=99", "."], marks=repeats),
        ["--data", "other_connections=99"],
    ],
    ids=" ".join,
)
def test_by_the_command(home: Home, in_process: InProcess, tmp_path: Path, arguments: list[str]) -> None:
    deploy = deployment(in_process, tmp_path / "deploy")
    (deploy / "impossible.yml").write_text(f"{IMPOSSIBLE}\n")
    home.commit(deploy)
    run = home.copier("update", "--trust", *arguments, cwd=deploy)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert home.status(deploy) == ""


def test_recopy(in_process: InProcess, tmp_path: Path) -> None:
    deploy = deployment(in_process, tmp_path / "deploy")
    with pytest.raises(UserMessageError, match="refuses"), in_process.at_home():
        copier.run_recopy(
            deploy, data={"other_connections": 99}, defaults=True, overwrite=True, quiet=True, unsafe=True
        )
    assert in_process.home.status(deploy) == ""
