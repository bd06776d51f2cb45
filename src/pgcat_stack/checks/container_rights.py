"""PS81x: what the stack's own containers may do, on Kubernetes and in Compose.

The rules are the "restricted" Pod Security Standard, and a read-only root on top of it.
https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.quantities import size_bytes
from pgcat_stack.files.variables import filled_in, interpolated
from pgcat_stack.findings import Problem
from pgcat_stack.reading.containers import (
    Container,
    Pod,
    volume_ends,
)
from pgcat_stack.reading.reading import Reading


def _effective(container: Container, *keys: Key) -> Any:
    """A setting of a container's securityContext, or of its pod's."""
    own = dig(container.data, "securityContext", *keys)
    if own is None and container.pod is not None:
        return dig(container.pod.spec, "securityContext", *keys)
    return own


@check(
    code="PS811",
    name="runs-as-root",
    severity="error",
    why="Root in a container is one kernel flaw away from root on the node. Neither PgCat nor"
    " Permify needs it.",
    fix="Kubernetes: runAsNonRoot: true and a runAsUser above 0. Compose: user: a number above 0.",
)
def runs_as_root(reading: Reading) -> Iterator[Problem]:
    """Containers that may run as root."""
    for container in reading.own_containers:
        if container.pod is None:
            user = container.data.get("user")
            text = (interpolated(str(user)) if user is not None else "") or ""
            name = text.partition(":")[0]
            root = name in ("root", "") or re.fullmatch(r"0+", name)
            if root and "$" not in str(user):
                yield Problem(
                    container.at("user"), f"{container.text} runs as root", 'set user: "65532:65532"'
                )
        elif _effective(container, "runAsUser") == 0:
            yield Problem(
                container.at("securityContext"), f"{container.text} runs as user 0", "set runAsUser: 65532"
            )
        elif _effective(container, "runAsNonRoot") is not True:
            yield Problem(
                container.at("securityContext"), f"{container.text} may run as root", "set runAsNonRoot: true"
            )


@check(
    code="PS812",
    name="privilege-escalation",
    severity="error",
    why="Programs with the setuid bit could gain more rights than the container was started with.",
    fix="Kubernetes: allowPrivilegeEscalation: false. Compose: security_opt: [no-new-privileges:true].",
)
def privilege_escalation(reading: Reading) -> Iterator[Problem]:
    """Containers that may gain rights."""
    for container in reading.own_containers:
        if container.pod is None:
            options = {
                str(item).replace("=", ":").replace(" ", "")
                for item in as_list(container.data.get("security_opt"))
            }
            if not options & {"no-new-privileges", "no-new-privileges:true"}:
                text = f"{container.text} may gain privileges"
                yield Problem(
                    container.at("security_opt"), text, 'set security_opt: ["no-new-privileges:true"]'
                )
        elif dig(container.data, "securityContext", "allowPrivilegeEscalation") is not False:
            text = f"{container.text} may gain privileges"
            yield Problem(container.at("securityContext"), text, "set allowPrivilegeEscalation: false")


def _read_only(container: Container) -> bool:
    """Whether Compose makes the root filesystem read-only, or only the environment tells."""
    value = container.data.get("read_only")
    return value is not None and filled_in(value) in (True, None)


@check(
    code="PS813",
    name="writable-root",
    severity="error",
    why="On a writable root filesystem an intruder can replace programs; both programs run on a"
    " read-only one.",
    fix="Kubernetes: readOnlyRootFilesystem: true. Compose: read_only: true.",
)
def writable_root(reading: Reading) -> Iterator[Problem]:
    """Containers whose root filesystem can be written."""
    for container in reading.own_containers:
        if container.pod is None and not _read_only(container):
            yield Problem(
                container.at("read_only"), f"{container.text} has a writable root", "set read_only: true"
            )
        elif container.pod and dig(container.data, "securityContext", "readOnlyRootFilesystem") is not True:
            fix = "set readOnlyRootFilesystem: true"
            yield Problem(container.at("securityContext"), f"{container.text} has a writable root", fix)


@check(
    code="PS814",
    name="capabilities",
    severity="error",
    why="Neither program needs a single capability of the kernel.",
    fix="Kubernetes: capabilities.drop: [ALL] and nothing added. Compose: cap_drop: [ALL] and no cap_add.",
)
def capabilities(reading: Reading) -> Iterator[Problem]:
    """Containers that keep or add capabilities."""
    for container in reading.own_containers:
        if container.pod is None:
            drop, add, keys = container.data.get("cap_drop"), container.data.get("cap_add"), ("cap_drop",)
            fix = "set cap_drop: [ALL]"
        else:
            held = as_mapping(dig(container.data, "securityContext", "capabilities"))
            drop, add, keys = held.get("drop"), held.get("add"), ("securityContext",)
            fix = "set capabilities.drop: [ALL]"
        if "ALL" not in {str(item).upper() for item in as_list(drop)}:
            yield Problem(container.at(*keys), f"{container.text} keeps capabilities", fix)
        added = [str(item) for item in as_list(add) if str(item).upper() != "NET_BIND_SERVICE"]
        if added:
            yield Problem(
                container.at(*keys), f"{container.text} adds the capabilities {', '.join(added)}", "add none"
            )


@check(
    code="PS815",
    name="host-access",
    severity="error",
    why="Privileged containers and those in the host's namespaces or on its files are not contained.",
    fix="Leave them out; nothing in the stack needs the host.",
)
def host_access(reading: Reading) -> Iterator[Problem]:
    """privileged, host namespaces, host paths, the Docker socket."""
    for container in reading.own_containers:
        if container.pod is None:
            yield from _compose_host_access(container)
        elif dig(container.data, "securityContext", "privileged") is True:
            yield Problem(
                container.at("securityContext", "privileged"), f"{container.text} is privileged", "remove it"
            )
        for index, port in enumerate(as_list(container.data.get("ports")) if container.pod else []):
            if dig(port, "hostPort"):
                text = f"{container.text} takes port {dig(port, 'hostPort')} of the node"
                yield Problem(container.at("ports", index, "hostPort"), text, "use a Service")
    for pod in reading.own_pods:
        manifest, base = pod.manifest, pod.path
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(key) is True:
                yield Problem(manifest.at(*base, key), f"{pod.text} sets {key}", "remove it")
        for index, volume in enumerate(pod.volumes):
            if dig(volume, "hostPath") is not None:
                place = manifest.at(*base, "volumes", index)
                yield Problem(place, f"{pod.text} mounts a path of the node", "use another volume")


def _compose_host_access(container: Container) -> Iterator[Problem]:
    if container.data.get("privileged") is True:
        yield Problem(container.at("privileged"), f"{container.text} is privileged", "remove it")
    for key in ("network_mode", "pid", "ipc", "userns_mode", "uts", "cgroup"):
        if container.data.get(key) == "host":
            yield Problem(container.at(key), f"{container.text} sets {key}: host", "remove it")
    if as_list(container.data.get("devices")):
        yield Problem(container.at("devices"), f"{container.text} has devices of the host", "remove them")
    for index, volume in enumerate(as_list(container.data.get("volumes"))):
        source = volume_ends(volume)[0]
        if source == "/" or source.endswith("docker.sock") or source.startswith(("/proc", "/sys")):
            yield Problem(
                container.at("volumes", index), f"{container.text} mounts {source} of the host", "remove it"
            )


@check(
    code="PS816",
    name="seccomp",
    severity="error",
    why="Without a seccomp profile every system call of the kernel is open, and a namespace"
    " that enforces the restricted"
    " standard refuses the pod.",
    fix="seccompProfile: {type: RuntimeDefault} for the pod.",
)
def seccomp(reading: Reading) -> Iterator[Problem]:
    """Containers without the runtime's seccomp profile."""
    for container in reading.own_containers:
        if container.pod is None:
            if any(
                "seccomp" in str(item) and "unconfined" in str(item)
                for item in as_list(container.data.get("security_opt"))
            ):
                yield Problem(
                    container.at("security_opt"),
                    f"{container.text} has no seccomp profile",
                    "remove the option",
                )
        elif _effective(container, "seccompProfile", "type") not in ("RuntimeDefault", "Localhost"):
            text = f"{container.text} has no seccomp profile"
            yield Problem(
                container.at("securityContext"), text, "set seccompProfile.type: RuntimeDefault for the pod"
            )


