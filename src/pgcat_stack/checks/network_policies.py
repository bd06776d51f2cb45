"""PS426 and PS47x: NetworkPolicies, and those of Cilium, let through what the stack needs, and nothing else.

What the files do not tell is not judged: which namespaces call Permify, where Prometheus and DNS run, which
addresses a host name has. A user's own rules, for a service mesh say, may be right: warnings at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks import check
from pgcat_stack.checks._cilium import CILIUM, name_matches, policies
from pgcat_stack.checks._flows import (
    Direction,
    Flow,
    flows,
    stack_pods,
)
from pgcat_stack.checks._policies import (
    allows,
    any_address,
    applies,
    every_namespace,
    every_port,
    host_name,
    labelled,
    network,
    peer_matches,
    peers_of,
    port_matches,
    port_span,
    ports_of,
    rules,
    selects_peer,
)
from pgcat_stack.checks._selectors import NAMESPACE_LABEL, selector_text
from pgcat_stack.checks._uris import listed, used_pools
from pgcat_stack.endpoints import Address
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PERMIFY, PGCAT
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Pod
from pgcat_stack.reading.reading import Reading

DIRECTIONS: tuple[Direction, ...] = ("Ingress", "Egress")
_MESH = "; if something else in the pods does, such as a service mesh, leave it"
_LARGEST = {4: 2**16, 6: 2**80}
"""Addresses in the largest network that servers may stand in: a /16, or a /48 of IPv6."""


@check(
    code="PS426",
    name="network-policy-blocks",
    severity="error",
    needs=(PGCAT, PERMIFY),
    why="What no NetworkPolicy lets through is dropped: the program waits for its connections"
    " until it gives up.",
    fix="Add the port, or the peer, to the policy that selects the pod.",
)
def network_policy_blocks(reading: Reading) -> Iterator[Problem]:
    """Connections of the stack that its own policies drop."""
    known = policies(reading)
    if not known or not reading.complete:
        return
    said: set[tuple[int, str, int, str]] = set()
    for flow in flows(reading):
        if not flow.needed:
            continue
        selecting = [policy for policy in known if applies(policy, flow.pod, flow.direction)]
        passing = (rule for policy in selecting for rule in rules(policy, flow.direction))
        if not selecting or any(allows(rule, flow) for rule in passing):
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


def _place(selecting: list[Manifest], flow: Flow) -> Location:
    """The rules of the policy that is closest to the pod: the one that selects the fewest others."""
    named = [policy for policy in selecting if policy.get("spec", "podSelector", "matchLabels")]
    policy = (named or selecting)[0]
    return policy.at("spec", flow.direction.lower())


@dataclass(frozen=True, eq=False)
class _Rule:
    """A rule of a policy, the pods of the stack that it is about, and the connections these need."""

    reading: Reading
    policy: Manifest
    direction: Direction
    index: int
    data: Any
    pods: tuple[Pod, ...]

    @property
    def ports(self) -> list[Any]:
        return ports_of(self.data)

    @property
    def peers(self) -> list[Any]:
        return peers_of(self.data, self.direction)

    @property
    def flows(self) -> list[Flow]:
        """What the pods need in this direction."""
        needed = flows(self.reading)
        return [flow for flow in needed if flow.pod in self.pods and flow.direction == self.direction]

    @property
    def served(self) -> list[Flow]:
        """What the pods need on the ports of the rule."""
        return [flow for flow in self.flows if any(port_matches(entry, flow) for entry in self.ports)]

    def at(self, *keys: Key) -> Location:
        """Where a part of the rule stands."""
        return self.policy.at("spec", self.direction.lower(), self.index, *keys)

    def at_peer(self, index: int) -> Location:
        return self.at("from" if self.direction == "Ingress" else "to", index)

    def opens(self, ports: str, whom: str) -> str:
        """What a part of the rule does, for messages."""
        ours = " and ".join(pod.text for pod in self.pods)
        if self.direction == "Ingress":
            return f"{whom} may reach {ours} on {ports}"
        return f"{ours} may reach {whom} on {ports}"

    @property
    def ports_text(self) -> str:
        return ", ".join(_port_text(entry) for entry in self.ports) or "every port"

    @property
    def peers_text(self) -> str:
        return ", ".join(_peer_text(peer) for peer in self.peers) or "any address"


def _judged(reading: Reading) -> Iterator[_Rule]:
    """The rules for pods of the stack."""
    if not reading.complete:
        return
    for policy in policies(reading):
        for direction in DIRECTIONS:
            ours = tuple(pod for pod in stack_pods(reading) if applies(policy, pod, direction))
            for index, data in enumerate(rules(policy, direction) if ours else []):
                if isinstance(data, dict):
                    yield _Rule(reading, policy, direction, index, data, ours)


# Open


@check(
    code="PS470",
    name="network-policy-open",
    severity="error",
    needs=(PGCAT, PERMIFY),
    why="Behind PgCat's port lies the database: nobody but Permify has to reach it. And a pod that may reach"
    " any address on any port lets an intruder carry out what was found.",
    fix="Name Permify's pods by their labels, and the ports that are needed.",
)
def network_policy_open(reading: Reading) -> Iterator[Problem]:
    """PgCat's port open to others than Permify, and ways out to any address on any port."""
    for rule in _judged(reading):
        if _out_to_everything(rule):
            yield Problem(
                rule.at(),
                rule.opens("every port", "any address"),
                "name the port, and the peer where it is known",
            )
        for place, whom in _strangers(rule):
            port = f"PgCat's port {_pgcat_port(reading)}"
            yield Problem(place, rule.opens(port, whom), "name Permify's pods alone, by their labels")


