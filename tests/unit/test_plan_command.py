from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cases import AUTOSCALED, DOCKER, ELSEWHERE, STANDALONE, Files, edit, load, rendered
from pgcat_stack.budget import plan
from pgcat_stack.cli import main
from pgcat_stack.report.plan import plan_text


@pytest.fixture
def write(tmp_path):
    def write(files: Files) -> str:
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return str(tmp_path)

    return write


def test_the_table_shows_how_instances_are_counted(write, capsys):
    assert main(["plan", write(rendered(STANDALONE))]) == 0
    out = capsys.readouterr().out
    assert "2 replicas + 1 surge + 1 draining" in out
    assert [word for word in ("79", "80", "The budget holds.") if word not in out] == []


def test_what_is_piped_is_plain(write, capsys):
    main(["plan", write(rendered(AUTOSCALED))])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.isascii()


def test_over_budget_exits_with_one(write, capsys):
    files = edit(rendered(STANDALONE), "pgcat/pgcat.toml", "pool_size = 9 ", "pool_size = 99 ")
    assert main(["plan", write(files)]) == 1
    out = capsys.readouterr().out
    assert "-359" in out
    assert "The budget does not hold." in out


def test_json(write, capsys):
    assert main(["plan", write(rendered(DOCKER)), "--format", "json"]) == 0
    budget = json.loads(capsys.readouterr().out)
    assert budget["holds"] is True
    assert budget["missing"] == []
    assert budget["servers"][1] == {
        "host": "postgres-replica",
        "port": 5432,
        "role": "replica",
        "max_connections": 100,
        "other_connections": 20,
        "capacity": 80,
        "pools": [
            {
                "pool": "permify_reader",
                "program": "pgcat",
                "size": 20,
                "instances": 1,
                "instances_in_words": "1 replica",
                "demand": 20,
            }
        ],
        "migration": 0,
        "demand": 20,
        "headroom": 60,
    }


def test_a_server_outside_the_budget_is_named(write, capsys):
    files = edit(rendered(STANDALONE), "pgcat/pgcat.toml", '"db2", 5432', '"db9", 5432')
    assert main(["plan", write(files)]) == 1
    assert "db9:5432: named by permify_reader, but not in budget.yaml" in capsys.readouterr().out


def test_an_unknown_number_of_processes_is_said(write, capsys):
    files = edit(rendered(ELSEWHERE), "budget.yaml", "permify_max_replicas: 2", "")
    assert main(["plan", write(files)]) == 1
    assert "budget.yaml lacks permify_max_replicas" in capsys.readouterr().out


@pytest.mark.parametrize("budget", [None, "servers: ["])
def test_without_a_budget_file_it_cannot_be_read(write, capsys, budget):
    files = rendered(STANDALONE)
    if budget is None:
        del files["budget.yaml"]
    else:
        files["budget.yaml"] = budget
    assert main(["plan", write(files)]) == 2
    assert "budget.yaml" in capsys.readouterr().err


def test_no_folder_exits_with_two(tmp_path, capsys):
    assert main(["plan", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("width", [20, 60, 80, 300])
def test_numbers_are_never_cut(width):
    files = edit(rendered(STANDALONE), "pgcat/pgcat.toml", "pool_size = 9 ", "pool_size = 123456789 ")
    text = "\n".join(plan_text(plan(load(files)), terminal=True, width=width))
    for number in ("123456789", "493827156", "493827199", "-493827119"):
        assert number in text


def run_python(program, *arguments):
    sources = Path(__file__).resolve().parents[2] / "src"
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(sources)},
    )
    return run.stdout.splitlines()


def test_rich_is_imported_only_when_it_draws():
    program = "import sys, pgcat_stack.cli, pgcat_stack.report.plan; print('rich' in sys.modules)"
    assert run_python(program) == ["False"]


def test_the_models_of_settings_are_not_imported(write):
    """The import takes as long as the plan."""
    root = write(rendered(STANDALONE))
    program = "import sys, pgcat_stack.cli as cli; cli.main(sys.argv[1:]); print('pydantic' in sys.modules)"
    assert run_python(program, "plan", str(root))[-1] == "False"
