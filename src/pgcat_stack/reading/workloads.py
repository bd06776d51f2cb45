"""What runs PgCat and Permify: Deployments, sidecars, Compose services, Helm values, or somebody else.

Defaults are those of the Kubernetes API (apps/v1: one replica, RollingUpdate with 25 % surge and 25 %
unavailable, minReadySeconds 0, progressDeadlineSeconds 600, terminationGracePeriodSeconds 30) and of the
Compose specification (one replica, stop_grace_period 10 s). Values of a wrong type count as absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.quantities import Number, Seconds, duration_seconds, share_of, whole, whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.files.variables import filled_in
from pgcat_stack.findings import Location
from pgcat_stack.paths import BUDGET, VALUES
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.deployment import Deployment
from pgcat_stack.reading.pods import Pod

KUBERNETES_GRACE_SECONDS, COMPOSE_GRACE_SECONDS = 30, 10
DEFAULT_PROGRESS_DEADLINE_SECONDS = 600

Program = Literal["pgcat", "permify"]
Kind = Literal["deployment", "statefulset", "other", "compose", "helm", "elsewhere"]
Strategy = Literal["RollingUpdate", "Recreate"]

_KINDS: Mapping[str, Kind] = {"Deployment": "deployment", "StatefulSet": "statefulset"}
_SLEEP = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)([smh]?)\b")
_SLEEP_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a Deployment replaces its pods; surge and unavailable are resolved to pods."""

    strategy: Strategy
    max_surge: Number
    max_unavailable: Number
    min_ready: Number
    location: Location


@dataclass(frozen=True, slots=True)
class ScaleDown:
    """The fastest scale-down that an autoscaler allows at its maximum: pods in a period; None means never."""

    pods: int
    period: Number


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """What a HorizontalPodAutoscaler says about its target."""

    min_replicas: Number
    max_replicas: Number
    scale_down: tuple[ScaleDown, ...]
    """Each policy that may be chosen: with `selectPolicy: Min` the gentlest alone, with `Disabled` none."""


@dataclass(frozen=True, slots=True)
class PreStop:
    """A preStop hook: how long it waits, and whether it needs programs in the image."""

    seconds: float
    needs_shell: bool
    location: Location


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Processes of one program. In a sidecar pod PgCat and Permify are two workloads with the same `pod`."""

    program: Program
    kind: Kind
    name: str
    pod: str
    replicas: Number
    grace: Seconds
    location: Location
    sidecar: bool = False
    container_role: Literal["main", "native-sidecar", "init"] = "main"
    rollout: Rollout | None = None
    autoscaler: Autoscaler | None = None
    pre_stop: PreStop | None = None
    stop_signal: str | None = None
    stop_signal_location: Location | None = None
    container: Container | None = None
    counted: bool = True
    """False where no file says how many there are."""

    @property
    def most_replicas(self) -> int:
        """The most replicas that run between rollouts: the autoscaler's maximum where there is one."""
        if self.autoscaler is None:
            return self.replicas.value
        return max(self.replicas.value, self.autoscaler.max_replicas.value)

    @property
    def fewest_replicas(self) -> int:
        """The fewest replicas that run between rollouts: the autoscaler's minimum where there is one."""
        return self.replicas.value if self.autoscaler is None else self.autoscaler.min_replicas.value

    @property
    def on_kubernetes(self) -> bool:
        """Whether its manifest is part of the deployment."""
        return self.kind in ("deployment", "statefulset", "other")


def read_workloads(deployment: Deployment, containers: Iterable[Container]) -> tuple[Workload, ...]:
    """Everything that runs PgCat or Permify by the files; Permify elsewhere only where no file runs it."""
    found = [*_from_compose(containers), *_from_manifests(deployment, containers)]
    if not any(workload.program == "permify" for workload in found):
        found.extend(_elsewhere(deployment))
    return tuple(found)


# Compose


def compose_replicas(container: Container) -> Number:
    """How many containers a service has."""
    keys: tuple[Key, ...] = ("scale",) if "scale" in container.data else ("deploy", "replicas")
    replicas = whole_text(dig(container.data, *keys))
    return Number(1 if replicas is None else max(replicas, 0), container.at(*keys))


