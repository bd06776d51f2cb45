"""Which ports the programs listen on, by their own configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgcat_stack.checks._kubernetes import is_int
from pgcat_stack.checks._pools import exporter_port, pgcat_port
from pgcat_stack.checks._units import Unit
from pgcat_stack.deployment import Deployment
from pgcat_stack.sources import Key, as_mapping, dig

PERMIFY_CLUSTER_PORT = 5000
"""Permify always listens here, for its own kind."""
_PERMIFY_DEFAULTS = {"http": 3476, "grpc": 3478}
_PROFILER_DEFAULT = 6060
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_ASKED = {"pgcat": re.compile(r"-p[ =]?(\d+)"), "permify": re.compile(r"-addr[ =][^ ,]*:(\d+)")}


def permify_ports(deployment: Deployment) -> dict[str, int] | None:
    """Ports of Permify's APIs by name, `http` only where it is enabled; None where they cannot be told."""
    data = deployment.permify.data if deployment.permify else None
    if deployment.permify is None or not isinstance(data, dict):
        return None
    found: dict[str, int] = {}
    for name, default in _PERMIFY_DEFAULTS.items():
        section = as_mapping(dig(data, "server", name))
        if section.get("enabled") is not False:
            port = _number(section.get("port", default))
            if port is None:
                return None
            found[name] = port
    return found


def listening(deployment: Deployment, unit: Unit) -> set[int] | None:
    """The ports that the unit's program listens on; None where that is not known."""
    if unit.program == "pgcat":
        port = pgcat_port(deployment)
        exporter = exporter_port(deployment)
        return None if port is None else {port} | ({exporter} if exporter is not None else set())
    if unit.program == "permify":
        if any(variable.name.startswith("PERMIFY_SERVER_") for variable in unit.variables):
            return None
        ports = permify_ports(deployment)
        if ports is None:
            return None
        profiler = as_mapping(dig(deployment.permify.data, "profiler")) if deployment.permify else {}
        extra = _number(profiler.get("port", _PROFILER_DEFAULT)) if profiler.get("enabled") is True else None
        return {*ports.values(), PERMIFY_CLUSTER_PORT} | ({extra} if extra is not None else set())
    return None


def probes(unit: Unit) -> Iterator[tuple[tuple[Key, ...], object]]:
    """(path in the container, port) of everything that asks a unit for its health; a port may be a name."""
    for probe in _PROBES:
        for kind in ("httpGet", "tcpSocket", "grpc"):
            port = dig(unit.data, probe, kind, "port")
            if is_int(port) or isinstance(port, str):
                yield (probe, kind, "port"), port
        yield from _asked(unit, (probe, "exec", "command"))
    yield from _asked(unit, ("healthcheck", "test"))


def _asked(unit: Unit, keys: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], int]]:
    command = dig(unit.data, *keys)
    words = [str(word) for word in command] if isinstance(command, list) else [str(command or "")]
    pattern = _ASKED.get(unit.program)
    if pattern:
        for number in pattern.findall(" ".join(words)):
            yield keys, int(number[:6])


def _number(value: object) -> int | None:
    if is_int(value):
        return value
    return (
        int(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6
        else None
    )
