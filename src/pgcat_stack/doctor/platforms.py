"""What docker and Kubernetes say about the processes of a deployment, and how they are reached from here."""

from __future__ import annotations

import atexit
import base64
import contextlib
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgcat_stack.doctor.commands import end, json_of, output_of
from pgcat_stack.doctor.side_by_side import Failed
from pgcat_stack.files.plain_data import as_list, as_mapping, as_text, dig
from pgcat_stack.files.quantities import whole

LOOPBACK = "127.0.0.1"
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)")
_SERVICE = "com.docker.compose.service"


@dataclass(frozen=True, slots=True)
class Place:
    """A host and port as seen from here."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Process:
    """A container as its platform sees it."""

    program: str
    """The Compose service, or the container's name in its pod."""
    name: str
    image: str
    trouble: str = ""
    """Why it does not serve, in the platform's words; empty where it is well."""
    going: bool = False
    """It is being stopped: part of a rollout, and no trouble."""
    restarts: int = 0
    restarted_seconds_ago: float | None = None
    places: Mapping[int, tuple[Place, ...]] = field(default_factory=dict)
    """Where each of its ports may be reached, the likeliest first."""


@dataclass(frozen=True, slots=True)
class FileLimit:
    """How many files process 1 of a container has open, and may have."""

    used: int
    soft: int | None
    """None where it is unlimited."""
    hard: int | None


FILE_LIMIT = ("sh", "-c", "cat /proc/1/limits && ls /proc/1/fd | wc -l")
"""What a container with a shell runs to tell."""
_FILES = re.compile(r"^Max open files +(\d+|unlimited) +(\d+|unlimited) +files", re.MULTILINE)


def file_limit(text: str) -> FileLimit:
    """What `FILE_LIMIT` prints. Raises ValueError for anything else."""
    found, last = _FILES.search(text), text.rstrip().rpartition("\n")[2].strip()
    if found is None or not last.isdecimal():
        raise ValueError(f"no limit of open files in {text.strip()[-80:]!r}")
    soft, hard = (None if each == "unlimited" else int(each) for each in found.groups())
    return FileLimit(int(last), soft, hard)


# Docker


def docker_file_limit(folder: Path, name: str, seconds: float) -> FileLimit:
    """The limit of open files of a container. Raises `Failed`, and ValueError for what is none."""
    return file_limit(output_of(["docker", "exec", name, *FILE_LIMIT], folder, seconds))


def docker_processes(folder: Path, ports: Iterable[int], seconds: float) -> list[Process]:
    """The containers of the Compose project in this folder. Raises `Failed` where docker does not answer."""
    ids = output_of(["docker", "compose", "ps", "--all", "--quiet"], folder, seconds).split()
    if not ids:
        return []
    found = as_list(json_of(["docker", "inspect", *ids], folder, seconds))
    return [_container(as_mapping(entry), tuple(ports)) for entry in found]


def _container(entry: dict[str, Any], ports: tuple[int, ...]) -> Process:
    state = as_mapping(entry.get("State"))
    networks = as_mapping(dig(entry, "NetworkSettings", "Networks"))
    addresses = [
        as_text(dig(network, "IPAddress")) or as_text(dig(network, "GlobalIPv6Address"))
        for network in networks.values()
    ]
    published = as_mapping(dig(entry, "NetworkSettings", "Ports"))
    places = {}
    for port in ports:
        bound = as_list(published.get(f"{port}/tcp"))
        mapped = [
            Place(
                host if (host := as_text(dig(one, "HostIp"))) not in ("", "0.0.0.0", "::") else LOOPBACK,
                number,
            )
            for one in bound
            if (number := _number(dig(one, "HostPort"))) is not None
        ]
        places[port] = (*(Place(address, port) for address in addresses if address), *mapped)
    status, health = as_text(state.get("Status")), as_text(dig(state, "Health", "Status"))
    code = whole(state.get("ExitCode"))
    trouble = ""
    if status == "exited" and code == 0 and dig(entry, "HostConfig", "RestartPolicy", "Name") in ("no", ""):
        status = "done"
    elif status != "running":
        trouble = f"is {status or 'unknown'}" + (f" with exit code {code}" if status == "exited" else "")
    elif health not in ("", "healthy", "starting"):
        trouble = f"is {health}"
    return Process(
        program=as_text(as_mapping(dig(entry, "Config", "Labels")).get(_SERVICE)),
        name=as_text(entry.get("Name")).lstrip("/"),
        image=as_text(dig(entry, "Config", "Image")),
        trouble=trouble,
        going=status == "done",
        restarts=whole(entry.get("RestartCount")) or 0,
        places=places,
    )


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isdigit() else None


# Kubernetes


