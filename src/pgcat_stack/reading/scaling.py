"""What changes the number of pods beside their own manifest: autoscalers, budgets of disruptions, pauses.

https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
https://kubernetes.io/docs/tasks/run-application/configure-pdb/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.files.gaps import Gap, mapping_gaps
from pgcat_stack.files.plain_data import as_mapping, dig
from pgcat_stack.files.quantities import Number, whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location
from pgcat_stack.reading.pods import Pod
from pgcat_stack.reading.selectors import Selector, read_selector

_SCALABLE = frozenset({"Deployment", "StatefulSet", "ReplicaSet"})


@dataclass(frozen=True, eq=False)
class ScaleTarget:
    """What a HorizontalPodAutoscaler scales: kind and name as they are written, and what has them."""

    manifest: Manifest
    kind: Any
    name: Any
    choices: tuple[Pod, ...]
    """What can be scaled in its namespace."""
    location: Location
    gaps: tuple[Gap, ...] = ()

    @property
    def found(self) -> bool:
        """Whether the deployment has what it names."""
        return any(self.kind == pod.manifest.kind and self.name == pod.manifest.name for pod in self.choices)


@dataclass(frozen=True, eq=False)
class DisruptionBudget:
    """The pods that a PodDisruptionBudget selects."""

    manifest: Manifest
    selector: Selector
    location: Location

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What of it could not be read."""
        return self.selector.gaps


@dataclass(frozen=True, slots=True)
class Pause:
    """A Deployment that is paused, so that changes are not rolled out."""

    pod: Pod
    location: Location


def read_pauses(pods: Iterable[Pod]) -> tuple[Pause, ...]:
    """The Deployments that are paused."""
    return tuple(
        Pause(pod, pod.manifest.at("spec", "paused"))
        for pod in pods
        if pod.manifest.kind == "Deployment" and pod.manifest.get("spec", "paused") is True
    )


def read_chart_replicas(values: Source | None) -> Number | None:
    """The replicaCount of the values of Permify's chart; None without one, or where it autoscales."""
    if values is None or dig(values.data, "autoscaling", "enabled") is True:
        return None
    count = whole_text(dig(values.data, "replicaCount"))
    return None if count is None else Number(count, values.at("replicaCount"))


def read_scale_targets(manifests: Iterable[Manifest], pods: Iterable[Pod]) -> tuple[ScaleTarget, ...]:
    """What the HorizontalPodAutoscalers of a deployment scale."""
    return tuple(_target(one, pods) for one in manifests if one.kind == "HorizontalPodAutoscaler")


def _target(manifest: Manifest, pods: Iterable[Pod]) -> ScaleTarget:
    written = manifest.get("spec", "scaleTargetRef")
    return ScaleTarget(
        manifest=manifest,
        kind=as_mapping(written).get("kind"),
        name=as_mapping(written).get("name"),
        choices=tuple(
            pod
            for pod in pods
            if pod.manifest.kind in _SCALABLE and pod.manifest.namespace == manifest.namespace
        ),
        location=manifest.at("spec", "scaleTargetRef"),
        gaps=tuple(mapping_gaps(written, manifest.at, "spec", "scaleTargetRef")),
    )


def read_disruption_budgets(manifests: Iterable[Manifest]) -> tuple[DisruptionBudget, ...]:
    """The PodDisruptionBudgets of a deployment."""
    return tuple(
        DisruptionBudget(
            manifest,
            read_selector(manifest.get("spec", "selector"), partial(manifest.at, "spec", "selector")),
            manifest.at("spec", "selector"),
        )
        for manifest in manifests
        if manifest.kind == "PodDisruptionBudget"
    )
