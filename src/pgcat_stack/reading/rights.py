"""What a container may do: its user, its capabilities, and what it has of the host.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
https://docs.docker.com/reference/compose-file/services/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgcat_stack.files.gaps import At
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.quantities import Flag, Text
from pgcat_stack.files.variables import filled_in, interpolated
from pgcat_stack.findings import Location

_POD_NAMESPACES = ("hostNetwork", "hostPID", "hostIPC")
_SERVICE_NAMESPACES = ("network_mode", "pid", "ipc", "userns_mode", "uts", "cgroup")
_PROFILES = ("RuntimeDefault", "Localhost")


@dataclass(frozen=True, slots=True)
class Rights:
    """What a container may do. On Kubernetes its own securityContext counts, then that of its pod."""

    root: Flag
    """Whether it runs as root. A service without a user does; a variable that is not known does not."""
    may_be_root: bool
    """Whether Kubernetes lets the image choose root."""
    gains_privileges: Flag
    writable_root: Flag
    read_only: bool
    """Whether the file itself, without variables, makes the root filesystem read-only."""
    drops_all: bool
    """Whether it drops all capabilities."""
    added: tuple[str, ...]
    """The capabilities that it adds."""
    capabilities: Location
    privileged: Flag
    unconfined: Flag
    """Whether it runs without a seccomp profile."""
    namespaces: tuple[Text, ...] = ()
    """The keys by which a service joins namespaces of the host; those of a pod are in `Pod`."""
    devices: Location | None = None
    """Where a service takes devices of the host."""
    host_ports: tuple[Text, ...] = ()
    """The ports of the node that a container of a pod takes."""


def pod_rights(data: Mapping[str, Any], at: At, pod: Mapping[str, Any]) -> Rights:
    """The rights of a container of a pod, whose specification is `pod`."""
    place, held = at("securityContext"), as_mapping(dig(data, "securityContext", "capabilities"))

    def own(key: str) -> Any:
        return dig(data, "securityContext", key)

    def effective(*keys: Key) -> Any:
        value = dig(data, "securityContext", *keys)
        return dig(pod, "securityContext", *keys) if value is None else value

    read_only = own("readOnlyRootFilesystem") is True
    return Rights(
        root=Flag(effective("runAsUser") == 0, place),
        may_be_root=effective("runAsNonRoot") is not True,
        gains_privileges=Flag(own("allowPrivilegeEscalation") is not False, place),
        writable_root=Flag(not read_only, place),
        read_only=read_only,
        drops_all=_drops_all(held.get("drop")),
        added=_added(held.get("add")),
        capabilities=place,
        privileged=Flag(own("privileged") is True, at("securityContext", "privileged")),
        unconfined=Flag(effective("seccompProfile", "type") not in _PROFILES, place),
        host_ports=tuple(
            Text(str(port["hostPort"]), at("ports", index, "hostPort"))
            for index, port in enumerate(as_list(data.get("ports")))
            if dig(port, "hostPort")
        ),
    )


def service_rights(data: Mapping[str, Any], at: At) -> Rights:
    """The rights of a Compose service."""
    options = [str(item) for item in as_list(data.get("security_opt"))]
    kept = {option.replace("=", ":").replace(" ", "") for option in options}
    written = data.get("read_only")
    # A variable without a default may make it read-only.
    read_only = written is not None and filled_in(written) in (True, None)
    return Rights(
        root=Flag(_service_runs_as_root(data.get("user")), at("user")),
        may_be_root=False,
        gains_privileges=Flag(not kept & {"no-new-privileges", "no-new-privileges:true"}, at("security_opt")),
        writable_root=Flag(not read_only, at("read_only")),
        read_only=written is True,
        drops_all=_drops_all(data.get("cap_drop")),
        added=_added(data.get("cap_add")),
        capabilities=at("cap_drop"),
        privileged=Flag(data.get("privileged") is True, at("privileged")),
        unconfined=Flag(
            any("seccomp" in option and "unconfined" in option for option in options), at("security_opt")
        ),
        namespaces=tuple(Text(key, at(key)) for key in _SERVICE_NAMESPACES if data.get(key) == "host"),
        devices=at("devices") if as_list(data.get("devices")) else None,
    )


def pod_namespaces(spec: Mapping[str, Any], at: At) -> tuple[Text, ...]:
    """The keys by which a pod joins namespaces of the node."""
    return tuple(Text(key, at(key)) for key in _POD_NAMESPACES if spec.get(key) is True)


def _service_runs_as_root(user: object) -> bool:
    written = "" if user is None else str(user)
    name = (interpolated(written) or "").partition(":")[0]
    return "$" not in written and bool(name in ("root", "") or re.fullmatch(r"0+", name))


def _drops_all(value: object) -> bool:
    return "ALL" in {str(item).upper() for item in as_list(value)}


def _added(value: object) -> tuple[str, ...]:
    """What is added, but for the one capability that the restricted standard allows."""
    return tuple(str(item) for item in as_list(value) if str(item).upper() != "NET_BIND_SERVICE")