def _out_to_everything(rule: _Rule) -> bool:
    anywhere = not rule.peers or any(any_address(peer) for peer in rule.peers)
    every = not rule.ports or any(every_port(entry) for entry in rule.ports)
    return rule.direction == "Egress" and anywhere and every


def _strangers(rule: _Rule) -> Iterator[tuple[Location, str]]:
    """Whom a rule lets in to PgCat's port besides Permify."""
    port, listeners = _pgcat_port(rule.reading), _listening_pods(rule)
    if rule.direction != "Ingress" or port is None or not listeners:
        return
    asked = [Flow(pod, "Ingress", port, "TCP", "") for pod in listeners]
    if rule.ports and not any(port_matches(entry, flow) for entry in rule.ports for flow in asked):
        return
    if not rule.peers:
        yield rule.at(), "any address"
    for index, peer in enumerate(rule.peers):
        if not _serves_pods(rule, peer, [flow for flow in rule.flows if flow.port == port]):
            yield rule.at_peer(index), _peer_text(peer)


def _listening_pods(rule: _Rule) -> list[Pod]:
    """The pods of a rule in which PgCat listens for others than its own pod."""
    pgcat = rule.reading.pgcat
    host = dig(pgcat.data, "general", "host") if pgcat else None
    if isinstance(host, str) and Address.of(host).is_loopback:
        return []
    return [
        container.pod
        for container in rule.reading.running("pgcat")
        if container.pod in rule.pods and container.pod
    ]


def _pgcat_port(reading: Reading) -> int | None:
    pgcat = reading.topology.pgcat
    return pgcat.port if pgcat else None


def _serves_pods(rule: _Rule, peer: object, needed: list[Flow]) -> bool:
    """Whether a peer is pods that need one of these connections, and no others as far as the files tell."""
    selector, spaces = dig(peer, "podSelector"), as_mapping(peer).get("namespaceSelector")
    if (
        dig(peer, "ipBlock") is not None
        or not labelled(selector)
        or (spaces is not None and not labelled(spaces))
    ):
        return False
    if not needed or _shared(rule):
        return _shared(rule)
    if any(flow.peer is None for flow in needed):  # somebody else deploys Permify, with labels of their own
        return True
    wanted = [flow.peer for flow in needed if isinstance(flow.peer, Pod)]
    others = [pod for pod in rule.reading.pods if pod not in wanted]
    return any(selects_peer(peer, pod) for pod in wanted) and not any(
        selects_peer(peer, pod) for pod in others
    )


def _shared(rule: _Rule) -> bool:
    """Whether PgCat has pools that Permify does not name: other applications' pods use it, too."""
    inside = rule.direction == "Ingress" and bool(_listening_pods(rule))
    return inside and len(used_pools(rule.reading)) < len(rule.reading.topology.pools)


# More than needed


