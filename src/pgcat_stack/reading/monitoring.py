"""What asks for metrics and probes: prometheus.yml, PodMonitors, annotations; and what answers them.

Prometheus asks a blackbox_exporter, which asks Permify: by `relabel_configs` of prometheus.yml, or the
`relabelings` of a PodMonitor, `__address__` is the exporter and `__param_target` is Permify.
https://github.com/prometheus/blackbox_exporter#prometheus-configuration
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.files.gaps import Gap, list_gaps, mapping_gaps
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig, strings
from pgcat_stack.files.quantities import whole, whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location
from pgcat_stack.reading.pods import Pod
from pgcat_stack.reading.selectors import Selector, read_selector

PROMETHEUS = "monitoring/prometheus.yml"
RULES = "monitoring/rules.yaml"
BLACKBOX = "monitoring/blackbox.yml"
COLLECTOR = "monitoring/collector.yaml"
_FOLDER = "monitoring/"
_SCRAPE, _PORT = "prometheus.io/scrape", "prometheus.io/port"
_ADDRESS = "__address__"


@dataclass(frozen=True, slots=True)
class Request:
    """One request that Prometheus has made of Permify.

    `host` is empty where each pod is asked; `port` is None where the files do not tell it.
    """

    place: Location
    host: str
    port: int | None
    module: str
    exporter: str
    """Host and port of what makes the request, as Prometheus is told it."""
    namespace: str = ""


# prometheus.yml


@dataclass(frozen=True, slots=True)
class Target:
    """A target of prometheus.yml with a port."""

    location: Location
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Prometheus:
    """The static targets of prometheus.yml."""

    targets: tuple[Target, ...] = ()
    requests: tuple[Request, ...] = ()
    """Those of jobs that have something else asked."""
    gaps: tuple[Gap, ...] = ()


def read_prometheus(source: Source | None) -> Prometheus:
    """The targets of prometheus.yml; none where there is no such file."""
    if source is None:
        return Prometheus()
    targets: list[Target] = []
    requests: list[Request] = []
    jobs = dig(source.data, "scrape_configs")
    gaps = list_gaps(jobs, source.at, "scrape_configs")
    if not source.parsed:
        gaps.append(Gap(source.here(), f"{source.path} does not parse"))
    for job, config in enumerate(as_list(jobs)):
        exporter, _ = _replaced(dig(config, "relabel_configs"), "target_label")
        groups = dig(config, "static_configs")
        gaps += mapping_gaps(config, source.at, "scrape_configs", job)
        gaps += list_gaps(groups, source.at, "scrape_configs", job, "static_configs")
        for group, static in enumerate(as_list(groups)):
            at = partial(source.at, "scrape_configs", job, "static_configs", group)
            module = as_text(dig(static, "labels", "__param_module")) or _module(config)
            gaps += [
                *mapping_gaps(static, at, what="an entry of static_configs"),
                *list_gaps(dig(static, "targets"), at, "targets"),
            ]
            for index, target in enumerate(as_list(dig(static, "targets"))):
                place = at("targets", index)
                host, _, port = str(target).rpartition(":")
                number = whole_text(port)
                if number is not None:
                    targets.append(Target(place, host, number))
                elif not isinstance(target, str):
                    gaps.append(Gap(place, "a target that is not text"))
                if exporter:
                    requests.append(Request(place, *_address(as_text(target)), module, exporter))
    return Prometheus(tuple(targets), tuple(requests), tuple(gaps))


def _replaced(relabelings: Any, target: str) -> tuple[str, bool]:
    """What becomes of `__address__`, empty where it stays; and whether any rule is about it."""
    found = [
        as_text(dig(rule, "replacement")) for rule in as_list(relabelings) if dig(rule, target) == _ADDRESS
    ]
    return (found[-1] if found else "", bool(found))


def _module(config: Any) -> str:
    modules = as_list(dig(config, "params", "module"))
    return as_text(modules[0]) if modules else ""


def _address(target: str) -> tuple[str, int | None]:
    try:
        url = urlsplit(target if "://" in target else f"http://{target}")
        return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return "", None


# Pods


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of a PodMonitor."""

    location: Location
    port: int | str | None
    """The name of a port, as a rule."""
    number: int | None
    """Its portNumber."""
    port_location: Location
    asks_another: bool
    """Whether it has somebody else asked, who then asks the pod: a probe."""
    exporter: str
    """Who that is; empty where it cannot be told."""
    module: str

    def number_in(self, pod: Pod) -> int | None:
        """The port of a pod that it asks; None where the pod has none of this name."""
        named = pod.port_number(self.port)
        return self.number if named is None else named