@dataclass(frozen=True, slots=True)
class Cluster:
    """kubectl with its context and namespace. Every method raises `Failed` where kubectl does."""

    folder: Path
    seconds: float
    context: str = ""
    namespace: str = ""

    @property
    def command(self) -> list[str]:
        """The program and the options that choose where it looks."""
        command = ["kubectl"]
        if self.context:
            command.append(f"--context={self.context}")
        if self.namespace:
            command.append(f"--namespace={self.namespace}")
        return command

    def has_context(self) -> bool:
        """Whether kubectl knows a cluster to ask."""
        if self.context:
            return True
        try:
            return bool(
                output_of(["kubectl", "config", "current-context"], self.folder, self.seconds).strip()
            )
        except Failed:
            return False

    def secret(self, name: str, key: str) -> str:
        """The value of a Secret's key."""
        data = json_of([*self.command, "get", "secret", name, "--output=json"], self.folder, self.seconds)
        value = dig(data, "data", key)
        if not isinstance(value, str):
            raise Failed("failed", f"Secret {name} has no key {key}")
        try:
            return base64.b64decode(value).decode()
        except ValueError:
            raise Failed("failed", f"the key {key} of Secret {name} is no text") from None

    def value(self, kind: str, name: str, key: str) -> str:
        """The value of a key of a `secret` or `configmap`."""
        if kind == "secret":
            return self.secret(name, key)
        data = json_of([*self.command, "get", kind, name, "--output=json"], self.folder, self.seconds)
        value = dig(data, "data", key)
        if not isinstance(value, str):
            raise Failed("failed", f"{kind} {name} has no key {key}")
        return value

    def processes(self) -> list[Process]:
        """The containers named pgcat and permify of all pods in the namespace."""
        data = json_of([*self.command, "get", "pods", "--output=json"], self.folder, self.seconds)
        return [process for pod in as_list(dig(data, "items")) for process in _pod_processes(pod)]

    def file_limit(self, pod: str, container: str) -> FileLimit:
        """The limit of open files of a container with a shell. Also raises ValueError, for other text."""
        command = [*self.command, "exec", pod, f"--container={container}", "--", *FILE_LIMIT]
        return file_limit(output_of(command, self.folder, self.seconds))

    @contextlib.contextmanager
    def forwarded(self, pod: str, ports: Iterable[int]) -> Iterator[Mapping[int, tuple[Place, ...]]]:
        """Ports of a pod on free ports of this machine's loopback, for as long as the context lasts."""
        wanted = sorted(set(ports))
        command = [*self.command, "port-forward", "--address=127.0.0.1", f"pod/{pod}"]
        command += [f":{port}" for port in wanted]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        atexit.register(end, process)  # where an interruption comes between the two
        try:
            yield _forwarded_ports(process, len(wanted), self.seconds)
        finally:
            end(process)


def _forwarded_ports(
    process: subprocess.Popen[bytes], count: int, seconds: float
) -> Mapping[int, tuple[Place, ...]]:
    """Read what port-forward says until it has told of every port."""
    assert process.stdout is not None
    said = b""
    found: dict[int, tuple[Place, ...]] = {}
    deadline = time.monotonic() + seconds
    while len(found) < count:
        left = deadline - time.monotonic()
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, left))
        chunk = process.stdout.read1(4096) if ready else b""  # type: ignore[attr-defined]
        if not chunk:
            last = (said.decode(errors="replace").strip().splitlines() or ["nothing said"])[-1]
            raise Failed("failed", f"kubectl port-forward gave no port within {seconds:g} s: {last[:200]}")
        said += chunk
        for here, there in _FORWARDING.findall(said.decode(errors="replace")):
            found[int(there)] = (Place(LOOPBACK, int(here)),)
    return found


def _pod_processes(pod: Any) -> Iterator[Process]:
    statuses = {
        dig(status, "name"): as_mapping(status)
        for group in ("initContainerStatuses", "containerStatuses")
        for status in as_list(dig(pod, "status", group))
    }
    going = dig(pod, "metadata", "deletionTimestamp") is not None
    ended = dig(pod, "status", "phase") in ("Succeeded", "Failed")
    for group in ("initContainers", "containers"):
        for container in as_list(dig(pod, "spec", group)):
            name = as_text(dig(container, "name"))
            if name not in ("pgcat", "permify") or ended:
                continue
            status = statuses.get(name, {})
            yield Process(
                program=name,
                name=as_text(dig(pod, "metadata", "name")),
                image=as_text(dig(container, "image")),
                trouble="" if going else _pod_trouble(pod, status),
                going=going,
                restarts=whole(status.get("restartCount")) or 0,
                restarted_seconds_ago=_since(dig(status, "lastState", "terminated", "finishedAt")),
            )


def _pod_trouble(pod: Any, status: Mapping[str, Any]) -> str:
    if status.get("ready") is True:
        return ""
    waiting = dig(status, "state", "waiting", "reason")
    if isinstance(waiting, str):
        return f"waits: {waiting}"
    ended = as_mapping(dig(status, "state", "terminated"))
    if ended:
        return f"has ended: {as_text(ended.get('reason'))} with exit code {ended.get('exitCode')}"
    for condition in as_list(dig(pod, "status", "conditions")):
        if dig(condition, "type") == "PodScheduled" and dig(condition, "status") == "False":
            return f"is not scheduled: {as_text(dig(condition, 'message'))[:120]}"
    return "is not ready"


def _since(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    from datetime import UTC, datetime

    try:
        return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
    except ValueError:
        return None


Forward = Callable[[str, Iterable[int]], contextlib.AbstractContextManager[Mapping[int, tuple[Place, ...]]]]
