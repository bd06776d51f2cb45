"""NetworkPolicies, and those of Cilium: which pods they select, what they let through.

Policies add up: a pod that any policy selects for a direction may do there only what one of its rules allows.
https://kubernetes.io/docs/concepts/services-networking/network-policies/

A CiliumNetworkPolicy is read in the same shape, with two more kinds of peer: hosts by name, and entities. Not
read are denials, `specs`, Services, groups and clusterwide policies.
https://docs.cilium.io/en/stable/security/policy/language/
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.files.gaps import At, Gap, list_gaps, mapping_gaps
from pgcat_stack.files.plain_data import as_list, as_mapping, as_text, dig, text_mapping
from pgcat_stack.files.quantities import is_int
from pgcat_stack.findings import Location
from pgcat_stack.printable import show
from pgcat_stack.reading.network import Direction, Flow, address_of
from pgcat_stack.reading.pods import Pod
from pgcat_stack.reading.selectors import NAMESPACE_LABEL, Selector, read_selector

CILIUM = "CiliumNetworkPolicy"
DIRECTIONS: tuple[Direction, ...] = ("Ingress", "Egress")
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LAST_PORT = 65535
_SIDES: dict[Direction, str] = {"Ingress": "from", "Egress": "to"}
_CILIUM_LABEL = re.compile(r"^(k8s|any):")
_CILIUM_NAMESPACE = "io.kubernetes.pod.namespace"
_ANY_ADDRESS = {"world": ("0.0.0.0/0", "::/0"), "world-ipv4": ("0.0.0.0/0",), "world-ipv6": ("::/0",)}
_CILIUM_PROTOCOLS = ("TCP", "UDP")
_NOT_READ = (("specs",), ("spec", "ingressDeny"), ("spec", "egressDeny"))
_DIGITS = re.compile(r"\d{1,9}")


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """An entry of `ports`: a protocol with some ports, or with one that the receiving pod names."""

    protocol: str
    span: tuple[int, int] | None
    """The first and the last port; None where it gives a name, or nothing that is known."""
    name: str
    """Empty where it gives numbers."""
    text: str
    """How messages name it."""
    location: Location

    @property
    def every(self) -> bool:
        """Whether it means all ports."""
        return self.span == (1, _LAST_PORT)

    def matches(self, flow: Flow) -> bool:
        """Whether it is the port of a connection."""
        if self.protocol != flow.protocol:
            return False
        if self.span is not None:
            return self.span[0] <= flow.port <= self.span[1]
        receiver = flow.pod if flow.direction == "Ingress" else flow.peer
        return isinstance(receiver, Pod) and receiver.port_number(self.name) == flow.port


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses: a network without parts of it. One that could not be read has no network."""

    network: IpNetwork | None
    left_out: tuple[IpNetwork, ...]
    text: str
    """Its CIDR, for messages."""
    readable: bool = True
    """Whether it is a mapping; otherwise it may be any address."""

    @property
    def every_address(self) -> bool:
        """Whether it is every address of IPv4 or IPv6."""
        return self.network is not None and self.network.prefixlen == 0

    def contains(self, host: str) -> bool:
        """Whether it lets an address through; a host name may have any address."""
        address = address_of(host)
        if address is None or not self.readable:
            return True
        inside = self.network is not None and address in self.network
        return inside and not any(address in part for part in self.left_out)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a rule is about: addresses, hosts by name, an entity of Cilium, or pods by their labels.

    Pods of the deployment are at no address, and no entity.
    """

    location: Location
    block: Block | None = None
    host: str | None = None
    """A name or a pattern of names, which Cilium alone knows."""
    entity: str | None = None
    pods: Selector | None = None
    namespaces: Selector | None = None
    """None for the policy's own namespace."""

    @property
    def every_address(self) -> bool:
        """Whether it is every address of IPv4 or IPv6."""
        return self.block is not None and self.block.every_address

    @property
    def every_namespace(self) -> bool:
        """Whether it is pods of every namespace."""
        return self.namespaces is not None and not self.namespaces.asks

    @property
    def by_label(self) -> bool:
        """Whether it is pods with some labels."""
        return self.pods is not None and self.pods.asks

    def selects(self, pod: Pod) -> bool:
        """Whether a peer without addresses selects a pod of the deployment."""
        if self.namespaces is not None:
            own = pod.manifest.namespace
            if text_mapping(self.namespaces.labels).get(NAMESPACE_LABEL, own) != own:
                return False
        return self.pods is None or self.pods.selects(pod.labels)

    def matches(self, flow: Flow) -> bool:
        """Whether it may be the other end of a connection."""
        if self.host is not None:
            return isinstance(flow.peer, str) and name_matches(self.host, flow.peer)
        if isinstance(flow.peer, Pod):
            return self.block is None and self.entity is None and self.selects(flow.peer)
        if self.block is not None and isinstance(flow.peer, str):
            return self.block.contains(flow.peer)
        return True  # pods that this deployment does not know

    @property
    def text(self) -> str:
        """How messages name it."""
        if self.block is not None:
            return "any address" if self.every_address else f"addresses of {self.block.text}"
        if self.host is not None:
            return f"hosts named {show(self.host)}"
        if self.entity is not None:
            return self.entity
        who = f"pods with {self.pods.text}" if self.pods and self.pods.asks else "any pod"
        if self.namespaces is None:
            return f"{who} of the same namespace"
        name = self.namespaces.labels.get(NAMESPACE_LABEL)
        if name is not None:
            return f"{who} of namespace {name}"
        named = f"namespaces with {self.namespaces.text}" if self.namespaces.asks else "any namespace"
        return f"{who} of {named}"


