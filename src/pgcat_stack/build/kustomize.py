"""What kustomization.yaml lists, adds and makes: files, labels of pods, ConfigMaps."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig, text_mapping
from pgcat_stack.files.sources import Source
from pgcat_stack.paths import BUDGET, KUSTOMIZATION

_OWN_FOLDERS = ("kubernetes/", "pgcat/", "permify/", "postgres/", "monitoring/")
_COMPOSE_FILE = re.compile(r"compose[^/]*\.ya?ml")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file or folder that a kustomization names, as written, and where it leads."""

    source: Source
    keys: tuple[Key, ...]
    text: str
    target: str

    @property
    def elsewhere(self) -> bool:
        """Whether it is an address, or an absolute path, which is never read."""
        text = self.text
        return "://" in text or "?ref=" in text or text.startswith(("git@", "github.com/", "/"))


def kustomizations(sources: Mapping[str, Source]) -> list[Source]:
    """kustomization.yaml and those that it leads to."""
    found: list[Source] = []
    pending = [KUSTOMIZATION]
    while pending:
        source = sources.get(pending.pop())
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


def made_of(sources: Mapping[str, Source]) -> frozenset[str]:
    """The files that the deployment is made of, as far as anything in it reads them."""
    known = kustomizations(sources)
    reached = {entry.target for source in known for entry in listed_files(source)}
    reached |= {source.path for source in known}
    return frozenset(
        path
        for path in sources
        if path in reached
        or path == BUDGET
        or path.startswith("../")
        or path.startswith(_OWN_FOLDERS)
        or _COMPOSE_FILE.fullmatch(path)
    )


def climbs(path: str) -> int:
    """How many folders above the deployment a path leads: 2 for `../../base`."""
    return posixpath.normpath(path).split("/").count("..")


def remote(entry: Listed, reach: int) -> bool:
    """Whether a file lies outside the git repository, `reach` folders up, where it cannot be judged."""
    return entry.elsewhere or climbs(entry.target) > reach


def exists(sources: Mapping[str, Source], target: str) -> bool:
    """Whether a file or folder of the deployment has this path."""
    return target in sources or any(path.startswith(target + "/") for path in sources)


def complete(sources: Mapping[str, Source], reach: int) -> bool:
    """Whether every object of the deployment is known.

    Where a listed file is missing, elsewhere or does not parse, whether another object exists cannot be said:
    the check that finds the file speaks, the others keep silent.
    """
    return all(_judge(sources, source, reach) for source in kustomizations(sources))


def _judge(sources: Mapping[str, Source], source: Source, reach: int) -> bool:
    if not source.parsed or not isinstance(source.data, dict):
        return False
    for entry in listed_files(source):
        known = sources.get(entry.target)
        if (
            remote(entry, reach)
            or not exists(sources, entry.target)
            or (known is not None and not known.parsed)
        ):
            return False
    return True


def added_labels(kustomization: Source) -> dict[str, str]:
    """The labels that a kustomization adds to pods."""
    data = kustomization.data
    found = text_mapping(dig(data, "commonLabels"))
    for entry in as_list(dig(data, "labels")):
        if dig(entry, "includeTemplates") is True or dig(entry, "includeSelectors") is True:
            found.update(text_mapping(dig(entry, "pairs")))
    return found


def generated_files(
    sources: Mapping[str, Source], config_maps: Iterable[Manifest]
) -> dict[str, dict[str, str]]:
    """ConfigMaps by name: each key with the file it is made of, or `configmap:NAME/KEY` for other keys."""
    found: dict[str, dict[str, str]] = {}
    for source in kustomizations(sources):
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
    for manifest in config_maps:
        keys = as_mapping(manifest.get("data"))
        found.setdefault(manifest.name, {}).update(
            {str(key): f"configmap:{manifest.name}/{key}" for key in keys}
        )
    return found
