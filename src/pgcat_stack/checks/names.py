"""PS906 to PS908: names, labels and keys, as Kubernetes and Compose accept them.

Of custom resources, and of kinds that are not Kubernetes' own, only the metadata is judged: the API server
checks those of every object alike.
https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/apis/core/validation/validation.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from pgcat_stack.build import names
from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location, Problem
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Pod
from pgcat_stack.reading.reading import Reading

Rule = Callable[[str], str]

_HASH = 11
"""Characters that kustomize adds to the name of a generated ConfigMap or Secret: a hyphen and a hash."""
_ANNOTATIONS_BYTES = 256 * 1024
_OWN_GROUPS = frozenset(
    {
        *("", "apps", "batch", "autoscaling", "policy", "networking.k8s.io", "storage.k8s.io", "node.k8s.io"),
        *("scheduling.k8s.io", "discovery.k8s.io", "coordination.k8s.io", "admissionregistration.k8s.io"),
    }
)
"""API groups of Kubernetes whose label selectors all follow one rule."""
_NAMES: dict[str, Rule] = {
    "Namespace": names.dns_label,
    "Service": names.dns_label,  # that it may not begin with a digit says PS908
    "Job": partial(names.dns_subdomain, most=63),  # it becomes a label of its pods
    "CronJob": partial(names.dns_subdomain, most=52),  # ValidateCronJob: Jobs get eleven characters more
}
_PATH_SEGMENTS = ("rbac.authorization.k8s.io", "certificates.k8s.io", "openshift.io")
"""Groups, or ends of groups, whose names are only segments of a path."""


class _Said(NamedTuple):
    """A text, what it is, where it stands, and what it must be."""

    what: str
    text: str
    place: Callable[[], Location]
    rule: Rule


def _problems(said: Iterator[_Said]) -> Iterator[Problem]:
    for what, text, place, rule in said:
        wrong = rule(text)
        if wrong:
            yield Problem(place(), f"{what} {show(text)} {wrong}", _fix(text, rule))


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
    yield from _problems(_all_names(reading))


def _all_names(reading: Reading) -> Iterator[_Said]:
    for manifest in reading.manifests:
        yield from _object_names(manifest)
    for pod in reading.pods:
        yield from _pod_names(pod)
    for source in reading.kustomizations:
        yield from _generated_names(source)
    compose = reading.compose
    if compose is not None:
        project = as_text(dig(compose.data, "name"))
        if project and "$" not in project:
            yield _Said("the project", project, partial(compose.at, "name"), names.compose_project)
        for kind in ("services", "networks", "volumes", "configs", "secrets"):
            for name in as_mapping(dig(compose.data, kind)):
                if isinstance(name, str):
                    yield _Said(
                        f"in {kind}, the name", name, partial(compose.at, kind, name), names.compose_name
                    )


def _group(manifest: Manifest) -> str:
    return manifest.api_version.partition("/")[0] if "/" in manifest.api_version else ""


def _name_rule(manifest: Manifest) -> Rule:
    group = _group(manifest)
    if group.endswith(_PATH_SEGMENTS):
        return names.path_segment
    if group not in _OWN_GROUPS:
        return names.dns_subdomain
    return _NAMES.get(manifest.kind, names.dns_subdomain)


def _object_names(manifest: Manifest) -> Iterator[_Said]:
    kind, rule = manifest.kind, _name_rule(manifest)
    if manifest.name and not manifest.partial:
        yield _Said(
            f"the name of the {kind}", manifest.built_name, partial(manifest.at, "metadata", "name"), rule
        )
    own = manifest.get("metadata", "namespace")
    if isinstance(own, str) and own and own == manifest.namespace:
        yield _Said("the namespace", own, partial(manifest.at, "metadata", "namespace"), names.dns_label)
    if _group(manifest) not in _OWN_GROUPS:
        return
    if kind in ("ConfigMap", "Secret"):
        for field in ("data", "binaryData", "stringData"):
            for key in as_mapping(manifest.get(field)):
                if isinstance(key, str):
                    yield _Said(
                        f"the key of the {kind}", key, partial(manifest.at, field, key), names.config_key
                    )
    if kind == "Service":
        for index, port in enumerate(as_list(manifest.get("spec", "ports"))):
            for field, port_rule in (("name", names.dns_label), ("targetPort", names.port_name)):
                text = as_text(dig(port, field))
                if text:
                    yield _Said(
                        f"{field} of the port",
                        text,
                        partial(manifest.at, "spec", "ports", index, field),
                        port_rule,
                    )


def _pod_names(pod: Pod) -> Iterator[_Said]:
    at = partial(pod.manifest.at, *pod.path)
    for field, rule in (
        ("priorityClassName", names.dns_subdomain),
        ("serviceAccountName", names.dns_subdomain),
        ("runtimeClassName", names.dns_subdomain),
        ("nodeName", names.dns_subdomain),
        ("hostname", names.dns_label),
        ("subdomain", names.dns_label),
    ):
        text = as_text(pod.spec.get(field))
        if text:
            yield _Said(field, text, partial(at, field), rule)
    for index, volume in enumerate(pod.volumes):
        name = as_text(dig(volume, "name"))
        if name:
            yield _Said("the volume", name, partial(at, "volumes", index, "name"), names.dns_label)
    for path, container in pod.containers:
        inside = partial(pod.manifest.at, *path)
        name = as_text(container.get("name"))
        if name:
            yield _Said("the container", name, partial(inside, "name"), names.dns_label)
        for index, port in enumerate(as_list(container.get("ports"))):
            name = as_text(dig(port, "name"))
            if name:
                yield _Said("the port", name, partial(inside, "ports", index, "name"), names.port_name)
        for index, variable in enumerate(as_list(container.get("env"))):
            name = as_text(dig(variable, "name"))
            if name:
                yield _Said("the variable", name, partial(inside, "env", index, "name"), names.variable_name)
            for kind in ("configMapKeyRef", "secretKeyRef"):
                key = as_text(dig(variable, "valueFrom", kind, "key"))
                if key:
                    place = partial(inside, "env", index, "valueFrom", kind, "key")
                    yield _Said("the key", key, place, names.config_key)
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            for how in ("httpGet", "tcpSocket"):
                name = as_text(dig(container, probe, how, "port"))
                if name:
                    yield _Said(
                        f"the port of {probe}", name, partial(inside, probe, how, "port"), names.port_name
                    )


def _generated_names(source: Source) -> Iterator[_Said]:
    namespace = source.mapping.get("namespace")
    if isinstance(namespace, str) and namespace:
        yield _Said("the namespace", namespace, partial(source.at, "namespace"), names.dns_label)
    before, after = (as_text(source.mapping.get(key)) for key in ("namePrefix", "nameSuffix"))
    for kind in ("configMapGenerator", "secretGenerator"):
        for index, generator in enumerate(as_list(source.mapping.get(kind))):
            name = as_text(dig(generator, "name"))
            fixed = any(
                dig(source.data, *keys) is True
                for keys in (
                    ("generatorOptions", "disableNameSuffixHash"),
                    (kind, index, "options", "disableNameSuffixHash"),
                )
            )
            if name:
                rule = partial(names.dns_subdomain, most=253 - (0 if fixed else _HASH))
                yield _Said(
                    "the name", f"{before}{name}{after}", partial(source.at, kind, index, "name"), rule
                )
            for field in ("files", "literals"):
                for number, item in enumerate(as_list(dig(generator, field))):
                    key = as_text(item).partition("=")[0]
                    key = key.rpartition("/")[2] if field == "files" and "=" not in as_text(item) else key
                    if key:
                        yield _Said(
                            "the key", key, partial(source.at, kind, index, field, number), names.config_key
                        )


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
    yield from _problems(_all_labels(reading))
    for manifest in reading.manifests:
        annotations = as_mapping(manifest.get("metadata", "annotations"))
        size = sum(len(str(part).encode("utf-8", "replace")) for pair in annotations.items() for part in pair)
        if size > _ANNOTATIONS_BYTES:
            text = f"the annotations have {size} bytes, and {_ANNOTATIONS_BYTES} are allowed"
            yield Problem(manifest.at("metadata", "annotations"), text, "shorten them")


def _all_labels(reading: Reading) -> Iterator[_Said]:
    for manifest in reading.manifests:
        yield from _metadata_labels(manifest.at, manifest.data, ())
        if _group(manifest) in _OWN_GROUPS:
            if manifest.kind in ("Service", "ReplicationController"):
                yield from _labels(manifest.at, manifest.get("spec", "selector"), ("spec", "selector"))
            yield from _selectors(manifest.at, manifest.data, ())
    for pod in reading.pods:
        yield from _metadata_labels(pod.manifest.at, pod.manifest.get(*pod.path[:-1]), pod.path[:-1])
        keys = (*pod.path, "nodeSelector")
        yield from _labels(pod.manifest.at, pod.spec.get("nodeSelector"), keys)
    for source in reading.kustomizations:
        yield from _labels(source.at, source.mapping.get("commonLabels"), ("commonLabels",))
        yield from _annotations(source.at, source.mapping.get("commonAnnotations"), ("commonAnnotations",))
        for index, entry in enumerate(as_list(source.mapping.get("labels"))):
            yield from _labels(source.at, dig(entry, "pairs"), ("labels", index, "pairs"))


def _metadata_labels(at: Callable[..., Location], data: object, keys: tuple[Key, ...]) -> Iterator[_Said]:
    if keys and keys[-1] == "spec":
        return
    yield from _labels(at, dig(data, "metadata", "labels"), (*keys, "metadata", "labels"))
    yield from _annotations(at, dig(data, "metadata", "annotations"), (*keys, "metadata", "annotations"))


def _labels(at: Callable[..., Location], labels: object, keys: tuple[Key, ...]) -> Iterator[_Said]:
    for key, value in as_mapping(labels).items():
        if isinstance(key, str):
            yield _Said("the key of the label", key, partial(at, *keys, key), names.qualified_name)
        if isinstance(value, str):
            yield _Said("the value of the label", value, partial(at, *keys, key), names.label_value)


def _annotations(at: Callable[..., Location], annotations: object, keys: tuple[Key, ...]) -> Iterator[_Said]:
    for key in as_mapping(annotations):
        if isinstance(key, str):
            yield _Said("the key of the annotation", key, partial(at, *keys, key), names.annotation_key)


def _selectors(at: Callable[..., Location], data: object, keys: tuple[Key, ...]) -> Iterator[_Said]:
    """Label selectors anywhere in an object."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "matchLabels":
                yield from _labels(at, value, (*keys, key))
            elif key == "matchExpressions":
                for index, entry in enumerate(as_list(value)):
                    yield from _expression(at, entry, (*keys, key, index))
            elif isinstance(value, (dict, list)) and key != "metadata":
                yield from _selectors(at, value, (*keys, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            if isinstance(value, (dict, list)):
                yield from _selectors(at, value, (*keys, index))


def _expression(at: Callable[..., Location], entry: object, keys: tuple[Key, ...]) -> Iterator[_Said]:
    key = as_text(dig(entry, "key"))
    if key:
        yield _Said("the key of the label", key, partial(at, *keys, "key"), names.qualified_name)
    if "nodeAffinity" not in keys:  # whose values older servers do not look at
        for number, value in enumerate(as_list(dig(entry, "values"))):
            if isinstance(value, str):
                yield _Said(
                    "the value of the label", value, partial(at, *keys, "values", number), names.label_value
                )


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
        if manifest.kind == "Service" and _group(manifest) == "" and manifest.name:
            name = manifest.built_name
            if names.dns_1035_label(name) and not names.dns_label(name):
                text = f"the name of the Service {show(name)} {names.dns_1035_label(name)}"
                yield Problem(manifest.at("metadata", "name"), text, "begin it with a letter")
    for said in (said for pod in reading.pods for said in _pod_names(pod)):
        if said.rule is names.variable_name and not said.rule(said.text):
            wrong = names.strict_variable_name(said.text)
            if wrong:
                text = f"before Kubernetes 1.32, the variable {show(said.text)} {wrong}"
                yield Problem(said.place(), text, "choose another name")
