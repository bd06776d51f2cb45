"""PS319 and PS320: whether Permify asks its clients for a key or token, and can.

Permify 1.7.3 goes by `authn` of permify.yaml, or of its chart's values, with PERMIFY_AUTHN_… of the
environment over it (its `pkg/cmd/flags/serve.go`), and ends at its start where something is missing
(`internal/authn`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pgcat_stack.checks import check
from pgcat_stack.containers import Variable, running
from pgcat_stack.deployment import VALUES, Deployment
from pgcat_stack.findings import Location, Problem
from pgcat_stack.models.permify import Authn, read_permify
from pgcat_stack.plain_data import as_mapping, dig
from pgcat_stack.topology import read_topology
from pgcat_stack.workloads import helm_variables

Keys = tuple[str, ...]
At = Callable[..., Location]

_PRESHARED, _ISSUER = ("preshared", "keys"), ("oidc", "issuer")
_KEYS_VARIABLE = "PERMIFY_AUTHN_PRESHARED_KEYS"
_VARIABLES: dict[str, tuple[Keys, Any]] = {
    "PERMIFY_AUTHN_ENABLED": (("enabled",), None),
    "PERMIFY_AUTHN_METHOD": (("method",), None),
    _KEYS_VARIABLE: (_PRESHARED, ["in a Secret"]),
    "PERMIFY_AUTHN_OIDC_ISSUER": (_ISSUER, "in a Secret"),
    "PERMIFY_AUTHN_OIDC_BACKOFF_INTERVAL": (("oidc", "backoff_interval"), "1s"),
    "PERMIFY_AUTHN_OIDC_BACKOFF_FREQUENCY": (("oidc", "backoff_frequency"), "1s"),
    "PERMIFY_AUTHN_OIDC_BACKOFF_RETRIES": (("oidc", "backoff_max_retries"), 1),
}
"""The setting that a variable gives, and what stands for a value that no file shows, where something can."""
_BACKOFF = (("backoff_interval", "12s"), ("backoff_frequency", "5s"), ("backoff_max_retries", "5"))


@dataclass(frozen=True, slots=True)
class _Asking:
    """What a Permify asks of its clients, and where a setting of `authn` stands or would stand."""

    name: str
    authn: Authn
    at: Callable[[Keys], Location]


def _asking(deployment: Deployment) -> Iterator[_Asking]:
    """Each Permify that the files configure, as far as they show it."""
    source = deployment.permify
    for unit in running(deployment, "permify"):
        if not unit.inherits and not any(word.startswith("--authn-") for word in unit.words):
            authn = as_mapping(dig(source.data, "authn")) if source else {}
            place = partial(source.at, "authn") if source else unit.at
            yield from _read(unit.text, authn, place, unit.variables, unit.at)
    values = deployment.sources.get(VALUES)
    if values and any(permify.workload.kind == "helm" for permify in read_topology(deployment).permify):
        authn = as_mapping(dig(values.data, "app", "authn"))
        if dig(authn, "preshared", "keys_secret"):
            authn = {**authn, "preshared": {"keys": _VARIABLES[_KEYS_VARIABLE][1]}}
        authn = {"method": "preshared", **authn}  # the chart's default
        place = partial(values.at, "app", "authn")
        yield from _read("Permify's chart", authn, place, helm_variables(deployment), values.at)


def _read(
    name: str, authn: dict[str, Any], at: At, variables: Iterable[Variable], variable_at: At
) -> Iterator[_Asking]:
    """`authn` with the environment over it.

    Nothing where a Secret decides whether Permify authenticates, or where Permify could not take `authn`:
    PS3xx says so.
    """
    places: dict[Keys, Location] = {}
    for variable in variables:
        if variable.name not in _VARIABLES or variable.value == "":
            continue
        (*section, key), hidden = _VARIABLES[variable.name]
        value = hidden if variable.value is None else variable.value
        if value is None:
            return
        below = {**as_mapping(dig(authn, *section)), key: value}
        authn = {**authn, section[0]: below} if section else below
        places[*section, key] = variable_at(*variable.keys)
    read = read_permify({"authn": authn}).config
    if read is not None:
        yield _Asking(name, read.authn, lambda keys: places.get(keys) or at(*keys))


@check(
    code="PS319",
    name="permify-authn",
    severity="error",
    why="Permify that is told to authenticate its clients, and not by what, ends at its start: a rollout"
    " stops, and a pod that restarts does not come back.",
    mend="Complete `authn` in permify.yaml; keys come from a Secret, as PERMIFY_AUTHN_PRESHARED_KEYS.",
)
def permify_authn(deployment: Deployment) -> Iterator[Problem]:
    """What is missing where authentication is on."""
    for asking in _asking(deployment):
        for keys, what, fix in _missing(asking.authn) if asking.authn.enabled else ():
            yield Problem(asking.at(keys), f"authn of {asking.name}: {what}, so Permify does not start", fix)


def _missing(authn: Authn) -> Iterator[tuple[Keys, str, str]]:
    if not authn.method:
        yield ("method",), "no `method`", "write method: preshared, or oidc"
    if authn.method == "preshared" and not authn.preshared.keys:
        yield ("method",), "`preshared` without a key", f"set {_KEYS_VARIABLE} from a Secret"
    if authn.method == "oidc":
        if not authn.oidc.issuer:
            yield _ISSUER, "`oidc` without an `issuer`", "write the issuer's URL"
        for setting, example in _BACKOFF:
            if not getattr(authn.oidc, setting):
                fix = f"write {setting}: {example} under oidc"
                yield ("oidc", setting), f"`oidc` with `{setting}` 0", fix


@check(
    code="PS320",
    name="permify-authn-off",
    severity="warning",
    why="Keys or an issuer are there, and `enabled` is not: Permify answers everybody who reaches it.",
    mend="Write `enabled: true` under `authn`, or remove what it would need.",
)
def permify_authn_off(deployment: Deployment) -> Iterator[Problem]:
    """Authentication that is prepared and not on."""
    for asking in _asking(deployment):
        authn = asking.authn
        for keys, given in ((_PRESHARED, authn.preshared.keys), (_ISSUER, authn.oidc.issuer)):
            if given and not authn.enabled:
                what = f"{'.'.join(keys)} is given to {asking.name}, and `authn.enabled` is not true"
                text, fix = f"{what}: it answers everybody", "write enabled: true under authn"
                yield Problem(asking.at(keys), text, fix)
