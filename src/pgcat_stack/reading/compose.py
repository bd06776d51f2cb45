"""compose.yaml: what it declares, and what each service takes of it.

https://docs.docker.com/reference/compose-file/
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pgcat_stack.build.compose import env_files
from pgcat_stack.files.gaps import At, Gap, mapping_gaps
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig
from pgcat_stack.files.quantities import Text, size_bytes
from pgcat_stack.files.sources import Source
from pgcat_stack.files.variables import filled_in, interpolated
from pgcat_stack.findings import Location
from pgcat_stack.permify.callers import is_keys_file

DeclaredKind = Literal["secrets", "configs", "networks", "volumes"]
_DECLARED: tuple[DeclaredKind, ...] = ("secrets", "configs", "networks", "volumes")
_HERE = (".", "/", "~")
"""How a path begins that Compose does not take for a name."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A secret, configuration, network or volume that compose.yaml declares."""

    file: str | None
    """The path of its content as it is written."""
    bare: bool
    """Whether it names neither a file nor something external."""
    location: Location
    file_location: Location


@dataclass(frozen=True, slots=True)
class Command:
    """The words of a service's command as they are written, and where it stands, or would."""

    words: tuple[Text, ...]
    location: Location


@dataclass(frozen=True, slots=True)
class Project:
    """What compose.yaml declares; nothing without the file."""

    declared: Mapping[DeclaredKind, Mapping[Key, Declaration]]
    commands: Mapping[Key, Command] = field(default_factory=dict)
    """The command of each service, also of one that is no mapping."""
    gaps: tuple[Gap, ...] = ()


def read_project(compose: Source | None) -> Project:
    """What compose.yaml declares."""
    if compose is None:
        return Project({kind: {} for kind in _DECLARED})
    data, services = compose.data, as_mapping(dig(compose.data, "services"))
    gaps = mapping_gaps(data, compose.at)
    for kind in ("services", *_DECLARED):
        gaps += mapping_gaps(dig(data, kind), compose.at, kind)
        for name, entry in as_mapping(dig(data, kind)).items():
            gaps += mapping_gaps(entry, compose.at, kind, name, what=f"an entry of {kind}")
    return Project(
        declared={
            kind: {name: _declaration(entry, compose, kind, name) for name, entry in entries.items()}
            for kind in _DECLARED
            for entries in (as_mapping(dig(data, kind)),)
        },
        commands={name: _command(entry, compose, name) for name, entry in services.items()},
        gaps=tuple(gaps),
    )


def _declaration(entry: Any, compose: Source, kind: str, name: Key) -> Declaration:
    file = dig(entry, "file")
    return Declaration(
        file=file if isinstance(file, str) else None,
        bare=file is None and dig(entry, "external") is not True,
        location=compose.at(kind, name),
        file_location=compose.at(kind, name, "file"),
    )


def _command(service: Any, compose: Source, name: Key) -> Command:
    command, keys = dig(service, "command"), ("services", name, "command")
    place = compose.at(*keys)
    if isinstance(command, str):
        return Command(tuple(Text(word, place) for word in command.split()), place)
    words = (Text(str(word), compose.at(*keys, index)) for index, word in enumerate(as_list(command)))
    return Command(tuple(words), place)


# Services


@dataclass(frozen=True, slots=True)
class Use:
    """A secret, configuration, network or volume that a service names."""

    kind: DeclaredKind
    name: str
    location: Location


@dataclass(frozen=True, slots=True)
class Dependency:
    """What a service waits for."""

    name: Key
    optional: bool
    to_its_end: bool
    """Whether it waits until the other has ended."""
    location: Location


@dataclass(frozen=True, slots=True)
class EnvFile:
    """An environment file, its path as it is written."""

    path: str
    required: bool
    location: Location

    @property
    def has_keys(self) -> bool:
        """Whether it is the one with the keys of Permify's callers."""
        return is_keys_file(self.path)


@dataclass(frozen=True, slots=True)
class ServiceVolume:
    """An entry of a service's `volumes`: source and target, empty where there is none."""

    source: str
    target: str
    is_volume: bool
    """Whether the source names a volume of the project, not a path."""
    location: Location


