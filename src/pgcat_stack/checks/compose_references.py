"""PS45x: compose.yaml names files, services, secrets and volumes that exist.

https://docs.docker.com/reference/compose-file/
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from pgcat_stack.build.above import present
from pgcat_stack.build.compose import env_files
from pgcat_stack.build.kustomize import climbs
from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.variables import interpolated
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import COMPOSE
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import deployment_path, volume_ends
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import secret_names

_KINDS = ("secrets", "configs", "networks")
_OVERRIDES = tuple(
    f"{start}.override.{suffix}" for start in ("compose", "docker-compose") for suffix in ("yaml", "yml")
)


@check(
    code="PS450",
    name="compose-file-missing",
    severity="error",
    why="In place of a file that is missing Docker mounts a new empty folder, which the program"
    " cannot read; a secret"
    " or configuration without its file stops `docker compose up`.",
    fix="Create the file, or correct its path.",
)
def compose_file_missing(reading: Reading) -> Iterator[Problem]:
    """Mounted and environment files, configurations and secrets outside secrets/ that do not exist."""
    for place, text in _files(reading):
        path = interpolated(text) or ""
        path = posixpath.normpath(path) if path.startswith(".") else "."
        if path == "." or climbs(path) > reading.reach or reading.exists(path):
            continue
        if not present(reading.root, reading.reach, path):
            yield Problem(place, f"{show(text)} is not there", "create it, or correct the path")


def _files(reading: Reading) -> Iterator[tuple[Location, str]]:
    compose = reading.compose
    if compose is None:
        return
    for container in reading.services:
        for index, volume in enumerate(as_list(container.data.get("volumes"))):
            yield container.at("volumes", index), volume_ends(volume)[0]
    made = {f"secrets/{name}" for name in secret_names(reading)}  # by the hook, where they are missing
    for container in reading.services:
        for keys, file in env_files(container.data):
            path = posixpath.normpath(file)
            if path not in made and dig(container.data, *keys, "required") is not False:
                yield container.at(*keys), file if file.startswith((".", "/", "~")) else f"./{file}"
    for kind in ("secrets", "configs"):
        for name, entry in as_mapping(dig(compose.data, kind)).items():
            file = dig(entry, "file")
            if isinstance(file, str) and deployment_path(file) not in made:
                yield (
                    compose.at(kind, name, "file"),
                    file if file.startswith((".", "/", "~")) else f"./{file}",
                )


@check(
    code="PS451",
    name="compose-unknown-service",
    severity="error",
    why="Compose refuses a file in which a service depends on one that is not there.",
    fix="Name a service of compose.yaml.",
)
def compose_unknown_service(reading: Reading) -> Iterator[Problem]:
    """depends_on of services that do not exist."""
    names = [container.name for container in reading.services]
    for container in reading.services:
        depends = container.data.get("depends_on")
        targets: list[tuple[Key, Any]] = [(key, key) for key in as_mapping(depends)]
        targets += list(enumerate(as_list(depends)))
        for key, target in targets:
            optional = dig(depends, key, "required") is False
            if isinstance(target, str) and target not in names and not optional:
                text = f"the {container.text} depends on {show(target)}, which is no service"
                yield Problem(container.at("depends_on", key), text, f"services are {', '.join(names)}")


@check(
    code="PS452",
    name="compose-undeclared",
    severity="error",
    why="Compose refuses a service that names a secret, configuration, network or volume which"
    " the file does not"
    " declare.",
    fix="Declare it at the top level, or correct its name.",
)
def compose_undeclared(reading: Reading) -> Iterator[Problem]:
    """Secrets, configs, networks and named volumes that are not declared."""
    for container in reading.services:
        for kind, keys, used in _named(container.data):
            declared = as_mapping(dig(container.source.data, kind))
            if used not in declared:
                text = f"the {container.text} uses {show(used)}, which {kind} of {COMPOSE} does not declare"
                yield Problem(
                    container.at(*keys), text, f"declared are {', '.join(map(str, declared)) or 'none'}"
                )


def _named(service: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Key, ...], str]]:
    for kind in _KINDS:
        value = service.get(kind)
        names: list[tuple[Key, Any]] = [(key, key) for key in as_mapping(value)]
        names += [
            (i, item if isinstance(item, str) else dig(item, "source"))
            for i, item in enumerate(as_list(value))
        ]
        for key, used in names:
            if isinstance(used, str) and not (kind == "networks" and used == "default"):
                yield kind, (kind, key), used
    for index, volume in enumerate(as_list(service.get("volumes"))):
        source, _ = volume_ends(volume)
        kind = dig(volume, "type") if isinstance(volume, dict) else "volume"
        if source and kind == "volume" and not source.startswith((".", "/", "~", "$")):
            yield "volumes", ("volumes", index), source


@check(
    code="PS453",
    name="compose-secret-not-a-file",
    severity="error",
    why="Compose copies secrets from the environment or inline content into the container,"
    " which fails where the root"
    " filesystem is read-only; files it mounts.",
    fix="Use `file:` with a path under secrets/.",
)
def compose_secret_not_a_file(reading: Reading) -> Iterator[Problem]:
    """Secrets without a file that read-only services use."""
    compose = reading.compose
    if compose is None:
        return
    declared = as_mapping(dig(compose.data, "secrets"))
    users: dict[str, list[str]] = {}
    for container in reading.services:
        for kind, _, used in _named(container.data) if container.data.get("read_only") is True else ():
            if kind == "secrets":
                users.setdefault(used, []).append(container.name)
    for name, readers in users.items():
        if (
            name in declared
            and dig(declared[name], "external") is not True
            and dig(declared[name], "file") is None
        ):
            text = (
                f"the secret {name} has no file, and {', '.join(sorted(set(readers)))}"
                " has a read-only root filesystem"
            )
            yield Problem(compose.at("secrets", name), text, f"write file: ./secrets/{name}")


@check(
    code="PS454",
    name="compose-override",
    severity="warning",
    why="`docker compose up` merges compose.override.yaml into compose.yaml by itself. Only compose.yaml is"
    " judged, so replicas, ports or users that the other file sets are not seen.",
    fix="Move its settings into compose.yaml, or name the files to use: docker compose -f compose.yaml.",
)
def compose_override(reading: Reading) -> Iterator[Problem]:
    """An override file beside compose.yaml."""
    if reading.compose is None:
        return
    for name in _OVERRIDES:
        source = reading.sources.get(name)
        if source is not None:
            text = f"Compose merges {name} into {COMPOSE} by itself, and what it changes is not judged"
            yield Problem(source.here(), text, f"move its settings into {COMPOSE}")
