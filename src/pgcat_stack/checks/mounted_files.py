"""PS43x: ConfigMaps that pods mount, and files where programs read them.

start.sh says where PgCat's files are read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import BOOTSTRAP, PERMIFY, PGCAT
from pgcat_stack.printable import show
from pgcat_stack.reading.connections import option
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.pods import VolumeSource
from pgcat_stack.reading.reading import Reading

START = "pgcat/start.sh"
_START_TARGET = "/etc/pgcat/start.sh"
_CONFIG_TARGET = "/etc/pgcat/pgcat.toml"
_RUN_FOLDER = "/run/pgcat"


@check(
    code="PS432",
    name="config-map-missing",
    severity="error",
    why="A pod that mounts or reads a ConfigMap which does not exist stays in ContainerCreating.",
    fix="Use the name that configMapGenerator gives it, or add it there.",
)
def config_map_missing(reading: Reading) -> Iterator[Problem]:
    """ConfigMaps named by pods that neither a generator nor a manifest makes.

    One of which a pod takes certificates alone is the cluster's, as those of trust-manager are.
    """
    if not reading.complete:
        return
    known = reading.generated_files
    for pod in reading.own_pods:
        for source in (source for volume in pod.volumes for source in volume.sources):
            made = source.kind != "configMap" or source.name in known
            if not made and not source.optional and not _certificates_alone(source):
                yield Problem(
                    source.location,
                    f"{pod.text} mounts the ConfigMap {show(source.name)}, which nothing makes",
                    f"use one of {', '.join(sorted(known)) or 'configMapGenerator'}",
                )


def _certificates_alone(source: VolumeSource) -> bool:
    keys = [key or "" for key, _ in source.items or ()]
    return bool(keys) and all(key.endswith((".crt", ".pem")) for key in keys)


@check(
    code="PS433",
    name="config-not-mounted",
    severity="error",
    why="A program that does not find its configuration where it looks stops, or runs on"
    " defaults: Permify on the"
    " engine in memory.",
    fix="Mount the file at the path that the command names.",
)
def config_not_mounted(reading: Reading) -> Iterator[Problem]:
    """pgcat.toml, start.sh and permify.yaml that are not where their readers look."""
    if reading.kustomization is not None and not reading.complete:
        return
    for container in reading.running("pgcat"):
        yield from _pgcat_files(reading, container)
    for container in reading.running("permify"):
        config = option(container.words, "--config", "-c")
        if config:
            yield from _stands(container, config, PERMIFY)
        elif reading.permify is not None and not any(
            variable.name.startswith("PERMIFY_DATABASE_") for variable in container.variables
        ):
            yield Problem(
                container.at(),
                f"{container.text} starts without --config",
                f"mount {PERMIFY} and name it by --config",
            )


def _pgcat_files(reading: Reading, container: Container) -> Iterator[Problem]:
    script = next((word for word in container.words if posixpath.basename(word) == "start.sh"), None)
    if script is None:
        if reading.pgcat is not None and '"${' in reading.pgcat.text:
            text = f"{container.text} does not run start.sh, so nothing fills the placeholders of {PGCAT}"
            yield Problem(container.at("command"), text, f'use command: ["/bin/sh", "{_START_TARGET}"]')
        return
    yield from _stands(container, script, START)
    yield from _stands(container, container.value("PGCAT_CONFIG", _CONFIG_TARGET), PGCAT)
    folder = container.value("PGCAT_RUN_DIR", _RUN_FOLDER)
    if container.rights.read_only and container.origin(posixpath.join(folder, "pgcat.toml")) is None:
        text = f"{container.text} cannot write {folder}, where start.sh puts the filled {PGCAT}"
        yield Problem(container.at(), text, "mount a tmpfs or an emptyDir in memory there")


def _stands(container: Container, path: str, file: str) -> Iterator[Problem]:
    """A problem unless `file` of the deployment, or content that no file shows, stands at `path`."""
    origin = container.origin(path)
    if origin is None:
        yield Problem(
            container.at(),
            f"{container.text} reads {show(path)}, where nothing is mounted",
            f"mount {file} there",
        )
    elif origin and origin != file and not origin.startswith(("configmap:", "secret:", "config:")):
        yield Problem(
            container.at(),
            f"{container.text} reads {show(path)}, where {origin} is mounted",
            f"mount {file} there",
        )


@check(
    code="PS434",
    name="volume-not-declared",
    severity="error",
    why="The API refuses a pod whose container mounts a volume that the pod does not declare.",
    fix="Declare the volume under `volumes`, or correct its name.",
)
def volume_not_declared(reading: Reading) -> Iterator[Problem]:
    """VolumeMounts whose name is no volume of the pod."""
    for container in reading.containers:
        pod = container.pod
        if pod is None:
            continue
        for mount in container.volume_mounts:
            if mount.name not in pod.volume_names:
                yield Problem(
                    mount.location,
                    f"{container.text} mounts {show(mount.name)}, which is no volume of the pod",
                    f"its volumes are {', '.join(sorted(pod.volume_names)) or 'none'}",
                )


@check(
    code="PS435",
    name="bootstrap-missing",
    severity="warning",
    why="bootstrap.sql makes the role with its connection limit, the last guard of the budget, and with its"
    " plan_cache_mode. Without the file nobody knows whether the database has them.",
    fix="Render the file again, or take it from the history.",
)
def bootstrap_missing(reading: Reading) -> Iterator[Problem]:
    """Deployments without postgres/bootstrap.sql. Where Compose mounts it PS450 speaks."""
    mounted = any(mount.origin == BOOTSTRAP for container in reading.containers for mount in container.mounts)
    if BOOTSTRAP not in reading.sources and not mounted:
        text = "the file is missing: role, connection limit and plan_cache_mode have no source"
        yield Problem(Location(BOOTSTRAP), text, "render it again, or take it from the history")