@dataclass(frozen=True, eq=False)
class PodMonitor:
    """A PodMonitor and the objects whose pods it selects."""

    manifest: Manifest
    selector: Selector
    pods: tuple[Pod, ...]
    endpoints: tuple[Endpoint, ...]
    location: Location
    """Where its selector stands, or would."""
    gaps: tuple[Gap, ...] = ()

    @property
    def requests(self) -> Iterator[Request]:
        """What it has others ask."""
        for endpoint in self.endpoints:
            if endpoint.exporter:
                numbers = {pod.port_number(endpoint.port) for pod in self.pods} - {None}
                namespace = self.manifest.namespace
                yield Request(
                    endpoint.location,
                    "",
                    numbers.pop() if len(numbers) == 1 else endpoint.number,
                    endpoint.module,
                    endpoint.exporter.replace("$1", namespace),
                    namespace,
                )


def read_pod_monitors(manifests: Iterable[Manifest], pods: Iterable[Pod]) -> tuple[PodMonitor, ...]:
    """The PodMonitors among the objects of a deployment."""
    return tuple(_monitor(manifest, pods) for manifest in manifests if manifest.kind == "PodMonitor")


def _monitor(manifest: Manifest, pods: Iterable[Pod]) -> PodMonitor:
    selector = read_selector(manifest.get("spec", "selector"), partial(manifest.at, "spec", "selector"))
    written = manifest.get("spec", "podMetricsEndpoints")
    gaps = [*selector.gaps, *list_gaps(written, manifest.at, "spec", "podMetricsEndpoints")]
    endpoints = []
    for index, entry in enumerate(as_list(written)):
        at = partial(manifest.at, "spec", "podMetricsEndpoints", index)
        relabelings = dig(entry, "relabelings")
        exporter, asks_another = _replaced(relabelings, "targetLabel")
        port, number = dig(entry, "port"), dig(entry, "portNumber")
        gaps += [
            *mapping_gaps(entry, at, what="an endpoint"),
            *list_gaps(relabelings, at, "relabelings"),
        ]
        if number is not None and whole(number) is None:
            gaps.append(Gap(at("portNumber"), "portNumber is not a number"))
        endpoints.append(
            Endpoint(
                location=at(),
                port=port if isinstance(port, str) else whole(port),
                number=whole(number),
                port_location=at("port"),
                asks_another=asks_another,
                exporter=exporter,
                module=_module(entry),
            )
        )
    return PodMonitor(
        manifest=manifest,
        selector=selector,
        pods=tuple(pod for pod in pods if selector.selects(pod.labels)),
        endpoints=tuple(endpoints),
        location=manifest.at("spec", "selector"),
        gaps=tuple(gaps),
    )


@dataclass(frozen=True, slots=True)
class ScrapeAnnotations:
    """What the annotations of a pod have scraped: the port as it is written, and as a number if it is one."""

    text: str
    port: int | None
    location: Location


def scrape_annotations(pod: Pod) -> ScrapeAnnotations | None:
    """The annotations of pods that ask for their metrics; None where they do not."""
    path = (*pod.path[:-1], "metadata", "annotations")
    annotations = as_mapping(pod.manifest.get(*path))
    if str(annotations.get(_SCRAPE)).lower() != "true":
        return None
    port = annotations.get(_PORT, "")
    return ScrapeAnnotations(str(port), whole_text(port), pod.manifest.at(*path, _PORT))


# What answers


@dataclass(frozen=True, slots=True)
class ProbeModule:
    """A module of blackbox.yml."""

    empty: bool
    sends_key: bool
    location: Location
    """Where its `http` stands, or would."""


def read_probe_modules(source: Source | None) -> Mapping[str, ProbeModule] | None:
    """The modules of blackbox.yml by name; None where there is no such file, or it does not parse."""
    if source is None or not source.parsed:
        return None
    return {
        str(name): _probe_module(as_mapping(module), source.at("modules", name, "http"))
        for name, module in as_mapping(dig(source.data, "modules")).items()
    }


