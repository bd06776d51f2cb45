"""The Kubernetes objects of a kustomization."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.build.transforms import transformed
from pgcat_stack.files.plain_data import as_list, as_mapping, as_text, dig
from pgcat_stack.files.sources import Source
from pgcat_stack.paths import KUSTOMIZATION


def objects(
    sources: Mapping[str, Source],
    path: str = KUSTOMIZATION,
    outer_namespace: str = "",
    seen: frozenset[str] = frozenset(),
) -> Iterator[Manifest]:
    """The Kubernetes objects that a kustomization lists, in its order, as it changes them."""
    yield from transformed(_listed(sources, path, outer_namespace, seen), sources[path])


def _listed(
    sources: Mapping[str, Source], path: str, outer_namespace: str, seen: frozenset[str]
) -> Iterator[Manifest]:
    kustomization = sources[path].mapping
    if kustomization.get("kind") == "Component":
        yield from _completing(sources, path, outer_namespace)
    own = kustomization.get("namespace")
    namespace = outer_namespace or (own if isinstance(own, str) else "")
    folder = posixpath.dirname(path)
    for resource in as_list(kustomization.get("resources")):
        if not isinstance(resource, str):
            continue
        target = posixpath.normpath(posixpath.join(folder, resource))
        inner = posixpath.normpath(posixpath.join(target, KUSTOMIZATION))
        if target in sources:
            yield from _objects(sources[target], namespace)
        elif inner in sources and inner not in seen:
            yield from objects(sources, inner, namespace, seen | {path, inner})


def _completing(sources: Mapping[str, Source], path: str, namespace: str) -> Iterator[Manifest]:
    """The patches of a component: what they say of an object that somebody else has."""
    for patch in as_list(sources[path].mapping.get("patches")):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), as_text(dig(patch, "path"))))
        if target in sources:
            yield from _objects(sources[target], namespace, partial=True)


def _objects(source: Source, namespace: str, *, partial: bool = False) -> Iterator[Manifest]:
    for document, data in enumerate(source.documents):
        if not isinstance(data, dict):
            continue
        metadata = as_mapping(data.get("metadata"))
        own = metadata.get("namespace")
        yield Manifest(
            kind=as_text(data.get("kind")),
            name=as_text(metadata.get("name")),
            namespace=namespace or as_text(own),
            api_version=as_text(data.get("apiVersion")),
            data=data,
            source=source,
            document=document,
            partial=partial,
        )
