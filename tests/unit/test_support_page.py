"""The table of supported versions says what the places say that own the numbers."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from pgcat_stack.checks.kubernetes_schema import OLDEST_KUBERNETES
from pgcat_stack.doctor.checks.postgresql import OLDEST_VERSION
from rendering import REPOSITORY, environment

PAGE = (REPOSITORY / "docs/support.md").read_text()
JOBS: dict[str, Any] = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]
ROWS = {
    cells[0].split(",")[0]: (cells[1], cells[2])
    for cells in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if line.startswith("|")
    )
    if len(cells) == 3 and cells[0] not in ("program", "---")
}
IMAGES: dict[str, str] = environment().get_template("questions/answers.jinja").module.images  # type: ignore[attr-defined]


def tag(name: str) -> str:
    return IMAGES[name].rpartition(":")[2].removeprefix("v")


def test_copier() -> None:
    text = (REPOSITORY / "copier.yml").read_text()
    oldest = re.search(r'^_min_copier_version: "(.*?)"', text, re.MULTILINE)
    assert oldest and ROWS["Copier"][0] == f"{oldest[1]} and newer"


def test_python() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f"{ROWS['Python'][0].split()[0]}" == project["requires-python"].removeprefix(">=")
    versions = JOBS["tests"]["strategy"]["matrix"]["python"]
    assert ROWS["Python"][1] == f"job `tests`: {' and '.join(versions)}"


def test_kubernetes() -> None:
    assert ROWS["Kubernetes"][0] == f"{OLDEST_KUBERNETES} and newer"
    exact = JOBS["api-server"]["strategy"]["matrix"]["kubernetes"]
    versions = [version.rpartition(".")[0] for version in exact]
    nodes = [entry["node"] for entry in JOBS["kubernetes"]["strategy"]["matrix"]["include"]]
    assert versions[0] == OLDEST_KUBERNETES
    assert [re.findall(r":v(\d+\.\d+)", node)[0] for node in nodes] == versions
    assert ROWS["Kubernetes"][1].endswith(f"jobs `api-server` ¹ and `kubernetes` ¹: {' and '.join(versions)}")


def test_pgcat_and_permify() -> None:
    assert ROWS["PgCat"][0].startswith(f"{tag('pgcat')};")
    assert ROWS["Permify"][0] == tag("permify")
    (chart,) = (step["run"] for step in JOBS["judges"]["steps"] if "helm pull" in step.get("run", ""))
    assert "--version {} ".format(ROWS["Permify's Helm chart"][0]) in chart


def test_postgresql() -> None:
    major, minor = divmod(OLDEST_VERSION, 10000)
    assert ROWS["PostgreSQL"][0].startswith(f"{major}.{minor} and newer")
    assert f"the bundled {tag('postgres').split('-')[0]}." in ROWS["PostgreSQL"][1]


def test_prometheus() -> None:
    assert ROWS["Prometheus"][0].startswith(f"{tag('prometheus')} bundled")


def test_every_image_that_is_rendered_stands_there() -> None:
    listed = re.findall(r"^\| [^|]+ \| `([^`|]+:[^`|]+)` \|$", PAGE, re.MULTILINE)
    assert listed == list(IMAGES.values())


@pytest.mark.parametrize("program", ROWS)
def test_every_row_names_what_proves_it(program: str) -> None:
    proof = ROWS[program][1]
    jobs = re.findall(r"`([a-z-]+)`", proof)
    files = re.findall(r"`(tests/[\w./]+)`", proof)
    assert all(job in JOBS for job in jobs), proof
    assert all((REPOSITORY / file).exists() for file in files), proof
    assert jobs or files or "not run" in proof
