"""One Kubernetes object with its place, and the containers of what makes pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgcat_stack.files.plain_data import Key, as_list, dig
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location


@dataclass(frozen=True, eq=False)
class Manifest:
    """One Kubernetes object: a document of a file that kustomization.yaml lists.

    `namespace` is the object's own, or the one that the kustomization sets, or empty.
    """

    kind: str
    name: str
    namespace: str
    api_version: str
    data: dict[str, Any]
    source: Source
    document: int
    partial: bool = False
    """A patch of a component: the rest of the object is somebody else's."""
    affixes: tuple[str, str] = ("", "")
    """What kustomizations put before and after the name, where `name` is not changed yet."""
    places: Mapping[tuple[Key, ...], Location] = field(default_factory=dict, repr=False)
    """Where values stand that a kustomization has changed."""

    @property
    def built_name(self) -> str:
        """The name as it is applied."""
        before, after = self.affixes
        return f"{before}{self.name}{after}"

    def line(self, *keys: Key) -> int:
        """The 1-based line of the key at this path in the object, see `Source.line`."""
        return self.source.line(*keys, document=self.document)

    def at(self, *keys: Key) -> Location:
        """The location of the key at this path in the object."""
        return self.places.get(keys) or Location(self.source.path, self.line(*keys))

    def get(self, *keys: Key) -> Any:
        """The value at this path in the object, or None."""
        return dig(self.data, *keys)


def pod_containers(manifest: Mapping[str, Any]) -> Iterator[tuple[tuple[Key, ...], dict[str, Any]]]:
    """Each container of a Pod or of a pod template, init containers too, with its path in the object."""
    base: tuple[Key, ...] = ("spec",)
    if manifest.get("kind") == "CronJob":
        base = ("spec", "jobTemplate", "spec", "template", "spec")
    elif manifest.get("kind") != "Pod":
        base = ("spec", "template", "spec")
    for group in ("initContainers", "containers"):
        for index, container in enumerate(as_list(dig(manifest, *base, group))):
            if isinstance(container, dict):
                yield (*base, group, index), container
