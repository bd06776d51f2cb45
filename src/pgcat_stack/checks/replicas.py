"""PS428: PgCat and Permify run, and follow their manifests."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import dig
from pgcat_stack.files.quantities import whole_text
from pgcat_stack.findings import Problem
from pgcat_stack.paths import VALUES
from pgcat_stack.reading.reading import Reading

_NAMES = {"pgcat": "PgCat", "permify": "Permify"}


@check(
    code="PS428",
    name="nobody-runs",
    severity="warning",
    why="A scale of 0 or a pause from an incident is easily committed: nothing answers, an autoscaler is"
    " switched off by it, and a paused Deployment keeps its old pods whatever is applied.",
    fix="Set the replicas that the budget counts, and remove `paused`.",
)
def nobody_runs(reading: Reading) -> Iterator[Problem]:
    """Replicas of 0, and Deployments that are paused, of PgCat and Permify."""
    ours = set()
    for workload in reading.topology.workloads:
        counted = workload.kind in ("deployment", "statefulset", "compose")
        if counted and workload.replicas.value == 0:
            text = f"{workload.name} runs {_NAMES[workload.program]} with 0 replicas: nobody answers"
            yield Problem(workload.replicas.location, text, "replicas: 1 or more")
        if workload.container is not None and workload.container.pod is not None:
            ours.add(workload.container.pod.manifest)
    for manifest in reading.of_kind("Deployment"):
        if manifest in ours and manifest.get("spec", "paused") is True:
            text = f"Deployment {manifest.name} is paused: changes are not rolled out"
            yield Problem(manifest.at("spec", "paused"), text, "remove paused")
    values = reading.sources.get(VALUES)
    if values is None or dig(values.data, "autoscaling", "enabled") is True:
        return
    if whole_text(dig(values.data, "replicaCount")) == 0:
        text = "Permify's chart runs 0 replicas: nobody answers"
        yield Problem(values.at("replicaCount"), text, "replicaCount: 1 or more")
