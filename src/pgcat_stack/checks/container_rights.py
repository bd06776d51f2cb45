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
    Pod,
    Unit,
    volume_ends,
)
from pgcat_stack.reading.reading import Reading


def _effective(unit: Unit, *keys: Key) -> Any:
    """A setting of a container's securityContext, or of its pod's."""
    own = dig(unit.data, "securityContext", *keys)
    if own is None and unit.pod is not None:
        return dig(unit.pod.spec, "securityContext", *keys)
    return own


@check(
    code="PS811",
    name="runs-as-root",
    severity="error",
    why="Root in a container is one kernel flaw away from root on the node. Neither PgCat nor"
    " Permify needs it.",
    mend="Kubernetes: runAsNonRoot: true and a runAsUser above 0. Compose: user: a number above 0.",
)
def runs_as_root(deployment: Reading) -> Iterator[Problem]:
    """Containers that may run as root."""
    for unit in deployment.own_containers:
        if unit.pod is None:
            user = unit.data.get("user")
            text = (interpolated(str(user)) if user is not None else "") or ""
            name = text.partition(":")[0]
            root = name in ("root", "") or re.fullmatch(r"0+", name)
            if root and "$" not in str(user):
                yield Problem(unit.at("user"), f"{unit.text} runs as root", 'set user: "65532:65532"')
        elif _effective(unit, "runAsUser") == 0:
            yield Problem(unit.at("securityContext"), f"{unit.text} runs as user 0", "set runAsUser: 65532")
        elif _effective(unit, "runAsNonRoot") is not True:
            yield Problem(
                unit.at("securityContext"), f"{unit.text} may run as root", "set runAsNonRoot: true"
            )


@check(
    code="PS812",
    name="privilege-escalation",
    severity="error",
    why="Programs with the setuid bit could gain more rights than the container was started with.",
    mend="Kubernetes: allowPrivilegeEscalation: false. Compose: security_opt: [no-new-privileges:true].",
)
def privilege_escalation(deployment: Reading) -> Iterator[Problem]:
    """Containers that may gain rights."""
    for unit in deployment.own_containers:
        if unit.pod is None:
            options = {
                str(item).replace("=", ":").replace(" ", "")
                for item in as_list(unit.data.get("security_opt"))
            }
            if not options & {"no-new-privileges", "no-new-privileges:true"}:
                text = f"{unit.text} may gain privileges"
                yield Problem(unit.at("security_opt"), text, 'set security_opt: ["no-new-privileges:true"]')
        elif dig(unit.data, "securityContext", "allowPrivilegeEscalation") is not False:
            text = f"{unit.text} may gain privileges"
            yield Problem(unit.at("securityContext"), text, "set allowPrivilegeEscalation: false")


def _read_only(unit: Unit) -> bool:
    """Whether Compose makes the root filesystem read-only, or only the environment tells."""
    value = unit.data.get("read_only")
    return value is not None and filled_in(value) in (True, None)


@check(
    code="PS813",
    name="writable-root",
    severity="error",
    why="On a writable root filesystem an intruder can replace programs; both programs run on a"
    " read-only one.",
    mend="Kubernetes: readOnlyRootFilesystem: true. Compose: read_only: true.",
)
def writable_root(deployment: Reading) -> Iterator[Problem]:
    """Containers whose root filesystem can be written."""
    for unit in deployment.own_containers:
        if unit.pod is None and not _read_only(unit):
            yield Problem(unit.at("read_only"), f"{unit.text} has a writable root", "set read_only: true")
        elif unit.pod and dig(unit.data, "securityContext", "readOnlyRootFilesystem") is not True:
            fix = "set readOnlyRootFilesystem: true"
            yield Problem(unit.at("securityContext"), f"{unit.text} has a writable root", fix)


