"""Permify's settings as each of its processes takes them, each with the place that it comes from.

The environment beats permify.yaml or, where its Helm chart deploys Permify, what the chart hands on of `app`;
where both are silent, Permify's defaults count. Arguments beat all of it: PS315 reports those, and nothing
here reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from pgcat_stack.endpoints import Address, Uri, parse_uri
from pgcat_stack.files.gaps import At, Gap
from pgcat_stack.files.plain_data import Key, as_mapping, as_text, dig, put
from pgcat_stack.files.quantities import Number, Seconds, duration_seconds, whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location
from pgcat_stack.permify.chart import chart_authn, handed_on
from pgcat_stack.permify.defaults import (
    HEALTH_CHECK_SECONDS,
    IDLE_SECONDS,
    JITTER_SHARE,
    LIFETIME_SECONDS,
    MAX_OPEN_CONNECTIONS,
    PEERS_PORT,
)
from pgcat_stack.reading.chart import ChartValues
from pgcat_stack.reading.containers import Container, Variable
from pgcat_stack.reading.workloads import Workload

T = TypeVar("T")

_NOT_IN_CHART = frozenset({"max_connections", "max_connection_lifetime_jitter", "health_check_period"})
"""What Permify's Helm chart does not hand on from `app.database` (its `templates/deployment.yaml`)."""

Side = Literal["writer", "reader"]
Path = tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Layered:
    """Sections of Permify's configuration with the environment over them."""

    data: dict[str, Any]
    places: Mapping[Path, tuple[str, Location]]
    """The settings that the environment gives, with the variable's name and its place."""


@dataclass(frozen=True, eq=False)
class PermifySettings:
    """The settings of one Permify, from its file or its chart's values, and its environment."""

    name: str
    """How messages name it."""
    source: Source | None
    """permify.yaml, or the chart's values; None without such a file."""
    variables: Mapping[str, Variable]
    variable_at: At
    """Where the keys of a variable stand."""
    nowhere: Location
    """The place of what no file has."""
    container: Container | None = None
    """What runs it; None for a chart, and for a deployment elsewhere."""
    by_chart: bool = False

    @property
    def base(self) -> Path:
        """Where its settings begin in the source."""
        return ("app",) if self.by_chart else ()

    def at(self, *keys: Key) -> Location:
        """Where a setting of the file stands, or would."""
        return self.source.at(*self.base, *keys) if self.source else self.nowhere

    def written(self, *keys: Key) -> Any:
        """The setting or section as the file has it; None where it has none."""
        return dig(self.source.data, *self.base, *keys) if self.source else None

    @cached_property
    def authn(self) -> dict[str, Any]:
        """The section `authn` of the file; of a chart, as Permify would get it, were it enabled."""
        if self.by_chart and self.source:
            return chart_authn(self.source.data)
        return as_mapping(self.written("authn"))

    @cached_property
    def handed(self) -> dict[str, Any]:
        """The sections `database` and `authn` that reach Permify."""
        if self.by_chart and self.source:
            return handed_on(self.source.data)
        return {section: as_mapping(self.written(section)) for section in ("database", "authn")}

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """The values of the file, or what the environment has in their place, that Permify cannot read."""
        from pgcat_stack.files.issues import MISREAD
        from pgcat_stack.permify.settings import read_permify

        layered = self.layered("database", "authn")
        data = {} if self.by_chart else self.written() or {}
        found = []
        for issue in read_permify({**data, **layered.data} if isinstance(data, dict) else data).issues:
            if issue.kind in MISREAD:
                _, place = layered.places.get(issue.keys, ("", self.at(*issue.keys)))
                found.append(Gap(place, issue.message))
        return tuple(found)

    def find(self, read: Callable[[Any], T | None], *keys: str) -> tuple[T | None, Location]:
        """The setting as `read` makes it of what is written, and where that stands or would stand."""
        variable = self.variables.get("_".join(("PERMIFY", *keys)).upper())
        if variable is not None and variable.value:
            return read(variable.value), self.variable_at(*variable.keys)
        if self.by_chart and keys[-1] in _NOT_IN_CHART:
            return None, self.at(*keys)
        return read(self.written(*keys)), self.at(*keys)

    def layered(self, *sections: str) -> Layered:
        """Sections as they reach Permify, with the environment over them, as far as files show it."""
        from pgcat_stack.permify.settings import VARIABLES

        data = {section: self.handed[section] for section in sections}
        places: dict[Path, tuple[str, Location]] = {}
        for name, variable in self.variables.items():
            keys = VARIABLES.get(name)
            if keys is not None and keys[0] in data and variable.value:
                data = put(data, keys, variable.value)
                places[keys] = name, self.variable_at(*variable.keys)
        return Layered(data, places)

    def layered_with(self, stand_ins: Mapping[tuple[str, ...], Any], section: str) -> Layered | None:
        """A section with the environment over it, a stand-in in the place of each value that no file shows.

        None where a value is hidden that has no stand-in. To Permify an empty variable is none, so that the
        file counts; where the chart makes variables of the section itself, an empty one takes its place.
        """
        from pgcat_stack.permify.settings import VARIABLES

        data: dict[str, Any] = {section: self.handed[section]}
        places: dict[Path, tuple[str, Location]] = {}
        for name, keys in VARIABLES.items():
            variable = self.variables.get(name)
            if variable is None or keys[0] != section:
                continue
            value = variable.shown
            if value is None and keys not in stand_ins:
                return None
            if value or value is None or self.by_chart:
                data = put(data, keys, stand_ins[keys] if value is None else value or None)
                places[keys] = name, self.variable_at(*variable.keys)
        return Layered(data, places)


