"""PS426: NetworkPolicies let through what the stack needs.

Policies add up: a pod that any policy selects for a direction may do there only what one of its rules allows.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pgcat_stack.checks import check
from pgcat_stack.checks._connections import direct_connections, migration_connections
from pgcat_stack.checks._ports import permify_ports
from pgcat_stack.checks._reach import reach
from pgcat_stack.checks._selectors import selects
from pgcat_stack.checks.agreement_monitoring import scraped
from pgcat_stack.containers import Pod, running
from pgcat_stack.deployment import Deployment
from pgcat_stack.endpoints import Address
from pgcat_stack.findings import Location, Problem
from pgcat_stack.kustomize import complete
from pgcat_stack.manifests import Manifest
from pgcat_stack.sources import as_list, as_mapping, dig, text_mapping
from pgcat_stack.topology import read_topology
from pgcat_stack.units import is_int

Direction = Literal["Ingress", "Egress"]
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


@dataclass(frozen=True, eq=False)
class _Flow:
    """A connection that a pod of the stack needs. `peer` is the other pod or a host, where it is known."""

    pod: Pod
    direction: Direction
    port: int
    protocol: str
    what: str
    peer: Pod | str | None = None


@check(
    code="PS426",
    name="network-policy-blocks",
    severity="error",
    why="What no NetworkPolicy lets through is dropped: the program waits for its connections"
    " until it gives up.",
    mend="Add the port, or the peer, to the policy that selects the pod.",
)
def network_policy_blocks(deployment: Deployment) -> Iterator[Problem]:
    """Connections of the stack that its own policies drop."""
    policies = deployment.of_kind("NetworkPolicy")
    if not policies or not complete(deployment):
        return
    said: set[tuple[int, str, int, str]] = set()
    for flow in _flows(deployment):
        selecting = [policy for policy in policies if _applies(policy, flow)]
        if not selecting or any(_allows(rule, flow) for policy in selecting for rule in _rules(policy, flow)):
            continue
        place = _place(selecting, flow)
        key = (place.line, flow.direction, flow.port, flow.what)
        if key not in said:
            said.add(key)
            yield Problem(
                place,
                f"no policy lets {flow.pod.text} {flow.what}",
                f"allow {flow.protocol} port {flow.port} under {flow.direction.lower()}",
            )


# What is needed


def _flows(deployment: Deployment) -> Iterator[_Flow]:
    pgcats = [unit.pod for unit in running(deployment, "pgcat") if unit.pod]
    permifys = [unit.pod for unit in running(deployment, "permify") if unit.pod]
    migrations = [unit.pod for unit in running(deployment, "migrate") if unit.pod]
    topology = read_topology(deployment)
    port = topology.pgcat.port if topology.pgcat else None
    exporter = topology.pgcat.exporter if topology.pgcat else None
    for pgcat in pgcats:
        for pool in topology.pools.values():
            for server in pool.servers:
                yield from _to_database(pgcat, server.address)
        for permify in permifys:
            if permify is not pgcat and port is not None:
                yield _Flow(permify, "Egress", port, "TCP", f"reach {pgcat.text} on {port}", pgcat)
                yield _Flow(pgcat, "Ingress", port, "TCP", f"be reached by {permify.text} on {port}", permify)
        if not permifys and port is not None:  # somebody else deploys Permify
            yield _Flow(pgcat, "Ingress", port, "TCP", f"be reached on {port}")
        if exporter is not None and scraped(deployment, pgcat):
            yield _Flow(pgcat, "Ingress", exporter, "TCP", f"be scraped on {exporter}")
    for permify in permifys:
        for number in (permify_ports(deployment) or {}).values():
            yield _Flow(permify, "Ingress", number, "TCP", f"be called on {number}")
    for connection in [*migration_connections(deployment), *direct_connections(deployment)]:
        pod = connection.unit.pod if connection.unit else None
        around = reach(deployment, connection) or {}  # through PgCat, which PS412 judges
        for address in connection.uri.servers:
            if pod is not None and address.host not in around:
                yield from _to_database(pod, address)
    for pod in dict.fromkeys([*pgcats, *permifys, *migrations]):
        yield _Flow(pod, "Egress", 53, "UDP", "ask DNS on 53")


def _to_database(pod: Pod, server: Address) -> Iterator[_Flow]:
    if not server.is_loopback and server.port:
        yield _Flow(pod, "Egress", server.port, "TCP", f"reach {server}", server.host)


# What is allowed


def _applies(policy: Manifest, flow: _Flow) -> bool:
    types = as_list(policy.get("spec", "policyTypes"))
    if not types:  # ingress always, egress where there are rules for it
        types = ["Ingress", *(["Egress"] if policy.get("spec", "egress") is not None else [])]
    same = policy.namespace == flow.pod.manifest.namespace
    return same and flow.direction in types and selects(policy.get("spec", "podSelector"), flow.pod.labels)


def _rules(policy: Manifest, flow: _Flow) -> list[Any]:
    return as_list(policy.get("spec", flow.direction.lower()))


def _allows(rule: object, flow: _Flow) -> bool:
    ports = as_mapping(rule).get("ports")
    peers = as_mapping(rule).get("from" if flow.direction == "Ingress" else "to")
    if not isinstance(rule, dict) or (
        ports and not any(_port_matches(port, flow) for port in as_list(ports))
    ):
        return False
    return not peers or any(_peer_matches(as_mapping(peer), flow) for peer in as_list(peers))


def _port_matches(entry: object, flow: _Flow) -> bool:
    if (dig(entry, "protocol") or "TCP") != flow.protocol:
        return False
    port, last = dig(entry, "port"), dig(entry, "endPort")
    if port is None:
        return True
    if isinstance(port, str):  # a name, of the receiving pod
        receiver = flow.pod if flow.direction == "Ingress" else flow.peer
        return isinstance(receiver, Pod) and receiver.port_number(port) == flow.port
    if is_int(port) and is_int(last):
        return port <= flow.port <= last
    return bool(port == flow.port)


def _peer_matches(peer: Mapping[str, Any], flow: _Flow) -> bool:
    block = peer.get("ipBlock")
    if isinstance(flow.peer, Pod):
        if block is not None or not _namespace_matches(peer, flow.peer):
            return False
        return "podSelector" not in peer or selects(peer["podSelector"], flow.peer.labels)
    if isinstance(block, dict) and isinstance(flow.peer, str):
        return _contains(block, flow.peer)
    return True  # pods that this deployment does not know


def _namespace_matches(peer: Mapping[str, Any], pod: Pod) -> bool:
    if "namespaceSelector" not in peer:
        return True
    labels = text_mapping(dig(peer, "namespaceSelector", "matchLabels"))
    return labels.get(_NAMESPACE_LABEL, pod.manifest.namespace) == pod.manifest.namespace


def _contains(block: Mapping[str, Any], host: str) -> bool:
    """Whether an ipBlock lets an address through; a host name may have any address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    inside = _in(address, block.get("cidr"))
    return inside and not any(_in(address, part) for part in as_list(block.get("except")))


def _in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, cidr: object) -> bool:
    try:
        return isinstance(cidr, str) and address in ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return False


def _place(policies: list[Manifest], flow: _Flow) -> Location:
    """The rules of the policy that is closest to the pod: the one that selects the fewest others."""
    named = [policy for policy in policies if policy.get("spec", "podSelector", "matchLabels")]
    policy = (named or policies)[0]
    return policy.at("spec", flow.direction.lower())
