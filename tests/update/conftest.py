"""Each test gets the old versions that it is for; those of `tests/old_versions.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiled.copier_cache import spare_copier
from old_versions import ANSWERS, NEXT, SINCE, VERSIONS, InProcess, has, is_here
from versions import Home


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`old` × `topology`: every pair, or a draw in which each topology and each version appears."""
    if "old" in metafunc.fixturenames and "topology" in metafunc.fixturenames:
        pairs = [(version, name) for version in VERSIONS for name in ANSWERS if has(version, name)]
        if not metafunc.config.getoption("--every-combination"):
            versions = list(VERSIONS)
            shift = sum(map(ord, metafunc.function.__name__))  # another draw for another test
            names = list(ANSWERS)[: getattr(metafunc.function, "draw", None)]
            drawn = [(versions[(i + shift) % len(versions)], name) for i, name in enumerate(names)]
            pairs = [(version if has(version, name) else SINCE[name], name) for version, name in drawn]
        metafunc.parametrize(("old", "topology"), pairs)
    elif "old" in metafunc.fixturenames:
        metafunc.parametrize("old", VERSIONS)


@pytest.fixture(autouse=True)
def _old_is_here(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    old = callspec.params.get("old") if callspec else None
    if old and not is_here(VERSIONS[old]):
        pytest.skip(f"{VERSIONS[old]}, version {old}, is not in this clone: git fetch --unshallow --tags")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with every version that is here, and the working tree as the newest."""
    home = Home(tmp_path_factory.mktemp("home")).prepare()
    for version, commit in VERSIONS.items():
        if is_here(commit):
            home.release(version, commit)
    home.release(NEXT)
    return home


@pytest.fixture(scope="session")
def in_process(home: Home) -> InProcess:
    """With compiled templates kept, as for the commands of this home."""
    spare_copier()
    return InProcess(home)


@pytest.fixture
def alone(in_process: InProcess, tmp_path: Path) -> InProcess:
    """A home of its own, with the working tree as NEXT, for a test that releases a version more."""
    (tmp_path / "home").mkdir()
    home = Home(tmp_path / "home").prepare()
    home.release(NEXT)
    return InProcess(home)
