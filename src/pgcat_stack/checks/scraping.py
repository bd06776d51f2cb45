"""PS46x: what scrapes PgCat's exporter, or the collector, asks the right port, and for what it serves.

The exporter is off unless `enable_prometheus_exporter`, and listens on `prometheus_exporter_port`, 9930
by default. What it serves stands in `pgcat_stack.pgcat.metrics`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pgcat_stack.checks import check
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PGCAT
from pgcat_stack.pgcat.metrics import PGCAT as SERIES
from pgcat_stack.pgcat.metrics import VERSIONS, served
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.monitoring import COLLECTOR, RULES, scrape_annotations
from pgcat_stack.reading.reading import Reading


@check(
    code="PS460",
    name="exporter-port",
    severity="error",
    why="Prometheus asks where it is told; on another port, or with the exporter off, every"
    " panel is empty and every"
    " alert silent.",
    fix="Use prometheus_exporter_port of pgcat.toml everywhere, and enable_prometheus_exporter = true.",
)
def asks_the_exporter(reading: Reading) -> Iterator[Problem]:
    """Scrape targets, annotations and PodMonitors with another port than the exporter's."""
    pgcat = reading.pgcat_config
    if pgcat is None or pgcat.empty:
        return
    exporter = pgcat.exporter
    for location, port in _asked(reading):
        if exporter is None:
            text = f"port {port} is scraped, and the exporter of {PGCAT} is off"
            yield Problem(location, text, "set enable_prometheus_exporter = true")
        elif port != exporter:
            yield Problem(
                location,
                f"port {port} is scraped, the exporter of {PGCAT} is on {exporter}",
                f"use {exporter}",
            )


def _asked(reading: Reading) -> Iterator[tuple[Location, int | str]]:
    for pod in dict.fromkeys(container.pod for container in reading.running("pgcat") if container.pod):
        annotated = scrape_annotations(pod)
        if annotated is not None:
            yield annotated.location, show(annotated.text) if annotated.port is None else annotated.port
        for monitor in reading.network.pod_monitors:
            for endpoint in monitor.endpoints if pod in monitor.pods else ():
                number = endpoint.number_in(pod)
                if number is not None and not endpoint.asks_another:
                    yield endpoint.location, number
    names = {container.name for container in reading.running("pgcat") if container.pod is None}
    for target in reading.network.prometheus.targets:
        if target.host in names:
            yield target.location, target.port


@check(
    code="PS461",
    name="scrapes-nobody",
    severity="error",
    why="A scrape target or a PodMonitor that leads to no pod or service of the deployment collects nothing.",
    fix="Name the service, or the labels of the pods, that run PgCat.",
)
def scrapes_nobody(reading: Reading) -> Iterator[Problem]:
    """PodMonitors that select no pods, targets that are no service."""
    for monitor in reading.network.pod_monitors if reading.complete else ():
        if not monitor.pods:
            yield Problem(
                monitor.location,
                f"the PodMonitor {monitor.manifest.name} selects no pods of this deployment",
                "use the labels of the pods that run PgCat",
            )
    known = {container.name for container in reading.services}
    for target in reading.network.prometheus.targets if known else ():
        # A name with a dot, or IPv6, is somewhere else; Compose names its services without.
        if not set(".:") & set(target.host) and target.host not in known and target.host != "localhost":
            pgcat = ", ".join(container.name for container in reading.running("pgcat"))
            text = f"{show(target.host)} is no service of compose.yaml"
            yield Problem(target.location, text, f"PgCat is the service {pgcat}")


# Series that nobody serves

