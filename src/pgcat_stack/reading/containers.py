"""What runs where: the containers of manifests and the services of compose.yaml in one shape.

A `Container` knows which program it runs, its words (command and arguments), environment, and which file of
the deployment stands at which path inside it. Everything is read tolerantly: what has a wrong type is absent.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

from pgcat_stack.build.compose import env_files
from pgcat_stack.files.gaps import At, Gap
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig, strings
from pgcat_stack.files.quantities import Number, Text, whole_text
from pgcat_stack.files.sources import Source
from pgcat_stack.files.variables import interpolated
from pgcat_stack.findings import Location
from pgcat_stack.permify.callers import KEYS_VARIABLE, is_keys_file
from pgcat_stack.reading.compose import (
    Dependency,
    EnvFile,
    Logging,
    MemoryLimit,
    ServiceVolume,
    Use,
    deployment_path,
    read_dependencies,
    read_env_files,
    read_logging,
    read_restart,
    read_service_memory,
    read_service_volumes,
    read_uses,
    volume_ends,
)
from pgcat_stack.reading.deployment import Deployment
from pgcat_stack.reading.images import Image, read_image
from pgcat_stack.reading.pods import Pod, PodVolume
from pgcat_stack.reading.rights import Rights, pod_rights, service_rights
from pgcat_stack.reading.types import READ_OF_CONTAINER, READ_OF_SERVICE, type_gaps

Program = Literal["pgcat", "permify", "migrate", ""]
_RENDERED_SERVICES = frozenset(
    {
        *("postgres-primary", "postgres-replica", "bootstrap", "prometheus", "grafana", "collector"),
        *("postgres-exporter-primary", "postgres-exporter-replica", "permify-probe"),
    }
)
_RENDERED_CONTAINERS = frozenset({"wait-for-migration", "note", "permify-probe"})
"""Services and containers of the template that run none of our programs."""
_CLIENT = re.compile(r"\b(psql|pg_isready)\b")
_BECOMES_PGCAT = re.compile(r"start\.sh|\bexec\s+pgcat\b")


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable: literal `value`, or the Secret and key that it comes from."""

    name: str
    value: str | None
    secret: tuple[str, str] | None
    keys: tuple[Key, ...]
    written: str | None
    """The value as the file has it, before variables of Compose are filled in."""
    shown: str | None
    """The value that the file shows, "" for none; None where a Secret, a file or ${…} gives it."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Something mounted at `target`.

    `origin` says what stands there: a path of the deployment, `secret:NAME/KEY` or `configmap:NAME/KEY` for a
    key whose content no file shows, or empty for storage that starts empty or is not known. A folder has
    every path below it, with the rest of the path added to `origin`.
    """

    target: str
    origin: str
    folder: bool
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """What a container of a pod mounts, by the name of a volume. `target` is None where none can be read."""

    name: str
    target: str | None
    sub_path: str
    location: Location
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a container, with the words of the command that it runs in it."""

    words: tuple[str, ...]
    location: Location


@dataclass(frozen=True, eq=False)
class Container:
    """A container or a Compose service. `base` is its path in document `document` of `source`."""

    name: str
    program: Program
    data: Mapping[str, Any]
    source: Source
    document: int
    base: tuple[Key, ...]
    pod: Pod | None = None
    words: tuple[str, ...] = ()
    variables: tuple[Variable, ...] = ()
    mounts: tuple[Mount, ...] = field(default=(), repr=False)

    @property
    def own(self) -> bool:
        """Whether the stack brings it: one of our programs, or a service that the template renders."""
        rendered = _RENDERED_SERVICES if self.pod is None else _RENDERED_CONTAINERS
        return bool(self.program) or self.name in rendered

    @property
    def ends(self) -> bool:
        """Whether it is an ordinary init container, which has ended when the others start."""
        return "initContainers" in self.base and self.data.get("restartPolicy") != "Always"

    @property
    def extends(self) -> bool:
        """Whether a Compose service takes its settings from another, which is not read."""
        return "extends" in self.data

    @property
    def is_patch(self) -> bool:
        """Whether it changes a container of somebody else's, whose image and limits are not seen."""
        return self.pod is not None and self.pod.manifest.partial and "image" not in self.data

    @property
    def inherits(self) -> bool:
        """Whether it has variables that its own list does not show."""
        others = any(not file.has_keys for file in self.env_files)
        return others or any(self.data.get(key) for key in ("envFrom", "extends"))

    @property
    def text(self) -> str:
        """How messages name it."""
        if self.pod is None:
            return f"service {self.name}"
        return f"container {self.name} of {self.pod.manifest.kind} {self.pod.manifest.name}"

    # What it says of itself

    @cached_property
    def image(self) -> Image | None:
        """Its image, with variables of Compose filled in; None where only the environment knows it."""
        image = self.data.get("image")
        if self.pod is None and isinstance(image, str):
            image = interpolated(image)
        return read_image(image, self.at("image"))

    @cached_property
    def rights(self) -> Rights:
        """What it may do."""
        if self.pod is None:
            return service_rights(self.data, self.at)
        return pod_rights(self.data, self.at, self.pod.spec)

    @cached_property
    def memory_limits(self) -> tuple[MemoryLimit, ...]:
        """The memory limits that it sets; a service can in two places."""
        if self.pod is None:
            return tuple(read_service_memory(self.data, self.at))
        keys = ("resources", "limits", "memory")
        return (MemoryLimit(None, self.at(*keys)),) if dig(self.data, *keys) else ()

    @cached_property
    def probes(self) -> Mapping[str, Probe]:
        """The probes of a container of a pod by their keys, `readinessProbe` among them."""
        return {
            key: Probe(
                tuple(
                    word for word in as_list(dig(self.data, key, "exec", "command")) if isinstance(word, str)
                ),
                self.at(key),
            )
            for key in ("startupProbe", "readinessProbe", "livenessProbe")
            if isinstance(self.data.get(key), dict)
        }

    @cached_property
    def texts(self) -> tuple[tuple[tuple[Key, ...], str], ...]:
        """Every text of its command, arguments and health check, with its path."""
        keys = ("command", "entrypoint", "args", "healthcheck")
        return tuple(found for key in keys for found in strings(self.data.get(key), (key,)))

    @cached_property
    def volume_mounts(self) -> tuple[VolumeMount, ...]:
        """What a container of a pod mounts of the pod's volumes."""
        return tuple(_volume_mounts(self.data, self.at))

    @property
    def on_host_network(self) -> bool:
        """Whether it has the network of its machine."""
        return self.data.get("network_mode") == "host" if self.pod is None else self.pod.on_host_network

    @cached_property
    def env_files(self) -> tuple[EnvFile, ...]:
        """The environment files of a service."""
        return tuple(read_env_files(self.data, self.at))

    @cached_property
    def dependencies(self) -> tuple[Dependency, ...]:
        """What a service waits for."""
        return tuple(read_dependencies(self.data, self.at))

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """The secrets, configurations, networks and volumes that a service names."""
        return tuple(read_uses(self.data, self.at))

    @cached_property
    def volumes(self) -> tuple[ServiceVolume, ...]:
        """The volumes of a service, its folders and files among them."""
        return tuple(read_service_volumes(self.data, self.at))

    @property
    def restart(self) -> Text:
        """When Docker starts a service again."""
        return read_restart(self.data, self.at)

    @property
    def logging(self) -> Logging:
        """Where the log of a service goes."""
        return read_logging(self.data, self.at)

    @property
    def fixed_name(self) -> Location | None:
        """Where a service has a name that only one container can have."""
        return self.at("container_name") if self.data.get("container_name") else None

    @property
    def file_limit(self) -> Number | None:
        """The hard limit of open files of a service; None where none can be read."""
        limit = dig(self.data, "ulimits", "nofile")
        hard = whole_text(dig(limit, "hard") if isinstance(limit, dict) else limit)
        return None if hard is None else Number(hard, self.at("ulimits", "nofile"))

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What of it could not be read."""
        if self.pod is None:
            return type_gaps(self.data, READ_OF_SERVICE, self.at, variables=True)
        return type_gaps(self.data, READ_OF_CONTAINER, self.at)

    # Where it stands, and what stands in it

    def at(self, *keys: Key) -> Location:
        """The location of the key at this path in the container or service."""
        if self.pod is not None:
            return self.pod.manifest.at(*self.base, *keys)
        return self.source.at(*self.base, *keys, document=self.document)

    def variable(self, name: str) -> Variable | None:
        """The environment variable of this name."""
        return next((variable for variable in self.variables if variable.name == name), None)

    def value(self, name: str, default: str) -> str:
        """The literal value of a variable; `default` where there is none."""
        variable = self.variable(name)
        return variable.value if variable and variable.value else default

    def origin(self, path: str) -> str | None:
        """What stands at this absolute path, see `Mount`; None where nothing is mounted there."""
        path = posixpath.normpath(path)
        best: Mount | None = None
        for mount in self.mounts:
            inside = mount.folder and (path.startswith(mount.target.rstrip("/") + "/"))
            if (path == mount.target or inside) and (best is None or len(mount.target) >= len(best.target)):
                best = mount
        if best is None:
            return None
        rest = path[len(best.target) :].lstrip("/")
        return posixpath.join(best.origin, rest) if best.origin and rest else best.origin


def read_containers(deployment: Deployment, pods: Iterable[Pod]) -> tuple[Container, ...]:
    """Every service of compose.yaml and every container of the pods."""
    return (*_services(deployment), *_containers(deployment, pods))


# Programs


def _program(name: str, image: Image | None, words: tuple[str, ...]) -> Program:
    """Which of our programs: by the image's name, else by the container's."""
    known = image.name if image and image.name in ("pgcat", "permify") else name
    text = " ".join(words)
    if _CLIENT.search(text) and not _BECOMES_PGCAT.search(text):  # PgCat's image has both
        return ""
    # Elsewhere in a command it may be a host: `--host=pgcat`.
    if known == "pgcat" or posixpath.basename(words[0] if words else "") == "pgcat":
        return "pgcat"
    if "migrate" in words and (known in ("permify", "migrate") or "permify" in words):
        return "migrate"
    return "permify" if known == "permify" else ""


def words_of(value: object) -> tuple[str, ...]:
    """The words of a command, which is a list or, in Compose, also one string."""
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError:
            return tuple(value.split())
    return tuple(str(item) for item in as_list(value) if isinstance(item, (str, int, float)))


# Kubernetes


def _containers(deployment: Deployment, pods: Iterable[Pod]) -> Iterator[Container]:
    generated = deployment.generated_files
    for pod in pods:
        manifest = pod.manifest
        for path, entry in pod.containers:
            name = as_text(entry.get("name"))
            words = words_of(entry.get("command")) + words_of(entry.get("args"))
            at = partial(manifest.at, *path)
            yield Container(
                name=name,
                program=_program(name, read_image(entry.get("image"), at("image")), words),
                data=entry,
                source=manifest.source,
                document=manifest.document,
                base=path,
                pod=pod,
                words=words,
                variables=tuple(kubernetes_variables(entry.get("env"), ("env",))),
                mounts=tuple(_pod_mounts(pod, _volume_mounts(entry, at), generated)),
            )


def kubernetes_variables(value: object, base: tuple[Key, ...]) -> Iterator[Variable]:
    """The variables of an `env` list, of a container or of Helm values."""
    for index, item in enumerate(as_list(value)):
        name = dig(item, "name")
        if isinstance(name, str):
            reference = as_mapping(dig(item, "valueFrom", "secretKeyRef"))
            secret = None
            if isinstance(reference.get("name"), str) and isinstance(reference.get("key"), str):
                secret = (reference["name"], reference["key"])
            literal = _scalar(dig(item, "value"))
            shown = _shown(item, literal if literal or "valueFrom" in item else "")
            yield Variable(name, literal, secret, (*base, index), literal, shown)


def _volume_mounts(entry: Mapping[str, Any], at: At) -> Iterator[VolumeMount]:
    for index, mount in enumerate(as_list(entry.get("volumeMounts"))):
        target, name, keys = dig(mount, "mountPath"), dig(mount, "name"), ("volumeMounts", index)
        if isinstance(name, str):
            yield VolumeMount(
                name,
                target if isinstance(target, str) else None,
                as_text(dig(mount, "subPath")),
                at(*keys),
                keys,
            )


def _pod_mounts(
    pod: Pod, mounts: Iterable[VolumeMount], generated: Mapping[str, Mapping[str, str]]
) -> Iterator[Mount]:
    volumes = {volume.name: volume for volume in pod.volumes if volume.name is not None}
    for mount in mounts:
        if mount.target is None or mount.name not in volumes:
            continue
        target = posixpath.normpath(mount.target)
        entries = list(_volume_entries(volumes[mount.name], generated))
        if not entries:
            yield Mount(target, "", folder=True, keys=mount.keys)
        for path, origin in entries:
            if mount.sub_path and path == mount.sub_path:
                yield Mount(target, origin, folder=False, keys=mount.keys)
            elif not mount.sub_path:
                yield Mount(
                    posixpath.normpath(posixpath.join(target, path)),
                    origin,
                    folder=not path,
                    keys=mount.keys,
                )


def _volume_entries(
    volume: PodVolume, generated: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """(path in the volume, origin) of each file; the path is empty where all keys are there, unnamed."""
    for source in volume.sources:
        files = generated.get(source.name, {}) if source.kind == "configMap" else {}
        origin = f"{source.kind.lower()}:{source.name}"
        if source.items is not None:
            for key, path in source.items:
                if key is not None and path is not None:
                    yield path, files.get(key, f"{origin}/{key}")
        elif files:
            yield from files.items()
        else:
            yield "", origin


# Compose


def _services(deployment: Deployment) -> Iterator[Container]:
    compose = deployment.compose
    if compose is None:
        return
    secrets = {str(name): entry for name, entry in as_mapping(dig(compose.data, "secrets")).items()}
    configs = {str(name): entry for name, entry in as_mapping(dig(compose.data, "configs")).items()}
    for name, service in as_mapping(dig(compose.data, "services")).items():
        if not isinstance(service, dict):
            continue
        at = partial(compose.at, "services", name)
        words = words_of(service.get("entrypoint")) + words_of(service.get("command"))
        yield Container(
            name=str(name),
            program=_program(str(name), read_image(service.get("image"), at("image")), words),
            data=service,
            source=compose,
            document=0,
            base=("services", name),
            words=tuple(interpolated(word) or word for word in words),
            variables=tuple(_variables_of(service)),
            mounts=(
                *_binds(service),
                *_attached(service, "configs", configs),
                *_attached(service, "secrets", secrets),
            ),
        )


def _variables_of(service: Mapping[str, Any]) -> Iterator[Variable]:
    """What `environment` lists, and the keys that an environment file brings where it lists none."""
    listed = list(_compose_variables(service.get("environment")))
    yield from listed
    for keys, path in env_files(service):
        if is_keys_file(path) and all(variable.name != KEYS_VARIABLE for variable in listed):
            yield Variable(KEYS_VARIABLE, None, None, keys, None, None)


def _compose_variables(value: object) -> Iterator[Variable]:
    if isinstance(value, dict):
        for name, literal in value.items():
            text = _scalar(literal)
            value = interpolated(text)
            yield Variable(str(name), value, None, ("environment", name), text, _shown(literal, value))
    for index, item in enumerate(as_list(value)):
        if isinstance(item, str):
            name, equals, text = item.partition("=")
            written = text if equals else None
            given = interpolated(written)
            yield Variable(name, given, None, ("environment", index), written, _shown(item, given))


def _shown(written: object, value: str | None) -> str | None:
    return None if "$" in str(written) else value


def _binds(service: Mapping[str, Any]) -> Iterator[Mount]:
    for index, volume in enumerate(as_list(service.get("volumes"))):
        source, target = volume_ends(volume)
        if target:
            path = deployment_path(source)
            yield Mount(posixpath.normpath(target), path or "", folder=True, keys=("volumes", index))
    tmpfs = service.get("tmpfs")
    for item in [tmpfs] if isinstance(tmpfs, str) else as_list(tmpfs):
        if isinstance(item, str):
            yield Mount(posixpath.normpath(item.partition(":")[0]), "", folder=True, keys=("tmpfs",))


def _attached(service: Mapping[str, Any], kind: str, declared: Mapping[str, Any]) -> Iterator[Mount]:
    folder = "/run/secrets" if kind == "secrets" else "/"
    for index, item in enumerate(as_list(service.get(kind))):
        name = item if isinstance(item, str) else dig(item, "source")
        target = dig(item, "target")
        if not isinstance(name, str) or name not in declared:
            continue
        target = posixpath.join(folder, target if isinstance(target, str) else name)
        file = dig(declared[name], "file")
        path = posixpath.normpath(file) if isinstance(file, str) else f"{kind[:-1]}:{name}"
        yield Mount(posixpath.normpath(target), path, folder=False, keys=(kind, index))


def _scalar(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else None
