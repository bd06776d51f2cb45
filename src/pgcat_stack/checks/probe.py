"""PS612 to PS614: what asks Permify for a read and a write reaches it, knows the request, and has its key.

Prometheus asks a blackbox_exporter, which asks Permify: by `relabel_configs` of prometheus.yml, or the
`relabelings` of a PodMonitor, `__address__` is the exporter and `__param_target` is Permify.
https://github.com/prometheus/blackbox_exporter#prometheus-configuration
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pgcat_stack.build.compose import env_files
from pgcat_stack.checks import check
from pgcat_stack.checks._ports import permify_ports
from pgcat_stack.checks._reach import monitored, selected, service_host_names
from pgcat_stack.checks.permify_authn import permifys
from pgcat_stack.checks.scraping import PROMETHEUS
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig, text_mapping
from pgcat_stack.files.quantities import is_int, whole_text
from pgcat_stack.findings import Location, Problem
from pgcat_stack.permify.callers import is_keys_file
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.reading import Reading

BLACKBOX = "monitoring/blackbox.yml"
PORT = 9115
"""Where a blackbox_exporter listens unless it is told otherwise."""
_KEYS = "PERMIFY_AUTHN_PRESHARED_KEYS"


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


def requests(reading: Reading) -> Iterator[Request]:
    """The requests of prometheus.yml and of PodMonitors."""
    source = reading.sources.get(PROMETHEUS)
    for job, config in enumerate(as_list(dig(source.data, "scrape_configs")) if source else []):
        exporter = _replaced(as_list(dig(config, "relabel_configs")), "target_label")
        if source is None or not exporter:
            continue
        for group, static in enumerate(as_list(dig(config, "static_configs"))):
            module = as_text(dig(static, "labels", "__param_module")) or _module(config)
            for index, target in enumerate(as_list(dig(static, "targets"))):
                at: tuple[Key, ...] = ("scrape_configs", job, "static_configs", group, "targets", index)
                host, port = _address(as_text(target))
                yield Request(source.at(*at), host, port, module, exporter)
    for monitor in reading.of_kind("PodMonitor"):
        for index, endpoint in enumerate(as_list(monitor.get("spec", "podMetricsEndpoints"))):
            exporter = _replaced(as_list(dig(endpoint, "relabelings")), "targetLabel")
            if not exporter:
                continue
            name = dig(endpoint, "port")
            numbers = {pod.port_number(name) for pod in monitored(reading, monitor)} - {None}
            port = dig(endpoint, "portNumber")
            port = numbers.pop() if len(numbers) == 1 else port if is_int(port) else None
            place = monitor.at("spec", "podMetricsEndpoints", index)
            exporter = exporter.replace("$1", monitor.namespace)
            yield Request(place, "", port, _module(endpoint), exporter, monitor.namespace)


def _replaced(relabelings: list[object], target: str) -> str:
    """What becomes of `__address__`; empty where it stays."""
    found = [as_text(dig(rule, "replacement")) for rule in relabelings if dig(rule, target) == "__address__"]
    return found[-1] if found else ""


def _module(config: object) -> str:
    modules = as_list(dig(config, "params", "module"))
    return as_text(modules[0]) if modules else ""


def _address(target: str) -> tuple[str, int | None]:
    try:
        url = urlsplit(target if "://" in target else f"http://{target}")
        return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return "", None


def makers(reading: Reading, request: Request) -> list[Container] | None:
    """The containers that make a request; None where they are not of this deployment."""
    host, _, _ = request.exporter.rpartition(":")
    named = [container for container in reading.services if container.name == host]
    for service in reading.of_kind("Service"):
        if host in service_host_names(service):
            chosen = selected(reading, service)
            named += [
                container for container in reading.own_containers if container.pod in chosen and container.pod
            ]
    outside = "." in host and not host.startswith(f"{host.partition('.')[0]}.{request.namespace}.")
    return named if named or not outside else None


@check(
    code="PS612",
    name="probe-target",
    severity="error",
    why="A probe that asks the wrong host or port pages all night, or Prometheus reaches no probe and every"
    " alert on requests is silent.",
    fix="Name Permify's HTTP port as the target, and the Service of the blackbox_exporter with its port as"
    " `__address__`.",
)
def probe_target(reading: Reading) -> Iterator[Problem]:
    """Requests to another port than Permify's, to no service that runs it, or by an exporter not there."""
    port = (permify_ports(reading) or {}).get("http")
    names = {container.name for container in reading.running("permify") if container.pod is None}
    for request in requests(reading):
        if request.host and names and request.host not in names:
            text = f"the probe asks {show(request.host)}, which does not run Permify"
            yield Problem(request.place, text, f"use {', '.join(sorted(names))}")
        elif port is not None and request.port not in (None, port):
            text = f"the probe asks port {request.port}, and Permify's HTTP API is on {port}"
            yield Problem(request.place, text, f"use {port}")
        found = makers(reading, request)
        host, _, number = request.exporter.rpartition(":")
        if found == [] and (reading.services or reading.of_kind("Service")):
            text = f"{show(host)} is no service of this deployment, and is to make the probe's requests"
            yield Problem(request.place, text, "name the service of the blackbox_exporter")
        elif found and whole_text(number) not in _served(reading, host, found):
            text = f"port {show(number)} of {show(host)} is asked, and no blackbox_exporter answers there"
            yield Problem(request.place, text, f"use {PORT}")