@check(
    code="PS814",
    name="capabilities",
    severity="error",
    why="Neither program needs a single capability of the kernel.",
    mend="Kubernetes: capabilities.drop: [ALL] and nothing added. Compose: cap_drop: [ALL] and no cap_add.",
)
def capabilities(deployment: Reading) -> Iterator[Problem]:
    """Containers that keep or add capabilities."""
    for unit in deployment.own_containers:
        if unit.pod is None:
            drop, add, keys = unit.data.get("cap_drop"), unit.data.get("cap_add"), ("cap_drop",)
            fix = "set cap_drop: [ALL]"
        else:
            held = as_mapping(dig(unit.data, "securityContext", "capabilities"))
            drop, add, keys = held.get("drop"), held.get("add"), ("securityContext",)
            fix = "set capabilities.drop: [ALL]"
        if "ALL" not in {str(item).upper() for item in as_list(drop)}:
            yield Problem(unit.at(*keys), f"{unit.text} keeps capabilities", fix)
        added = [str(item) for item in as_list(add) if str(item).upper() != "NET_BIND_SERVICE"]
        if added:
            yield Problem(unit.at(*keys), f"{unit.text} adds the capabilities {', '.join(added)}", "add none")


@check(
    code="PS815",
    name="host-access",
    severity="error",
    why="Privileged containers and those in the host's namespaces or on its files are not contained.",
    mend="Leave them out; nothing in the stack needs the host.",
)
def host_access(deployment: Reading) -> Iterator[Problem]:
    """privileged, host namespaces, host paths, the Docker socket."""
    for unit in deployment.own_containers:
        if unit.pod is None:
            yield from _compose_host_access(unit)
        elif dig(unit.data, "securityContext", "privileged") is True:
            yield Problem(unit.at("securityContext", "privileged"), f"{unit.text} is privileged", "remove it")
        for index, port in enumerate(as_list(unit.data.get("ports")) if unit.pod else []):
            if dig(port, "hostPort"):
                text = f"{unit.text} takes port {dig(port, 'hostPort')} of the node"
                yield Problem(unit.at("ports", index, "hostPort"), text, "use a Service")
    for pod in deployment.own_pods:
        manifest, base = pod.manifest, pod.path
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(key) is True:
                yield Problem(manifest.at(*base, key), f"{pod.text} sets {key}", "remove it")
        for index, volume in enumerate(pod.volumes):
            if dig(volume, "hostPath") is not None:
                place = manifest.at(*base, "volumes", index)
                yield Problem(place, f"{pod.text} mounts a path of the node", "use another volume")


def _compose_host_access(unit: Unit) -> Iterator[Problem]:
    if unit.data.get("privileged") is True:
        yield Problem(unit.at("privileged"), f"{unit.text} is privileged", "remove it")
    for key in ("network_mode", "pid", "ipc", "userns_mode", "uts", "cgroup"):
        if unit.data.get(key) == "host":
            yield Problem(unit.at(key), f"{unit.text} sets {key}: host", "remove it")
    if as_list(unit.data.get("devices")):
        yield Problem(unit.at("devices"), f"{unit.text} has devices of the host", "remove them")
    for index, volume in enumerate(as_list(unit.data.get("volumes"))):
        source = volume_ends(volume)[0]
        if source == "/" or source.endswith("docker.sock") or source.startswith(("/proc", "/sys")):
            yield Problem(unit.at("volumes", index), f"{unit.text} mounts {source} of the host", "remove it")


@check(
    code="PS816",
    name="seccomp",
    severity="error",
    why="Without a seccomp profile every system call of the kernel is open, and a namespace"
    " that enforces the restricted"
    " standard refuses the pod.",
    mend="seccompProfile: {type: RuntimeDefault} for the pod.",
)
def seccomp(deployment: Reading) -> Iterator[Problem]:
    """Containers without the runtime's seccomp profile."""
    for unit in deployment.own_containers:
        if unit.pod is None:
            if any(
                "seccomp" in str(item) and "unconfined" in str(item)
                for item in as_list(unit.data.get("security_opt"))
            ):
                yield Problem(
                    unit.at("security_opt"), f"{unit.text} has no seccomp profile", "remove the option"
                )
        elif _effective(unit, "seccompProfile", "type") not in ("RuntimeDefault", "Localhost"):
            text = f"{unit.text} has no seccomp profile"
            yield Problem(
                unit.at("securityContext"), text, "set seccompProfile.type: RuntimeDefault for the pod"
            )