def _pod_flag(reading: Reading, key: str) -> Iterator[Pod]:
    return (pod for pod in reading.own_pods if pod.spec.get(key) is not False)


@check(
    code="PS817",
    name="service-account-token",
    severity="warning",
    why="A pod that does not talk to the Kubernetes API should not carry a token for it.",
    fix="Set automountServiceAccountToken: false for the pod.",
)
def service_account_token(reading: Reading) -> Iterator[Problem]:
    """Pods that mount a token of their service account."""
    for pod in _pod_flag(reading, "automountServiceAccountToken"):
        name = pod.spec.get("serviceAccountName")
        if isinstance(name, str) and name != "default":
            continue  # chosen on purpose: Permify's resolver of distributed mode asks the API
        place = pod.manifest.at(*pod.path)
        text = f"{pod.text} mounts a token for the Kubernetes API"
        yield Problem(place, text, "set automountServiceAccountToken: false")


@check(
    code="PS818",
    name="service-links",
    severity="error",
    why="For each Service Kubernetes sets variables; one named `permify-grpc` gives"
    " PERMIFY_GRPC_PORT=tcp://…, which"
    " Permify takes for its own setting and does not start.",
    fix="Set enableServiceLinks: false for the pod.",
)
def service_links(reading: Reading) -> Iterator[Problem]:
    """Pods with Permify that get variables for Services."""
    inside = [container.pod for container in (*reading.running("permify"), *reading.running("migrate"))]
    for pod in _pod_flag(reading, "enableServiceLinks"):
        if pod in inside:
            place = pod.manifest.at(*pod.path)
            text = f"{pod.text} gets variables for every Service, PERMIFY_… among them"
            yield Problem(place, text, "set enableServiceLinks: false")