def _from_compose(containers: Iterable[Container]) -> Iterator[Workload]:
    for container in containers:
        if container.pod is not None or (container.program != "pgcat" and container.program != "permify"):
            continue
        grace = duration_seconds(filled_in(container.data.get("stop_grace_period")))
        signal = filled_in(container.data.get("stop_signal"))
        yield Workload(
            program=container.program,
            kind="compose",
            name=container.name,
            pod=container.name,
            replicas=compose_replicas(container),
            grace=Seconds(
                COMPOSE_GRACE_SECONDS if grace is None else grace, container.at("stop_grace_period")
            ),
            location=container.at(),
            stop_signal=str(signal) if isinstance(signal, (str, int)) else None,
            stop_signal_location=container.at("stop_signal"),
            container=container,
        )


# Kubernetes


def _from_manifests(deployment: Deployment, containers: Iterable[Container]) -> Iterator[Workload]:
    inside: dict[Pod, dict[Program, Container]] = {}
    for container in containers:
        if container.pod is not None and (container.program == "pgcat" or container.program == "permify"):
            inside.setdefault(container.pod, {}).setdefault(container.program, container)
    for pod, found in inside.items():
        for program, container in found.items() if pod.manifest.kind not in ("Job", "CronJob") else ():
            yield _pod_workload(deployment, pod, program, container, sidecar=len(found) > 1)


def _pod_workload(
    deployment: Deployment, pod: Pod, program: Program, container: Container, *, sidecar: bool
) -> Workload:
    manifest = pod.manifest
    grace = whole(pod.spec.get("terminationGracePeriodSeconds"))
    signal = dig(container.data, "lifecycle", "stopSignal")
    role: Literal["main", "native-sidecar", "init"] = "main"
    if "initContainers" in container.base:
        role = "init" if container.ends else "native-sidecar"
    elsewhere = _count_elsewhere(deployment) if manifest.partial else None
    replicas = whole(manifest.get("spec", "replicas"))
    count = elsewhere or Number(1 if replicas is None else max(replicas, 0), manifest.at("spec", "replicas"))
    autoscaler = _autoscaler(deployment, manifest)
    most = max(count.value, autoscaler.max_replicas.value) if autoscaler else count.value
    return Workload(
        program=program,
        kind=_KINDS.get(manifest.kind, "other"),
        name=pod.text,
        pod=f"{manifest.kind}/{manifest.namespace}/{manifest.name}",
        replicas=count,
        grace=Seconds(
            KUBERNETES_GRACE_SECONDS if grace is None else grace,
            manifest.at(*pod.path, "terminationGracePeriodSeconds"),
        ),
        location=container.at(),
        sidecar=sidecar,
        container_role=role,
        rollout=_rollout(manifest, most) if manifest.kind == "Deployment" else None,
        autoscaler=autoscaler,
        pre_stop=_pre_stop(container),
        stop_signal=signal if isinstance(signal, str) else None,
        stop_signal_location=container.at("lifecycle", "stopSignal"),
        container=container,
        counted=elsewhere is None or elsewhere.value > 0,
    )


