"""Kubernetes objects as checks across files need them: workloads, labels, selectors, kustomize files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

from pgcat_stack.deployment import KUSTOMIZATION, Deployment, Manifest, pod_containers
from pgcat_stack.sources import Key, Source, as_list, as_mapping, dig

_WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"})
NAME_LABEL = "app.kubernetes.io/name"


@dataclass(frozen=True, eq=False)
class Workload:
    """An object that makes pods. `labels` are those of its pods, with what kustomize adds."""

    manifest: Manifest
    labels: Mapping[str, str]
    pod_path: tuple[Key, ...]

    @property
    def text(self) -> str:
        """How messages name it."""
        return f"{self.manifest.kind} {self.manifest.name}"

    @cached_property
    def pod(self) -> dict[str, Any]:
        """The pod specification."""
        return as_mapping(self.manifest.get(*self.pod_path))

    @cached_property
    def volumes(self) -> list[Any]:
        """The volumes of the pods."""
        return as_list(self.pod.get("volumes"))

    @cached_property
    def containers(self) -> tuple[tuple[tuple[Key, ...], dict[str, Any]], ...]:
        """Each container with its path in the object."""
        return tuple(pod_containers(self.manifest.data))

    @cached_property
    def ports(self) -> tuple[tuple[str, int], ...]:
        """(name, number) of each port that a container declares; the name may be empty."""
        found = []
        for _, container in self.containers:
            for port in as_list(container.get("ports")):
                number, name = dig(port, "containerPort"), dig(port, "name")
                if is_int(number):
                    found.append((name if isinstance(name, str) else "", number))
        return tuple(found)

    def port_number(self, port: object) -> int | None:
        """The number of a port given by number or name; None where no container names it."""
        if is_int(port):
            return port
        return next((number for name, number in self.ports if name and name == port), None)


def is_int(value: object) -> TypeGuard[int]:
    """Whether the value is a whole number; YAML's true is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def workloads(deployment: Deployment) -> tuple[Workload, ...]:
    """The objects of the deployment that make pods."""
    found = _workloads.get(deployment)
    if found is None:
        found = _workloads[deployment] = tuple(_find_workloads(deployment))
    return found


_workloads: WeakKeyDictionary[Deployment, tuple[Workload, ...]] = WeakKeyDictionary()


def _find_workloads(deployment: Deployment) -> Iterator[Workload]:
    added = added_labels(deployment)
    for manifest in deployment.manifests:
        if manifest.kind in _WORKLOADS:
            template: tuple[Key, ...] = ("spec", "template")
            if manifest.kind == "CronJob":
                template = ("spec", "jobTemplate", "spec", "template")
            elif manifest.kind == "Pod":
                template = ()
            labels = text_mapping(manifest.get(*template, "metadata", "labels"))
            yield Workload(manifest, {**labels, **added}, (*template, "spec"))


def added_labels(deployment: Deployment) -> dict[str, str]:
    """The labels that kustomization.yaml adds to pods."""
    if deployment.kustomization is None:
        return {}
    data = deployment.kustomization.data
    found = text_mapping(dig(data, "commonLabels"))
    for entry in as_list(dig(data, "labels")):
        if dig(entry, "includeTemplates") is True or dig(entry, "includeSelectors") is True:
            found.update(text_mapping(dig(entry, "pairs")))
    return found


def text_mapping(value: object) -> dict[str, str]:
    """The entries of a mapping whose names and values are text."""
    return {k: v for k, v in as_mapping(value).items() if isinstance(k, str) and isinstance(v, str)}


