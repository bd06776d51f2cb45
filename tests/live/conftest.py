from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubernetes_cases import TOPOLOGIES
from live.control_plane import Answer, ControlPlane, control_plane
from live.manifests import APPLIED, Applied, deployment
from live.stack import MAX_CONNECTIONS, require_programs
from live.support import EVERY_STATEMENT, Cluster, allow_open_files, postgres_cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is live."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL primary and its streaming replica."""
    require_programs()
    with postgres_cluster(MAX_CONNECTIONS, EVERY_STATEMENT) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A Kubernetes API server without a node."""
    with control_plane() as plane:
        yield plane


@pytest.fixture(scope="session")
def applied(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Applied:
    """Applies a case of answers, once for all tests, to a namespace called like it."""
    folder = tmp_path_factory.mktemp("applied")

    @functools.cache
    def apply(case: str) -> tuple[Path, Answer]:
        deploy = deployment(folder / case, case, {**APPLIED, **TOPOLOGIES}[case])
        return deploy, plane.apply(deploy)

    return apply


@pytest.fixture(scope="session", autouse=True)
def _open_files() -> None:
    allow_open_files()
