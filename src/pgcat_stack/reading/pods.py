"""Objects that make pods: the pods' labels, volumes and options.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pgcat_stack.build.manifests import Manifest, pod_containers
from pgcat_stack.files.gaps import Gap
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig, text_mapping
from pgcat_stack.files.quantities import Text, is_int
from pgcat_stack.findings import Location
from pgcat_stack.reading.deployment import Deployment
from pgcat_stack.reading.rights import pod_namespaces
from pgcat_stack.reading.types import POD, type_gaps

POD_MAKERS = frozenset(
    {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "Pod"}
)


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """A ConfigMap or a Secret that a volume shows: all of its keys, or `items` alone."""

    kind: Literal["configMap", "secret"]
    name: str
    items: tuple[tuple[str | None, str | None], ...] | None
    """Key and path of each."""
    optional: bool
    location: Location


@dataclass(frozen=True, slots=True)
class PodVolume:
    """A volume that a pod declares. `name` is None where none can be read."""

    name: str | None
    on_node: bool
    """Whether it is a path of the node."""
    sources: tuple[VolumeSource, ...]
    location: Location


@dataclass(frozen=True, eq=False)
class Pod:
    """An object that makes pods; their labels, with what kustomize adds; where their specification is."""

    manifest: Manifest
    labels: Mapping[str, str]
    path: tuple[Key, ...]

    @property
    def text(self) -> str:
        """How messages name it."""
        return f"{self.manifest.kind} {self.manifest.name}"

    def at(self, *keys: Key) -> Location:
        """The location of the key at this path in the specification."""
        return self.manifest.at(*self.path, *keys)

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The pod specification."""
        return as_mapping(self.manifest.get(*self.path))

    @cached_property
    def volumes(self) -> tuple[PodVolume, ...]:
        """The volumes that the pods declare."""
        return tuple(
            self._volume(volume, index) for index, volume in enumerate(as_list(self.spec.get("volumes")))
        )

    @cached_property
    def volume_names(self) -> frozenset[str]:
        """The names of the volumes, with those that a StatefulSet makes by its claims."""
        claims = as_list(self.manifest.get("spec", "volumeClaimTemplates"))
        names = [volume.name for volume in self.volumes]
        names += [dig(claim, "metadata", "name") for claim in claims]
        return frozenset(name for name in names if isinstance(name, str))

    @property
    def config_maps(self) -> frozenset[str]:
        """The names of the ConfigMaps that stand in its volumes."""
        sources = (source for volume in self.volumes for source in volume.sources)
        return frozenset(source.name for source in sources if source.kind == "configMap")

    @property
    def host_namespaces(self) -> tuple[Text, ...]:
        """The keys by which it joins namespaces of the node."""
        return pod_namespaces(self.spec, self.at)

    @property
    def on_host_network(self) -> bool:
        """Whether it has the network of the node."""
        return self.spec.get("hostNetwork") is True

    @property
    def service_account(self) -> str | None:
        """The service account that is chosen for it; None for the default."""
        name = self.spec.get("serviceAccountName")
        return name if isinstance(name, str) and name != "default" else None

    @property
    def mounts_token(self) -> bool:
        """Whether it mounts a token of its service account, as far as it says itself."""
        return self.spec.get("automountServiceAccountToken") is not False

    @property
    def has_service_links(self) -> bool:
        """Whether Kubernetes sets variables for every Service in it."""
        return self.spec.get("enableServiceLinks") is not False

    @cached_property
    def containers(self) -> tuple[tuple[tuple[Key, ...], dict[str, Any]], ...]:
        """Each container with its path in the object."""
        return tuple(pod_containers(self.manifest.data))

    @cached_property
    def ports(self) -> tuple[tuple[str, int], ...]:
        """(name, number) of each port that a container declares; the name may be empty."""
        found = []
        for _, entry in self.containers:
            for port in as_list(entry.get("ports")):
                number, name = dig(port, "containerPort"), dig(port, "name")
                if is_int(number):
                    found.append((name if isinstance(name, str) else "", number))
        return tuple(found)

    def port_number(self, port: object) -> int | None:
        """The number of a port given by number or name; None where no container names it."""
        if is_int(port):
            return port
        return next((number for name, number in self.ports if name and name == port), None)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What of the specification could not be read; each container has its own."""
        return type_gaps(self.spec, POD, self.at)

    def _volume(self, volume: Any, index: int) -> PodVolume:
        name = dig(volume, "name")
        places: list[tuple[Literal["configMap", "secret"], str, tuple[Key, ...]]] = [
            ("configMap", "name", ()),
            ("secret", "secretName", ()),
        ]
        for number, _ in enumerate(as_list(dig(volume, "projected", "sources"))):
            places.append(("configMap", "name", ("projected", "sources", number)))
            places.append(("secret", "name", ("projected", "sources", number)))
        sources = []
        for kind, field, keys in places:
            written = dig(volume, *keys, kind)
            named, items = dig(written, field), dig(written, "items")
            if isinstance(named, str):
                sources.append(
                    VolumeSource(
                        kind=kind,
                        name=named,
                        items=tuple(_item(item) for item in items) if isinstance(items, list) else None,
                        optional=dig(written, "optional") is True,
                        location=self.at("volumes", index, *keys, kind),
                    )
                )
        return PodVolume(
            name=name if isinstance(name, str) else None,
            on_node=dig(volume, "hostPath") is not None,
            sources=tuple(sources),
            location=self.at("volumes", index),
        )


def _item(item: Any) -> tuple[str | None, str | None]:
    key, path = dig(item, "key"), dig(item, "path")
    return key if isinstance(key, str) else None, path if isinstance(path, str) else None


def read_pods(deployment: Deployment) -> tuple[Pod, ...]:
    """The objects of the deployment that make pods."""
    return tuple(_find_pods(deployment))


def _find_pods(deployment: Deployment) -> Iterator[Pod]:
    added = deployment.added_labels
    for manifest in deployment.manifests:
        if manifest.kind in POD_MAKERS:
            template: tuple[Key, ...] = ("spec", "template")
            if manifest.kind == "CronJob":
                template = ("spec", "jobTemplate", "spec", "template")
            elif manifest.kind == "Pod":
                template = ()
            labels = text_mapping(manifest.get(*template, "metadata", "labels"))
            yield Pod(manifest, {**labels, **added}, (*template, "spec"))
