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
from functools import cached_property
from typing import Any, Literal

from pgcat_stack.build.compose import env_files
from pgcat_stack.build.manifests import Manifest, pod_containers
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, as_text, dig, text_mapping
from pgcat_stack.files.quantities import is_int
from pgcat_stack.files.sources import Source
from pgcat_stack.files.variables import interpolated
from pgcat_stack.findings import Location
from pgcat_stack.permify.callers import KEYS_VARIABLE, is_keys_file
from pgcat_stack.reading.deployment import Deployment

Program = Literal["pgcat", "permify", "migrate", ""]
POD_MAKERS = frozenset(
    {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "Pod"}
)

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

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The pod specification."""
        return as_mapping(self.manifest.get(*self.path))

    @cached_property
    def volumes(self) -> list[Any]:
        """The volumes of the pods."""
        return as_list(self.spec.get("volumes"))

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
    def inherits(self) -> bool:
        """Whether it has variables that its own list does not show."""
        others = any(not is_keys_file(path) for _, path in env_files(self.data))
        return others or any(self.data.get(key) for key in ("envFrom", "extends"))

    @property
    def text(self) -> str:
        """How messages name it."""
        if self.pod is None:
            return f"service {self.name}"
        return f"container {self.name} of {self.pod.manifest.kind} {self.pod.manifest.name}"

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


# Programs


def _program(name: str, image: object, words: tuple[str, ...]) -> Program:
    """Which of our programs: by the image's name, else by the container's."""
    known = image_name(image)
    known = known if known in ("pgcat", "permify") else name
    text = " ".join(words)
    if _CLIENT.search(text) and not _BECOMES_PGCAT.search(text):  # PgCat's image has both
        return ""
    # Elsewhere in a command it may be a host: `--host=pgcat`.
    if known == "pgcat" or posixpath.basename(words[0] if words else "") == "pgcat":
        return "pgcat"
    if "migrate" in words and (known in ("permify", "migrate") or "permify" in words):
        return "migrate"
    return "permify" if known == "permify" else ""


def image_name(image: object) -> str:
    """The last part of an image's name, without tag and digest: `pgcat` of `ghcr.io/x/pgcat:v1`."""
    if not isinstance(image, str):
        return ""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


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
            yield Container(
                name=name,
                program=_program(name, entry.get("image"), words),
                data=entry,
                source=manifest.source,
                document=manifest.document,
                base=path,
                pod=pod,
                words=words,
                variables=tuple(kubernetes_variables(entry.get("env"), ("env",))),
                mounts=tuple(_pod_mounts(pod, entry, generated)),
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
            value = _scalar(dig(item, "value"))
            shown = value if value or "valueFrom" in item else ""
            yield Variable(name, value, secret, (*base, index), _shown(item, shown))


def _pod_mounts(
    pod: Pod, entry: Mapping[str, Any], generated: Mapping[str, Mapping[str, str]]
) -> Iterator[Mount]:
    volumes = {dig(volume, "name"): volume for volume in pod.volumes if isinstance(dig(volume, "name"), str)}
    for index, mount in enumerate(as_list(entry.get("volumeMounts"))):
        target, name = dig(mount, "mountPath"), dig(mount, "name")
        if not isinstance(target, str) or not isinstance(name, str) or name not in volumes:
            continue
        target, keys = posixpath.normpath(target), ("volumeMounts", index)
        sub_path = as_text(dig(mount, "subPath"))
        entries = list(_volume_entries(volumes[name], generated))
        if not entries:
            yield Mount(target, "", folder=True, keys=keys)
        for path, origin in entries:
            if sub_path and path == sub_path:
                yield Mount(target, origin, folder=False, keys=keys)
            elif not sub_path:
                yield Mount(
                    posixpath.normpath(posixpath.join(target, path)), origin, folder=not path, keys=keys
                )


def _volume_entries(volume: Any, generated: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """(path in the volume, origin) of each file; the path is empty where all keys are there, unnamed."""
    sources = [("configMap", as_mapping(dig(volume, "configMap")), "name")]
    sources.append(("secret", as_mapping(dig(volume, "secret")), "secretName"))
    for source in as_list(dig(volume, "projected", "sources")):
        for kind in ("configMap", "secret"):
            sources.append((kind, as_mapping(dig(source, kind)), "name"))
    for kind, source, field_name in sources:
        name = source.get(field_name)
        if not isinstance(name, str):
            continue
        files = generated.get(name, {}) if kind == "configMap" else {}
        items = source.get("items")
        if isinstance(items, list):
            for item in items:
                key, path = dig(item, "key"), dig(item, "path")
                if isinstance(key, str) and isinstance(path, str):
                    yield path, files.get(key, f"{kind.lower()}:{name}/{key}")
        elif files:
            yield from files.items()
        else:
            yield "", f"{kind.lower()}:{name}"


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
        words = words_of(service.get("entrypoint")) + words_of(service.get("command"))
        yield Container(
            name=str(name),
            program=_program(str(name), service.get("image"), words),
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
            yield Variable(KEYS_VARIABLE, None, None, keys, None)


def _compose_variables(value: object) -> Iterator[Variable]:
    if isinstance(value, dict):
        for name, literal in value.items():
            text = interpolated(_scalar(literal))
            yield Variable(str(name), text, None, ("environment", name), _shown(literal, text))
    for index, item in enumerate(as_list(value)):
        if isinstance(item, str):
            name, equals, literal = item.partition("=")
            text = interpolated(literal) if equals else None
            yield Variable(name, text, None, ("environment", index), _shown(item, text))


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
