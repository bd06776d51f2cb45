"""The types of what our rules read, by kind of object, and the search for values of another type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pgcat_stack.files.plain_data import Key, as_list, dig
from pgcat_stack.files.quantities import is_int
from pgcat_stack.findings import Location, Problem
from pgcat_stack.printable import show_at


@dataclass(frozen=True, slots=True)
class Kind:
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


def wrong(
    data: object, rules: Rules, where: tuple[Key, ...] = ()
) -> Iterator[tuple[tuple[Key, ...], object, Kind]]:
    """(path, value, expected kind) of each value of a wrong type; what is absent or null is not judged."""
    for path, kind in rules:
        for keys, value in _values(data, path):
            if value is not None and not kind.fits(value):
                yield (*where, *keys), value, kind


def _values(data: object, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], object]]:
    if "*" not in path:
        yield path, dig(data, *path)
        return
    at = path.index("*")
    for index, item in enumerate(as_list(dig(data, *path[:at]))):
        for keys, value in _values(item, path[at + 1 :]):
            yield (*path[:at], index, *keys), value


def complaint(location: Location, keys: tuple[Key, ...], value: object, kind: Kind) -> Problem:
    what = "a mapping" if isinstance(value, dict) else show_at(keys, value)
    fix = f"write {kind.text}"
    if kind is INT and isinstance(value, str) and value.isdigit():
        fix = "remove the quotes"
    elif kind in (TEXT, TEXTS, LABELS):
        fix = f"write {kind.text}, numbers and true or false in quotes"
    return Problem(location, f"{'.'.join(map(str, keys))} is {what}, expected {kind.text}", fix)
