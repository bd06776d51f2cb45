"""PS321 to PS324: who may call a Permify that asks for no key, and which web pages may call it.

Permify takes an empty list of origins for all of them, as its own default is (github.com/rs/cors).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pgcat_stack.checks import check
from pgcat_stack.checks.permify_authn import PermifyAuthn, permifys
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig, text_mapping
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PERMIFY
from pgcat_stack.permify.settings import read_permify
from pgcat_stack.printable import show
from pgcat_stack.reading.chart import ChartValues
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.pods import Pod
from pgcat_stack.reading.policies import Peer
from pgcat_stack.reading.ports import EVERYWHERE, published_ports
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import environment_lines

_VARIABLE = "PERMIFY_HTTP_CORS_ALLOWED_ORIGINS"
_KEYS: tuple[Key, ...] = ("server", "http", "cors_allowed_origins")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|(?:\*\.)?[a-z0-9.-]+)(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII
)
_LOOPBACK = re.compile(r"127(?:\.[0-9]{1,3}){3}|\[?::1\]?|localhost")
_ROUTES = frozenset({"HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "VirtualService"})
_ASK = "ask for a key (authn=preshared)"


@dataclass(frozen=True, slots=True)
class _Origins:
    """The origins that Permify allows, and where they stand, or would."""

    origins: tuple[str, ...]
    place: Location
    written: bool
    """Whether anybody wrote them; else they are Permify's default."""

    @property
    def all(self) -> bool:
        """Whether every origin is allowed."""
        return not self.origins or "*" in self.origins


def _origins(permify: PermifyAuthn) -> _Origins | None:
    """The origins that a Permify allows; None where it serves no HTTP, or a file does not show them."""
    settings = permify.settings
    container, variable = settings.container, settings.variables.get(_VARIABLE)
    if container and any(word.startswith(("--http-cors", "--http-enabled")) for word in container.words):
        return None
    http = as_mapping(settings.written(*_KEYS[:-1]))
    config = read_permify({"server": {"http": http}}).config
    if "PERMIFY_HTTP_ENABLED" in settings.variables or config is None or not config.server.http.enabled:
        return None
    if variable is not None and variable.value is None:
        return None
    if variable is not None and variable.value:  # an empty one is none to Permify
        return _Origins(tuple(variable.value.split(",")), settings.variable_at(*variable.keys), True)
    key = str(_KEYS[-1])
    written = key in http and not (settings.by_chart and not http[key])  # the chart drops what is empty
    origins = tuple(config.server.http.cors_allowed_origins) if written else ("*",)
    return _Origins(origins, settings.at(*_KEYS), written)


@check(
    code="PS321",
    name="permify-open-to-web-pages",
    severity="warning",
    needs=(PERMIFY,),
    why="Permify asks for no key, and any web page may call it: a page that somebody opens in a browser on a"
    " machine that reaches Permify, a developer's own for example, can read and write everything.",
    fix="Let it ask for a key (`authn=preshared`), or name the origins whose pages may call it"
    " (`cors_allowed_origins`); `https://none.invalid` is one that no page has.",
)
def permify_open_to_web_pages(reading: Reading) -> Iterator[Problem]:
    """Permify without authentication that allows every origin."""
    for permify in permifys(reading):
        found = None if permify.authn.enabled else _origins(permify)
        if found is not None and found.all:
            text = f"{permify.name} asks for no key (authn), and web pages of any origin may call it (CORS)"
            yield Problem(found.place, text, f"{_ASK}, or name origins in cors_allowed_origins")
    yield from _open_elsewhere(reading)


def _open_elsewhere(reading: Reading) -> Iterator[Problem]:
    """The same for permify.yaml where another deployment runs Permify with it, and nothing here shows how."""
    source, values = reading.permify, reading.chart
    running = reading.running("permify")
    if (
        source is None
        or values
        or any(container.pod is None or not container.pod.manifest.partial for container in running)
    ):
        return
    config = read_permify(source.data).config
    if config is None or config.authn.enabled or not config.server.http.enabled:
        return
    origins, written = config.server.http.cors_allowed_origins, dig(source.data, *_KEYS) is not None
    if not written or not origins or "*" in origins:
        text = (
            "this file asks for no key (authn none), and web pages of any origin may call Permify (CORS *);"
            " its container is deployed elsewhere, and may get keys from its own environment"
        )
        fix = (
            "name origins in cors_allowed_origins, or write authn with enabled: true and method: preshared"
            " here and give the container PERMIFY_AUTHN_PRESHARED_KEYS"
        )
        yield Problem(source.at(*_KEYS), text, fix)


@check(
    code="PS322",
    name="permify-open-to-others",
    severity="warning",
    needs=(PERMIFY,),
    why="Permify asks for no key, and others than its clients reach its port: they may ask, and write schemas"
    " and relationships.",
    fix="Let it ask for a key (`authn=preshared`), or close the way: loopback in Compose; on Kubernetes a"
    " Service of type ClusterIP, and a NetworkPolicy that names the namespaces of its clients.",
)
def permify_open_to_others(reading: Reading) -> Iterator[Problem]:
    """Ways for others to a Permify without authentication."""
    for permify in permifys(reading):
        if permify.authn.enabled:
            continue
        for place, how in _ways(reading, permify):
            yield Problem(place, f"{permify.name} asks for no key, and {how}", f"{_ASK}, or close the way")


