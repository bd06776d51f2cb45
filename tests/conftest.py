from __future__ import annotations

import signal
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

import draws


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-combination",
        action="store_true",
        help="every combination of discrete answers, every old version, every topology live; not a draw",
    )


def pytest_configure(config: pytest.Config) -> None:
    draws.every = config.getoption("--every-combination")
    # A shell that runs this in the background ignores Ctrl-C, and so would every program that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What repeats other tests is left out unless asked for."""
    if not config.getoption("--every-combination"):
        repeated = [item for item in items if item.get_closest_marker("repeats")]
        config.hook.pytest_deselected(items=repeated)
        items[:] = [item for item in items if item not in repeated]


# Live tests share their servers, so a worker takes all of them. Rollouts and faults are another's, for they
# mostly wait and have servers of their own; so are Kubernetes, its API server, Docker, and the doctor, who is
# given faults to find. The runbook, callers and failovers are long, and would make one worker the last.
LIVE_WORKERS = {
    "test_rollouts.py": "waiting",
    "test_kubernetes.py": "kubernetes",
    "test_dashboard.py": "waiting",
    "test_faults.py": "waiting",
    "test_alerts.py": "alerts",
    "test_compose.py": "compose",
    "test_api_server.py": "api server",
    "test_controllers.py": "api server",
    "test_doctor.py": "doctor",
    "test_doctor_together.py": "doctor",
    "test_callers.py": "callers",
    "test_doctor_trust.py": "callers",
    "test_limits.py": "callers",
    "test_failover.py": "failover",
    "test_metrics.py": "failover",
    "test_runbook.py": "runbook",
}


class LiveTogether(LoadScopeScheduling):
    """Every test for itself, but live tests together. (xdist's own groups do nothing with pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.split("::")[0])
        return LIVE_WORKERS.get(file.name, "live") if file.parent.name == "live" else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LiveTogether:
    return LiveTogether(config, log)