@check(
    code="PS471",
    name="network-policy-allows-more",
    severity="warning",
    needs=(PGCAT, PERMIFY),
    why="A way that nothing needs is one for an intruder: into the stack, or out of it with what was found.",
    fix="Take out the rule, port or peer, or narrow it. A rule of your own, for a service mesh or an ingress"
    " controller, may be right: what else runs in the cluster is in no file of the deployment.",
)
def network_policy_allows_more(reading: Reading) -> Iterator[Problem]:
    """Rules that allow more than any program of the stack needs."""
    for rule in _judged(reading):
        if any(_foreign_containers(reading, pod) for pod in rule.pods):
            continue
        if not rule.ports:
            if not _out_to_everything(rule) and not any(_strangers(rule)):
                yield Problem(rule.at(), rule.opens("every port", rule.peers_text), "name the ports")
            continue
        yield from _ports(rule)
        if rule.served and not _out_to_everything(rule) and not any(_strangers(rule)):
            yield from _peers(rule)


def _foreign_containers(reading: Reading, pod: Pod) -> bool:
    """Whether the pods run something besides the stack, whose needs are in no file."""
    return any(container.pod is pod and not container.own for container in reading.containers)


def _ports(rule: _Rule) -> Iterator[Problem]:
    for index, entry in enumerate(rule.ports):
        span, text = port_span(entry), _port_text(entry)
        if any(port_matches(entry, flow) for flow in rule.flows):
            if span is not None and span[0] != span[1] and not _out_to_everything(rule):
                yield Problem(
                    rule.at("ports", index), rule.opens(text, rule.peers_text), "name the ports needed"
                )
        elif not _out_to_everything(rule) and not any(_strangers(rule)):
            message = f"{rule.opens(text, rule.peers_text)}, and nothing of the stack needs that"
            yield Problem(rule.at("ports", index), message, f"take the port out{_MESH}")


def _peers(rule: _Rule) -> Iterator[Problem]:
    """Peers of a rule that are wider than what its ports are for."""
    served = rule.served
    widest = {flow.widest for flow in served}
    if not rule.peers:
        fix = (
            "name 0.0.0.0/0 and ::/0 where its address is not known"
            if "any" in widest
            else f"name {_wanted(served)}"
        )
        yield Problem(rule.at(), rule.opens(rule.ports_text, "any address and any pod"), fix)
    known = bool(served) and all(isinstance(flow.peer, Pod) for flow in served)
    whole = [peer for peer in rule.peers if any_address(peer)]
    for index, peer in enumerate(rule.peers):
        opens = rule.opens(rule.ports_text, _peer_text(peer))
        if known:
            if not _serves_pods(rule, peer, served):
                yield Problem(rule.at_peer(index), opens, f"name {_wanted(served)} alone")
        elif any_address(peer):
            if "any" not in widest or rule.policy.kind == CILIUM:
                yield Problem(rule.at_peer(index), opens, f"name {_wanted(served)}")
            elif len(whole) < len(rule.peers):
                yield Problem(
                    rule.at_peer(index), f"{opens}, so the rule's other peers mean nothing", "take it out"
                )
            elif _named_elsewhere(rule):
                text = f"{opens}, although a CiliumNetworkPolicy lets out by name"
                yield Problem(rule.at_peer(index), text, "take it out")
        elif host_name(peer) is not None:
            if not any(peer_matches(peer, flow) for flow in served):
                text = f"{opens}, and none of {_wanted(served)} is called so"
                yield Problem(rule.at_peer(index), text, "take it out")
        elif every_namespace(peer):
            if "cluster" not in widest and not ("labels" in widest and labelled(dig(peer, "podSelector"))):
                yield Problem(rule.at_peer(index), opens, f"name {_wanted(served)}")
        elif dig(peer, "ipBlock") is not None:
            yield from _network(rule, index, opens)


def _named_elsewhere(rule: _Rule) -> bool:
    """Whether all that a rule serves is let out to by name, by another."""
    return all(
        any(
            host_name(peer) is not None and peer_matches(peer, flow)
            for other in _egress(rule.reading, flow.pod)
            if any(port_matches(entry, flow) for entry in ports_of(other))
            for peer in peers_of(other, "Egress")
        )
        for flow in rule.served
    )


def _egress(reading: Reading, pod: Pod) -> list[Any]:
    """The rules of all policies by which a pod may go out."""
    selecting = [policy for policy in policies(reading) if applies(policy, pod, "Egress")]
    return [rule for policy in selecting for rule in rules(policy, "Egress")]