@dataclass(frozen=True, eq=False)
class PolicyRule:
    """A rule of a policy for a direction. Without ports it means every port, without peers any address."""

    direction: Direction
    ports: tuple[PolicyPort, ...]
    peers: tuple[Peer, ...]
    location: Location
    names_seen: tuple[str, ...] = ()
    """Patterns of the names whose addresses Cilium reads in the answers of DNS that it lets through."""

    def on_port_of(self, flow: Flow) -> bool:
        """Whether one of its ports is that of a connection."""
        return any(port.matches(flow) for port in self.ports)

    def allows(self, flow: Flow) -> bool:
        """Whether it lets a connection through."""
        on_port = not self.ports or self.on_port_of(flow)
        return on_port and (not self.peers or any(peer.matches(flow) for peer in self.peers))


@dataclass(frozen=True, eq=False)
class Policy:
    """A NetworkPolicy, or one of Cilium."""

    manifest: Manifest
    selector: Selector
    rules: dict[Direction, tuple[PolicyRule, ...]]
    """By the directions for which it selects pods."""
    location: Location
    """Where its selector stands, or would."""
    gaps: tuple[Gap, ...] = ()

    @property
    def text(self) -> str:
        """How messages name it."""
        return f"{self.manifest.kind} {self.manifest.name}"

    @property
    def of_cilium(self) -> bool:
        """Whether Cilium alone knows it."""
        return self.manifest.kind == CILIUM

    def applies(self, pod: Pod, direction: Direction) -> bool:
        """Whether it selects a pod for a direction."""
        same = self.manifest.namespace == pod.manifest.namespace
        return same and direction in self.rules and self.selector.selects(pod.labels)

    def at(self, direction: Direction) -> Location:
        """Where its rules for a direction stand, or would."""
        return self.manifest.at("spec", direction.lower())


@dataclass(frozen=True, eq=False)
class Policies:
    """All policies of a deployment, those of Cilium last."""

    all: tuple[Policy, ...]
    gaps: tuple[Gap, ...]

    def selecting(self, pod: Pod, direction: Direction) -> list[Policy]:
        """The policies that select a pod for a direction."""
        return [policy for policy in self.all if policy.applies(pod, direction)]

    def rules_for(self, pod: Pod, direction: Direction) -> list[PolicyRule]:
        """The rules of all policies that are about a pod in a direction."""
        return [rule for policy in self.selecting(pod, direction) for rule in policy.rules[direction]]


def read_policies(manifests: Iterable[Manifest]) -> Policies:
    """The policies among the objects of a deployment; of Cilium's, those with rules in some direction."""
    known = list(manifests)
    plain = [_policy(manifest) for manifest in known if manifest.kind == "NetworkPolicy"]
    cilium = [_cilium_policy(manifest) for manifest in known if manifest.kind == CILIUM]
    gaps = tuple(gap for policy in (*plain, *cilium) for gap in policy.gaps)
    return Policies((*plain, *(policy for policy in cilium if policy.rules)), gaps)


# NetworkPolicy


def _policy(manifest: Manifest) -> Policy:
    selector = read_selector(manifest.get("spec", "podSelector"), partial(manifest.at, "spec", "podSelector"))
    gaps = [*mapping_gaps(manifest.get("spec"), manifest.at, "spec"), *selector.gaps]
    types = as_list(manifest.get("spec", "policyTypes"))
    gaps += list_gaps(manifest.get("spec", "policyTypes"), manifest.at, "spec", "policyTypes")
    if not types:  # ingress always, egress where there are rules for it
        types = ["Ingress", *(["Egress"] if manifest.get("spec", "egress") is not None else [])]
    return Policy(
        manifest,
        selector,
        {way: tuple(_rules(manifest, way, gaps)) for way in DIRECTIONS if way in types},
        manifest.at("spec", "podSelector"),
        tuple(gaps),
    )