def settings_of_container(container: Container, source: Source | None) -> PermifySettings:
    """The settings of a container or a Compose service that runs Permify with permify.yaml."""
    variables = _by_name(container.variables)
    return PermifySettings(container.text, source, variables, container.at, container.at(), container)


def settings_of_chart(values: ChartValues) -> PermifySettings:
    """The settings of Permify from the values of its chart."""
    source = values.source
    variables = _by_name(values.variables)
    return PermifySettings("Permify", source, variables, source.at, source.here(), by_chart=True)


def _by_name(variables: Iterable[Variable]) -> dict[str, Variable]:
    """Of several variables of one name the last one counts."""
    return {variable.name: variable for variable in variables}


@dataclass(frozen=True, slots=True, eq=False)
class Permify:
    """Permify processes with the settings of their database pools.

    A jitter of 0 means 20 % of the lifetime, a health check period of 0 a minute; both are resolved here.
    """

    workload: Workload
    settings: PermifySettings
    writer: Uri | None
    reader: Uri | None
    one_uri: bool
    """Whether `database.uri` gives both."""
    max_connections: Number
    lifetime: Seconds
    jitter: Seconds
    health_check: Seconds
    idle: Seconds
    watch: bool
    collectors: tuple[Address, ...] = ()
    """Where it pushes metrics, traces and logs, as far as the port is written."""
    peers_port: int | None = None
    """Where its processes find each other; None where they do not."""

    @property
    def sides(self) -> Iterator[tuple[Side, Uri]]:
        """The two pools of a process with the URIs they use, where these name a server."""
        if self.writer is not None and self.writer.servers:
            yield "writer", self.writer
        if self.reader is not None and self.reader.servers:
            yield "reader", self.reader

    @property
    def longest_connection_seconds(self) -> float:
        """How long a connection can stay: lifetime + jitter + one health check."""
        return self.lifetime.value + self.jitter.value + self.health_check.value


def read_permify_process(workload: Workload, source: Source | None, chart: ChartValues | None) -> Permify:
    """What a workload of Permify takes from permify.yaml, or from the chart's values."""
    if workload.kind == "helm" and chart is not None:
        settings = settings_of_chart(chart)
    elif workload.container is not None:
        settings = settings_of_container(workload.container, source)
    else:
        nowhere = workload.location
        settings = PermifySettings(workload.name, source, {}, lambda *keys: nowhere, nowhere)
    both = _uri(settings, "database", "uri")
    lifetime = _seconds(settings, "max_connection_lifetime", LIFETIME_SECONDS)
    jitter = _seconds(settings, "max_connection_lifetime_jitter", 0.0)
    if jitter.value <= 0:
        jitter = Seconds(JITTER_SHARE * lifetime.value, jitter.location)
    health_check = _seconds(settings, "health_check_period", 0.0)
    if health_check.value <= 0:
        health_check = Seconds(HEALTH_CHECK_SECONDS, health_check.location)
    watch, _ = settings.find(_flag, "service", "watch", "enabled")
    return Permify(
        workload=workload,
        settings=settings,
        writer=both or _uri(settings, "database", "writer", "uri"),
        reader=both or _uri(settings, "database", "reader", "uri"),
        one_uri=both is not None,
        max_connections=_max_connections(settings),
        lifetime=lifetime,
        jitter=jitter,
        health_check=health_check,
        idle=_seconds(settings, "max_connection_idle_time", IDLE_SECONDS),
        watch=bool(watch),
        collectors=tuple(_collectors(settings)),
        peers_port=_peers_port(settings),
    )


def _seconds(settings: PermifySettings, key: str, default: float) -> Seconds:
    value, location = settings.find(duration_seconds, "database", key)
    return Seconds(default if value is None else value, location)


def _uri(settings: PermifySettings, *keys: str) -> Uri | None:
    text, location = settings.find(lambda value: value if isinstance(value, str) else None, *keys)
    return parse_uri(text, location) if text else None


def _max_connections(settings: PermifySettings) -> Number:
    """`max_connections`; at 0 the deprecated `max_open_connections`, which is 20 by itself."""
    value, location = settings.find(whole_text, "database", "max_connections")
    if value is not None and value > 0:
        return Number(value, location)
    old, old_location = settings.find(whole_text, "database", "max_open_connections")
    if old is not None and old > 0:
        return Number(old, old_location)
    return Number(MAX_OPEN_CONNECTIONS, location)


def _collectors(settings: PermifySettings) -> Iterator[Address]:
    for exporter in ("meter", "tracer", "logger"):
        enabled, _ = settings.find(_flag, exporter, "enabled")
        endpoint, _ = settings.find(as_text, exporter, "endpoint")
        host, _, port = (endpoint or "").rpartition("://")[2].partition("/")[0].rpartition(":")
        number = whole_text(port)
        if enabled and host and number is not None:
            yield Address.of(host, number)


def _peers_port(settings: PermifySettings) -> int | None:
    enabled, _ = settings.find(_flag, "distributed", "enabled")
    port, _ = settings.find(whole_text, "distributed", "port")
    return (port or PEERS_PORT) if enabled else None


def _flag(value: Any) -> bool | None:
    if isinstance(value, str):
        return value.strip().lower() in ("1", "t", "true")
    return value if isinstance(value, bool) else None
