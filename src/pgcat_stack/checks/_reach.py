"""Where PgCat answers: the host names and the port by which Permify reaches it."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks._selectors import selects
from pgcat_stack.checks._uris import Connection
from pgcat_stack.endpoints import LOOPBACK
from pgcat_stack.files.plain_data import as_list, as_mapping, dig, text_mapping
from pgcat_stack.files.quantities import is_int
from pgcat_stack.reading.containers import Container, Pod
from pgcat_stack.reading.reading import Reading

Reach = dict[str, int]
"""The port by host name."""


def reach(reading: Reading, connection: Connection) -> Reach | None:
    """How whoever opens this connection reaches PgCat; None where the files do not tell."""
    pgcat = reading.topology.pgcat
    port = pgcat.port if pgcat else None
    targets = reading.running("pgcat")
    if port is None or not targets:
        return None
    found: Reach = {}
    for target in targets:
        if target.pod is None:
            found.update(dict.fromkeys(compose_names(target, connection.container), port))
        elif connection.container is not None and connection.container.pod is target.pod:
            found.update(dict.fromkeys(LOOPBACK, port))
        elif not reading.complete:
            return None
        else:
            found.update(_service_names(reading, target.pod, port))
    return found


def compose_names(target: Container, source: Container | None) -> Iterator[str]:
    """The names by which one Compose service finds another; `source` is None for any of the same networks."""
    mode = source.data.get("network_mode") if source else None
    if mode == f"service:{target.name}" or (mode == "host" and target.data.get("network_mode") == "host"):
        yield from LOOPBACK
        return
    yield target.name.lower()
    for key in ("container_name", "hostname"):
        name = target.data.get(key)
        if isinstance(name, str):
            yield name.lower()
    for network in as_mapping(target.data.get("networks")).values():
        yield from (alias.lower() for alias in as_list(dig(network, "aliases")) if isinstance(alias, str))


def _service_names(reading: Reading, pod: Pod, port: int) -> Iterator[tuple[str, int]]:
    for service in reading.of_kind("Service"):
        if selected(reading, service) == [pod]:
            for entry in as_list(service.get("spec", "ports")):
                outer = dig(entry, "port")
                inner = dig(entry, "targetPort")
                if is_int(outer) and pod.port_number(outer if inner is None else inner) == port:
                    for name in service_host_names(service):
                        yield name, outer


def service_host_names(service: Manifest) -> Iterator[str]:
    """The names by which DNS knows a Service in its own namespace and beyond."""
    if not service.name:
        return
    yield service.name
    if service.namespace:
        for suffix in ("", ".svc", ".svc.cluster.local"):
            yield f"{service.name}.{service.namespace}{suffix}"


def selected(reading: Reading, service: Manifest) -> list[Pod]:
    """The workloads whose pods a Service selects."""
    selector = text_mapping(service.get("spec", "selector"))
    if not selector:
        return []
    return [
        pod
        for pod in reading.pods
        if pod.manifest.namespace == service.namespace and selects({"matchLabels": selector}, pod.labels)
    ]


def monitored(reading: Reading, monitor: Manifest) -> list[Pod]:
    """The workloads whose pods a PodMonitor selects."""
    selector = as_mapping(monitor.get("spec", "selector"))
    return [pod for pod in reading.pods if selects(selector, pod.labels)]