@dataclass(frozen=True, slots=True)
class Logging:
    """Where a service's log goes."""

    driver: str | None
    """None where only the environment tells."""
    limited: bool
    """Whether its files have a greatest size."""
    location: Location


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A memory limit. `bytes` is None where it cannot be told."""

    bytes: int | None
    location: Location


def read_uses(service: Mapping[str, Any], at: At) -> Iterator[Use]:
    """What a service names of the declarations of its project."""
    for kind in _DECLARED[:3]:
        value = service.get(kind)
        names: list[tuple[Key, Any]] = [(key, key) for key in as_mapping(value)]
        names += [
            (index, item if isinstance(item, str) else dig(item, "source"))
            for index, item in enumerate(as_list(value))
        ]
        for key, used in names:
            if isinstance(used, str) and not (kind == "networks" and used == "default"):
                yield Use(kind, used, at(kind, key))
    for volume in read_service_volumes(service, at):
        if volume.is_volume:
            yield Use("volumes", volume.source, volume.location)


def read_dependencies(service: Mapping[str, Any], at: At) -> Iterator[Dependency]:
    """What a service waits for."""
    depends = service.get("depends_on")
    for name, how in as_mapping(depends).items():
        to_its_end = dig(how, "condition") == "service_completed_successfully"
        yield Dependency(name, dig(how, "required") is False, to_its_end, at("depends_on", name))
    for index, name in enumerate(as_list(depends)):
        if isinstance(name, str):
            yield Dependency(name, False, False, at("depends_on", index))


def read_env_files(service: Mapping[str, Any], at: At) -> Iterator[EnvFile]:
    """The environment files of a service."""
    for keys, path in env_files(service):
        yield EnvFile(path, dig(service, *keys, "required") is not False, at(*keys))


def read_service_volumes(service: Mapping[str, Any], at: At) -> Iterator[ServiceVolume]:
    """What a service mounts under `volumes`."""
    for index, volume in enumerate(as_list(service.get("volumes"))):
        source, target = volume_ends(volume)
        kind = dig(volume, "type") if isinstance(volume, dict) else "volume"
        is_volume = bool(source) and kind == "volume" and not source.startswith((*_HERE, "$"))
        yield ServiceVolume(source, target, is_volume, at("volumes", index))


def volume_ends(volume: object) -> tuple[str, str]:
    """Source and target of an entry of `volumes`, short or long; empty where there is none."""
    if isinstance(volume, str):
        parts = (interpolated(volume) or "").split(":")
        return (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    return as_text(dig(volume, "source")), as_text(dig(volume, "target"))


def deployment_path(source: str) -> str | None:
    """The path below the deployment that a Compose path names; None where it leads elsewhere."""
    if not source.startswith((".", "..")) or not source:
        return None
    path = posixpath.normpath(source)
    return None if path == ".." or path.startswith("../") else path


def with_folder(path: str) -> str:
    """A path that Compose reads from its own folder, so that nobody takes it for a name."""
    return path if path.startswith(_HERE) else f"./{path}"


def read_restart(service: Mapping[str, Any], at: At) -> Text:
    """When Docker starts a service again; `no` where nothing is written."""
    policy = service.get("restart")
    if policy is None:
        policy = dig(service, "deploy", "restart_policy", "condition")
    return Text("no" if policy is None or policy is False else str(policy), at("restart"))


def read_logging(service: Mapping[str, Any], at: At) -> Logging:
    """Where a service's log goes, by default to files without a greatest size."""
    driver = dig(service, "logging", "driver")
    size = filled_in(dig(service, "logging", "options", "max-size"))
    return Logging(
        driver="json-file" if driver is None else interpolated(str(driver)),
        limited=str(size).strip() not in ("None", "", "0", "-1"),  # Docker's words for no limit
        location=at("logging"),
    )


def read_service_memory(service: Mapping[str, Any], at: At) -> Iterator[MemoryLimit]:
    """The memory limits that a service sets, in two places."""
    for keys in (("mem_limit",), ("deploy", "resources", "limits", "memory")):
        value = dig(service, *keys)
        if value is not None:
            yield MemoryLimit(size_bytes(filled_in(value)), at(*keys))
