"""PS319 and PS320: whether Permify asks its clients for a key or a token, and lets the right ones in.

Permify goes by `authn` of permify.yaml or of its chart's values, with PERMIFY_AUTHN_… of its environment
over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import Key, as_mapping, dig, put
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PERMIFY, VALUES
from pgcat_stack.permify.chart import HIDDEN, chart_authn, handed_on
from pgcat_stack.permify.settings import VARIABLES, Authn, authn_issues, read_permify
from pgcat_stack.reading.containers import Container, Variable
from pgcat_stack.reading.reading import Reading

Keys = tuple[Key, ...]

_ENABLED, _METHOD = ("authn", "enabled"), ("authn", "method")
_KEYS, _ISSUER = ("authn", "preshared", "keys"), ("authn", "oidc", "issuer")
_KEYS_VARIABLE = "PERMIFY_AUTHN_PRESHARED_KEYS"
_STANDS_FOR: Mapping[tuple[str, ...], Any] = {
    _KEYS: [HIDDEN],
    _ISSUER: HIDDEN,
    ("authn", "oidc", "audience"): HIDDEN,
    ("authn", "oidc", "valid_methods"): [HIDDEN],
    ("authn", "oidc", "refresh_interval"): "1s",
    ("authn", "oidc", "backoff_interval"): "1s",
    ("authn", "oidc", "backoff_frequency"): "1s",
    ("authn", "oidc", "backoff_max_retries"): 1,
}
"""What stands for a value that no file shows. Where `enabled` or `method` is hidden, nothing can be said."""


@dataclass(frozen=True, slots=True)
class PermifyAuthn:
    """A Permify with its `authn`: as it is written in a file, and with the environment over it."""

    name: str
    written: dict[str, Any]
    authn: Authn
    at: Callable[..., Location]
    """Where a setting of the file stands, or would."""
    variables: Mapping[Keys, Location]
    """The settings that come from the environment."""
    fixes: Mapping[Keys, str]
    """What to do about a setting, where that depends on what runs Permify."""
    container: Container | None = None
    """What runs it; None where its chart does."""

    def place(self, keys: Keys) -> Location:
        """Where a setting or a part of it stands, or else what turns authentication on."""
        if keys[:3] in self.variables:
            return self.variables[keys[:3]]
        is_written = dig({"authn": self.written}, *keys[:3]) is not None
        turned_on = None if is_written else self.variables.get(_ENABLED)
        return turned_on or self.at(*keys)


def permifys(reading: Reading) -> Iterator[PermifyAuthn]:
    """Each Permify whose authentication the files show."""
    for container in reading.running("permify"):
        if _serves(container) and not _has_more(container):
            yield from _of_container(container, reading.permify)
    values = reading.sources.get(VALUES)
    if values and any(permify.workload.kind == "helm" for permify in reading.topology.permify):
        yield from _of_chart(values, reading.helm_variables)


def _of_container(container: Container, source: Source | None) -> Iterator[PermifyAuthn]:
    written = as_mapping(dig(source.data, "authn")) if source else {}
    authn, variables = _read(written, container.variables, container.data, container.at)
    give_keys = f"set {_KEYS_VARIABLE} from a Secret"
    if container.pod is None:
        give_keys = f"write {_KEYS_VARIABLE}: ${{{_KEYS_VARIABLE}:?}} under environment"
    if authn:
        fixes: dict[Keys, str] = {_ENABLED: "write enabled: true under authn", _KEYS: give_keys}
        at = source.at if source else container.at
        yield PermifyAuthn(container.text, written, authn, at, variables, fixes, container)


def _of_chart(values: Source, extra: Iterable[Variable]) -> Iterator[PermifyAuthn]:
    written, handed = chart_authn(values.data), handed_on(values.data)["authn"]
    authn, variables = _read(handed, extra, values.data, values.at, empty_counts=True)
    turn_on = "write enabled: true under app.authn"
    fixes: dict[Keys, str] = {_ENABLED: turn_on, _KEYS: "name a Secret in app.authn.preshared.keys_secret"}
    if not handed:
        fixes[_METHOD] = f"{turn_on}, which the chart drops without it"
        fixes[_KEYS] = f"set {_KEYS_VARIABLE} from a Secret in extraEnvVars"
    if authn:
        yield PermifyAuthn("Permify", written, authn, partial(values.at, "app"), variables, fixes)


def _serves(container: Container) -> bool:
    """Whether it is no tool such as `permify repair`, which asks nobody; the image's own command serves."""
    return not container.words or "serve" in container.words