def _rules(manifest: Manifest, direction: Direction, gaps: list[Gap]) -> Iterator[PolicyRule]:
    written, side = manifest.get("spec", direction.lower()), _SIDES[direction]
    gaps += list_gaps(written, manifest.at, "spec", direction.lower())
    for index, rule in enumerate(as_list(written)):
        at = partial(manifest.at, "spec", direction.lower(), index)
        if not isinstance(rule, dict):
            gaps.append(Gap(at(), f"a rule of {direction.lower()} is not a mapping"))
            continue
        ports, peers = rule.get("ports"), rule.get(side)
        gaps += [*list_gaps(ports, at, "ports"), *list_gaps(peers, at, side)]
        yield PolicyRule(
            direction,
            tuple(_port(entry, partial(at, "ports", n), gaps) for n, entry in enumerate(as_list(ports))),
            tuple(_peer(entry, partial(at, side, n), gaps) for n, entry in enumerate(as_list(peers))),
            at(),
        )


def _port(entry: Any, at: At, gaps: list[Gap]) -> PolicyPort:
    protocol = dig(entry, "protocol")
    if not isinstance(entry, dict) or not (protocol is None or isinstance(protocol, str)):
        gaps.append(Gap(at(), "an entry of ports is not a port with a protocol"))
    return _ports_from(str(protocol or "TCP"), dig(entry, "port"), dig(entry, "endPort"), at(), gaps)


def _ports_from(protocol: str, port: Any, last: Any, location: Location, gaps: list[Gap]) -> PolicyPort:
    span: tuple[int, int] | None = None
    text = "every port" if port is None else f"{port}" if last is None else f"{port} to {last}"
    if port is None:
        span = (1, _LAST_PORT)
    elif is_int(port):
        span = (port, last if is_int(last) else port)
    if not (port is None or is_int(port) or isinstance(port, str)) or not (last is None or is_int(last)):
        gaps.append(Gap(location, f"{text} is neither ports nor the name of one"))
    text = text if protocol == "TCP" else f"{text} ({protocol})"
    return PolicyPort(protocol, span, as_text(port), text, location)


def _peer(entry: Any, at: At, gaps: list[Gap]) -> Peer:
    gaps += mapping_gaps(entry, at, what="a peer")
    known = as_mapping(entry)
    pods, spaces, block = (known.get(key) for key in ("podSelector", "namespaceSelector", "ipBlock"))
    peer = Peer(
        location=at(),
        block=None if block is None else _block(block, partial(at, "ipBlock"), gaps),
        pods=None if pods is None else read_selector(pods, partial(at, "podSelector")),
        namespaces=None if spaces is None else read_selector(spaces, partial(at, "namespaceSelector")),
    )
    for selector in (peer.pods, peer.namespaces):
        gaps += selector.gaps if selector else ()
    return peer


def _block(written: Any, at: At, gaps: list[Gap]) -> Block:
    if not isinstance(written, dict):
        gaps.append(Gap(at(), "ipBlock is not a mapping"))
    cidr, parts = dig(written, "cidr"), as_list(dig(written, "except"))
    network, left_out = _network(cidr), [_network(part) for part in parts]
    if network is None or None in left_out:
        gaps.append(Gap(at(), f"{show(cidr)} is no network, or leaves out what is none"))
    return Block(
        network, tuple(part for part in left_out if part is not None), show(cidr), isinstance(written, dict)
    )


def _network(cidr: Any) -> IpNetwork | None:
    try:
        return ipaddress.ip_network(cidr, strict=False) if isinstance(cidr, str) else None
    except ValueError:
        return None


# CiliumNetworkPolicy


def _cilium_policy(manifest: Manifest) -> Policy:
    gaps = mapping_gaps(manifest.get("spec"), manifest.at, "spec")
    selector, _ = _cilium_selector(
        manifest.get("spec", "endpointSelector"), partial(manifest.at, "spec", "endpointSelector"), gaps
    )
    for keys in _NOT_READ:
        if manifest.get(*keys) is not None:
            gaps.append(Gap(manifest.at(*keys), f"{keys[-1]} of a {CILIUM} is not read"))
    rules: dict[Direction, tuple[PolicyRule, ...]] = {}
    for direction in DIRECTIONS:
        written = manifest.get("spec", direction.lower())
        gaps += list_gaps(written, manifest.at, "spec", direction.lower())
        if isinstance(written, list):
            found = (
                _cilium_rule(rule, direction, partial(manifest.at, "spec", direction.lower(), index), gaps)
                for index, rule in enumerate(written)
            )
            rules[direction] = tuple(rule for rule in found if rule is not None)
    return Policy(manifest, selector, rules, manifest.at("spec", "podSelector"), tuple(gaps))