def _ways(reading: Reading, permify: PermifyAuthn) -> Iterator[tuple[Location, str]]:
    container = permify.settings.container
    if container is not None and container.pod is None:
        yield from _of_compose(reading, container)
        return
    pod = container.pod if container else reading.network.permify_elsewhere
    if container is None:
        yield from _of_chart(reading.chart)
    if pod is not None and reading.complete:
        yield from _through_services(reading, pod)
        yield from _through_policies(reading, pod)


def _of_compose(reading: Reading, container: Container) -> Iterator[tuple[Location, str]]:
    if container.on_host_network:
        yield container.at("network_mode"), "it listens on all interfaces of the machine"
    for port in published_ports(container):
        if not _LOOPBACK.fullmatch(port.host):
            where = "all interfaces" if port.host in EVERYWHERE else port.host
            yield port.location, f"its port is published on {where}"
    environment = reading.sources.get(".env")
    for line, name, value in environment_lines(environment.text) if environment else ():
        if name == "PERMIFY_BIND" and environment and not _LOOPBACK.fullmatch(value):
            yield environment.here(line), f"PERMIFY_BIND publishes its ports on {show(value)}"


def _of_chart(values: ChartValues | None) -> Iterator[tuple[Location, str]]:
    if values is not None and values.service_type in ("LoadBalancer", "NodePort"):
        yield values.at("service", "type"), f"its Service is a {values.service_type}"
    if values is not None and values.has_ingress:
        yield values.at("ingress", "enabled"), "an Ingress leads to it"


def _through_services(reading: Reading, pod: Pod) -> Iterator[tuple[Location, str]]:
    services = {"permify"}
    for service in reading.of_kind("Service"):
        wanted = text_mapping(service.get("spec", "selector"))
        same = service.namespace == pod.manifest.namespace
        if not same or not wanted or any(pod.labels.get(name) != value for name, value in wanted.items()):
            continue
        services.add(service.name)
        kind = service.get("spec", "type")
        if kind in ("LoadBalancer", "NodePort"):
            yield service.at("spec", "type"), f"the Service {service.name} is a {kind}"
        elif as_list(service.get("spec", "externalIPs")):
            yield service.at("spec", "externalIPs"), f"the Service {service.name} has external addresses"
    for route in reading.of_kind("Ingress", *_ROUTES):
        if route.namespace == pod.manifest.namespace and services & set(_backends(route.data)):
            yield route.at(), f"the {route.kind} {route.name} leads to it"


def _backends(value: object, key: Key = "") -> Iterator[str]:
    """The names of Services in an Ingress or a route: under `service`, `backendRefs` or `destination`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if key in ("service", "backendRefs") and name == "name" and isinstance(inner, str):
                yield inner
            elif key == "destination" and name == "host" and isinstance(inner, str):
                yield inner.partition(".")[0]
            else:
                yield from _backends(inner, name)
    for item in as_list(value):
        yield from _backends(item, key)


def _through_policies(reading: Reading, pod: Pod) -> Iterator[tuple[Location, str]]:
    called = [flow for flow in reading.network.flows if flow.pod is pod and flow.calls_permify]
    if not reading.policies.all:  # where there are some and none selects it, PS472 says so
        yield pod.manifest.at(), "no NetworkPolicy closes its ports, so any pod of the cluster reaches them"
    for policy in reading.policies.selecting(pod, "Ingress"):
        for rule in policy.rules["Ingress"]:
            if rule.ports and not any(map(rule.on_port_of, called)):
                continue
            if not rule.peers or any(_anyone(peer) for peer in rule.peers):
                yield rule.location, f"{policy.text} opens it to every namespace or address"


def _anyone(peer: Peer) -> bool:
    return peer.every_address or (peer.every_namespace and not peer.by_label)


@check(
    code="PS323",
    name="cors-empty-list",
    severity="warning",
    needs=(PERMIFY,),
    why="Permify takes an empty list of origins for all of them, as its own default is.",
    fix="Name the origins whose pages may call it; `https://none.invalid` is one that no page has.",
)
def cors_empty_list(reading: Reading) -> Iterator[Problem]:
    """A list of origins that is empty."""
    for permify in permifys(reading):
        found = _origins(permify)
        if found is not None and found.written and not found.origins:
            text = "cors_allowed_origins is empty, which allows every origin"
            yield Problem(found.place, text, 'write ["https://none.invalid"] for none, or name origins')


@check(
    code="PS324",
    name="cors-not-an-origin",
    severity="warning",
    needs=(PERMIFY,),
    why="A browser sends an origin as scheme, host and port. Permify compares it as a whole, so what has a"
    " path, a slash at its end or no scheme allows nobody.",
    fix="Write it like https://app.example.com, or https://app.example.com:8443.",
)
def cors_not_an_origin(reading: Reading) -> Iterator[Problem]:
    """Entries that no browser sends."""
    for permify in permifys(reading):
        found = _origins(permify)
        for origin in found.origins if found is not None and found.written else ():
            if found is not None and origin != "*" and not _ORIGIN.fullmatch(origin):
                text = f"{show(origin)} in cors_allowed_origins is not an origin"
                yield Problem(found.place, text, "write it like https://app.example.com")