def _network(rule: _Rule, index: int, opens: str) -> Iterator[Problem]:
    """A network that none of the servers is in, or a continent, where all servers are given by address."""
    peer, served = rule.peers[index], rule.served
    found = network(dig(peer, "ipBlock", "cidr"))
    if rule.direction == "Ingress" or found is None or any(flow.widest == "any" for flow in served):
        return
    if not any(peer_matches(peer, flow) for flow in served):
        yield Problem(rule.at_peer(index), f"{opens}, and none of {_wanted(served)} is there", "take it out")
    elif found.num_addresses > _LARGEST[found.version]:
        fix = f"name {_wanted(served)}"
        yield Problem(rule.at_peer(index), f"{opens}: {found.num_addresses:,} addresses", fix)


def _wanted(served: list[Flow]) -> str:
    """Who is at the other end of these connections, for messages."""
    known = [flow.peer.text if isinstance(flow.peer, Pod) else flow.peer for flow in served if flow.peer]
    return listed(known) if known else "who has to"


def _port_text(entry: object) -> str:
    port, last = dig(entry, "port"), dig(entry, "endPort")
    text = "every port" if port is None else f"{port}" if last is None else f"{port} to {last}"
    protocol = dig(entry, "protocol") or "TCP"
    return text if protocol == "TCP" else f"{text} ({protocol})"


def _peer_text(peer: object) -> str:
    """A peer of a rule for messages."""
    if dig(peer, "ipBlock") is not None:
        return "any address" if any_address(peer) else f"addresses of {show(dig(peer, 'ipBlock', 'cidr'))}"
    known = as_mapping(peer)
    if "entity" in known or "name" in known:
        return f"hosts named {show(known['name'])}" if "name" in known else f"{known['entity']}"
    selector, spaces = known.get("podSelector"), known.get("namespaceSelector")
    who = f"pods with {_selector_text(selector)}" if labelled(selector) else "any pod"
    if spaces is None:
        return f"{who} of the same namespace"
    name = dig(spaces, "matchLabels", NAMESPACE_LABEL)
    if name is not None:
        return f"{who} of namespace {name}"
    return (
        f"{who} of namespaces with {_selector_text(spaces)}"
        if labelled(spaces)
        else f"{who} of any namespace"
    )


def _selector_text(selector: object) -> str:
    keys = [str(dig(item, "key")) for item in as_list(dig(selector, "matchExpressions"))]
    labels = as_mapping(dig(selector, "matchLabels"))
    return ",".join([*([selector_text(labels)] if labels else []), *keys])


# No policy


@check(
    code="PS472",
    name="network-policy-missing",
    severity="warning",
    needs=(PGCAT, PERMIFY),
    why="A pod that no NetworkPolicy selects for a direction is open in it, whatever those of others say.",
    fix="Select the pod by a policy that denies by default. One of the whole cluster that does so may be in"
    " no file of the deployment.",
)
def network_policy_missing(reading: Reading) -> Iterator[Problem]:
    """Pods of the stack that no policy selects for a direction, although there are policies."""
    known = policies(reading)
    if not known or not reading.complete:
        return
    for pod in reading.own_pods:
        for direction in DIRECTIONS:
            if not any(applies(policy, pod, direction) for policy in known):
                way = "anybody may reach its ports" if direction == "Ingress" else "it may reach any address"
                yield Problem(
                    pod.manifest.at("metadata", "name"),
                    f"no NetworkPolicy selects {pod.text} for {direction.lower()}: {way}",
                    "deny by default",
                )


# Names


@check(
    code="PS473",
    name="names-never-seen",
    severity="error",
    needs=(PGCAT, PERMIFY),
    why="Cilium learns the addresses of a name from the answers of DNS that pass its proxy, and they pass it"
    " only by a rule with `rules.dns`. A name that it has not seen is let out to at no address.",
    fix="Open DNS to the same pods in a CiliumNetworkPolicy, on port 53, with rules: dns: - matchPattern:"
    ' "*", as the template renders it.',
)
def names_never_seen(reading: Reading) -> Iterator[Problem]:
    """Hosts by name in policies of Cilium, for pods whose DNS it does not read."""
    for rule in _judged(reading):
        for index, peer in enumerate(rule.peers):
            name = host_name(peer)
            for pod in rule.pods if name else ():
                seen = [str(one) for other in _egress(reading, pod) for one in as_list(dig(other, "names"))]
                if not any(name_matches(pattern, str(name)) for pattern in seen):
                    text = (
                        f"Cilium does not read what DNS tells {pod.text} of {name}: it lets out to no address"
                    )
                    yield Problem(rule.at_peer(index), text, 'open DNS with rules: dns: - matchPattern: "*"')
