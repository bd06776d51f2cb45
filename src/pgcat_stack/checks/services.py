"""PS42x: Services, selectors, ports, replicas and autoscalers of the manifests find what they mean.

https://kubernetes.io/docs/concepts/services-networking/service/ and the objects' API reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pgcat_stack.checks import check
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PERMIFY, PGCAT
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.pods import Pod
from pgcat_stack.reading.policies import Policy
from pgcat_stack.reading.ports import asked_ports, declared_ports
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.scaling import DisruptionBudget
from pgcat_stack.reading.selectors import NAME_LABEL, Selector, labels_text
from pgcat_stack.reading.services import Service

_PROGRAMS = {"pgcat": "PgCat", "permify": "Permify"}


def _names(found: Iterable[Pod]) -> str:
    return " and ".join(pod.text for pod in found)


@check(
    code="PS420",
    name="service-selects-its-pods",
    severity="error",
    why="A Service sends connections to whatever pods its selector finds: to nothing, or to the"
    " wrong program.",
    fix="Give the Service the labels of the pods of exactly one workload.",
)
def service_selects_its_pods(reading: Reading) -> Iterator[Problem]:
    """Services whose selector finds no workload, or several."""
    if not reading.complete:
        return
    for service in reading.kubernetes_services:
        pods, labels = service.pods, service.labels
        if not labels or (not pods and _elsewhere(reading, Selector(labels))):
            continue
        if len(pods) != 1:
            count = f"the pods of {_names(pods)}" if pods else "no pods of this deployment"
            yield Problem(
                service.location,
                f"the Service {service.manifest.name} selects {labels_text(labels)}: {count}",
                "use the labels of the pods it is meant for",
            )


@check(
    code="PS421",
    name="workload-selector",
    severity="error",
    why="The API refuses a workload whose selector does not match its own pods; one that"
    " matches another's would"
    " take those over.",
    fix="Write the same labels in the selector and in the pod template.",
)
def workload_selector(reading: Reading) -> Iterator[Problem]:
    """Deployments whose selector misses their own pods or finds others'."""
    for own in reading.own_selectors:
        pod, selector, place = own.pod, own.selector, own.location
        if not selector.selects(pod.labels):
            wanted = labels_text(selector.labels)
            text = f"the selector of {pod.text}, {wanted}, does not match its own pods"
            yield Problem(place, text, f"their labels are {labels_text(pod.labels)}")
        for other in reading.pods:
            same = other.manifest.namespace == pod.manifest.namespace
            if other is not pod and same and selector.selects(other.labels):
                text = f"the selector of {pod.text} also matches the pods of {other.text}"
                yield Problem(place, text, "give them labels of their own")


@check(
    code="PS422",
    name="port-name",
    severity="error",
    why="A port that is given by name must be declared by a container of the pod, or the"
    " Service has no endpoint,"
    " the probe always fails, and nothing is scraped.",
    fix="Use the name of a container's port, or its number.",
)
def port_name(reading: Reading) -> Iterator[Problem]:
    """Named ports of Services, probes and PodMonitors that no container declares."""
    for service in reading.kubernetes_services if reading.complete else ():
        for port in service.ports if len(service.pods) == 1 else ():
            yield from _unnamed(port.inner, port.inner_location, service.pods)
    for container in reading.containers:
        declared = {port.name for port in declared_ports(container) if port.name is not None}
        for asked in asked_ports(container):
            if isinstance(asked.port, str) and asked.port not in declared:
                fix = f"it has {', '.join(sorted(declared)) or 'none'}"
                yield Problem(asked.location, f"{container.text} has no port named {show(asked.port)}", fix)
    for monitor in reading.network.pod_monitors:
        for endpoint in monitor.endpoints if monitor.pods else ():
            yield from _unnamed(endpoint.port, endpoint.port_location, monitor.pods)


def _unnamed(port: int | str | None, place: Location, pods: tuple[Pod, ...]) -> Iterator[Problem]:
    """A port by a name that none of these pods knows."""
    if isinstance(port, str) and all(pod.port_number(port) is None for pod in pods):
        yield Problem(place, f"no container of {_names(pods)} has a port named {show(port)}", _known(pods))


def _known(found: Iterable[Pod]) -> str:
    names = sorted({name for pod in found for name, _ in pod.ports if name})
    return f"its ports are named {', '.join(names)}" if names else "name a port of the container"


@check(
    code="PS423",
    name="nobody-listens",
    severity="error",
    needs=(PGCAT, PERMIFY),
    why="Ports of containers, probes and Services must be those that the program listens on by its own"
    " configuration; a probe on another port ends in restarts without end.",
    fix="Write the same port in the program's configuration and here.",
)
def nobody_listens(reading: Reading) -> Iterator[Problem]:
    """Numbers of ports that the program behind them does not open."""
    for container in reading.containers:
        open_ports = reading.network.listening(container)
        if open_ports is None:
            continue
        fix = _listens(container, open_ports)
        for declared in declared_ports(container):
            if declared.number is not None and declared.number not in open_ports:
                text = f"{container.text} declares port {declared.number}"
                yield Problem(declared.location, text, fix)
        for asked in asked_ports(container):
            if isinstance(asked.port, int) and asked.port not in open_ports:
                text = f"the probe of {container.text} asks port {asked.port}"
                yield Problem(asked.location, text, fix)
    for service in reading.kubernetes_services:
        if len(service.pods) == 1:
            yield from _service_ports(reading, service, service.pods[0])