# A string without an end goes to the end of the text, so that none is read anew from each quote in it.
_QUOTED = re.compile(r"""(?s)"(?:[^"\\]|\\.)*(?:"|\\?\Z)|'(?:[^'\\]|\\.)*(?:'|\\?\Z)|`[^`]*(?:`|\Z)""")
_SERIES = re.compile(r"\b(pgcat_\w+)(?:\s*\{([^{}]*)\})?")
_NAMES = re.compile(r"(?<!\w)(\w+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"\b(?:by|on|group_left|group_right)\s*\(([^()]*)\)")
_LABELS = frozenset(label for metric in SERIES for version in VERSIONS for label in metric.labels(version))
"""Every label that some version gives to some series; any other is Prometheus's own, from the target."""


@check(
    code="PS462",
    name="unserved-series",
    severity="error",
    why="PgCat's versions serve different series, with different labels. An alert on one that this version"
    " lacks never fires, and a panel stays empty, without a word.",
    fix="Ask for what docs/metrics.md lists for the version of PgCat that the deployment runs.",
)
def unserved_series(reading: Reading) -> Iterator[Problem]:
    """Series and labels in rules, their tests and dashboards that PgCat of this version does not serve."""
    if reading.pgcat is None:
        return
    version = reading.pgcat_version
    known = served(version)
    recorded = {each.text for each in reading.expressions if each.kind == "record"}
    wrong: dict[str, list[str]] = {}
    """Most expressions stand in several files."""
    for each in reading.expressions:
        if each.kind == "record":
            continue
        if each.text not in wrong:
            wrong[each.text] = list(dict.fromkeys(_unserved(each.text, known, recorded)))
        for message in wrong[each.text]:
            text = f"{message}, as PgCat {version} serves it"
            yield Problem(each.place(), text, "see docs/metrics.md for what there is")


def _unserved(text: str, known: Mapping[str, frozenset[str]], recorded: set[str]) -> Iterator[str]:
    if "pgcat_" not in text:
        return
    plain = _QUOTED.sub('""', text)
    asked = frozenset[str]()
    for name, selector in _SERIES.findall(plain):
        if name in recorded:
            return
        if name not in known:
            yield f"there is no series {name}"
            continue
        asked |= known[name]
        for label in _NAMES.findall(selector):
            if label in _LABELS - known[name]:
                yield f"{name} has no label {label}"
    if asked:
        for group in _GROUPED.findall(plain):
            for label in group.replace(",", " ").split():
                if label in _LABELS - asked:
                    yield f"no series of the expression has the label {label}"


@check(
    code="PS463",
    name="rules-differ",
    severity="warning",
    why="A PrometheusRule cannot be tested by promtool, so monitoring/rules.yaml has the same rules for the"
    " tests beside it. Rules that differ are applied untested.",
    fix="Change both alike.",
)
def rules_differ(reading: Reading) -> Iterator[Problem]:
    """A PrometheusRule of a deployment that has a rule file, with other groups than the file's."""
    for copy in reading.copied_rules:
        if not copy.same:
            text = f"the rules of the PrometheusRule {copy.manifest.name} are not those of {RULES}"
            yield Problem(copy.location, text, "change both alike, and run promtool test rules")


# The collector


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
    collector = reading.collector
    names = {container.name for container in reading.services if _reads_collector(container)}
    if collector is None or not names:
        return
    for permify in reading.topology.permify:
        for address in permify.collectors:
            if address.host in names and address.port != collector.receives:
                listens = collector.receives or "no port"
                text = f"Permify pushes to {address}, and the collector listens on {listens}"
                yield Problem(collector.location, text, f"use {address.port} in both")
    for target in reading.network.prometheus.targets:
        if target.host in names and target.port not in collector.exports:
            ports = ", ".join(str(number) for number in sorted(filter(None, collector.exports))) or "none"
            scraped = f"port {target.port} of {show(target.host)} is scraped"
            text = f"{scraped}, and its exporter prometheus is on {ports}"
            yield Problem(target.location, text, f"use the port of exporters.prometheus in {COLLECTOR}")


def _reads_collector(container: Container) -> bool:
    return any(mount.origin == COLLECTOR and mount.keys[0] == "volumes" for mount in container.mounts)