def _rollout(manifest: Manifest, replicas: int) -> Rollout:
    """The strategy of a Deployment; where both shares come to no pod, one may be unavailable."""
    at = ("spec", "strategy", "rollingUpdate")
    recreate = manifest.get("spec", "strategy", "type") == "Recreate"
    surge = share_of(manifest.get(*at, "maxSurge"), replicas, up=True)
    unavailable = share_of(manifest.get(*at, "maxUnavailable"), replicas, up=False)
    surge = -(-replicas // 4) if surge is None else surge
    unavailable = replicas // 4 if unavailable is None else unavailable
    if surge == unavailable == 0:
        unavailable = 1
    ready = whole(manifest.get("spec", "minReadySeconds"))
    return Rollout(
        strategy="Recreate" if recreate else "RollingUpdate",
        max_surge=Number(surge, manifest.at(*at, "maxSurge")),
        max_unavailable=Number(unavailable, manifest.at(*at, "maxUnavailable")),
        min_ready=Number(max(ready or 0, 0), manifest.at("spec", "minReadySeconds")),
        location=manifest.at("spec", "strategy"),
    )


def _autoscaler(deployment: Deployment, target: Manifest) -> Autoscaler | None:
    for manifest in deployment.of_kind("HorizontalPodAutoscaler"):
        reference = as_mapping(manifest.get("spec", "scaleTargetRef"))
        most = whole(manifest.get("spec", "maxReplicas"))
        if (
            reference.get("kind") == target.kind
            and reference.get("name") == target.name
            and manifest.namespace == target.namespace
            and most is not None
        ):
            least = whole(manifest.get("spec", "minReplicas"))
            return Autoscaler(
                Number(max(least or 1, 1), manifest.at("spec", "minReplicas")),
                Number(max(most, 0), manifest.at("spec", "maxReplicas")),
                tuple(_scale_down(manifest, most)),
            )
    return None


def _scale_down(manifest: Manifest, replicas: int) -> Iterator[ScaleDown]:
    """The policies that decide. Without any, Kubernetes lets all pods go within 15 seconds."""
    at: tuple[Key, ...] = ("spec", "behavior", "scaleDown")
    choice = manifest.get(*at, "selectPolicy")
    if choice == "Disabled":
        return
    policies: list[ScaleDown] = []
    for index, policy in enumerate(as_list(manifest.get(*at, "policies"))):
        value, period = whole(dig(policy, "value")), whole(dig(policy, "periodSeconds"))
        if value is None or period is None:
            continue
        pods = -(-replicas * value // 100) if dig(policy, "type") == "Percent" else value
        policies.append(ScaleDown(pods, Number(period, manifest.at(*at, "policies", index))))
    if not policies:
        yield ScaleDown(replicas, Number(15, manifest.at(*at, "policies")))
    elif choice == "Min":  # each policy binds by itself, so the gentlest does
        yield min(policies, key=lambda policy: (policy.pods, -policy.period.value))
    else:
        yield from policies


def _pre_stop(container: Container) -> PreStop | None:
    at = ("lifecycle", "preStop")
    seconds = whole(dig(container.data, *at, "sleep", "seconds"))
    if seconds is not None:
        return PreStop(seconds, False, container.at(*at, "sleep", "seconds"))
    command = dig(container.data, *at, "exec", "command")
    if not isinstance(command, list):
        return None
    found = _SLEEP.search(" ".join(str(word) for word in command))
    waits = float(found[1]) * _SLEEP_UNITS[found[2]] if found else 0.0
    return PreStop(waits, True, container.at(*at, "exec", "command"))


# Permify that others deploy


def _count_elsewhere(deployment: Deployment) -> Number:
    """How many Permify processes others run at most, as budget.yaml says; 0 where it does not."""
    if deployment.capacities is None:
        return Number(0, Location(BUDGET))
    most = deployment.capacities.permify_max_replicas
    return Number(max(most.number or 0, 0), most.location)


def _elsewhere(deployment: Deployment) -> Iterator[Workload]:
    """Permify from its Helm chart, or wherever its configuration alone is rendered."""
    values = deployment.sources.get(VALUES)
    count = _count_elsewhere(deployment)
    if values is not None:
        yield _helm(deployment, values, count.value)
    elif deployment.permify is not None:
        yield Workload(
            program="permify",
            kind="elsewhere",
            name="Permify elsewhere",
            pod="elsewhere",
            replicas=count,
            counted=count.value > 0,
            grace=Seconds(KUBERNETES_GRACE_SECONDS, count.location),
            location=count.location,
        )


def _helm(deployment: Deployment, values: Source, most: int) -> Workload:
    """Permify's chart: `replicaCount` (3 by default), or autoscaling between its limits (1, 100)."""

    def number(default: int, *keys: Key) -> Number:
        count = whole_text(dig(values.data, *keys))
        return Number(default if count is None else count, values.at(*keys))

    autoscaler: Autoscaler | None = None
    replicas = number(3, "replicaCount")
    if dig(values.data, "autoscaling", "enabled") is True:
        replicas = number(100, "autoscaling", "maxReplicas")
        autoscaler = Autoscaler(number(1, "autoscaling", "minReplicas"), replicas, ())
    replicas = Number(max(replicas.value, most), replicas.location)
    return Workload(
        program="permify",
        kind="helm",
        name="Permify from its Helm chart",
        pod="helm",
        replicas=replicas,
        grace=Seconds(KUBERNETES_GRACE_SECONDS, values.here()),
        location=values.here(),
        autoscaler=autoscaler,
    )
