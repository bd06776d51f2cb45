"""PS46x: what scrapes PgCat's exporter asks the right pods on the right port.

The exporter is off unless `enable_prometheus_exporter`, and listens on `prometheus_exporter_port`, 9930
by default.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.checks._kubernetes import Workload, complete, is_int, selects, workloads
from pgcat_stack.checks._pools import exporter_port
from pgcat_stack.checks._units import running, units
from pgcat_stack.deployment import PGCAT, Deployment
from pgcat_stack.findings import Location, Problem
from pgcat_stack.report import show
from pgcat_stack.sources import Key, as_list, as_mapping, dig

PROMETHEUS = "monitoring/prometheus.yml"
_SCRAPE, _PORT = "prometheus.io/scrape", "prometheus.io/port"


def scraped(deployment: Deployment, workload: Workload) -> bool:
    """Whether annotations or a PodMonitor ask for metrics of these pods."""
    if str(_annotations(workload).get(_SCRAPE)).lower() == "true":
        return True
    monitors = deployment.of_kind("PodMonitor")
    return any(selects(as_mapping(one.get("spec", "selector")), workload.labels) for one in monitors)


def _annotations(workload: Workload) -> dict[str, object]:
    return as_mapping(workload.manifest.get(*_annotations_path(workload)))


def _annotations_path(workload: Workload) -> tuple[Key, ...]:
    return (*workload.pod_path[:-1], "metadata", "annotations")


@check(
    code="PS460",
    name="exporter-port",
    severity="error",
    why="Prometheus asks where it is told; on another port, or with the exporter off, every"
    " panel is empty and every"
    " alert silent.",
    mend="Use prometheus_exporter_port of pgcat.toml everywhere, and enable_prometheus_exporter = true.",
)
def asks_the_exporter(deployment: Deployment) -> Iterator[Problem]:
    """Scrape targets, annotations and PodMonitors with another port than the exporter's."""
    if deployment.pgcat is None or not deployment.pgcat.mapping:
        return
    for location, port in _asked(deployment):
        exporter = exporter_port(deployment)
        if exporter is None:
            text = f"port {port} is scraped, and the exporter of {PGCAT} is off"
            yield Problem(location, text, "set enable_prometheus_exporter = true")
        elif port != exporter:
            yield Problem(
                location,
                f"port {port} is scraped, the exporter of {PGCAT} is on {exporter}",
                f"use {exporter}",
            )


def _asked(deployment: Deployment) -> Iterator[tuple[Location, int | str]]:
    for workload in dict.fromkeys(unit.workload for unit in running(deployment, "pgcat") if unit.workload):
        annotations = _annotations(workload)
        if str(annotations.get(_SCRAPE)).lower() == "true":
            port = str(annotations.get(_PORT, ""))
            place = workload.manifest.at(*_annotations_path(workload), _PORT)
            yield place, int(port) if port.isascii() and port.isdigit() and len(port) < 6 else show(port)
        for monitor in deployment.of_kind("PodMonitor"):
            if not selects(as_mapping(monitor.get("spec", "selector")), workload.labels):
                continue
            for index, endpoint in enumerate(as_list(monitor.get("spec", "podMetricsEndpoints"))):
                number = workload.port_number(dig(endpoint, "port"))
                number = dig(endpoint, "portNumber") if number is None else number
                if is_int(number):
                    yield monitor.at("spec", "podMetricsEndpoints", index), number
    names = {unit.name for unit in running(deployment, "pgcat") if unit.workload is None}
    yield from ((place, port) for place, host, port in _targets(deployment) if host in names)


def _targets(deployment: Deployment) -> Iterator[tuple[Location, str, int]]:
    source = deployment.sources.get(PROMETHEUS)
    for job, config in enumerate(as_list(dig(source.data, "scrape_configs")) if source else []):
        for group, static in enumerate(as_list(dig(config, "static_configs"))):
            for index, target in enumerate(as_list(dig(static, "targets"))):
                host, _, port = str(target).rpartition(":")
                if source and port.isascii() and port.isdigit() and len(port) < 6:
                    keys = ("scrape_configs", job, "static_configs", group, "targets", index)
                    yield source.at(*keys), host, int(port)


@check(
    code="PS461",
    name="scrapes-nobody",
    severity="error",
    why="A scrape target or a PodMonitor that leads to no pod or service of the deployment collects nothing.",
    mend="Name the service, or the labels of the pods, that run PgCat.",
)
def scrapes_nobody(deployment: Deployment) -> Iterator[Problem]:
    """PodMonitors that select no pods, targets that are no service."""
    for monitor in deployment.of_kind("PodMonitor") if complete(deployment) else ():
        selector = as_mapping(monitor.get("spec", "selector"))
        if not any(selects(selector, workload.labels) for workload in workloads(deployment)):
            yield Problem(
                monitor.at("spec", "selector"),
                f"the PodMonitor {monitor.name} selects no pods of this deployment",
                "use the labels of the pods that run PgCat",
            )
    services = {unit.name for unit in units(deployment) if unit.workload is None}
    for location, host, _ in _targets(deployment) if services else ():
        # A name with a dot is somewhere else; Compose names its services without.
        if "." not in host and host not in services and host != "localhost":
            known = ", ".join(unit.name for unit in running(deployment, "pgcat"))
            yield Problem(
                location, f"{show(host)} is no service of compose.yaml", f"PgCat is the service {known}"
            )