def _probe_module(module: Mapping[str, Any], location: Location) -> ProbeModule:
    keys = ("authorization", "bearer_token_file", "bearer_token")
    headers = {str(header).lower() for header in as_mapping(dig(module, "http", "headers"))}
    sends = "authorization" in headers or any(dig(module, "http", key) for key in keys)
    return ProbeModule(not module, sends, location)


@dataclass(frozen=True, slots=True)
class Collector:
    """An OpenTelemetry collector: where it receives, and the ports of its exporters for Prometheus.

    A port is None where none can be read. https://opentelemetry.io/docs/collector/configuration/
    """

    receives: int | None
    location: Location
    """Where the endpoint of its receiver stands, or would."""
    exports: frozenset[int | None]


def read_collector(source: Source | None) -> Collector | None:
    """The ports of collector.yaml; None where there is no such file, or it does not parse."""
    if source is None or not source.parsed:
        return None
    receiver: tuple[Key, ...] = ("receivers", "otlp", "protocols", "grpc", "endpoint")
    exporters = as_mapping(dig(source.data, "exporters"))
    return Collector(
        _port(dig(source.data, *receiver)),
        source.at(*receiver),
        frozenset(
            _port(dig(exporter, "endpoint"))
            for name, exporter in exporters.items()
            if str(name).partition("/")[0] == "prometheus"
        ),
    )


def _port(endpoint: Any) -> int | None:
    return whole_text(as_text(endpoint).rpartition(":")[2])


# Rules and dashboards

Kind = Literal["expression", "record"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A PromQL expression, or the name of a recorded series, in rules, their tests or a dashboard."""

    kind: Kind
    text: str
    place: Callable[[], Location]
    """Where it stands, looked for only when it is asked: most are well."""


_EXPRESSIONS = frozenset({"expr", "query", "series", "definition"})
"""Keys of what is PromQL in rules, their tests and dashboards."""


def read_expressions(sources: Mapping[str, Source], manifests: Iterable[Manifest]) -> Iterator[Expression]:
    """What is PromQL in files under monitoring/ and in PrometheusRules."""
    for path, source in sources.items():
        if path.startswith(_FOLDER) and source.language in ("yaml", "json"):
            for document, texts in enumerate(source.texts):
                for keys, text, kind in _promql(texts):
                    yield Expression(kind, text, partial(_in_file, source, document, keys, text))
    for manifest in manifests:
        if manifest.kind == "PrometheusRule":
            for keys, text, kind in _promql(strings(manifest.data)):
                yield Expression(kind, text, partial(manifest.at, *keys))


def _promql(texts: Iterable[tuple[tuple[Key, ...], str]]) -> Iterator[tuple[tuple[Key, ...], str, Kind]]:
    for keys, text in texts:
        key = keys[-1] if keys else ""
        if key in _EXPRESSIONS:
            yield keys, text, "expression"
        elif key == "record":
            yield keys, text, "record"


def _in_file(source: Source, document: int, keys: tuple[Key, ...], text: str) -> Location:
    if source.language == "json":
        return Location(source.path, _line_in_json(source.text, text))
    return source.at(*keys, document=document)


def _line_in_json(text: str, value: str) -> int:
    """The first line with the beginning of this text; JSON is read without places."""
    begins = text.find(value.split('"')[0].split("\n")[0])
    return text.count("\n", 0, begins) + 1 if begins > 0 else 1


@dataclass(frozen=True, eq=False)
class CopiedRules:
    """A PrometheusRule beside a rule file, and whether both have the same groups."""

    manifest: Manifest
    same: bool
    location: Location


def read_copied_rules(source: Source | None, manifests: Iterable[Manifest]) -> tuple[CopiedRules, ...]:
    """The PrometheusRules of a deployment with a rule file that parses."""
    if source is None or not source.parsed:
        return ()
    groups = dig(source.data, "groups")
    return tuple(
        CopiedRules(manifest, manifest.get("spec", "groups") == groups, manifest.at("spec"))
        for manifest in manifests
        if manifest.kind == "PrometheusRule"
    )
