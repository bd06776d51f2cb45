"""PS62x: a pod takes traffic when it can serve, and a node that is drained takes one pod at a time.

What a probe can tell: PgCat listens before it has reached PostgreSQL, and refuses logins ("Pool down") until
it has. Permify says SERVING once both of its pools have reached the database, and for ever after.
https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
https://kubernetes.io/docs/tasks/run-application/configure-pdb/
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks import check
from pgcat_stack.files.quantities import share_of
from pgcat_stack.findings import Problem
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.pods import Pod
from pgcat_stack.reading.reading import Reading

_WAIT, _NOTED = "wait-for-migration", "MIGRATION"


@check(
    code="PS621",
    name="no-readiness-probe",
    severity="error",
    why="Without a readiness probe a pod is an endpoint of its Service as soon as its process runs. Clients"
    " are refused until it listens, and a rollout goes on although the new pods do not work. A Permify whose"
    " PgCat beside it is down would be asked on.",
    fix="Add readinessProbe: tcpSocket on PgCat's port, grpc on Permify's 3478.",
)
def no_readiness_probe(reading: Reading) -> Iterator[Problem]:
    """Containers behind a Service that are ready before they listen."""
    served = {pod for service in reading.kubernetes_services for pod in service.pods}
    for container in (*reading.running("pgcat"), *reading.running("permify")):
        if container.pod in served and "readinessProbe" not in container.probes:
            text = f"{container.text} has no readiness probe: it is ready before it listens"
            yield Problem(container.at(), text, "add readinessProbe")


@check(
    code="PS622",
    name="ready-unconnected",
    severity="warning",
    why="PgCat listens before it has reached PostgreSQL. With a wrong password or host such a pod would be"
    " ready, and a rolling update would replace every working one by it.",
    fix='Add startupProbe: exec: command: ["/bin/sh", "/etc/pgcat/ready.sh"]; the template renders it.',
)
def ready_unconnected(reading: Reading) -> Iterator[Problem]:
    """PgCat on Kubernetes that no probe asks whether it has reached PostgreSQL."""
    for container in reading.running("pgcat"):
        if container.pod is None:
            continue
        probes = [probe for key, probe in container.probes.items() if key != "livenessProbe"]
        if not any("ready" in word or "psql" in word for probe in probes for word in probe.words):
            text = f"{container.text} is ready before it has reached PostgreSQL"
            yield Problem(container.at(), text, "add a startupProbe that runs /etc/pgcat/ready.sh")


@check(
    code="PS623",
    name="migration-never-noted",
    severity="error",
    why="Permify's pods wait until the migration of their version is noted in the database. They never start"
    " where no Job notes it.",
    fix="Give the Job and the pods the same MIGRATION, as the template renders them.",
)
def migration_never_noted(reading: Reading) -> Iterator[Problem]:
    """Pods that wait for a note which no Job of the deployment writes."""
    if not reading.complete:
        return
    jobs = [
        container
        for container in reading.containers
        if container.pod and container.pod.manifest.kind == "Job"
    ]
    noted = "\n".join(word for container in jobs for word in container.words)
    for container in reading.containers:
        variable = container.variable(_NOTED) if container.name == _WAIT else None
        if variable is None or variable.value is None or f"'{variable.value}'" in noted:
            continue
        text = f"{container.text} waits for the migration {variable.value}, which no Job notes"
        yield Problem(container.at(*variable.keys), text, _writers(jobs))


def _writers(jobs: list[Container]) -> str:
    writer = next(
        (
            container
            for container in jobs
            if any("pgcat_stack_migrations" in word for word in container.words)
        ),
        None,
    )
    return f"write what {writer.text} notes" if writer else "list kubernetes/migration-job.yaml"


@check(
    code="PS624",
    name="disruption-budget-blocks",
    severity="error",
    why="A PodDisruptionBudget that never lets a pod go blocks every node that is to be drained: upgrades of"
    " the cluster hang on it.",
    fix="Use maxUnavailable: 1, for two replicas or more.",
)
def disruption_budget_blocks(reading: Reading) -> Iterator[Problem]:
    """Budgets that allow no eviction even when every pod is ready."""
    for budget, pod in _budgets(reading):
        replicas = _fewest_replicas(reading, pod)
        if replicas is None:
            continue
        for key, allowed in (
            ("maxUnavailable", share_of(budget.get("spec", "maxUnavailable"), replicas, up=True)),
            (
                "minAvailable",
                _left(share_of(budget.get("spec", "minAvailable"), replicas, up=True), replicas),
            ),
        ):
            if allowed is not None and allowed < 1:
                text = f"{key} of {budget.name} lets none of the {replicas} pods of {pod.text} go"
                yield Problem(budget.at("spec", key), text, "maxUnavailable: 1, for two replicas or more")


@check(
    code="PS625",
    name="disruption-budgets-overlap",
    severity="error",
    why="Kubernetes evicts no pod that two PodDisruptionBudgets select.",
    fix="Keep one of them.",
)
def disruption_budgets_overlap(reading: Reading) -> Iterator[Problem]:
    """Pods with more than one budget."""
    first: dict[Pod, Manifest] = {}
    for budget, pod in _budgets(reading):
        if pod in first:
            text = f"{budget.name} and {first[pod].name} both select the pods of {pod.text}"
            yield Problem(budget.at("spec", "selector"), text, "keep one of them")
        first.setdefault(pod, budget)


def _budgets(reading: Reading) -> Iterator[tuple[Manifest, Pod]]:
    for budget in reading.disruption_budgets:
        for pod in reading.own_pods:
            same = pod.manifest.namespace == budget.manifest.namespace
            if same and pod.manifest.kind != "Job" and budget.selector.selects(pod.labels):
                yield budget.manifest, pod


def _left(least: int | None, replicas: int) -> int | None:
    return None if least is None else replicas - least


def _fewest_replicas(reading: Reading, pod: Pod) -> int | None:
    """The fewest pods that run between rollouts; None where the files do not tell."""
    for workload in reading.topology.workloads:
        if workload.container is not None and workload.container.pod is pod and workload.counted:
            return workload.fewest_replicas
    return None
