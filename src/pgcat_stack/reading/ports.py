"""Ports: which the programs listen on by their own configuration, and which their containers name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.quantities import is_int, whole, whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.files.variables import interpolated
from pgcat_stack.findings import Location
from pgcat_stack.permify.defaults import GRPC_PORT, HTTP_PORT, PROFILER_PORT
from pgcat_stack.reading.containers import Container

PERMIFY_DEFAULTS = {"http": HTTP_PORT, "grpc": GRPC_PORT}
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_KUBELET_PROBES = ("httpGet", "tcpSocket", "grpc")
_ASKED = {
    "pgcat": re.compile(r"(?:-p[ =]?|/dev/tcp/[^/ ]+/)(\d+)"),
    "permify": re.compile(r"-addr[ =][^ ,]*:(\d+)"),
}


@dataclass(frozen=True, slots=True)
class PermifyPorts:
    """What permify.yaml has Permify listen on."""

    apis: dict[str, int]
    """Ports of its APIs by name; `http` only where it is enabled."""
    profiler: int | None
    """None where it is off."""


def read_permify_ports(source: Source | None) -> PermifyPorts | None:
    """The ports of permify.yaml; None where they cannot be told."""
    if source is None or not isinstance(source.data, dict):
        return None
    apis: dict[str, int] = {}
    for name, default in PERMIFY_DEFAULTS.items():
        section = as_mapping(dig(source.data, "server", name))
        if section.get("enabled") is not False:
            port = whole_text(section.get("port", default))
            if port is None:
                return None
            apis[name] = port
    profiler = as_mapping(source.mapping.get("profiler"))
    on = profiler.get("enabled") is True
    return PermifyPorts(apis, whole_text(profiler.get("port", PROFILER_PORT)) if on else None)


@dataclass(frozen=True, slots=True)
class DeclaredPort:
    """A port that a container or a Compose service declares: the one inside, and its name where it has one.

    A number is None where none is written, or cannot be read.
    """

    number: int | None
    name: str | None
    location: Location


def declared_ports(container: Container) -> Iterator[DeclaredPort]:
    """The `ports` of a container or a Compose service."""
    for index, entry in enumerate(as_list(container.data.get("ports"))):
        name = dig(entry, "name")
        if container.pod is not None:
            number, place = whole(dig(entry, "containerPort")), container.at("ports", index, "containerPort")
        else:
            number, place = _inside(entry), container.at("ports", index)
        yield DeclaredPort(number, name if isinstance(name, str) else None, place)


def _inside(entry: Any) -> int | None:
    """The port inside the container of an entry of Compose's `ports`."""
    if is_int(entry):
        return entry
    text = str(dig(entry, "target") if isinstance(entry, dict) else entry)
    return whole_text(text.rpartition("}")[2].rpartition(":")[2].partition("/")[0])


@dataclass(frozen=True, slots=True)
class AskedPort:
    """A port, by number or name, that something asks for the health of a container."""

    port: int | str
    by_kubelet: bool
    """Whether the question comes from outside the pod, and not from a command inside."""
    location: Location


def asked_ports(container: Container) -> Iterator[AskedPort]:
    """The ports that the probes of a container, or the health check of a Compose service, ask."""
    for probe in _PROBES:
        for kind in _KUBELET_PROBES:
            port = dig(container.data, probe, kind, "port")
            if is_int(port) or isinstance(port, str):
                yield AskedPort(port, True, container.at(probe, kind, "port"))
        yield from _by_command(container, (probe, "exec", "command"))
    yield from _by_command(container, ("healthcheck", "test"))


def _by_command(container: Container, keys: tuple[Key, ...]) -> Iterator[AskedPort]:
    command = dig(container.data, *keys)
    words = [str(word) for word in command] if isinstance(command, list) else [str(command or "")]
    pattern = _ASKED.get(container.program)
    if pattern:
        for number in pattern.findall(" ".join(words)):
            yield AskedPort(int(number[:6]), False, container.at(*keys))


# What Compose publishes

EVERYWHERE = frozenset({"", "0.0.0.0", "::", "[::]", "*"})
"""How an address is written that means all of the machine's."""
_SHORT = re.compile(
    r"(?:(?P<host>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<published>[\d-]*):)?(?P<target>\d+(?:-\d+)?)(?:/\w+)?"
)


@dataclass(frozen=True, slots=True)
class Published:
    """A port on the host: address, first and last number (0: Docker chooses)."""

    location: Location
    text: str
    host: str
    first: int
    last: int
    targets: int


def published_ports(container: Container) -> Iterator[Published]:
    """The ports of a Compose service that its host passes on."""
    for index, entry in enumerate(as_list(container.data.get("ports"))):
        place = container.at("ports", index)
        if isinstance(entry, dict):
            host, published = entry.get("host_ip", ""), str(entry.get("published", ""))
            if dig(entry, "mode") != "host" or published:
                first, last = _range(interpolated(published) or "")
                yield Published(place, published, interpolated(str(host)) or "", first, last, 1)
            continue
        text = interpolated(str(entry))
        match = _SHORT.fullmatch(text) if text is not None else None
        if match is None:
            continue
        host = match["host"] or ""
        published = match["published"] or ""
        if match["published"] is None and host.replace("-", "").isdigit():
            host, published = "", host  # `8080:80` has no address
        first, last = _range(published)
        low, high = _range(match["target"])
        yield Published(place, str(entry), host, first, last, high - low + 1)


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not low.isascii() or not low.isdigit() or len(low) > 5:
        return 0, 0
    return int(low), int(high) if dash and high.isascii() and high.isdigit() and len(high) < 6 else int(low)
