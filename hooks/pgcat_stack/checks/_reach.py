"""Where PgCat answers: the host names and the port by which Permify reaches it."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks._kubernetes import Workload, complete, is_int, selects, text_mapping, workloads
from pgcat_stack.checks._pools import Connection, pgcat_port
from pgcat_stack.checks._units import Unit, running
from pgcat_stack.checks._uri import LOOPBACK
from pgcat_stack.deployment import Deployment, Manifest
from pgcat_stack.sources import as_list, as_mapping, dig

Reach = dict[str, int]
"""The port by host name."""


def reach(deployment: Deployment, connection: Connection) -> Reach | None:
    """How whoever opens this connection reaches PgCat; None where the files do not tell."""
    port = pgcat_port(deployment)
    targets = running(deployment, "pgcat")
    if port is None or not targets:
        return None
    found: Reach = {}
    for target in targets:
        if target.workload is None:
            found.update(dict.fromkeys(_compose_names(target, connection.unit), port))
        elif connection.unit is not None and connection.unit.workload is target.workload:
            found.update(dict.fromkeys(("127.0.0.1", *LOOPBACK), port))
        elif not complete(deployment):
            return None
        else:
            found.update(_service_names(deployment, target.workload, port))
    return found


def _compose_names(target: Unit, source: Unit | None) -> Iterator[str]:
    mode = source.data.get("network_mode") if source else None
    if mode == f"service:{target.name}" or (mode == "host" and target.data.get("network_mode") == "host"):
        yield from ("127.0.0.1", *LOOPBACK)
        return
    yield target.name.lower()
    for key in ("container_name", "hostname"):
        name = target.data.get(key)
        if isinstance(name, str):
            yield name.lower()
    for network in as_mapping(target.data.get("networks")).values():
        yield from (alias.lower() for alias in as_list(dig(network, "aliases")) if isinstance(alias, str))


def _service_names(deployment: Deployment, workload: Workload, port: int) -> Iterator[tuple[str, int]]:
    for service in deployment.of_kind("Service"):
        if selected(deployment, service) == [workload]:
            for entry in as_list(service.get("spec", "ports")):
                outer = dig(entry, "port")
                inner = dig(entry, "targetPort")
                if is_int(outer) and workload.port_number(outer if inner is None else inner) == port:
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


def selected(deployment: Deployment, service: Manifest) -> list[Workload]:
    """The workloads whose pods a Service selects."""
    selector = text_mapping(service.get("spec", "selector"))
    if not selector:
        return []
    return [
        workload
        for workload in workloads(deployment)
        if workload.manifest.namespace == service.namespace
        and selects({"matchLabels": selector}, workload.labels)
    ]