def _served(reading: Reading, host: str, found: list[Container]) -> set[int]:
    """The ports at which a blackbox_exporter is reached by this name."""
    if any(container.pod is None for container in found):
        return {PORT}
    ports: set[int] = set()
    for service in reading.of_kind("Service"):
        if host in service_host_names(service):
            for entry in as_list(service.get("spec", "ports")):
                inner = dig(entry, "targetPort") or dig(entry, "port")
                if any(container.pod and container.pod.port_number(inner) == PORT for container in found):
                    outer = dig(entry, "port")
                    ports |= {outer} if is_int(outer) else set()
    return ports


@check(
    code="PS613",
    name="probe-module",
    severity="error",
    why="A blackbox_exporter answers 400 to a request for a module that it does not have: there is no probe.",
    fix="Name a module of monitoring/blackbox.yml.",
)
def probe_module(reading: Reading) -> Iterator[Problem]:
    """Requests by a module that blackbox.yml does not have."""
    source = reading.sources.get(BLACKBOX)
    if source is None or not source.parsed:
        return
    known = text_mapping({str(name): "" for name in as_mapping(dig(source.data, "modules"))})
    for request in requests(reading):
        if request.module not in known:
            text = f"{BLACKBOX} has no module {show(request.module)}"
            yield Problem(request.place, text, f"it has {', '.join(known) or 'none'}")


@check(
    code="PS614",
    name="probe-key",
    severity="error",
    why="Permify refuses a probe without its key, so that alerts page for an outage that callers do not see.",
    fix="Give the blackbox_exporter the keys as Permify has them, from the same Secret or file, and"
    " `authorization` with `credentials_file` in its module.",
)
def probe_key(reading: Reading) -> Iterator[Problem]:
    """Modules that send no key to a Permify which asks for one, and probes that get other keys."""
    asking = [each for each in permifys(reading) if each.authn.enabled and each.authn.method == "preshared"]
    source = reading.sources.get(BLACKBOX)
    if not asking or source is None or not source.parsed:
        return
    used = list(requests(reading))
    for name in sorted({request.module for request in used}):
        module = as_mapping(dig(source.data, "modules", name))
        headers = {str(header).lower() for header in as_mapping(dig(module, "http", "headers"))}
        sends = any(
            dig(module, "http", key) for key in ("authorization", "bearer_token_file", "bearer_token")
        )
        if module and not sends and "authorization" not in headers:
            place = source.at("modules", name, "http")
            yield Problem(place, f"the module {show(name)} sends no key", "add authorization")
    theirs = {_keys_from(each.container) for each in asking if each.container} - {""}
    asked_by = {container.text: container for request in used for container in makers(reading, request) or []}
    for container in asked_by.values():
        ours = _keys_from(container)
        if theirs and ours not in theirs:
            text = f"{container.text} gets {'other keys' if ours else 'no keys'} of Permify's callers"
            yield Problem(
                container.at("env_file" if container.pod is None else "env"), text, f"use {min(theirs)}"
            )


def _keys_from(container: Container) -> str:
    """Where a container gets the keys from; empty where it gets none."""
    variable = container.variable(_KEYS)
    if variable is not None and variable.secret is not None:
        return "key {1} of the Secret {0}".format(*variable.secret)
    files = [path for _, path in env_files(container.data) if is_keys_file(path)]
    return files[0] if files else "a variable" if variable is not None else ""
