"""PS42x: Services, selectors, ports and autoscalers of the manifests find what they mean.

https://kubernetes.io/docs/concepts/services-networking/service/ and the objects' API reference.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks import check
from pgcat_stack.checks._cilium import policies
from pgcat_stack.checks._ports import KUBELET_PROBES, listening, probes
from pgcat_stack.checks._reach import monitored, selected
from pgcat_stack.checks._selectors import NAME_LABEL, selector_text, selects
from pgcat_stack.checks.scraping import scraped
from pgcat_stack.endpoints import Address
from pgcat_stack.files.plain_data import as_list, as_mapping, dig
from pgcat_stack.files.quantities import is_int, whole_text
from pgcat_stack.findings import Problem
from pgcat_stack.paths import PERMIFY, PGCAT
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Container, Pod
from pgcat_stack.reading.reading import Reading

_SCALABLE = frozenset({"Deployment", "StatefulSet", "ReplicaSet"})


def _names(found: list[Pod]) -> str:
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
    for service in reading.of_kind("Service"):
        selector = service.get("spec", "selector")
        if not isinstance(selector, dict) or not selector:
            continue
        found = selected(reading, service)
        if len(found) != 1 and not (not found and _elsewhere(reading, {"matchLabels": selector})):
            count = f"the pods of {_names(found)}" if found else "no pods of this deployment"
            yield Problem(
                service.at("spec", "selector"),
                f"the Service {service.name} selects {selector_text(selector)}: {count}",
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
    for pod in reading.pods:
        selector = pod.manifest.get("spec", "selector")
        if pod.manifest.kind in ("Job", "CronJob", "Pod") or not isinstance(selector, dict):
            continue
        place = pod.manifest.at("spec", "selector")
        if not selects(selector, pod.labels):
            wanted = selector_text(selector.get("matchLabels"))
            text = f"the selector of {pod.text}, {wanted}, does not match its own pods"
            yield Problem(place, text, f"their labels are {selector_text(pod.labels)}")
        for other in reading.pods:
            same = other.manifest.namespace == pod.manifest.namespace
            if other is not pod and same and selects(selector, other.labels):
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
    for service in reading.of_kind("Service") if reading.complete else ():
        found = selected(reading, service)
        for index, entry in enumerate(as_list(service.get("spec", "ports"))):
            port = dig(entry, "targetPort")
            if isinstance(port, str) and len(found) == 1 and found[0].port_number(port) is None:
                place = service.at("spec", "ports", index, "targetPort")
                yield Problem(
                    place, f"no container of {found[0].text} has a port named {show(port)}", _known(found)
                )
    for container in reading.containers:
        named = [dig(port, "name") for port in as_list(container.data.get("ports"))]
        declared = {name for name in named if isinstance(name, str)}
        for keys, port in probes(container):
            if isinstance(port, str) and port not in declared:
                fix = f"it has {', '.join(sorted(declared)) or 'none'}"
                yield Problem(container.at(*keys), f"{container.text} has no port named {show(port)}", fix)
    for monitor in reading.of_kind("PodMonitor"):
        found = monitored(reading, monitor)
        for index, endpoint in enumerate(as_list(monitor.get("spec", "podMetricsEndpoints"))):
            port = dig(endpoint, "port")
            if isinstance(port, str) and found and all(one.port_number(port) is None for one in found):
                place = monitor.at("spec", "podMetricsEndpoints", index, "port")
                yield Problem(
                    place, f"no container of {_names(found)} has a port named {show(port)}", _known(found)
                )


def _known(found: list[Pod]) -> str:
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
        open_ports = listening(reading, container)
        if open_ports is None:
            continue
        for index, port in enumerate(as_list(container.data.get("ports"))):
            number = dig(port, "containerPort") if container.pod else _container_port(port)
            if is_int(number) and number not in open_ports:
                keys = ("ports", index, "containerPort") if container.pod else ("ports", index)
                yield Problem(
                    container.at(*keys),
                    f"{container.text} declares port {number}",
                    _listens(container, open_ports),
                )
        for path, port in probes(container):
            if is_int(port) and port not in open_ports:
                text = f"the probe of {container.text} asks port {port}"
                yield Problem(container.at(*path), text, _listens(container, open_ports))
    for service in reading.of_kind("Service"):
        found = selected(reading, service)
        if len(found) == 1:
            yield from _service_ports(reading, service, found[0])


def _service_ports(reading: Reading, service: Manifest, pod: Pod) -> Iterator[Problem]:
    inside = [container for container in reading.containers if container.pod is pod and not container.ends]
    known = [listening(reading, container) for container in inside]
    if None in known:
        return
    open_ports = {number for ports in known for number in ports or ()}
    for index, entry in enumerate(as_list(service.get("spec", "ports"))):
        number = dig(entry, "targetPort")
        number = dig(entry, "port") if number is None else number
        if is_int(number) and number not in open_ports:
            text = f"the Service {service.name} leads to port {number} of {pod.text}"
            fix = f"its programs listen on {', '.join(map(str, sorted(open_ports)))}"
            yield Problem(service.at("spec", "ports", index), text, fix)


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
    source = reading.pgcat
    host = dig(source.data, "general", "host") if source else None
    if source is None or not isinstance(host, str) or not Address.of(host).is_loopback:
        return
    everywhere = "[::]" if ":" in host else "0.0.0.0"
    listens, mend = source.at("general", "host"), f'set host = "{everywhere}"'
    for container in reading.running("pgcat"):
        if container.pod is None or container.pod not in [other.pod for other in reading.running("permify")]:
            yield Problem(
                listens, f"{container.text} listens on {host}, and Permify runs outside of it", mend
            )
            continue
        if scraped(reading, container.pod):
            yield Problem(listens, f"the exporter of {container.text} listens on {host}, too", mend)
        for path, _ in probes(container):
            if path[1] in KUBELET_PROBES:
                text = f"the kubelet asks from outside the pod, and {container.text} listens on {host}"
                yield Problem(container.at(*path), text, f"{mend}, or probe by exec")


def _container_port(port: object) -> int | None:
    """The port inside the container of an entry of Compose's `ports`."""
    if is_int(port):
        return port
    text = str(dig(port, "target") if isinstance(port, dict) else port)
    return whole_text(text.rpartition("}")[2].rpartition(":")[2].partition("/")[0])


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
    for scaler in reading.of_kind("HorizontalPodAutoscaler"):
        target = as_mapping(scaler.get("spec", "scaleTargetRef"))
        kind, name = target.get("kind"), target.get("name")
        known = [
            pod
            for pod in reading.pods
            if pod.manifest.kind in _SCALABLE and pod.manifest.namespace == scaler.namespace
        ]
        if not any(kind == one.manifest.kind and name == one.manifest.name for one in known):
            yield Problem(
                scaler.at("spec", "scaleTargetRef"),
                f"the autoscaler {scaler.name} scales {show(kind)} {show(name)}, which is not there",
                f"use {_names(known)}" if known else "",
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
    for budget in reading.of_kind("PodDisruptionBudget"):
        yield from _selector(reading, budget, "spec", "selector")
    for policy in policies(reading):
        yield from _selector(reading, policy, "spec", "podSelector")


def _selector(reading: Reading, manifest: Manifest, *keys: str | int) -> Iterator[Problem]:
    selector = manifest.get(*keys)
    if not isinstance(selector, dict) or not selector or _elsewhere(reading, selector):
        return
    same = [one for one in reading.pods if one.manifest.namespace == manifest.namespace]
    if not any(selects(selector, pod.labels) for pod in same):
        text = (
            f"{manifest.kind} {manifest.name} selects {selector_text(selector.get('matchLabels'))}: no pods"
        )
        labels = sorted({pod.labels.get(NAME_LABEL, "") for pod in same} - {""})
        yield Problem(manifest.at(*keys), text, f"pods here have {NAME_LABEL}: {', '.join(labels) or 'none'}")


def _elsewhere(reading: Reading, selector: object) -> bool:
    """Whether a selector means the pods of Permify where somebody else deploys it."""
    return not reading.running("permify") and selects(selector, {NAME_LABEL: "permify"})
