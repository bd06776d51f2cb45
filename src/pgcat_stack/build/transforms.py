"""What kustomize changes in objects after it has read them: counts, images, and the names of Services.

Patches, components and other transformers are not applied; the check PS436 names them.
https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pgcat_stack.build.manifests import Manifest, pod_containers
from pgcat_stack.files.plain_data import Key, as_list, as_text, dig
from pgcat_stack.files.quantities import is_int
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location

_COUNTED = frozenset({"Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"})

_NOT_RENAMED = frozenset({"Namespace", "CustomResourceDefinition", "APIService"})
"""What namePrefix and nameSuffix leave as it is: kustomize's PrefixTransformer skips these."""


def transformed(manifests: Iterable[Manifest], kustomization: Source) -> Iterator[Manifest]:
    """The objects as this kustomization makes them of those that it lists."""
    for manifest in manifests:
        yield _renamed(_with_images(_with_replicas(manifest, kustomization), kustomization), kustomization)


def _with_replicas(manifest: Manifest, kustomization: Source) -> Manifest:
    for index, entry in enumerate(as_list(kustomization.mapping.get("replicas"))):
        count = dig(entry, "count")
        spec = manifest.data.get("spec")
        if not manifest.name or dig(entry, "name") != manifest.name or not is_int(count):
            continue
        if manifest.kind in _COUNTED and isinstance(spec, dict):
            data = {**manifest.data, "spec": {**spec, "replicas": count}}
            place = kustomization.at("replicas", index, "count")
            manifest = _changed(manifest, data, {("spec", "replicas"): place})
    return manifest


def _with_images(manifest: Manifest, kustomization: Source) -> Manifest:
    for index, entry in enumerate(as_list(kustomization.mapping.get("images"))):
        name = dig(entry, "name")
        found: dict[tuple[Key, ...], str] = {}
        for path, container in pod_containers(manifest.data):
            image = container.get("image")
            if isinstance(name, str) and isinstance(image, str) and _split(image)[0] == name:
                found[(*path, "image")] = _image(image, entry)
        if found:
            data = copy.deepcopy(manifest.data)
            for keys, image in found.items():
                dig(data, *keys[:-1])["image"] = image
            place = kustomization.at("images", index)
            manifest = _changed(manifest, data, dict.fromkeys(found, place))
    return manifest


def _split(image: str) -> tuple[str, str]:
    """The name of an image, and its tag and digest with their marks."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    name = folder + slash + last.partition(":")[0]
    return name, image[len(name) :]


def _image(image: str, entry: Any) -> str:
    """The image with what an item of `images` says; a new tag or digest takes the place of both."""
    name, rest = _split(image)
    tag, digest = dig(entry, "newTag"), as_text(dig(entry, "digest"))
    tag = str(tag) if isinstance(tag, (str, int, float)) and tag != "" else ""
    if tag or digest:
        rest = (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    return (as_text(dig(entry, "newName")) or name) + rest


def _renamed(manifest: Manifest, kustomization: Source) -> Manifest:
    """A Service under its new name; of all else kustomize changes the references, too."""
    prefix = as_text(kustomization.mapping.get("namePrefix"))
    suffix = as_text(kustomization.mapping.get("nameSuffix"))
    if manifest.kind in _NOT_RENAMED or not manifest.name or not prefix + suffix:
        return manifest
    if manifest.kind != "Service":
        before, after = manifest.affixes
        return replace(manifest, affixes=(prefix + before, after + suffix))
    return replace(manifest, name=f"{prefix}{manifest.name}{suffix}")


def _changed(
    manifest: Manifest, data: dict[str, Any], places: Mapping[tuple[Key, ...], Location]
) -> Manifest:
    return replace(manifest, data=data, places={**manifest.places, **places})