def _service_ports(reading: Reading, service: Service, pod: Pod) -> Iterator[Problem]:
    inside = [container for container in reading.containers if container.pod is pod and not container.ends]
    known = [reading.network.listening(container) for container in inside]
    if None in known:
        return
    open_ports = {number for ports in known for number in ports or ()}
    for port in service.ports:
        if isinstance(port.inner, int) and port.inner not in open_ports:
            text = f"the Service {service.manifest.name} leads to port {port.inner} of {pod.text}"
            fix = f"its programs listen on {', '.join(map(str, sorted(open_ports)))}"
            yield Problem(port.location, text, fix)


def _listens(container: Container, open_ports: set[int]) -> str:
    file = PGCAT if container.program == "pgcat" else PERMIFY
    return f"by {file} it listens on {', '.join(map(str, sorted(open_ports)))}"


@check(
    code="PS427",
    name="listens-on-loopback",
    severity="error",
    why="general.host is where PgCat and its exporter listen. On loopback nobody outside the pod or container"
    " reaches them: no Permify, no Prometheus, and no kubelet, whose failing probe restarts PgCat for ever.",
    fix='Set host = "0.0.0.0", or "[::]" where the cluster has IPv6; for a sidecar that nobody scrapes keep'
    " loopback and probe by exec.",
)
def listens_on_loopback(reading: Reading) -> Iterator[Problem]:
    """A PgCat on loopback that somebody outside its pod or container has to reach."""
    pgcat = reading.pgcat_config
    if pgcat is None or not pgcat.general.on_loopback:
        return
    host = pgcat.general.host.value or ""
    listens, mend = pgcat.general.host.location, f'set host = "{"[::]" if ":" in host else "0.0.0.0"}"'
    permify_pods = [container.pod for container in reading.running("permify")]
    for container in reading.running("pgcat"):
        if container.pod is None or container.pod not in permify_pods:
            text = f"{container.text} listens on {host}, and Permify runs outside of it"
            yield Problem(listens, text, mend)
            continue
        if reading.network.scraped(container.pod):
            yield Problem(listens, f"the exporter of {container.text} listens on {host}, too", mend)
        for asked in asked_ports(container):
            if asked.by_kubelet:
                text = f"the kubelet asks from outside the pod, and {container.text} listens on {host}"
                yield Problem(asked.location, text, f"{mend}, or probe by exec")


@check(
    code="PS424",
    name="autoscaler-target",
    severity="error",
    why="An autoscaler whose target does not exist scales nothing, and the budget counts a"
    " number that nothing keeps.",
    fix="Name a Deployment of this deployment.",
)
def autoscaler_target(reading: Reading) -> Iterator[Problem]:
    """HorizontalPodAutoscalers whose scaleTargetRef names nothing."""
    if not reading.complete:
        return
    for target in reading.scale_targets:
        if not target.found:
            wanted = f"{show(target.kind)} {show(target.name)}"
            yield Problem(
                target.location,
                f"the autoscaler {target.manifest.name} scales {wanted}, which is not there",
                f"use {_names(target.choices)}" if target.choices else "",
            )


@check(
    code="PS425",
    name="selects-nothing",
    severity="error",
    why="A NetworkPolicy or PodDisruptionBudget that selects no pods protects nothing.",
    fix="Use the labels of the pods.",
)
def selects_nothing(reading: Reading) -> Iterator[Problem]:
    """Pod selectors of policies and disruption budgets that match no pods of the deployment."""
    if not reading.complete:
        return
    known: tuple[DisruptionBudget | Policy, ...] = (*reading.disruption_budgets, *reading.policies.all)
    for selecting in known:
        manifest, selector = selecting.manifest, selecting.selector
        if not selector.written or _elsewhere(reading, selector):
            continue
        same = [pod for pod in reading.pods if pod.manifest.namespace == manifest.namespace]
        if not any(selector.selects(pod.labels) for pod in same):
            labels = sorted({pod.labels.get(NAME_LABEL, "") for pod in same} - {""})
            yield Problem(
                selecting.location,
                f"{manifest.kind} {manifest.name} selects {labels_text(selector.labels)}: no pods",
                f"pods here have {NAME_LABEL}: {', '.join(labels) or 'none'}",
            )


def _elsewhere(reading: Reading, selector: Selector) -> bool:
    """Whether a selector means the pods of Permify where somebody else deploys it."""
    return not reading.running("permify") and selector.selects({NAME_LABEL: "permify"})


# What runs


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
            text = f"{workload.name} runs {_PROGRAMS[workload.program]} with 0 replicas: nobody answers"
            yield Problem(workload.replicas.location, text, "replicas: 1 or more")
        if workload.container is not None:
            ours.add(workload.container.pod)
    for pause in reading.pauses:
        if pause.pod in ours:
            text = f"Deployment {pause.pod.manifest.name} is paused: changes are not rolled out"
            yield Problem(pause.location, text, "remove paused")
    chart = reading.chart_replicas
    if chart is not None and chart.value == 0:
        text = "Permify's chart runs 0 replicas: nobody answers"
        yield Problem(chart.location, text, "replicaCount: 1 or more")
