"""PS9xx: the shape of manifests and of compose.yaml.

Types of what our own rules read are judged always. With the extra `kubernetes-validate` and after `enable()`,
each object is judged against the API's own schemas, too, those of the oldest supported Kubernetes and of the
newest that the package carries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pgcat_stack.build.kustomize import listed_files
from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks import _schemas, check
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.quantities import whole
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import COMPOSE
from pgcat_stack.printable import printable, show, show_at
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.types import (
    BY_KIND,
    CONTAINER,
    INT,
    KUSTOMIZATION,
    LABELS,
    MAP,
    METADATA,
    POD,
    SERVICE,
    TEXT,
    TEXTS,
    Kind,
    Rules,
    wrong,
)

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_VERSION = re.compile(r"([a-z0-9][a-z0-9.-]{0,252}/)?[a-z0-9]{1,63}")

ENABLED = False
"""Whether PS903 uses the schemas."""
OLDEST_KUBERNETES = "1.30"
"""The oldest Kubernetes that the deployments support: preStop.sleep is on by default since."""


def enable() -> bool:
    """Let PS903 use the schemas where the extra is installed. Returns whether it is."""
    global ENABLED
    ENABLED = bool(_schemas.versions())
    return ENABLED


# Kubernetes


@check(
    code="PS901",
    name="incomplete-object",
    severity="error",
    why="kubectl refuses a document without apiVersion, kind and metadata.name, and a workload"
    " without containers.",
    fix="Complete the object.",
)
def incomplete_object(reading: Reading) -> Iterator[Problem]:
    """Documents of listed files that are no Kubernetes objects."""
    for source in _resources(reading):
        for document, data in enumerate(source.documents):
            if data is None:
                continue  # an empty document, which kustomize skips
            if not isinstance(data, dict):
                yield Problem(source.at(document=document), "not a Kubernetes object", "write a mapping")
                continue
            for keys in (("apiVersion",), ("kind",), ("metadata", "name")):
                value = dig(data, *keys)
                if not isinstance(value, str) or not value:
                    yield Problem(
                        source.at(*keys, document=document), f"the object has no {'.'.join(keys)}", "add it"
                    )
    for pod in reading.pods:
        containers = pod.spec.get("containers")
        if not containers:
            place = pod.manifest.at(*pod.path, "containers")
            yield Problem(place, f"{pod.text} has no containers", "add one")
        for path, container in pod.containers:
            if not container.get("name"):
                yield Problem(pod.manifest.at(*path), f"a container of {pod.text} has no name", "name it")
            elif not container.get("image") and not pod.manifest.partial:
                text = f"container {container['name']} of {pod.text} has no image"
                yield Problem(pod.manifest.at(*path), text, "name an image")


def _resources(reading: Reading) -> Iterator[Source]:
    folders = reading.kustomizations
    seen: set[str] = set()
    for kustomization in folders:
        for entry in listed_files(kustomization):
            source = reading.sources.get(entry.target)
            if entry.keys[0] == "resources" and source and source.parsed and source.path not in seen:
                seen.add(source.path)
                yield source


@check(
    code="PS902",
    name="wrong-type",
    severity="error",
    why='The API takes one type for each field and refuses others: "2" is not 2, and the value of a variable'
    " is text.",
    fix="Write the value as the type that is named.",
)
def wrong_type(reading: Reading) -> Iterator[Problem]:
    """Values of a wrong type among those that the other rules read."""
    for source in reading.kustomizations:
        if not isinstance(source.data, dict):
            if source.parsed:
                yield Problem(source.here(), "not a mapping", "write the keys of a Kustomization")
            continue
        for keys, value, kind in wrong(source.data, KUSTOMIZATION):
            yield _complaint(source.at(*keys), keys, value, kind)
    for manifest in reading.manifests:
        for keys, value, kind in wrong(manifest.data, (*METADATA, *BY_KIND.get(manifest.kind, ()))):
            yield _complaint(manifest.at(*keys), keys, value, kind)
    for pod in reading.pods:
        labels = (*pod.path[:-1], "metadata")
        rules: Rules = ((("labels",), LABELS), (("annotations",), LABELS))
        found = [
            *wrong(pod.manifest.get(*labels), rules, labels),
            *wrong(pod.spec, POD, pod.path),
        ]
        for path, container in pod.containers:
            found += wrong(container, CONTAINER, path)
        for keys, value, kind in found:
            yield _complaint(pod.manifest.at(*keys), keys, value, kind)


@check(
    code="PS903",
    name="kubernetes-schema",
    severity="error",
    why="The API server refuses objects that do not follow its schema, and older servers do not"
    " know newer fields.",
    fix="Correct the field; `kubectl explain` shows what it takes.",
)
def kubernetes_schema(reading: Reading) -> Iterator[Problem]:
    """Objects that break the API's schemas, where these are installed and enabled."""
    if not ENABLED:
        return
    for manifest in reading.manifests:
        for version in () if manifest.partial else _versions():
            broken = _broken(manifest, version)
            if broken is not None:
                yield broken
                break  # the same again for the newer version says nothing new


