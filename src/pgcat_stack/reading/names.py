"""The names, keys, labels and annotations that manifests, kustomizations and compose.yaml write.

Only text is listed. Of custom resources, and of kinds that are not Kubernetes' own, only the metadata: the
API server checks those of every object alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.files.gaps import At
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location
from pgcat_stack.reading.kustomizations import Kustomization
from pgcat_stack.reading.pods import Pod

Kind = Literal[
    "object",
    "generated object",
    "hashed object",
    "namespace",
    "key",
    "label-like",
    "port",
    "variable",
    "reference",
    "project",
    "compose",
    "label key",
    "label value",
    "annotation key",
]
"""Which rule a name is under. A `hashed object` gets a hash from kustomize; `label-like` are names of volumes
and containers, of ports of Services, and of hosts; a `reference` in a pod names another object."""

OWN_GROUPS = frozenset(
    {
        *("", "apps", "batch", "autoscaling", "policy", "networking.k8s.io", "storage.k8s.io", "node.k8s.io"),
        *("scheduling.k8s.io", "discovery.k8s.io", "coordination.k8s.io", "admissionregistration.k8s.io"),
    }
)
"""API groups of Kubernetes whose label selectors all follow one rule."""
_POD_FIELDS: Mapping[str, Kind] = {
    "priorityClassName": "reference",
    "serviceAccountName": "reference",
    "runtimeClassName": "reference",
    "nodeName": "reference",
    "hostname": "label-like",
    "subdomain": "label-like",
}


@dataclass(frozen=True, slots=True)
class Name:
    """A name, or a part of a label: of which kind, what it names, and where it stands."""

    kind: Kind
    what: str
    """How messages name it: `the key of the Secret`."""
    text: str
    place: Callable[[], Location]
    """Looked for only when it is asked: most are well."""
    manifest: Manifest | None = None
    """The object whose name it is."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """The annotations of an object together."""

    size_bytes: int
    location: Location


def api_group(manifest: Manifest) -> str:
    """The API group of an object, empty for the core one."""
    group, slash, _ = manifest.api_version.partition("/")
    return group if slash else ""


# Names


def read_names(
    manifests: Iterable[Manifest],
    pods: Iterable[Pod],
    kustomizations: Iterable[Kustomization],
    compose: Source | None,
) -> Iterator[Name]:
    """Every name of a deployment that Kubernetes or Compose has a rule for."""
    for manifest in manifests:
        yield from _of_object(manifest)
    for pod in pods:
        yield from _of_pod(pod)
    for kustomization in kustomizations:
        yield from _of_kustomization(kustomization)
    if compose is not None:
        yield from _of_compose(compose)


def _of_compose(compose: Source) -> Iterator[Name]:
    project = as_text(dig(compose.data, "name"))
    if project and "$" not in project:
        yield Name("project", "the project", project, partial(compose.at, "name"))
    for kind in ("services", "networks", "volumes", "configs", "secrets"):
        for name in as_mapping(dig(compose.data, kind)):
            if isinstance(name, str):
                yield Name("compose", f"in {kind}, the name", name, partial(compose.at, kind, name))


def _of_object(manifest: Manifest) -> Iterator[Name]:
    kind = manifest.kind
    if manifest.name and not manifest.partial:
        place = partial(manifest.at, "metadata", "name")
        yield Name("object", f"the name of the {kind}", manifest.built_name, place, manifest)
    own = manifest.get("metadata", "namespace")
    if isinstance(own, str) and own and own == manifest.namespace:
        yield Name("namespace", "the namespace", own, partial(manifest.at, "metadata", "namespace"))
    if api_group(manifest) not in OWN_GROUPS:
        return
    if kind in ("ConfigMap", "Secret"):
        for field in ("data", "binaryData", "stringData"):
            for key in as_mapping(manifest.get(field)):
                if isinstance(key, str):
                    yield Name("key", f"the key of the {kind}", key, partial(manifest.at, field, key))
    if kind == "Service":
        fields: tuple[tuple[str, Kind], ...] = (("name", "label-like"), ("targetPort", "port"))
        for index, port in enumerate(as_list(manifest.get("spec", "ports"))):
            at = partial(manifest.at, "spec", "ports", index)
            for field, rule in fields:
                yield from _written(rule, f"{field} of the port", port, at, field)


def _written(kind: Kind, what: str, data: Any, at: At, *keys: Key) -> Iterator[Name]:
    """The name at a path, where there is one."""
    text = as_text(dig(data, *keys))
    if text:
        yield Name(kind, what, text, partial(at, *keys))


def _of_pod(pod: Pod) -> Iterator[Name]:
    at = partial(pod.manifest.at, *pod.path)
    for field, kind in _POD_FIELDS.items():
        yield from _written(kind, field, pod.spec, at, field)
    for index, volume in enumerate(as_list(pod.spec.get("volumes"))):
        yield from _written("label-like", "the volume", volume, partial(at, "volumes", index), "name")
    for path, container in pod.containers:
        yield from _of_container(container, partial(pod.manifest.at, *path))


def _of_container(container: Mapping[str, Any], at: At) -> Iterator[Name]:
    yield from _written("label-like", "the container", container, at, "name")
    for index, port in enumerate(as_list(container.get("ports"))):
        yield from _written("port", "the port", port, partial(at, "ports", index), "name")
    for index, variable in enumerate(as_list(container.get("env"))):
        inside = partial(at, "env", index)
        yield from _written("variable", "the variable", variable, inside, "name")
        for source in ("configMapKeyRef", "secretKeyRef"):
            yield from _written("key", "the key", variable, inside, "valueFrom", source, "key")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        for how in ("httpGet", "tcpSocket"):
            yield from _written("port", f"the port of {probe}", container, at, probe, how, "port")


def _of_kustomization(kustomization: Kustomization) -> Iterator[Name]:
    if kustomization.namespace:
        place = kustomization.namespace_location
        yield Name("namespace", "the namespace", kustomization.namespace, partial(_known, place))
    for generator in kustomization.generators:
        if generator.name:
            text = f"{kustomization.prefix}{generator.name}{kustomization.suffix}"
            fixed = generator.own_name_is_fixed or kustomization.fixes_names
            kind: Kind = "generated object" if fixed else "hashed object"
            yield Name(kind, "the name", text, partial(_known, generator.name_location))
        for key in generator.keys:
            yield Name("key", "the key", key.text, partial(_known, key.location))


def _known(location: Location) -> Location:
    return location


# Labels and annotations


def read_labels(
    manifests: Iterable[Manifest], pods: Iterable[Pod], kustomizations: Iterable[Kustomization]
) -> Iterator[Name]:
    """The keys and values of labels and selectors, and the keys of annotations."""
    for manifest in manifests:
        yield from _metadata(manifest.at, manifest.data, ())
        if api_group(manifest) in OWN_GROUPS:
            if manifest.kind in ("Service", "ReplicationController"):
                yield from _labels(manifest.at, manifest.get("spec", "selector"), ("spec", "selector"))
            yield from _selectors(manifest.at, manifest.data, ())
    for pod in pods:
        if pod.path[:-1]:  # of a Pod it is the object's own, which is there already
            yield from _metadata(pod.manifest.at, pod.manifest.get(*pod.path[:-1]), pod.path[:-1])
        yield from _labels(pod.manifest.at, pod.spec.get("nodeSelector"), (*pod.path, "nodeSelector"))
    for kustomization in kustomizations:
        source = kustomization.source
        yield from _labels(source.at, source.mapping.get("commonLabels"), ("commonLabels",))
        yield from _annotations(source.at, source.mapping.get("commonAnnotations"), ("commonAnnotations",))
        for index, entry in enumerate(as_list(source.mapping.get("labels"))):
            yield from _labels(source.at, dig(entry, "pairs"), ("labels", index, "pairs"))


def _metadata(at: At, data: Any, keys: tuple[Key, ...]) -> Iterator[Name]:
    yield from _labels(at, dig(data, "metadata", "labels"), (*keys, "metadata", "labels"))
    yield from _annotations(at, dig(data, "metadata", "annotations"), (*keys, "metadata", "annotations"))


def _labels(at: At, labels: Any, keys: tuple[Key, ...]) -> Iterator[Name]:
    for key, value in as_mapping(labels).items():
        if isinstance(key, str):
            yield Name("label key", "the key of the label", key, partial(at, *keys, key))
        if isinstance(value, str):
            yield Name("label value", "the value of the label", value, partial(at, *keys, key))


def _annotations(at: At, annotations: Any, keys: tuple[Key, ...]) -> Iterator[Name]:
    for key in as_mapping(annotations):
        if isinstance(key, str):
            yield Name("annotation key", "the key of the annotation", key, partial(at, *keys, key))


def _selectors(at: At, data: Any, keys: tuple[Key, ...]) -> Iterator[Name]:
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


def _expression(at: At, entry: Any, keys: tuple[Key, ...]) -> Iterator[Name]:
    yield from _written("label key", "the key of the label", entry, partial(at, *keys), "key")
    if "nodeAffinity" not in keys:  # whose values older servers do not look at
        for number, value in enumerate(as_list(dig(entry, "values"))):
            if isinstance(value, str):
                place = partial(at, *keys, "values", number)
                yield Name("label value", "the value of the label", value, place)


def read_annotations(manifests: Iterable[Manifest]) -> Iterator[Annotations]:
    """The annotations of each object."""
    for manifest in manifests:
        written = as_mapping(manifest.get("metadata", "annotations"))
        size = sum(len(str(part).encode("utf-8", "replace")) for pair in written.items() for part in pair)
        if written:
            yield Annotations(size, manifest.at("metadata", "annotations"))
