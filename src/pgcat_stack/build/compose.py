"""What compose.yaml names."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig
from pgcat_stack.files.sources import Source
from pgcat_stack.files.variables import interpolated


@dataclass(frozen=True, slots=True)
class Named:
    """A path that compose.yaml names, without variables, and whether its content is judged."""

    keys: tuple[Key, ...]
    path: str
    judged: bool


def named_by_compose(compose: Source) -> Iterator[Named]:
    """The relative paths that compose.yaml names: includes, files of services, mounts, configs and secrets.

    https://docs.docker.com/reference/compose-file/
    """
    data = compose.data
    for keys, text, judged in _named_by_compose(data):
        path = interpolated(text) or ""
        if path and "://" not in path and not path.startswith(("/", "~", "$")):
            yield Named(keys, posixpath.normpath(path), judged)


def _named_by_compose(data: object) -> Iterator[tuple[tuple[Key, ...], str, bool]]:
    for index, item in enumerate(as_list(dig(data, "include"))):
        for path in as_list(dig(item, "path")) or [item, dig(item, "path")]:
            yield ("include", index), as_text(path), True
    for name, service in as_mapping(dig(data, "services")).items():
        base = ("services", name)
        yield (*base, "extends", "file"), as_text(dig(service, "extends", "file")), True
        for keys, path in env_files(service):
            yield (*base, *keys), path, True
        for index, volume in enumerate(as_list(dig(service, "volumes"))):
            source = volume.split(":")[0] if isinstance(volume, str) and ":" in volume else None
            source = source or as_text(dig(volume, "source"))
            if source.startswith("."):  # else it is the name of a volume
                yield (*base, "volumes", index), source, False
    for kind in ("configs", "secrets"):
        for name, entry in as_mapping(dig(data, kind)).items():
            yield (kind, name, "file"), as_text(dig(entry, "file")), kind == "configs"


def env_files(service: object) -> Iterator[tuple[tuple[Key, ...], str]]:
    """The environment files that a Compose service names, each with its place in the service."""
    value = dig(service, "env_file")
    entries: list[tuple[Key, ...]] = [("env_file", number) for number in range(len(as_list(value)))]
    for keys in [("env_file",)] if isinstance(value, str) else entries:
        entry = dig(service, *keys)
        path = entry if isinstance(entry, str) else dig(entry, "path")
        if isinstance(path, str):
            yield keys, path