def _versions() -> tuple[str, ...]:
    return tuple(dict.fromkeys((OLDEST_KUBERNETES, list(_schemas.versions())[-1])))


def _broken(manifest: Manifest, version: str) -> Problem | None:
    if not manifest.kind or not manifest.api_version:
        return None  # PS901
    if not _KIND.fullmatch(manifest.kind) or not _VERSION.fullmatch(manifest.api_version):
        # The schema's file is found by them, which must not lead anywhere else.
        text = f"no Kubernetes knows {show(manifest.api_version)} {show(manifest.kind)}"
        return Problem(manifest.at("apiVersion"), text, "correct apiVersion and kind")
    try:
        fault = _schemas.first_fault(manifest.data, version)
    except _schemas.UnknownKindError:
        if _custom(manifest.api_version):
            return None
        text = f"Kubernetes {version} does not know {manifest.api_version} {show(manifest.kind)}"
        return Problem(manifest.at("apiVersion"), text, "correct apiVersion and kind")
    if fault is None:
        return None
    keys = tuple(fault.absolute_path)
    field = ".".join(map(str, keys)) or manifest.kind
    text = f"{field}, by the schema of Kubernetes {version}: {printable(str(fault.message), 200)}"
    return Problem(manifest.at(*keys), text)


def _custom(api_version: str) -> bool:
    """Whether the API group is not Kubernetes' own: those have no dot, or end in k8s.io."""
    group = api_version.partition("/")[0] if "/" in api_version else ""
    return "." in group and not group.endswith(".k8s.io")


# Compose


@check(
    code="PS904",
    name="compose-wrong-type",
    severity="error",
    why="Compose refuses the file.",
    fix="Write the value as the type that is named.",
)
def compose_wrong_type(reading: Reading) -> Iterator[Problem]:
    """Parts of compose.yaml of a wrong type among those that the other rules read."""
    compose = reading.compose
    if compose is None or not compose.parsed:
        return
    if not isinstance(compose.data, dict):
        yield Problem(
            compose.here(), f"{COMPOSE} is not a mapping", "write services: and the services under it"
        )
        return
    if not as_mapping(compose.data.get("services")):
        value = compose.data.get("services")
        what = "missing" if value is None else "empty" if value == {} else "not a mapping"
        yield Problem(compose.at("services"), f"services is {what}", "write the services under it")
    top: Rules = tuple(((key,), MAP) for key in ("secrets", "configs", "volumes", "networks"))
    found: list[tuple[tuple[Key, ...], Any, Kind]] = list(wrong(compose.data, top))
    for name, service in as_mapping(compose.data.get("services")).items():
        if not isinstance(service, dict):
            found.append((("services", name), service, MAP))
        else:
            found += wrong(service, SERVICE, ("services", name), variables=True)
            if not service.get("image") and not service.get("build") and not service.get("extends"):
                yield Problem(
                    compose.at("services", name), f"the service {name} has no image", "name an image"
                )
    for keys, value, kind in found:
        yield _complaint(compose.at(*keys), keys, value, kind)


_LIMITS = {"periodSeconds": (1, 1800), "stabilizationWindowSeconds": (0, 3600)}


@check(
    code="PS905",
    name="autoscaler-limits",
    severity="error",
    why="The API refuses an autoscaler whose policies look at more than half an hour, or that stabilises for"
    " more than an hour.",
    fix="Keep periodSeconds between 1 and 1800, stabilizationWindowSeconds at most 3600; a grace period that"
    " does not fit must be shorter.",
)
def autoscaler_limits(reading: Reading) -> Iterator[Problem]:
    """HorizontalPodAutoscalers with times that the API refuses."""
    for manifest in reading.of_kind("HorizontalPodAutoscaler"):
        for rules in ("scaleDown", "scaleUp"):
            at: tuple[Key, ...] = ("spec", "behavior", rules)
            places = [(*at, "stabilizationWindowSeconds")]
            for index in range(len(as_list(manifest.get(*at, "policies")))):
                places.append((*at, "policies", index, "periodSeconds"))
            for keys in places:
                least, most = _LIMITS[str(keys[-1])]
                value = whole(manifest.get(*keys))
                if value is not None and not least <= value <= most:
                    text = f"{rules}: {keys[-1]} {value} is outside {least} to {most}: the API refuses it"
                    yield Problem(manifest.at(*keys), text, f"{keys[-1]}: {min(max(value, least), most)}")


def _complaint(location: Location, keys: tuple[Key, ...], value: object, kind: Kind) -> Problem:
    what = "a mapping" if isinstance(value, dict) else show_at(keys, value)
    fix = f"write {kind.text}"
    if kind is INT and isinstance(value, str) and value.isdigit():
        fix = "remove the quotes"
    elif kind in (TEXT, TEXTS, LABELS):
        fix = f"write {kind.text}, numbers and true or false in quotes"
    return Problem(location, f"{'.'.join(map(str, keys))} is {what}, expected {kind.text}", fix)
