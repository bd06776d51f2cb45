"""PS426 and PS47x: NetworkPolicies, and those of Cilium, let through what the stack needs, and nothing else.

What the files do not tell is not judged: which namespaces call Permify, where Prometheus and DNS run, which
addresses a host name has. A user's own rules, for a service mesh say, may be right: warnings at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pgcat_stack.checks import check
from pgcat_stack.checks._uris import listed, used_pools
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PERMIFY, PGCAT
from pgcat_stack.reading.network import Flow
from pgcat_stack.reading.pods import Pod
from pgcat_stack.reading.policies import (
    DIRECTIONS,
    Block,
    Peer,
    Policy,
    PolicyRule,
    name_matches,
)
from pgcat_stack.reading.reading import Reading

_MESH = "; if something else in the pods does, such as a service mesh, leave it"
_LARGEST = {4: 2**16, 6: 2**80}
"""Addresses in the largest network that servers may stand in: a /16, or a /48 of IPv6."""


@check(
    code="PS426",
    name="network-policy-blocks",
    severity="error",
    needs=(PERMIFY, PGCAT),
    why="What no NetworkPolicy lets through is dropped: the program waits for its connections"
    " until it gives up.",
    fix="Add the port, or the peer, to the policy that selects the pod.",
)
def network_policy_blocks(reading: Reading) -> Iterator[Problem]:
    """Connections of the stack that its own policies drop."""
    if not reading.policies.all or not reading.complete:
        return
    said: set[tuple[int, str, int, str]] = set()
    for flow in reading.network.flows:
        selecting = reading.policies.selecting(flow.pod, flow.direction) if flow.needed else []
        passing = (rule for policy in selecting for rule in policy.rules[flow.direction])
        if not selecting or any(rule.allows(flow) for rule in passing):
            continue
        place = _closest(selecting).at(flow.direction)
        key = (place.line, flow.direction, flow.port, flow.what)
        if key not in said:
            said.add(key)
            yield Problem(
                place,
                f"no policy lets {flow.pod.text} {flow.what}",
                f"allow {flow.protocol} port {flow.port} under {flow.direction.lower()}",
            )


def _closest(selecting: list[Policy]) -> Policy:
    """The policy that is closest to the pod: the one that selects the fewest others."""
    return next((policy for policy in selecting if policy.selector.labels), selecting[0])


@dataclass(frozen=True, eq=False)
class _Judged:
    """A rule of a policy, the pods of the stack that it is about, and the connections these need."""

    reading: Reading
    policy: Policy
    rule: PolicyRule
    pods: tuple[Pod, ...]

    @cached_property
    def flows(self) -> list[Flow]:
        """What the pods need in this direction."""
        direction = self.rule.direction
        needed = self.reading.network.flows
        return [flow for flow in needed if flow.direction == direction and flow.pod in self.pods]

    @cached_property
    def served(self) -> list[Flow]:
        """What the pods need on the ports of the rule."""
        return [flow for flow in self.flows if self.rule.on_port_of(flow)]

    def opens(self, ports: str, whom: str) -> str:
        """What a part of the rule does, for messages."""
        ours = " and ".join(pod.text for pod in self.pods)
        if self.rule.direction == "Ingress":
            return f"{whom} may reach {ours} on {ports}"
        return f"{ours} may reach {whom} on {ports}"

    @property
    def ports_text(self) -> str:
        return ", ".join(port.text for port in self.rule.ports) or "every port"

    @property
    def peers_text(self) -> str:
        return ", ".join(peer.text for peer in self.rule.peers) or "any address"


def _judged(reading: Reading) -> Iterator[_Judged]:
    """The rules for pods of the stack."""
    for policy in reading.policies.all if reading.complete else ():
        for direction, rules in policy.rules.items():
            ours = tuple(pod for pod in reading.network.stack_pods if policy.applies(pod, direction))
            for rule in rules if ours else ():
                yield _Judged(reading, policy, rule, ours)


# Open


@check(
    code="PS470",
    name="network-policy-open",
    severity="error",
    needs=(PERMIFY, PGCAT),
    why="Behind PgCat's port lies the database: nobody but Permify has to reach it. And a pod that may reach"
    " any address on any port lets an intruder carry out what was found.",
    fix="Name Permify's pods by their labels, and the ports that are needed.",
)
def network_policy_open(reading: Reading) -> Iterator[Problem]:
    """PgCat's port open to others than Permify, and ways out to any address on any port."""
    for judged in _judged(reading):
        if _out_to_everything(judged.rule):
            yield Problem(
                judged.rule.location,
                judged.opens("every port", "any address"),
                "name the port, and the peer where it is known",
            )
        for place, whom in _strangers(judged):
            port = f"PgCat's port {_pgcat_port(reading)}"
            yield Problem(place, judged.opens(port, whom), "name Permify's pods alone, by their labels")