def _cilium_rule(written: Any, direction: Direction, at: At, gaps: list[Gap]) -> PolicyRule | None:
    """A rule; None where it allows no connection: an empty one, or ICMP."""
    gaps += mapping_gaps(written, at, what="a rule")
    rule, side, place = as_mapping(written), _SIDES[direction], at()
    named = [key for key in rule if str(key).startswith(side) and key != "toPorts"]
    if not named and "toPorts" not in rule:
        return None
    gaps += list_gaps(rule.get("toPorts"), at, "toPorts")
    groups = as_list(rule.get("toPorts"))
    peers = list(_cilium_peers(rule, side, at, gaps)) if named else []
    if named and not peers:
        unread = ", ".join(map(str, named))
        peers = [Peer(place, entity=unread)]
        gaps.append(Gap(place, f"{unread} of a {CILIUM} is not read"))
    return PolicyRule(
        direction,
        tuple(port for group in groups for port in _cilium_ports(group, place, gaps)),
        tuple(peers),
        place,
        tuple(_cilium_name(entry) for group in groups for entry in as_list(dig(group, "rules", "dns"))),
    )


def _cilium_ports(group: Any, place: Location, gaps: list[Gap]) -> Iterator[PolicyPort]:
    for entry in as_list(dig(group, "ports")):
        port, last = dig(entry, "port") or None, dig(entry, "endPort") or None
        if isinstance(port, str) and _DIGITS.fullmatch(port):
            port = int(port)
        protocol = as_text(dig(entry, "protocol")) or "ANY"
        for one in _CILIUM_PROTOCOLS if protocol == "ANY" else (protocol,):
            yield _ports_from(one, port, last, place, gaps)


def _cilium_peers(rule: dict[str, Any], side: str, at: At, gaps: list[Gap]) -> Iterator[Peer]:
    place = at()

    def entries(kind: str) -> Iterator[tuple[Any, At]]:
        written = rule.get(f"{side}{kind}")
        gaps.extend(list_gaps(written, at, f"{side}{kind}"))
        return ((entry, partial(at, f"{side}{kind}", n)) for n, entry in enumerate(as_list(written)))

    def network(cidr: str) -> Peer:
        return Peer(place, block=Block(_network(cidr), (), show(cidr)))

    for entry, inside in entries("Endpoints"):
        pods, namespaces = _cilium_selector(entry, inside, gaps)
        yield Peer(place, pods=pods, namespaces=namespaces)
    for entry, inside in entries("CIDR"):
        yield Peer(place, block=_block({"cidr": entry}, inside, gaps))
    for entry, inside in entries("CIDRSet"):
        yield Peer(place, block=_block(entry, inside, gaps))
    for entry, _ in entries("Entities"):
        entity = str(entry)
        if entity in ("all", "cluster"):
            yield Peer(place, namespaces=Selector())
        for cidr in _ANY_ADDRESS.get("world" if entity == "all" else entity, ()):
            yield network(cidr)
        if entity not in ("all", "cluster", *_ANY_ADDRESS):
            yield Peer(place, entity=entity)
    for entry, _ in entries("FQDNs") if side == "to" else ():
        name = _cilium_name(entry)
        if name == "*":
            yield from map(network, _ANY_ADDRESS["world"])
        else:
            yield Peer(place, host=name)


def _cilium_name(entry: Any) -> str:
    return as_text(dig(entry, "matchName")) or as_text(dig(entry, "matchPattern"))


def _cilium_selector(written: Any, at: At, gaps: list[Gap]) -> tuple[Selector, Selector | None]:
    """A selector of endpoints as one of pods and one of namespaces; this is None for the policy's own."""
    whole = read_selector(written, at)
    gaps += whole.gaps
    labels = {_CILIUM_LABEL.sub("", str(key)): value for key, value in whole.labels.items()}
    namespace = labels.pop(_CILIUM_NAMESPACE, None)
    requirements = tuple(replace(one, key=_CILIUM_LABEL.sub("", one.key)) for one in whole.requirements)
    pods = Selector(labels, requirements, bool(labels or requirements))
    return pods, Selector({NAMESPACE_LABEL: namespace}, written=True) if namespace else None


def name_matches(pattern: str, host: str) -> bool:
    """Whether a host has a name by `matchName` or `matchPattern`; a star is within a label, or alone all."""
    if pattern == "*":
        return True
    parts = [re.escape(part) for part in pattern.rstrip(".").lower().split("*")]
    return re.fullmatch("[-a-z0-9_]*".join(parts), host.rstrip(".").lower()) is not None
