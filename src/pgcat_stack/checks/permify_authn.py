"""PS319 and PS320: whether Permify asks its clients for a key or a token, and lets the right ones in.

Permify goes by `authn` of permify.yaml or of its chart's values, with PERMIFY_AUTHN_… of its environment
over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import Key, dig
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PERMIFY
from pgcat_stack.permify.callers import KEYS_VARIABLE
from pgcat_stack.permify.chart import HIDDEN
from pgcat_stack.permify.settings import Authn, authn_issues, read_permify
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.permify import PermifySettings
from pgcat_stack.reading.reading import Reading

Keys = tuple[Key, ...]

_ENABLED, _METHOD = ("authn", "enabled"), ("authn", "method")
_KEYS, _ISSUER = ("authn", "preshared", "keys"), ("authn", "oidc", "issuer")
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
    """A Permify with its `authn` as it takes it in the end."""

    settings: PermifySettings
    authn: Authn
    variables: Mapping[Keys, tuple[str, Location]]
    """The settings that come from the environment."""
    fixes: Mapping[Keys, str]
    """What to do about a setting, where that depends on what runs Permify."""

    @property
    def name(self) -> str:
        """How messages name it."""
        return self.settings.name

    @property
    def written(self) -> dict[str, Any]:
        """`authn` as the file has it, or as the chart would hand it on."""
        return {"authn": self.settings.authn}

    def place(self, keys: Keys) -> Location:
        """Where a setting or a part of it stands, or else what turns authentication on."""
        if keys[:3] in self.variables:
            return self.variables[keys[:3]][1]
        is_written = dig(self.written, *keys[:3]) is not None
        turned_on = None if is_written else self.variables.get(_ENABLED)
        return turned_on[1] if turned_on else self.settings.at(*keys)


def permifys(reading: Reading) -> Iterator[PermifyAuthn]:
    """Each Permify whose authentication the files show."""
    for settings in reading.permify_settings:
        if settings.container is None or (_serves(settings.container) and not _has_more(settings.container)):
            layered = settings.layered_with(_STANDS_FOR, "authn")
            config = read_permify(layered.data).config if layered else None
            if layered is not None and config is not None:
                yield PermifyAuthn(settings, config.authn, layered.places, _fixes(settings))


def _fixes(settings: PermifySettings) -> dict[Keys, str]:
    if settings.by_chart:
        turn_on = "write enabled: true under app.authn"
        name_secret = "name a Secret in app.authn.preshared.keys_secret"
        fixes: dict[Keys, str] = {_ENABLED: turn_on, _KEYS: name_secret}
        if not settings.handed["authn"]:
            fixes[_METHOD] = f"{turn_on}, which the chart drops without it"
            fixes[_KEYS] = f"set {KEYS_VARIABLE} from a Secret in extraEnvVars"
        return fixes
    give_keys = f"set {KEYS_VARIABLE} from a Secret"
    if settings.container is not None and settings.container.pod is None:
        give_keys = f"write {KEYS_VARIABLE}: ${{{KEYS_VARIABLE}:?}} under environment"
    return {_ENABLED: "write enabled: true under authn", _KEYS: give_keys}


def _serves(container: Container) -> bool:
    """Whether it is no tool such as `permify repair`, which asks nobody; the image's own command serves."""
    return not container.words or "serve" in container.words


def _has_more(container: Container) -> bool:
    """Whether it may have settings that nothing here reads: arguments, or what its manifest patches."""
    is_patch = container.pod is not None and container.pod.manifest.partial
    return is_patch or container.inherits or any(word.startswith("--authn-") for word in container.words)


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
            yield Problem(permify.variables[_ENABLED][1], text, "remove PERMIFY_AUTHN_ENABLED")
            continue
        given = {_KEYS: permify.authn.preshared.keys, _ISSUER: permify.authn.oidc.issuer}
        for keys, value in given.items():
            if value or dig(permify.written, *keys):
                text = f"{'.'.join(keys)} is given and `enabled` is not true: {everybody}"
                yield Problem(permify.place(keys), text, permify.fixes[_ENABLED])


def _is_on(written: dict[str, Any]) -> bool:
    config = read_permify(written).config
    return config is not None and config.authn.enabled
