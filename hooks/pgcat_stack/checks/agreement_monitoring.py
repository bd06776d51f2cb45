"""PS46x: what scrapes PgCat's exporter asks the right pods on the right port.

The exporter is off unless `enable_prometheus_exporter`, and listens on `prometheus_exporter_port`, 9930
by default.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.checks._reach import monitored
from pgcat_stack.containers import Pod, running, services
from pgcat_stack.deployment import PGCAT, Deployment
from pgcat_stack.findings import Location, Problem
from pgcat_stack.kustomize import complete
from pgcat_stack.report import show
from pgcat_stack.sources import Key, as_list, as_mapping, dig
from pgcat_stack.topology import read_topology
from pgcat_stack.units import is_int, whole_text

PROMETHEUS = "monitoring/prometheus.yml"
_SCRAPE, _PORT = "prometheus.io/scrape", "prometheus.io/port"


def scraped(deployment: Deployment, pod: Pod) -> bool:
    """Whether annotations or a PodMonitor ask for metrics of these pods."""
    if str(_annotations(pod).get(_SCRAPE)).lower() == "true":
        return True
    return any(pod in monitored(deployment, monitor) for monitor in deployment.of_kind("PodMonitor"))


def _annotations(pod: Pod) -> dict[str, object]:
    return as_mapping(pod.manifest.get(*_annotations_path(pod)))


def _annotations_path(pod: Pod) -> tuple[Key, ...]:
    return (*pod.path[:-1], "metadata", "annotations")


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
    pgcat = read_topology(deployment).pgcat
    exporter = pgcat.exporter if pgcat else None
    for location, port in _asked(deployment):
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
    for pod in dict.fromkeys(unit.pod for unit in running(deployment, "pgcat") if unit.pod):
        annotations = _annotations(pod)
        if str(annotations.get(_SCRAPE)).lower() == "true":
            port = annotations.get(_PORT, "")
            number = whole_text(port)
            place = pod.manifest.at(*_annotations_path(pod), _PORT)
            yield place, show(str(port)) if number is None else number
        for monitor in deployment.of_kind("PodMonitor"):
            if pod not in monitored(deployment, monitor):
                continue
            for index, endpoint in enumerate(as_list(monitor.get("spec", "podMetricsEndpoints"))):
                number = pod.port_number(dig(endpoint, "port"))
                number = dig(endpoint, "portNumber") if number is None else number
                if is_int(number):
                    yield monitor.at("spec", "podMetricsEndpoints", index), number
    names = {unit.name for unit in running(deployment, "pgcat") if unit.pod is None}
    yield from ((place, port) for place, host, port in targets(deployment) if host in names)


def targets(deployment: Deployment) -> Iterator[tuple[Location, str, int]]:
    """Place, host and port of each target in prometheus.yml."""
    source = deployment.sources.get(PROMETHEUS)
    for job, config in enumerate(as_list(dig(source.data, "scrape_configs")) if source else []):
        for group, static in enumerate(as_list(dig(config, "static_configs"))):
            for index, target in enumerate(as_list(dig(static, "targets"))):
                host, _, port = str(target).rpartition(":")
                number = whole_text(port)
                if source and number is not None:
                    keys = ("scrape_configs", job, "static_configs", group, "targets", index)
                    yield source.at(*keys), host, number


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
        if not monitored(deployment, monitor):
            yield Problem(
                monitor.at("spec", "selector"),
                f"the PodMonitor {monitor.name} selects no pods of this deployment",
                "use the labels of the pods that run PgCat",
            )
    known = {unit.name for unit in services(deployment)}
    for location, host, _ in targets(deployment) if known else ():
        # A name with a dot is somewhere else; Compose names its services without.
        if "." not in host and host not in known and host != "localhost":
            pgcat = ", ".join(unit.name for unit in running(deployment, "pgcat"))
            yield Problem(
                location, f"{show(host)} is no service of compose.yaml", f"PgCat is the service {pgcat}"
            )
