"""Template and validator compute the budget apart from each other, and come to the same numbers.

The template's own numbers stand in the deployment's README; the validator's come from the other files.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pgcat_stack.budget import plan
from pgcat_stack.deployment import Deployment
from rendering import Refused, render

ROW = re.compile(r"^\| (\S+):(\d+) \((primary|replica)\) \| .* = (\d+) \| (\d+) \| (-?\d+) \|$", re.MULTILINE)

answers = st.fixed_dictionaries(
    {
        "topology": st.sampled_from(["docker", "standalone", "sidecar"]),
        "pooling": st.sampled_from(["pgcat", "direct"]),
        "database": st.just("external"),
        "primary_host": st.just("db"),
        "replica_hosts": st.sampled_from(["", "r1", "r1,r2:5433", "10.0.0.7,r2,r3"]),
        "postgres_max_connections": st.integers(40, 600),
        "other_connections": st.integers(0, 30),
        "permify_replicas": st.integers(1, 6),
        "permify_max_replicas": st.sampled_from([0, 6, 9]),
        "pgcat_replicas": st.integers(1, 4),
        "pgcat_max_replicas": st.sampled_from([0, 4, 7]),
        "permify_install": st.sampled_from(["manifests", "helm", "none"]),
        "pool_mode": st.sampled_from(["transaction", "session"]),
        "writer_pool_size": st.sampled_from([0, 0, 1, 3, 8]),
        "reader_pool_size": st.sampled_from([0, 0, 1, 3, 8]),
        "primary_reads": st.booleans(),
        "permify_max_connections": st.integers(0, 4),
    }
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(answers)
def test_both_sides_agree_on_demand_and_capacity(answers: dict[str, object]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        deploy = render(folder / "deploy", answers)
        readme = {
            (host, int(port)): (int(demand), int(capacity), int(headroom))
            for host, port, _, demand, capacity, headroom in ROW.findall((deploy / "README.md").read_text())
        }
        computed = {
            (row.server.address.host, row.server.address.port): (
                row.demand,
                row.server.capacity,
                row.headroom,
            )
            for row in plan(Deployment.load(deploy)).rows
        }
        assert readme == computed
    except Refused:
        assume(False)
    finally:
        shutil.rmtree(folder)
