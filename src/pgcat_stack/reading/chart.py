"""The values of Permify's Helm chart, as far as they decide something else than Permify's own settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location
from pgcat_stack.permify.chart import CHART_APP, CHART_DATABASE
from pgcat_stack.reading.containers import Variable, kubernetes_variables


@dataclass(frozen=True, slots=True)
class Dropped:
    """A key under `app` that the chart does not know and drops without a word, and those that it knows."""

    section: tuple[str, ...]
    key: str
    known: tuple[str, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class NotText:
    """A value in extraEnvVars that is no text, which the API refuses."""

    name: Any
    value: Any
    location: Location


@dataclass(frozen=True, eq=False)
class ChartValues:
    """permify/values.yaml."""

    source: Source
    variables: tuple[Variable, ...]
    """`extraEnvVars`."""
    dropped: tuple[Dropped, ...]
    not_text: tuple[NotText, ...]
    name_override: Any
    """None where it is not given."""
    uri_by_secret: bool
    """Whether `uri_secret` gives the URI of both pools."""
    keys_secret: str | None
    """The Secret that the chart takes the keys of Permify's callers from."""
    service_type: Any
    has_ingress: bool
    mounts: tuple[str, ...]
    """Where further volumes are mounted."""

    def at(self, *keys: Key) -> Location:
        """Where the value at this path stands."""
        return self.source.at(*keys)


def read_chart(source: Source | None) -> ChartValues | None:
    """The values of the chart; None without the file."""
    if source is None:
        return None
    data = source.data
    keys_secret = dig(data, "app", "authn", "preshared", "keys_secret")
    return ChartValues(
        source=source,
        variables=tuple(kubernetes_variables(dig(data, "extraEnvVars"), ("extraEnvVars",))),
        dropped=tuple(_dropped(source)),
        not_text=tuple(_not_text(source)),
        name_override=dig(data, "nameOverride"),
        uri_by_secret=bool(dig(data, "app", "database", "uri_secret")),
        keys_secret=keys_secret if isinstance(keys_secret, str) else None,
        service_type=dig(data, "service", "type"),
        has_ingress=dig(data, "ingress", "enabled") is True,
        mounts=tuple(as_text(dig(mount, "mountPath")) for mount in as_list(dig(data, "extraVolumeMounts"))),
    )


def _dropped(source: Source) -> Iterator[Dropped]:
    for at, known in ((("app",), CHART_APP), (("app", "database"), CHART_DATABASE)):
        for key in as_mapping(dig(source.data, *at)):
            if key not in known:
                yield Dropped(at, key, known, source.at(*at, key))


def _not_text(source: Source) -> Iterator[NotText]:
    for index, item in enumerate(as_list(dig(source.data, "extraEnvVars"))):
        value = dig(item, "value")
        if value is not None and not isinstance(value, str):
            yield NotText(dig(item, "name"), value, source.at("extraEnvVars", index, "value"))
