"""PS45x: compose.yaml names files, services, secrets and volumes that exist.

https://docs.docker.com/reference/compose-file/
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from pgcat_stack.build.above import present
from pgcat_stack.build.kustomize import climbs
from pgcat_stack.checks import check
from pgcat_stack.files.variables import interpolated
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import COMPOSE
from pgcat_stack.printable import show
from pgcat_stack.reading.compose import deployment_path, with_folder
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import secret_names

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
    for container in reading.services:
        for volume in container.volumes:
            yield volume.location, volume.source
    made = {f"secrets/{name}" for name in secret_names(reading)}  # by the hook, where they are missing
    for container in reading.services:
        for env_file in container.env_files:
            if posixpath.normpath(env_file.path) not in made and env_file.required:
                yield env_file.location, with_folder(env_file.path)
    declared = reading.project.declared
    for entry in (*declared["secrets"].values(), *declared["configs"].values()):
        if entry.file is not None and deployment_path(entry.file) not in made:
            yield entry.file_location, with_folder(entry.file)


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
        for dependency in container.dependencies:
            target = dependency.name
            if isinstance(target, str) and target not in names and not dependency.optional:
                text = f"the {container.text} depends on {show(target)}, which is no service"
                yield Problem(dependency.location, text, f"services are {', '.join(names)}")


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
        for used in container.uses:
            declared = reading.project.declared[used.kind]
            if used.name not in declared:
                what = f"{show(used.name)}, which {used.kind} of {COMPOSE} does not declare"
                known = ", ".join(map(str, declared)) or "none"
                yield Problem(used.location, f"the {container.text} uses {what}", f"declared are {known}")


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
    users: dict[str, set[str]] = {}
    for container in reading.services:
        for used in container.uses if container.rights.read_only else ():
            if used.kind == "secrets":
                users.setdefault(used.name, set()).add(container.name)
    for name, readers in users.items():
        secret = reading.project.declared["secrets"].get(name)
        if secret is not None and secret.bare:
            who = ", ".join(sorted(readers))
            text = f"the secret {name} has no file, and {who} has a read-only root filesystem"
            yield Problem(secret.location, text, f"write file: ./secrets/{name}")


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
