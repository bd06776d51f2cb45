"""The oldest Copier that copier.yml allows, and the newest there is, copy and update."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from old_versions import NEXT, stored
from rendering import REPOSITORY
from versions import URL, Home

_found = re.search(r'_min_copier_version: "(.*)"', (REPOSITORY / "copier.yml").read_text())
assert _found
OLDEST = _found[1]


@pytest.fixture(scope="session")
def uv() -> str:
    found = shutil.which("uv") or shutil.which("uv", path=REPOSITORY / ".tools/bin")
    if found is None:
        pytest.skip("uv is missing")
    return found


@pytest.mark.parametrize("version", [OLDEST, "newest"])
def test_copy_and_update(
    home: Home, uv: str, tmp_path: Path, version: str, pytestconfig: pytest.Config
) -> None:
    if version == "newest" and not pytestconfig.getoption("--every-combination"):
        pytest.skip("the newest Copier runs with --every-combination; all other tests run the locked one")
    if "0.3.0" not in home.git(home.template, "tag"):
        pytest.skip("version 0.3.0 is not in this clone")
    requirement = "copier" if version == "newest" else f"copier=={version}"
    with_copier = (uv, "run", "--quiet", "--no-project", "--python", sys.executable)
    with_copier += ("--with", requirement, "--with-requirements", str(REPOSITORY / "hooks/requirements.txt"))
    cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache/uv")

    def copier(*arguments: str, cwd: Path | None = None):
        return home.run(*with_copier, "copier", *arguments, cwd=cwd, UV_CACHE_DIR=cache)

    ready = copier("--version")
    if ready.returncode != 0:
        pytest.skip(f"{requirement} cannot be installed (no network?): {ready.stderr.strip()[-200:]}")
    if version != "newest":
        assert version in ready.stdout

    deploy = tmp_path / "deploy"
    answers = ("--data=topology=standalone", "--data=primary_host=db")
    run = copier("copy", "--trust", "--defaults", "--vcs-ref=0.3.0", *answers, URL, str(deploy))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 errors, 0 warnings" in run.stdout
    home.commit(deploy)
    before = stored(deploy)

    toml = deploy / "pgcat/pgcat.toml"
    toml.write_text("# ours\n" + toml.read_text())
    home.commit(deploy)
    run = copier("update", "--trust", "--defaults", "--data=topology=sidecar", cwd=deploy)
    assert run.returncode == 0, run.stdout + run.stderr
    assert toml.read_text().startswith("# ours\n")
    assert not (deploy / "kubernetes/pgcat-deployment.yaml").exists()
    after = stored(deploy)
    assert after["topology"] == "sidecar"
    assert {key: after[key] for key in before if key in after} == {
        **{k: before[k] for k in before if k in after},
        "topology": "sidecar",
    }
    assert f"_commit: {NEXT}" in (deploy / ".copier-answers.yml").read_text()