@check(
    code="PS819",
    name="memory-limit",
    severity="warning",
    why="Without a limit one leaking container takes the memory of its neighbours on the same machine."
    " PgCat allocates what a client announces before it has logged in; with a limit that is a restart.",
    fix="Kubernetes: set resources.limits.memory. Compose: set mem_limit or deploy.resources.limits.memory.",
)
def memory_limit(reading: Reading) -> Iterator[Problem]:
    """Containers of pods, and services that stay, without a memory limit."""
    ending = reading.ending_services
    for container in reading.own_containers:
        text = f"{container.text} has no memory limit"
        if container.pod is None:
            limited = any(size_bytes(value) != 0 for _, value in _compose_limits(container))  # 0 is none
            if container.name not in ending and "extends" not in container.data and not limited:
                yield Problem(container.at("mem_limit"), text, "set mem_limit, such as 512m")
            continue
        completed = container.pod.manifest.partial and "image" not in container.data
        if not completed and not dig(container.data, "resources", "limits", "memory"):
            yield Problem(container.at("resources"), text, "set resources.limits.memory")


_LEAST_BYTES = 6 * 1024**2
"""Docker makes no container with a lower limit (`minimum memory limit allowed is 6MB`)."""


def _compose_limits(container: Container) -> list[tuple[tuple[Key, ...], object]]:
    """The memory limits that a Compose service sets, in two places; None where only the environment knows."""
    places: tuple[tuple[Key, ...], ...] = (("mem_limit",), ("deploy", "resources", "limits", "memory"))
    found = [(keys, dig(container.data, *keys)) for keys in places]
    return [(keys, filled_in(value)) for keys, value in found if value is not None]


@check(
    code="PS828",
    name="memory-limit-refused",
    severity="error",
    why="Compose refuses a project in which mem_limit and deploy.resources.limits.memory of a service differ."
    " Docker refuses a limit below 6 MB.",
    fix="Set one of the two, to at least 6m.",
)
def memory_limit_refused(reading: Reading) -> Iterator[Problem]:
    """Memory limits with which a service does not start."""
    for container in reading.own_containers:
        if container.pod is not None:
            continue
        limits = [
            (keys, size)
            for keys, value in _compose_limits(container)
            if (size := size_bytes(value)) is not None
        ]
        if len({size for _, size in limits}) > 1:
            text = f"{container.text} has two memory limits that differ: Compose refuses the project"
            yield Problem(
                container.at(*limits[1][0]), text, "remove mem_limit or deploy.resources.limits.memory"
            )
        for keys, size in limits:
            if 0 < size < _LEAST_BYTES:
                yield Problem(
                    container.at(*keys), f"Docker refuses the memory limit of {container.text}", "at least 6m"
                )