def _out_to_everything(rule: PolicyRule) -> bool:
    anywhere = not rule.peers or any(peer.every_address for peer in rule.peers)
    every = not rule.ports or any(port.every for port in rule.ports)
    return rule.direction == "Egress" and anywhere and every


def _strangers(judged: _Judged) -> Iterator[tuple[Location, str]]:
    """Whom a rule lets in to PgCat's port besides Permify."""
    rule, port, listeners = judged.rule, _pgcat_port(judged.reading), _listening_pods(judged)
    if rule.direction != "Ingress" or port is None or not listeners:
        return
    asked = [Flow(pod, "Ingress", port, "TCP", "") for pod in listeners]
    if rule.ports and not any(map(rule.on_port_of, asked)):
        return
    if not rule.peers:
        yield rule.location, "any address"
    needed = [flow for flow in judged.flows if flow.port == port]
    for peer in rule.peers:
        if not _serves_pods(judged, peer, needed):
            yield peer.location, peer.text


def _listening_pods(judged: _Judged) -> list[Pod]:
    """The pods of a rule in which PgCat listens for others than its own pod."""
    pgcat = judged.reading.pgcat_config
    if pgcat is not None and pgcat.general.on_loopback:
        return []
    running = judged.reading.running("pgcat")
    return [container.pod for container in running if container.pod and container.pod in judged.pods]


def _pgcat_port(reading: Reading) -> int | None:
    return reading.pgcat_config.port if reading.pgcat_config else None


def _serves_pods(judged: _Judged, peer: Peer, needed: list[Flow]) -> bool:
    """Whether a peer is pods that need one of these connections, and no others as far as the files tell."""
    if peer.block is not None or not peer.by_label or peer.every_namespace:
        return False
    if not needed or _shared(judged):
        return _shared(judged)
    if any(flow.peer is None for flow in needed):  # somebody else deploys Permify, with labels of their own
        return True
    wanted = [flow.peer for flow in needed if isinstance(flow.peer, Pod)]
    others = [pod for pod in judged.reading.pods if pod not in wanted]
    return any(map(peer.selects, wanted)) and not any(map(peer.selects, others))


def _shared(judged: _Judged) -> bool:
    """Whether PgCat has pools that Permify does not name: other applications' pods use it, too."""
    inside = judged.rule.direction == "Ingress" and bool(_listening_pods(judged))
    return inside and len(used_pools(judged.reading)) < len(judged.reading.topology.pools)


# More than needed


@check(
    code="PS471",
    name="network-policy-allows-more",
    severity="warning",
    needs=(PERMIFY, PGCAT),
    why="A way that nothing needs is one for an intruder: into the stack, or out of it with what was found.",
    fix="Take out the rule, port or peer, or narrow it. A rule of your own, for a service mesh or an ingress"
    " controller, may be right: what else runs in the cluster is in no file of the deployment.",
)
def network_policy_allows_more(reading: Reading) -> Iterator[Problem]:
    """Rules that allow more than any program of the stack needs."""
    for judged in _judged(reading):
        rule = judged.rule
        if any(_foreign_containers(reading, pod) for pod in judged.pods):
            continue
        reported = _out_to_everything(rule) or any(_strangers(judged))  # by PS470
        if not rule.ports:
            if not reported:
                text = judged.opens("every port", judged.peers_text)
                yield Problem(rule.location, text, "name the ports")
            continue
        yield from _ports(judged, reported=reported)
        if judged.served and not reported:
            yield from _peers(judged)


def _foreign_containers(reading: Reading, pod: Pod) -> bool:
    """Whether the pods run something besides the stack, whose needs are in no file."""
    return any(container.pod is pod and not container.own for container in reading.containers)


def _ports(judged: _Judged, *, reported: bool) -> Iterator[Problem]:
    for port in judged.rule.ports:
        opens = judged.opens(port.text, judged.peers_text)
        if any(map(port.matches, judged.flows)):
            several = port.span is not None and port.span[0] != port.span[1]
            if several and not _out_to_everything(judged.rule):
                yield Problem(port.location, opens, "name the ports needed")
        elif not reported:
            message = f"{opens}, and nothing of the stack needs that"
            yield Problem(port.location, message, f"take the port out{_MESH}")