def _has_more(container: Container) -> bool:
    """Whether it may have settings that nothing here reads: arguments, or what its manifest patches."""
    is_patch = container.pod is not None and container.pod.manifest.partial
    return is_patch or container.inherits or any(word.startswith("--authn-") for word in container.words)


def _read(
    authn: dict[str, Any],
    variables: Iterable[Variable],
    data: Any,
    at: Callable[..., Location],
    empty_counts: bool = False,
) -> tuple[Authn | None, dict[Keys, Location]]:
    """`authn` with the environment over it, and what that gives.

    To Permify an empty variable is none, so that the file counts. Where `authn` becomes variables itself, as
    the chart makes it, `empty_counts`: the last one of a name is what Permify gets.

    None where it is hidden whether Permify authenticates, or where Permify could not take it, as PS3xx says.
    """
    settings: dict[str, Any] = {"authn": authn}
    places: dict[Keys, Location] = {}
    last = {variable.name: variable for variable in variables}
    for name, keys in VARIABLES.items():
        if name not in last or keys[0] != "authn":
            continue
        variable = last[name]
        value = _value(variable, dig(data, *variable.keys))
        if value is None and keys not in _STANDS_FOR:
            return None, {}
        if value or value is None or empty_counts:
            settings = put(settings, keys, _STANDS_FOR[keys] if value is None else value or None)
            places[keys] = at(*variable.keys)
    config = read_permify(settings).config
    return config.authn if config else None, places


def _value(variable: Variable, written: object) -> str | None:
    """What a file shows, "" for nothing; None where a Secret, `env_file` or ${…} gives it."""
    if variable.keys[0] == "env_file" or "$" in str(written):
        return None
    if isinstance(written, dict) and "valueFrom" not in written:
        return variable.value or ""
    return variable.value


@check(
    code="PS319",
    name="permify-authn",
    severity="error",
    needs=(PERMIFY,),
    why="Where something is missing, Permify that is to authenticate its clients ends at its start, refuses"
    " every token while it looks healthy, or lets somebody in without a key.",
    fix="Complete `authn` in permify.yaml; keys come from a Secret, as PERMIFY_AUTHN_PRESHARED_KEYS.",
)
def permify_authn(reading: Reading) -> Iterator[Problem]:
    """What is wrong where authentication is on."""
    for permify in permifys(reading):
        for issue in authn_issues(permify.authn) if permify.authn.enabled else ():
            text = f"authn of {permify.name}: {issue.message}"
            yield Problem(permify.place(issue.keys), text, permify.fixes.get(issue.keys, issue.fix))


@check(
    code="PS320",
    name="permify-authn-off",
    severity="warning",
    needs=(PERMIFY,),
    why="Keys or an issuer are given and authentication is off, or a variable turns it off: Permify answers"
    " everybody who reaches it.",
    fix="Write `enabled: true` under `authn`, and remove the variable; or remove what only `authn` needs.",
)
def permify_authn_off(reading: Reading) -> Iterator[Problem]:
    """Authentication that is prepared and off."""
    for permify in permifys(reading):
        everybody = f"{permify.name} answers everybody"
        if permify.authn.enabled:
            continue
        if _ENABLED in permify.variables and _is_on(permify.written):
            text = f"PERMIFY_AUTHN_ENABLED turns off what the file turns on: {everybody}"
            yield Problem(permify.variables[_ENABLED], text, "remove PERMIFY_AUTHN_ENABLED")
            continue
        given = {_KEYS: permify.authn.preshared.keys, _ISSUER: permify.authn.oidc.issuer}
        for keys, value in given.items():
            if value or dig({"authn": permify.written}, *keys):
                text = f"{'.'.join(keys)} is given and `enabled` is not true: {everybody}"
                yield Problem(permify.place(keys), text, permify.fixes[_ENABLED])


def _is_on(authn: dict[str, Any]) -> bool:
    config = read_permify({"authn": authn}).config
    return config is not None and config.authn.enabled
