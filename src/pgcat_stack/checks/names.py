"""PS906 to PS908: names, labels and keys, as Kubernetes and Compose accept them.

Of custom resources, and of kinds that are not Kubernetes' own, only the metadata is judged: the API server
checks those of every object alike.
https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from pgcat_stack.build import names
from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks import check
from pgcat_stack.findings import Problem
from pgcat_stack.printable import show
from pgcat_stack.reading.names import OWN_GROUPS, Kind, Name, api_group
from pgcat_stack.reading.reading import Reading

Rule = Callable[[str], str]

_HASH = 11
"""Characters that kustomize adds to the name of a generated ConfigMap or Secret: a hyphen and a hash."""
_ANNOTATIONS_BYTES = 256 * 1024
_OBJECTS: Mapping[str, Rule] = {
    "Namespace": names.dns_label,
    "Service": names.dns_label,  # that it may not begin with a digit says PS908
    "Job": partial(names.dns_subdomain, most=63),  # it becomes a label of its pods
    "CronJob": partial(names.dns_subdomain, most=52),  # ValidateCronJob: Jobs get eleven characters more
}
_PATH_SEGMENTS = ("rbac.authorization.k8s.io", "certificates.k8s.io", "openshift.io")
"""Groups, or ends of groups, whose names are only segments of a path."""
_RULES: Mapping[Kind, Rule] = {
    "object": names.dns_subdomain,
    "generated object": names.dns_subdomain,
    "hashed object": partial(names.dns_subdomain, most=253 - _HASH),
    "namespace": names.dns_label,
    "key": names.config_key,
    "label-like": names.dns_label,
    "port": names.port_name,
    "variable": names.variable_name,
    "reference": names.dns_subdomain,
    "project": names.compose_project,
    "compose": names.compose_name,
    "label key": names.qualified_name,
    "label value": names.label_value,
    "annotation key": names.annotation_key,
}


def _rule(name: Name) -> Rule:
    return _object_rule(name.manifest) if name.manifest else _RULES[name.kind]


def _object_rule(manifest: Manifest) -> Rule:
    group = api_group(manifest)
    if group.endswith(_PATH_SEGMENTS):
        return names.path_segment
    return _OBJECTS.get(manifest.kind, names.dns_subdomain) if group in OWN_GROUPS else names.dns_subdomain


def _problems(written: Iterable[Name]) -> Iterator[Problem]:
    for name in written:
        rule = _rule(name)
        wrong = rule(name.text)
        if wrong:
            yield Problem(name.place(), f"{name.what} {show(name.text)} {wrong}", _fix(name.text, rule))


def _fix(text: str, rule: Rule) -> str:
    if not rule(text.strip()):
        return "remove the blanks around it"
    return f"write {text.lower()}" if not rule(text.lower()) else "choose another"


# Names


@check(
    code="PS906",
    name="invalid-name",
    severity="error",
    why="The API server refuses an object whose name, or the name of a container, volume, port, variable or"
    " key in it, has other characters than Kubernetes accepts, or is too long. You easily overlook a blank or"
    " a line end after it. Compose refuses names in the same way.",
    fix="Write the name as the message says. Names with the prefixes and suffixes of a kustomization count.",
)
def invalid_name(reading: Reading) -> Iterator[Problem]:
    """Names that Kubernetes or Compose refuses."""
    yield from _problems(reading.names)


# Labels


@check(
    code="PS907",
    name="invalid-label",
    severity="error",
    why="The API server refuses labels, selectors and annotations whose keys or values have other characters"
    " than Kubernetes accepts, or are too long: 63 characters for a value, and for a key after its prefix.",
    fix="Write the label as the message says. Longer text belongs into an annotation.",
)
def invalid_label(reading: Reading) -> Iterator[Problem]:
    """Labels, selectors and keys of annotations that Kubernetes refuses."""
    yield from _problems(reading.labels)
    for written in reading.annotations:
        size = written.size_bytes
        if size > _ANNOTATIONS_BYTES:
            text = f"the annotations have {size} bytes, and {_ANNOTATIONS_BYTES} are allowed"
            yield Problem(written.location, text, "shorten them")


# What only newer servers accept


@check(
    code="PS908",
    name="name-of-newer-kubernetes",
    severity="warning",
    why="Only newer servers accept some names: since Kubernetes 1.32, variables that begin with a digit, or"
    " that have other characters than letters, digits, -, _ and .; since 1.34, with the feature gate"
    " RelaxedServiceNameValidation, Services that begin with a digit.",
    fix="Choose a name that every supported Kubernetes accepts, or leave it where yours does.",
)
def name_of_newer_kubernetes(reading: Reading) -> Iterator[Problem]:
    """Names that the oldest supported Kubernetes refuses and a newer one accepts."""
    for manifest in reading.manifests:
        if manifest.kind == "Service" and api_group(manifest) == "" and manifest.name:
            name = manifest.built_name
            if names.dns_1035_label(name) and not names.dns_label(name):
                text = f"the name of the Service {show(name)} {names.dns_1035_label(name)}"
                yield Problem(manifest.at("metadata", "name"), text, "begin it with a letter")
    for variable in reading.names:
        if variable.kind == "variable" and not names.variable_name(variable.text):
            wrong = names.strict_variable_name(variable.text)
            if wrong:
                text = f"before Kubernetes 1.32, the variable {show(variable.text)} {wrong}"
                yield Problem(variable.place(), text, "choose another name")