def _peers(judged: _Judged) -> Iterator[Problem]:
    """Peers of a rule that are wider than what its ports are for."""
    rule, served = judged.rule, judged.served
    widest = {flow.widest for flow in served}
    if not rule.peers:
        fix = (
            "name 0.0.0.0/0 and ::/0 where its address is not known"
            if "any" in widest
            else f"name {_wanted(served)}"
        )
        yield Problem(rule.location, judged.opens(judged.ports_text, "any address and any pod"), fix)
    known = bool(served) and all(isinstance(flow.peer, Pod) for flow in served)
    for peer in rule.peers:
        opens = judged.opens(judged.ports_text, peer.text)
        if known:
            if not _serves_pods(judged, peer, served):
                yield Problem(peer.location, opens, f"name {_wanted(served)} alone")
        elif peer.every_address:
            if "any" not in widest or judged.policy.of_cilium:
                yield Problem(peer.location, opens, f"name {_wanted(served)}")
            elif not all(other.every_address for other in rule.peers):
                text = f"{opens}, so the rule's other peers mean nothing"
                yield Problem(peer.location, text, "take it out")
            elif all(_named_elsewhere(judged.reading, flow) for flow in served):
                text = f"{opens}, although a CiliumNetworkPolicy lets out by name"
                yield Problem(peer.location, text, "take it out")
        elif peer.host is not None:
            if not any(map(peer.matches, served)):
                text = f"{opens}, and none of {_wanted(served)} is called so"
                yield Problem(peer.location, text, "take it out")
        elif peer.every_namespace:
            if "cluster" not in widest and not ("labels" in widest and peer.by_label):
                yield Problem(peer.location, opens, f"name {_wanted(served)}")
        elif peer.block is not None:
            yield from _network(judged, peer, peer.block, opens)


def _named_elsewhere(reading: Reading, flow: Flow) -> bool:
    """Whether some rule lets a connection out by name."""
    return any(
        peer.host is not None and peer.matches(flow)
        for rule in reading.policies.rules_for(flow.pod, "Egress")
        if rule.on_port_of(flow)
        for peer in rule.peers
    )


def _network(judged: _Judged, peer: Peer, block: Block, opens: str) -> Iterator[Problem]:
    """A network that none of the servers is in, or a continent, where all servers are given by address."""
    served, network = judged.served, block.network
    if judged.rule.direction == "Ingress" or network is None or any(flow.widest == "any" for flow in served):
        return
    if not any(map(peer.matches, served)):
        yield Problem(peer.location, f"{opens}, and none of {_wanted(served)} is there", "take it out")
    elif network.num_addresses > _LARGEST[network.version]:
        fix = f"name {_wanted(served)}"
        yield Problem(peer.location, f"{opens}: {network.num_addresses:,} addresses", fix)


def _wanted(served: list[Flow]) -> str:
    """Who is at the other end of these connections, for messages."""
    known = [flow.peer.text if isinstance(flow.peer, Pod) else flow.peer for flow in served if flow.peer]
    return listed(known) if known else "who has to"


# No policy


@check(
    code="PS472",
    name="network-policy-missing",
    severity="warning",
    needs=(PERMIFY, PGCAT),
    why="A pod that no NetworkPolicy selects for a direction is open in it, whatever those of others say.",
    fix="Select the pod by a policy that denies by default. One of the whole cluster that does so may be in"
    " no file of the deployment.",
)
def network_policy_missing(reading: Reading) -> Iterator[Problem]:
    """Pods of the stack that no policy selects for a direction, although there are policies."""
    if not reading.policies.all or not reading.complete:
        return
    for pod in reading.own_pods:
        for direction in DIRECTIONS:
            if not reading.policies.selecting(pod, direction):
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
    needs=(PERMIFY, PGCAT),
    why="Cilium learns the addresses of a name from the answers of DNS that pass its proxy, and they pass it"
    " only by a rule with `rules.dns`. A name that it has not seen is let out to at no address.",
    fix="Open DNS to the same pods in a CiliumNetworkPolicy, on port 53, with rules: dns: - matchPattern:"
    ' "*", as the template renders it.',
)
def names_never_seen(reading: Reading) -> Iterator[Problem]:
    """Hosts by name in policies of Cilium, for pods whose DNS it does not read."""
    for judged in _judged(reading):
        for peer in judged.rule.peers:
            for pod in judged.pods if peer.host else ():
                rules = reading.policies.rules_for(pod, "Egress")
                seen = [pattern for rule in rules for pattern in rule.names_seen]
                if not any(name_matches(pattern, peer.host or "") for pattern in seen):
                    text = (
                        f"Cilium does not read what DNS tells {pod.text} of {peer.host}:"
                        " it lets out to no address"
                    )
                    yield Problem(peer.location, text, 'open DNS with rules: dns: - matchPattern: "*"')
