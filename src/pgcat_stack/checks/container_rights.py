"""PS81x: what the stack's own containers may do, on Kubernetes and in Compose.

The rules are the "restricted" Pod Security Standard, and a read-only root on top of it.
https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.findings import Problem
from pgcat_stack.reading.reading import Reading


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
        root = container.rights.root
        if root.value and container.pod is None:
            yield Problem(root.location, f"{container.text} runs as root", 'set user: "65532:65532"')
        elif root.value:
            yield Problem(root.location, f"{container.text} runs as user 0", "set runAsUser: 65532")
        elif container.rights.may_be_root:
            yield Problem(root.location, f"{container.text} may run as root", "set runAsNonRoot: true")


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
        gains, text = container.rights.gains_privileges, f"{container.text} may gain privileges"
        if gains.value and container.pod is None:
            yield Problem(gains.location, text, 'set security_opt: ["no-new-privileges:true"]')
        elif gains.value:
            yield Problem(gains.location, text, "set allowPrivilegeEscalation: false")


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
        root = container.rights.writable_root
        if root.value:
            fix = "set read_only: true" if container.pod is None else "set readOnlyRootFilesystem: true"
            yield Problem(root.location, f"{container.text} has a writable root", fix)


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
        rights = container.rights
        if not rights.drops_all:
            key = "cap_drop" if container.pod is None else "capabilities.drop"
            yield Problem(rights.capabilities, f"{container.text} keeps capabilities", f"set {key}: [ALL]")
        if rights.added:
            text = f"{container.text} adds the capabilities {', '.join(rights.added)}"
            yield Problem(rights.capabilities, text, "add none")


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
        rights = container.rights
        if rights.privileged.value:
            yield Problem(rights.privileged.location, f"{container.text} is privileged", "remove it")
        for port in rights.host_ports:
            text = f"{container.text} takes port {port.value} of the node"
            yield Problem(port.location, text, "use a Service")
        for key in rights.namespaces:
            yield Problem(key.location, f"{container.text} sets {key.value}: host", "remove it")
        if rights.devices:
            yield Problem(rights.devices, f"{container.text} has devices of the host", "remove them")
        for volume in container.volumes if container.pod is None else ():
            source = volume.source
            if source == "/" or source.endswith("docker.sock") or source.startswith(("/proc", "/sys")):
                yield Problem(volume.location, f"{container.text} mounts {source} of the host", "remove it")
    for pod in reading.own_pods:
        for key in pod.host_namespaces:
            yield Problem(key.location, f"{pod.text} sets {key.value}", "remove it")
        for mounted in pod.volumes:
            if mounted.on_node:
                text = f"{pod.text} mounts a path of the node"
                yield Problem(mounted.location, text, "use another volume")


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
        unconfined, text = container.rights.unconfined, f"{container.text} has no seccomp profile"
        if unconfined.value and container.pod is None:
            yield Problem(unconfined.location, text, "remove the option")
        elif unconfined.value:
            yield Problem(unconfined.location, text, "set seccompProfile.type: RuntimeDefault for the pod")


@check(
    code="PS817",
    name="service-account-token",
    severity="warning",
    why="A pod that does not talk to the Kubernetes API should not carry a token for it.",
    fix="Set automountServiceAccountToken: false for the pod.",
)
def service_account_token(reading: Reading) -> Iterator[Problem]:
    """Pods that mount a token of their service account."""
    for pod in reading.own_pods:
        # One chosen on purpose: Permify's resolver of distributed mode asks the API.
        if pod.mounts_token and pod.service_account is None:
            text = f"{pod.text} mounts a token for the Kubernetes API"
            yield Problem(pod.at(), text, "set automountServiceAccountToken: false")


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
    for pod in reading.own_pods:
        if pod.has_service_links and pod in inside:
            text = f"{pod.text} gets variables for every Service, PERMIFY_… among them"
            yield Problem(pod.at(), text, "set enableServiceLinks: false")


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
            limited = any(limit.bytes != 0 for limit in container.memory_limits)  # 0 is none
            if container.name not in ending and not container.extends and not limited:
                yield Problem(container.at("mem_limit"), text, "set mem_limit, such as 512m")
        elif not container.is_patch and not container.memory_limits:
            yield Problem(container.at("resources"), text, "set resources.limits.memory")


_LEAST_BYTES = 6 * 1024**2
"""Docker makes no container with a lower limit (`minimum memory limit allowed is 6MB`)."""


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
        limits = [(limit, limit.bytes) for limit in container.memory_limits if limit.bytes is not None]
        if len({size for _, size in limits}) > 1:
            text = f"{container.text} has two memory limits that differ: Compose refuses the project"
            fix = "remove mem_limit or deploy.resources.limits.memory"
            yield Problem(limits[1][0].location, text, fix)
        for limit, size in limits:
            if 0 < size < _LEAST_BYTES:
                text = f"Docker refuses the memory limit of {container.text}"
                yield Problem(limit.location, text, "at least 6m")
