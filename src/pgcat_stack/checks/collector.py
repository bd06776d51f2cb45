"""PS465: Permify, the collector that it pushes to and Prometheus, which scrapes that, name the same ports.

https://opentelemetry.io/docs/collector/configuration/
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.checks.scraping import targets
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig
from pgcat_stack.files.quantities import whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Problem
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Container, deployment_path, volume_ends
from pgcat_stack.reading.reading import Reading

COLLECTOR = "monitoring/collector.yaml"
_RECEIVER: tuple[Key, ...] = ("receivers", "otlp", "protocols", "grpc", "endpoint")


@check(
    code="PS465",
    name="collector-port",
    severity="error",
    why="What Permify pushes to another port than the collector's is thrown away, with a line in its log each"
    " time; what Prometheus asks for on another port than the collector's is missing on the dashboard.",
    fix="Use the port of the receiver `otlp` in `endpoint` of permify.yaml, and that of the exporter"
    " `prometheus` in prometheus.yml.",
)
def collector_port(reading: Reading) -> Iterator[Problem]:
    """Ports of a collector of compose.yaml that its configuration does not open."""
    source = reading.sources.get(COLLECTOR)
    names = {container.name for container in reading.services if _reads(container, COLLECTOR)}
    if source is None or not source.parsed or not names:
        return
    received = _port(source, _RECEIVER)
    for permify in reading.topology.permify:
        for address in permify.collectors:
            if address.host in names and address.port != received:
                text = f"Permify pushes to {address}, and the collector listens on {received or 'no port'}"
                yield Problem(source.at(*_RECEIVER), text, f"use {address.port} in both")
    served = {_port(source, keys) for keys in _exporters(source)}
    for location, host, port in targets(reading):
        if host in names and port not in served:
            ports = ", ".join(str(number) for number in sorted(filter(None, served))) or "none"
            text = f"port {port} of {show(host)} is scraped, and its exporter prometheus is on {ports}"
            yield Problem(location, text, f"use the port of exporters.prometheus in {COLLECTOR}")


def _reads(container: Container, path: str) -> bool:
    mounted = (volume_ends(volume)[0] for volume in as_list(container.data.get("volumes")))
    return any(deployment_path(text) == path for text in mounted)


def _exporters(source: Source) -> Iterator[tuple[Key, ...]]:
    for name in as_mapping(dig(source.data, "exporters")):
        if str(name).partition("/")[0] == "prometheus":
            yield "exporters", name, "endpoint"


def _port(source: Source, keys: tuple[Key, ...]) -> int | None:
    return whole_text(as_text(dig(source.data, *keys)).rpartition(":")[2])
