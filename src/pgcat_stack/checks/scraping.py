"""PS46x: what scrapes PgCat's exporter asks the right pods on the right port, and for what it serves.

The exporter is off unless `enable_prometheus_exporter`, and listens on `prometheus_exporter_port`, 9930
by default. What it serves stands in `pgcat_stack.pgcat.metrics`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from pgcat_stack.checks import check
from pgcat_stack.checks._reach import monitored
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig, strings
from pgcat_stack.files.quantities import is_int, whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PGCAT
from pgcat_stack.pgcat.metrics import PGCAT as SERIES
from pgcat_stack.pgcat.metrics import VERSIONS, served
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Pod
from pgcat_stack.reading.reading import Reading

PROMETHEUS = "monitoring/prometheus.yml"
RULES = "monitoring/rules.yaml"
_SCRAPE, _PORT = "prometheus.io/scrape", "prometheus.io/port"


def scraped(reading: Reading, pod: Pod) -> bool:
    """Whether annotations or a PodMonitor ask for metrics of these pods."""
    if str(_annotations(pod).get(_SCRAPE)).lower() == "true":
        return True
    return any(
        pod in monitored(reading, monitor)
        for monitor in reading.of_kind("PodMonitor")
        if not all(map(asks_another, as_list(monitor.get("spec", "podMetricsEndpoints"))))
    )


def asks_another(endpoint: object) -> bool:
    """Whether an endpoint of a PodMonitor has somebody else asked, who then asks the pod: a probe."""
    return any(dig(rule, "targetLabel") == "__address__" for rule in as_list(dig(endpoint, "relabelings")))


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
    fix="Use prometheus_exporter_port of pgcat.toml everywhere, and enable_prometheus_exporter = true.",
)
def asks_the_exporter(reading: Reading) -> Iterator[Problem]:
    """Scrape targets, annotations and PodMonitors with another port than the exporter's."""
    if reading.pgcat is None or not reading.pgcat.mapping:
        return
    pgcat = reading.topology.pgcat
    exporter = pgcat.exporter if pgcat else None
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
        annotations = _annotations(pod)
        if str(annotations.get(_SCRAPE)).lower() == "true":
            port = annotations.get(_PORT, "")
            number = whole_text(port)
            place = pod.manifest.at(*_annotations_path(pod), _PORT)
            yield place, show(str(port)) if number is None else number
        for monitor in reading.of_kind("PodMonitor"):
            if pod not in monitored(reading, monitor):
                continue
            for index, endpoint in enumerate(as_list(monitor.get("spec", "podMetricsEndpoints"))):
                if asks_another(endpoint):
                    continue
                number = pod.port_number(dig(endpoint, "port"))
                number = dig(endpoint, "portNumber") if number is None else number
                if is_int(number):
                    yield monitor.at("spec", "podMetricsEndpoints", index), number
    names = {container.name for container in reading.running("pgcat") if container.pod is None}
    yield from ((place, port) for place, host, port in targets(reading) if host in names)


def targets(reading: Reading) -> Iterator[tuple[Location, str, int]]:
    """Place, host and port of each target in prometheus.yml."""
    source = reading.sources.get(PROMETHEUS)
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
    fix="Name the service, or the labels of the pods, that run PgCat.",
)
def scrapes_nobody(reading: Reading) -> Iterator[Problem]:
    """PodMonitors that select no pods, targets that are no service."""
    for monitor in reading.of_kind("PodMonitor") if reading.complete else ():
        if not monitored(reading, monitor):
            yield Problem(
                monitor.at("spec", "selector"),
                f"the PodMonitor {monitor.name} selects no pods of this deployment",
                "use the labels of the pods that run PgCat",
            )
    known = {container.name for container in reading.services}
    for location, host, _ in targets(reading) if known else ():
        # A name with a dot, or IPv6, is somewhere else; Compose names its services without.
        if not set(".:") & set(host) and host not in known and host != "localhost":
            pgcat = ", ".join(container.name for container in reading.running("pgcat"))
            yield Problem(
                location, f"{show(host)} is no service of compose.yaml", f"PgCat is the service {pgcat}"
            )


# Series that nobody serves

_EXPRESSIONS = frozenset({"expr", "query", "series", "definition"})
"""Keys of what is PromQL in rules, their tests and dashboards."""
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
    expressions = list(_expressions(reading))
    recorded = {text for keys, text, _ in expressions if keys[-1] == "record"}
    for keys, text, place in expressions:
        if keys[-1] == "record":
            continue
        for message in dict.fromkeys(_unserved(text, known, recorded)):
            yield Problem(
                place(), f"{message}, as PgCat {version} serves it", "see docs/metrics.md for what there is"
            )


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


def _expressions(
    reading: Reading,
) -> Iterator[tuple[tuple[Key, ...], str, Callable[[], Location]]]:
    """What is PromQL, and names of recorded series, in files under monitoring/ and in PrometheusRules.

    Where each stands is looked for only when it is asked: most are well.
    """
    for path, source in reading.sources.items():
        if path.startswith("monitoring/") and source.language in ("yaml", "json"):
            for document, texts in enumerate(source.texts):
                for keys, text in _promql(texts):
                    yield keys, text, partial(_in_file, source, document, keys, text)
    for manifest in reading.of_kind("PrometheusRule"):
        for keys, text in _promql(strings(manifest.data)):
            yield keys, text, partial(manifest.at, *keys)


def _in_file(source: Source, document: int, keys: tuple[Key, ...], text: str) -> Location:
    if source.language == "json":
        return Location(source.path, _line_in_json(source.text, text))
    return source.at(*keys, document=document)


def _promql(texts: Iterable[tuple[tuple[Key, ...], str]]) -> Iterator[tuple[tuple[Key, ...], str]]:
    return ((keys, text) for keys, text in texts if keys and keys[-1] in _EXPRESSIONS | {"record"})


def _line_in_json(text: str, value: str) -> int:
    """The first line with the beginning of this text; JSON is read without places."""
    begins = text.find(value.split('"')[0].split("\n")[0])
    return text.count("\n", 0, begins) + 1 if begins > 0 else 1


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
    source = reading.sources.get(RULES)
    for manifest in reading.of_kind("PrometheusRule") if source and source.parsed else ():
        if source and manifest.get("spec", "groups") != dig(source.data, "groups"):
            text = f"the rules of the PrometheusRule {manifest.name} are not those of {RULES}"
            yield Problem(manifest.at("spec"), text, "change both alike, and run promtool test rules")
