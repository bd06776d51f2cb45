"""PS62x: readiness and disruption budgets, each broken once in a rendered deployment."""

from __future__ import annotations

import pytest

from cases import AUTOSCALED, AUTOSCALED_PGCAT, DIRECT, SIDECAR, STANDALONE, edit, findings, rendered

PERMIFY_DEPLOYMENT = "kubernetes/permify-deployment.yaml"
PGCAT_DEPLOYMENT = "kubernetes/pgcat-deployment.yaml"
JOB = "kubernetes/migration-job.yaml"
BUDGETS = "kubernetes/disruption-budgets.yaml"
PGCAT_AUTOSCALER = "kubernetes/pgcat-autoscaler.yaml"
PROBE = r"^          {}:\n(            .*\n)+"
ANOTHER = """---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: another
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: pgcat
---
apiVersion: policy/v1
"""

CHANGES = [
    (STANDALONE, PGCAT_DEPLOYMENT, PROBE.format("readinessProbe"), "", {"PS621"}),
    (STANDALONE, PERMIFY_DEPLOYMENT, PROBE.format("readinessProbe"), "", {"PS621"}),
    # The first is that of PgCat, the native sidecar.
    (SIDECAR, PERMIFY_DEPLOYMENT, PROBE.format("readinessProbe"), "", {"PS621"}),
    (
        SIDECAR,
        PERMIFY_DEPLOYMENT,
        rf"(?<=all of them at once\.\n){PROBE.format('readinessProbe')}",
        "",
        {"PS621"},
    ),
    (STANDALONE, PGCAT_DEPLOYMENT, PROBE.format("startupProbe"), "", {"PS622"}),
    (STANDALONE, PGCAT_DEPLOYMENT, "/etc/pgcat/ready.sh", "/bin/true", {"PS622"}),
    (SIDECAR, PERMIFY_DEPLOYMENT, "/etc/pgcat/ready.sh", "/bin/true", {"PS622"}),
    (STANDALONE, PERMIFY_DEPLOYMENT, "value: v1-7-3-", "value: v1-7-2-", {"PS623"}),
    (DIRECT, PERMIFY_DEPLOYMENT, "value: v1-7-3-", "value: v1-7-2-", {"PS623"}),
    (SIDECAR, JOB, r"VALUES \('v1-7-3-", "VALUES ('v1-7-2-", {"PS623"}),
    (STANDALONE, "kustomization.yaml", "  - kubernetes/migration-job.yaml\n", "", {"PS623"}),
    (STANDALONE, BUDGETS, "maxUnavailable: 1", "maxUnavailable: 0", {"PS624"}),
    (STANDALONE, BUDGETS, "maxUnavailable: 1", "maxUnavailable: 0%", {"PS624"}),
    (STANDALONE, BUDGETS, "maxUnavailable: 1", "minAvailable: 2", {"PS624"}),
    (STANDALONE, BUDGETS, "maxUnavailable: 1", "minAvailable: 100%", {"PS624"}),
    (STANDALONE, BUDGETS, "maxUnavailable: 1", "minAvailable: 1", set()),
    (STANDALONE, BUDGETS, "maxUnavailable: 1", "maxUnavailable: 50%", set()),
    (STANDALONE, PGCAT_DEPLOYMENT, "replicas: 2", "replicas: 1", set()),
    (AUTOSCALED, BUDGETS, "maxUnavailable: 1", "minAvailable: 2", {"PS624"}),
    (AUTOSCALED, BUDGETS, "maxUnavailable: 1", "minAvailable: 1", set()),
    (AUTOSCALED_PGCAT, BUDGETS, "maxUnavailable: 1", "minAvailable: 2", {"PS624"}),
    (AUTOSCALED_PGCAT, BUDGETS, "maxUnavailable: 1", "minAvailable: 1", set()),
    (AUTOSCALED_PGCAT, PGCAT_AUTOSCALER, "minReplicas: 2", "minReplicas: 1", set()),
    (STANDALONE, BUDGETS, "---\napiVersion: policy/v1\n", ANOTHER, {"PS625"}),
]


@pytest.mark.parametrize(
    ("answers", "path", "old", "new", "expected"),
    CHANGES,
    ids=[f"{c[1]}: {c[2][:30]} {c[3][:30]}" for c in CHANGES],
)
def test_one_change_is_found(answers, path, old, new, expected):
    files = edit(rendered(answers), path, old, new)
    assert {finding.code for finding in findings(files, "PS62")} == expected


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_single_pod_has_no_disruption_budget(replicas):
    files = rendered(STANDALONE, permify_replicas=replicas, pgcat_replicas=replicas)
    assert (BUDGETS in files) == (replicas > 1)
