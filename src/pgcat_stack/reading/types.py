"""The types of what is read, by kind of object, and the search for values of another type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pgcat_stack.files.gaps import At, Gap, called
from pgcat_stack.files.plain_data import Key, as_list, dig
from pgcat_stack.files.quantities import is_int
from pgcat_stack.files.variables import filled_in


@dataclass(frozen=True, slots=True)
class Kind:
    """A type, as messages name it, and the test for it."""

    text: str
    fits: Callable[[object], bool]


INT = Kind("a whole number", is_int)
TEXT = Kind("text", lambda value: isinstance(value, str))
BOOL = Kind("true or false", lambda value: isinstance(value, bool))
LIST = Kind("a list", lambda value: isinstance(value, list))
MAP = Kind("a mapping", lambda value: isinstance(value, dict))
MAPS = Kind(
    "a list of mappings",
    lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
)
TEXTS = Kind(
    "a list of text", lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value)
)
LABELS = Kind(
    "a mapping of text to text",
    lambda value: (
        isinstance(value, dict)
        and all(isinstance(key, str) and isinstance(item, str) for key, item in value.items())
    ),
)
INT_OR_TEXT = Kind("a number or text", lambda value: is_int(value) or isinstance(value, str))
SCALAR = Kind("text", lambda value: not isinstance(value, (dict, list)))
LIST_OR_MAP = Kind("a list or a mapping", lambda value: isinstance(value, (list, dict)))
LIST_OR_TEXT = Kind("text or a list", lambda value: isinstance(value, (list, str)))

Rules = tuple[tuple[tuple[Key, ...], Kind], ...]
"""Paths with the kind of what stands there; `*` is every item of a list."""

METADATA: Rules = (
    (("metadata", "labels"), LABELS),
    (("metadata", "annotations"), LABELS),
    (("spec",), MAP),
    (("spec", "replicas"), INT),
    (("spec", "minReadySeconds"), INT),
    (("spec", "progressDeadlineSeconds"), INT),
    (("spec", "strategy"), MAP),
    (("spec", "strategy", "rollingUpdate"), MAP),
    (("spec", "strategy", "rollingUpdate", "maxSurge"), INT_OR_TEXT),
    (("spec", "strategy", "rollingUpdate", "maxUnavailable"), INT_OR_TEXT),
    (("spec", "template"), MAP),
)
BY_KIND: dict[str, Rules] = {
    "Service": (
        (("spec", "selector"), LABELS),
        (("spec", "ports"), MAPS),
        (("spec", "ports", "*", "port"), INT),
        (("spec", "ports", "*", "targetPort"), INT_OR_TEXT),
    ),
    "HorizontalPodAutoscaler": (
        (("spec", "minReplicas"), INT),
        (("spec", "maxReplicas"), INT),
        (("spec", "scaleTargetRef"), MAP),
        (("spec", "behavior"), MAP),
        (("spec", "behavior", "scaleDown"), MAP),
        (("spec", "behavior", "scaleDown", "stabilizationWindowSeconds"), INT),
        (("spec", "behavior", "scaleDown", "policies"), MAPS),
        (("spec", "behavior", "scaleDown", "policies", "*", "value"), INT),
        (("spec", "behavior", "scaleDown", "policies", "*", "periodSeconds"), INT),
    ),
    "NetworkPolicy": (
        (("spec", "podSelector"), MAP),
        (("spec", "policyTypes"), TEXTS),
        (("spec", "ingress"), MAPS),
        (("spec", "egress"), MAPS),
        (("spec", "ingress", "*", "from"), MAPS),
        (("spec", "egress", "*", "to"), MAPS),
        (("spec", "ingress", "*", "ports"), MAPS),
        (("spec", "egress", "*", "ports"), MAPS),
        (("spec", "ingress", "*", "ports", "*", "port"), INT_OR_TEXT),
        (("spec", "egress", "*", "ports", "*", "port"), INT_OR_TEXT),
    ),
    "CiliumNetworkPolicy": (
        (("spec", "endpointSelector"), MAP),
        (("spec", "ingress"), MAPS),
        (("spec", "egress"), MAPS),
        (("spec", "egress", "*", "toEndpoints"), MAPS),
        (("spec", "egress", "*", "toFQDNs"), MAPS),
        (("spec", "egress", "*", "toFQDNs", "*", "matchName"), TEXT),
        (("spec", "egress", "*", "toCIDR"), TEXTS),
        (("spec", "egress", "*", "toPorts"), MAPS),
        (("spec", "egress", "*", "toPorts", "*", "ports"), MAPS),
        (("spec", "egress", "*", "toPorts", "*", "ports", "*", "port"), TEXT),
    ),
    "PodMonitor": ((("spec", "selector"), MAP), (("spec", "podMetricsEndpoints"), MAPS)),
    "ExternalSecret": ((("spec", "data"), MAPS), (("spec", "target"), MAP)),
    "ConfigMap": ((("data",), LABELS),),
}
POD: Rules = (
    (("terminationGracePeriodSeconds",), INT),
    (("automountServiceAccountToken",), BOOL),
    (("enableServiceLinks",), BOOL),
    (("securityContext",), MAP),
    (("containers",), MAPS),
    (("initContainers",), MAPS),
    (("volumes",), MAPS),
)
CONTAINER: Rules = (
    (("name",), TEXT),
    (("image",), TEXT),
    (("command",), TEXTS),
    (("args",), TEXTS),
    (("restartPolicy",), TEXT),
    (("env",), MAPS),
    (("env", "*", "name"), TEXT),
    (("env", "*", "value"), TEXT),
    (("ports",), MAPS),
    (("ports", "*", "containerPort"), INT),
    (("ports", "*", "name"), TEXT),
    (("volumeMounts",), MAPS),
    (("volumeMounts", "*", "mountPath"), TEXT),
    (("resources",), MAP),
    (("securityContext",), MAP),
    (("securityContext", "runAsUser"), INT),
    (("securityContext", "runAsNonRoot"), BOOL),
    (("securityContext", "readOnlyRootFilesystem"), BOOL),
    (("securityContext", "allowPrivilegeEscalation"), BOOL),
    (("lifecycle",), MAP),
    (("lifecycle", "preStop"), MAP),
    (("lifecycle", "preStop", "sleep"), MAP),
    (("lifecycle", "preStop", "sleep", "seconds"), INT),
)
KUSTOMIZATION: Rules = (
    (("namespace",), TEXT),
    (("resources",), TEXTS),
    (("labels",), MAPS),
    (("patches",), MAPS),
    (("replicas",), MAPS),
    (("replicas", "*", "count"), INT),
    (("images",), MAPS),
    (("configMapGenerator",), MAPS),
    (("configMapGenerator", "*", "name"), TEXT),
    (("configMapGenerator", "*", "files"), TEXTS),
    (("secretGenerator",), MAPS),
)
SERVICE: Rules = (
    (("image",), TEXT),
    (("command",), LIST_OR_TEXT),
    (("entrypoint",), LIST_OR_TEXT),
    (("environment",), LIST_OR_MAP),
    (("ports",), LIST),
    (("volumes",), LIST),
    (("secrets",), LIST),
    (("configs",), LIST),
    (("cap_drop",), LIST),
    (("cap_add",), LIST),
    (("security_opt",), LIST),
    (("depends_on",), LIST_OR_MAP),
    (("deploy",), MAP),
    (("deploy", "replicas"), INT),
    (("scale",), INT),
    (("read_only",), BOOL),
    (("healthcheck",), MAP),
    (("stop_signal",), TEXT),
    (("stop_grace_period",), SCALAR),
    (("tmpfs",), LIST_OR_TEXT),
    (("restart",), TEXT),
)

READ_OF_CONTAINER: Rules = (
    *CONTAINER,
    (("startupProbe",), MAP),
    (("readinessProbe",), MAP),
    (("livenessProbe",), MAP),
    (("resources", "limits"), MAP),
    (("securityContext", "capabilities"), MAP),
    (("securityContext", "capabilities", "drop"), LIST),
    (("securityContext", "capabilities", "add"), LIST),
    (("volumeMounts", "*", "name"), TEXT),
)
READ_OF_SERVICE: Rules = (
    *SERVICE,
    (("env_file",), LIST_OR_TEXT),
    (("networks",), LIST_OR_MAP),
    (("devices",), LIST),
    (("logging",), MAP),
    (("logging", "options"), MAP),
    (("ulimits",), MAP),
)
"""With what no rule complains of, and is only not read."""


def wrong(
    data: object, rules: Rules, where: tuple[Key, ...] = (), *, variables: bool = False
) -> Iterator[tuple[tuple[Key, ...], object, Kind]]:
    """(path, value, expected kind) of each value of a wrong type; what is absent or null is not judged.

    With `variables` the data is Compose's, and a text counts as what Compose makes of it.
    """
    for path, kind in rules:
        for keys, value in _values(data, path):
            if value is not None and not kind.fits(value) and not (variables and _becomes(value, kind)):
                yield (*where, *keys), value, kind


def _becomes(value: object, kind: Kind) -> bool:
    """Whether Compose makes a fitting number or boolean of this text, from defaults or the environment."""
    if not isinstance(value, str) or "$" not in value or not (kind.fits(0) or kind.fits(True)):
        return False
    filled = filled_in(value)
    return filled is None or kind.fits(filled)


def _values(data: object, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], object]]:
    if "*" not in path:
        yield path, dig(data, *path)
        return
    at = path.index("*")
    for index, item in enumerate(as_list(dig(data, *path[:at]))):
        for keys, value in _values(item, path[at + 1 :]):
            yield (*path[:at], index, *keys), value


def type_gaps(data: Any, rules: Rules, at: At, *, variables: bool = False) -> tuple[Gap, ...]:
    """A gap for each value of another type than the rules name, see `wrong`."""
    found = wrong(data, rules, variables=variables)
    return tuple(Gap(at(*keys), f"{called(keys)} is not {kind.text}") for keys, _, kind in found)
