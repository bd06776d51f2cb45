"""Services of Kubernetes: which pods they select, their ports, and the names that DNS has for them.

https://kubernetes.io/docs/concepts/services-networking/service/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.files.gaps import Gap, list_gaps, mapping_gaps
from pgcat_stack.files.plain_data import as_list, as_mapping, dig, text_mapping
from pgcat_stack.files.quantities import is_int, whole
from pgcat_stack.findings import Location
from pgcat_stack.reading.pods import Pod


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service, and the port of its pods, by number or name, that it leads to.

    What is not written as a number or a name is None; without a targetPort the two are the same.
    """

    outer: int | None
    inner: int | str | None
    location: Location
    inner_location: Location
    """Where its targetPort stands, or would."""


@dataclass(frozen=True, eq=False)
class Service:
    """A Service, and the objects whose pods it selects."""

    manifest: Manifest
    labels: dict[str, Any]
    """Its selector as it is written; one without labels selects nothing."""
    pods: tuple[Pod, ...]
    ports: tuple[ServicePort, ...]
    location: Location
    """Where its selector stands, or would."""
    gaps: tuple[Gap, ...] = ()

    @property
    def host_names(self) -> Iterator[str]:
        """The names by which DNS knows it in its own namespace and beyond."""
        name, namespace = self.manifest.name, self.manifest.namespace
        if not name:
            return
        yield name
        if namespace:
            for suffix in ("", ".svc", ".svc.cluster.local"):
                yield f"{name}.{namespace}{suffix}"


def read_services(manifests: Iterable[Manifest], pods: Iterable[Pod]) -> tuple[Service, ...]:
    """The Services among the objects of a deployment."""
    return tuple(_service(manifest, pods) for manifest in manifests if manifest.kind == "Service")


def _service(manifest: Manifest, pods: Iterable[Pod]) -> Service:
    at = partial(manifest.at, "spec")
    selector, ports = manifest.get("spec", "selector"), manifest.get("spec", "ports")
    gaps = [*mapping_gaps(selector, at, "selector"), *list_gaps(ports, at, "ports")]
    for index, entry in enumerate(as_list(ports)):
        gaps += mapping_gaps(entry, at, "ports", index)
        outer, inner = dig(entry, "port"), dig(entry, "targetPort")
        if not (outer is None or is_int(outer)) or not (inner is None or is_int(inner) or _named(inner)):
            gaps.append(Gap(at("ports", index), "a port that is neither a number nor a name"))
    wanted = text_mapping(selector)
    selected = [
        pod
        for pod in pods
        if wanted
        and pod.manifest.namespace == manifest.namespace
        and all(pod.labels.get(name) == value for name, value in wanted.items())
    ]
    return Service(
        manifest=manifest,
        labels=as_mapping(selector),
        pods=tuple(selected),
        ports=tuple(_port(manifest, index, entry) for index, entry in enumerate(as_list(ports))),
        location=at("selector"),
        gaps=tuple(gaps),
    )


def _port(manifest: Manifest, index: int, entry: Any) -> ServicePort:
    outer, inner = whole(dig(entry, "port")), dig(entry, "targetPort")
    if inner is None:
        inner = outer
    place = manifest.at("spec", "ports", index)
    return ServicePort(
        outer,
        inner if is_int(inner) or _named(inner) else None,
        place,
        manifest.at("spec", "ports", index, "targetPort"),
    )


def _named(port: Any) -> bool:
    return isinstance(port, str)