def _pod_flag(deployment: Reading, key: str) -> Iterator[Pod]:
    return (pod for pod in deployment.own_pods if pod.spec.get(key) is not False)


@check(
    code="PS817",
    name="service-account-token",
    severity="warning",
    why="A pod that does not talk to the Kubernetes API should not carry a token for it.",
    mend="Set automountServiceAccountToken: false for the pod.",
)
def service_account_token(deployment: Reading) -> Iterator[Problem]:
    """Pods that mount a token of their service account."""
    for pod in _pod_flag(deployment, "automountServiceAccountToken"):
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
    mend="Set enableServiceLinks: false for the pod.",
)
def service_links(deployment: Reading) -> Iterator[Problem]:
    """Pods with Permify that get variables for Services."""
    inside = [unit.pod for unit in (*deployment.running("permify"), *deployment.running("migrate"))]
    for pod in _pod_flag(deployment, "enableServiceLinks"):
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
    mend="Kubernetes: set resources.limits.memory. Compose: set mem_limit or deploy.resources.limits.memory.",
)
def memory_limit(deployment: Reading) -> Iterator[Problem]:
    """Containers of pods, and services that stay, without a memory limit."""
    ending = deployment.ending_services
    for unit in deployment.own_containers:
        text = f"{unit.text} has no memory limit"
        if unit.pod is None:
            limited = any(size_bytes(value) != 0 for _, value in _compose_limits(unit))  # 0 is none
            if unit.name not in ending and "extends" not in unit.data and not limited:
                yield Problem(unit.at("mem_limit"), text, "set mem_limit, such as 512m")
            continue
        completed = unit.pod.manifest.partial and "image" not in unit.data
        if not completed and not dig(unit.data, "resources", "limits", "memory"):
            yield Problem(unit.at("resources"), text, "set resources.limits.memory")


_LEAST_BYTES = 6 * 1024**2
"""Docker makes no container with a lower limit (`minimum memory limit allowed is 6MB`)."""


def _compose_limits(unit: Unit) -> list[tuple[tuple[Key, ...], object]]:
    """The memory limits that a Compose service sets, in two places; None where only the environment knows."""
    places: tuple[tuple[Key, ...], ...] = (("mem_limit",), ("deploy", "resources", "limits", "memory"))
    found = [(keys, dig(unit.data, *keys)) for keys in places]
    return [(keys, filled_in(value)) for keys, value in found if value is not None]


@check(
    code="PS828",
    name="memory-limit-refused",
    severity="error",
    why="Compose refuses a project in which mem_limit and deploy.resources.limits.memory of a service differ."
    " Docker refuses a limit below 6 MB.",
    mend="Set one of the two, to at least 6m.",
)
def memory_limit_refused(deployment: Reading) -> Iterator[Problem]:
    """Memory limits with which a service does not start."""
    for unit in deployment.own_containers:
        if unit.pod is not None:
            continue
        limits = [
            (keys, size) for keys, value in _compose_limits(unit) if (size := size_bytes(value)) is not None
        ]
        if len({size for _, size in limits}) > 1:
            text = f"{unit.text} has two memory limits that differ: Compose refuses the project"
            yield Problem(unit.at(*limits[1][0]), text, "remove mem_limit or deploy.resources.limits.memory")
        for keys, size in limits:
            if 0 < size < _LEAST_BYTES:
                yield Problem(
                    unit.at(*keys), f"Docker refuses the memory limit of {unit.text}", "at least 6m"
                )
