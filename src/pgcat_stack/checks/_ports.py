"""Which ports the programs listen on, by their own configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgcat_stack.files.plain_data import Key, as_mapping, dig
from pgcat_stack.files.quantities import is_int, whole_text
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.topology import PERMIFY_PEERS_PORT

PERMIFY_DEFAULTS = {"http": 3476, "grpc": 3478}
_PROFILER_DEFAULT = 6060
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
KUBELET_PROBES = ("httpGet", "tcpSocket", "grpc")
"""Those that come from outside the pod."""
_ASKED = {
    "pgcat": re.compile(r"(?:-p[ =]?|/dev/tcp/[^/ ]+/)(\d+)"),
    "permify": re.compile(r"-addr[ =][^ ,]*:(\d+)"),
}


def permify_ports(reading: Reading) -> dict[str, int] | None:
    """Ports of Permify's APIs by name, `http` only where it is enabled; None where they cannot be told."""
    data = reading.permify.data if reading.permify else None
    if reading.permify is None or not isinstance(data, dict):
        return None
    found: dict[str, int] = {}
    for name, default in PERMIFY_DEFAULTS.items():
        section = as_mapping(dig(data, "server", name))
        if section.get("enabled") is not False:
            port = whole_text(section.get("port", default))
            if port is None:
                return None
            found[name] = port
    return found


def listening(reading: Reading, container: Container) -> set[int] | None:
    """The ports that its program listens on; None where that is not known."""
    if container.program == "pgcat":
        pgcat = reading.topology.pgcat
        if pgcat is None or pgcat.port is None:
            return None
        return {pgcat.port} | ({pgcat.exporter} if pgcat.exporter is not None else set())
    if container.program == "permify":
        if any(variable.name.startswith("PERMIFY_SERVER_") for variable in container.variables):
            return None
        ports = permify_ports(reading)
        if ports is None:
            return None
        profiler = as_mapping(dig(reading.permify.data, "profiler")) if reading.permify else {}
        extra = (
            whole_text(profiler.get("port", _PROFILER_DEFAULT)) if profiler.get("enabled") is True else None
        )
        return {*ports.values(), PERMIFY_PEERS_PORT} | ({extra} if extra is not None else set())
    return None


def probes(container: Container) -> Iterator[tuple[tuple[Key, ...], object]]:
    """(path in the container, port) of all that asks a container for its health; a port may be a name."""
    for probe in _PROBES:
        for kind in KUBELET_PROBES:
            port = dig(container.data, probe, kind, "port")
            if is_int(port) or isinstance(port, str):
                yield (probe, kind, "port"), port
        yield from _asked(container, (probe, "exec", "command"))
    yield from _asked(container, ("healthcheck", "test"))


def _asked(container: Container, keys: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], int]]:
    command = dig(container.data, *keys)
    words = [str(word) for word in command] if isinstance(command, list) else [str(command or "")]
    pattern = _ASKED.get(container.program)
    if pattern:
        for number in pattern.findall(" ".join(words)):
            yield keys, int(number[:6])