def selects(selector: object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels and matchExpressions) selects pods with these labels.

    An empty selector selects all. https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
    """
    wanted = as_mapping(dig(selector, "matchLabels"))
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    return all(_expression(item, labels) for item in as_list(dig(selector, "matchExpressions")))


def _expression(item: object, labels: Mapping[str, str]) -> bool:
    key, operator, values = dig(item, "key"), dig(item, "operator"), as_list(dig(item, "values"))
    if not isinstance(key, str):
        return False
    value = labels.get(key)
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    return (value is not None) if operator == "Exists" else operator == "DoesNotExist" and value is None


def selector_text(labels: object) -> str:
    """A label mapping for messages: `a=b,c=d`."""
    return ",".join(f"{name}={value}" for name, value in as_mapping(labels).items()) or "none"


# kustomize


@dataclass(frozen=True, slots=True)
class Listed:
    """A file or folder that a kustomization names, as written, and where it leads."""

    source: Source
    keys: tuple[Key, ...]
    text: str
    target: str

    @property
    def remote(self) -> bool:
        """Whether it lies outside the deployment, where it cannot be judged."""
        text = self.text
        elsewhere = "://" in text or "?ref=" in text or text.startswith(("git@", "github.com/", "/"))
        return elsewhere or self.target.startswith("..")


def kustomizations(deployment: Deployment) -> list[Source]:
    """kustomization.yaml and those that it leads to."""
    found: list[Source] = []
    pending = [KUSTOMIZATION]
    while pending:
        source = deployment.sources.get(pending.pop())
        if source is None or source in found:
            continue
        found.append(source)
        for entry in _entries(source, ("resources", "components")):
            pending.append(posixpath.normpath(posixpath.join(entry.target, KUSTOMIZATION)))
    return found


def listed_files(source: Source) -> Iterator[Listed]:
    """Every file and folder that a kustomization names."""
    yield from _entries(
        source, ("resources", "components", "patchesStrategicMerge", "configurations", "crds")
    )
    for field in ("patches", "patchesJson6902", "replacements"):
        for index, patch in enumerate(as_list(source.mapping.get(field))):
            path = dig(patch, "path")
            if isinstance(path, str):
                yield _listed(source, (field, index, "path"), path)
    for field in ("configMapGenerator", "secretGenerator"):
        for index, generator in enumerate(as_list(source.mapping.get(field))):
            for kind in ("files", "envs"):
                for number, item in enumerate(as_list(dig(generator, kind))):
                    if isinstance(item, str):
                        yield _listed(source, (field, index, kind, number), item.rpartition("=")[2])


def _entries(source: Source, fields: Iterable[str]) -> Iterator[Listed]:
    for field in fields:
        for index, item in enumerate(as_list(source.mapping.get(field))):
            if isinstance(item, str) and "\n" not in item:  # patchesStrategicMerge also takes them inline
                yield _listed(source, (field, index), item)


def _listed(source: Source, keys: tuple[Key, ...], text: str) -> Listed:
    return Listed(
        source, keys, text, posixpath.normpath(posixpath.join(posixpath.dirname(source.path), text))
    )


def exists(deployment: Deployment, target: str) -> bool:
    """Whether a file or folder of the deployment has this path."""
    return target in deployment.sources or any(path.startswith(target + "/") for path in deployment.sources)


def complete(deployment: Deployment) -> bool:
    """Whether every object of the deployment is known.

    Where a listed file is missing, elsewhere or does not parse, whether another object exists cannot be said:
    the check that finds the file speaks, the others keep silent.
    """
    known = _complete.get(deployment)
    if known is None:
        known = _complete[deployment] = all(
            _judge(deployment, source) for source in kustomizations(deployment)
        )
    return known


_complete: WeakKeyDictionary[Deployment, bool] = WeakKeyDictionary()


def _judge(deployment: Deployment, source: Source) -> bool:
    if not source.parsed or not isinstance(source.data, dict):
        return False
    for entry in listed_files(source):
        known = deployment.sources.get(entry.target)
        if entry.remote or not exists(deployment, entry.target) or (known is not None and not known.parsed):
            return False
    return True


def generated_files(deployment: Deployment) -> dict[str, dict[str, str]]:
    """ConfigMaps by name: each key with the file it is made of, or `configmap:NAME/KEY` for other keys."""
    found: dict[str, dict[str, str]] = {}
    for source in kustomizations(deployment):
        for generator in as_list(source.mapping.get("configMapGenerator")):
            name = dig(generator, "name")
            if not isinstance(name, str):
                continue
            files = found.setdefault(name, {})
            for item in as_list(dig(generator, "files")):
                if isinstance(item, str):
                    key, equals, path = item.partition("=")
                    path = path if equals else key
                    key = key if equals else posixpath.basename(path)
                    files[key] = posixpath.normpath(posixpath.join(posixpath.dirname(source.path), path))
            for item in as_list(dig(generator, "literals")):
                if isinstance(item, str):
                    key = item.partition("=")[0]
                    files[key] = f"configmap:{name}/{key}"
    for manifest in deployment.of_kind("ConfigMap"):
        keys = as_mapping(manifest.get("data"))
        found.setdefault(manifest.name, {}).update(
            {str(key): f"configmap:{manifest.name}/{key}" for key in keys}
        )
    return found
