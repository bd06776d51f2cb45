"""The connections that the programs of a stack need, as NetworkPolicies see them: from or to a pod."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks._ports import PERMIFY_DEFAULTS, permify_ports
from pgcat_stack.checks._reach import reach
from pgcat_stack.checks._selectors import NAME_LABEL
from pgcat_stack.checks._uris import (
    Connection,
    direct_connections,
    migration_connections,
    option,
    permify_connections,
)
from pgcat_stack.checks.probe import PORT as PROBE_PORT
from pgcat_stack.checks.probe import makers, requests
from pgcat_stack.checks.scraping import scraped
from pgcat_stack.endpoints import Address, Uri, read_uri
from pgcat_stack.files.plain_data import as_text
from pgcat_stack.reading.containers import Container, Pod
from pgcat_stack.reading.reading import Reading

OPENSHIFT_DNS_PORT = 5353
"""Where DNS pods of OpenShift listen behind port 53 of their Service."""

Direction = Literal["Ingress", "Egress"]
Widest = Literal["peer", "labels", "cluster", "any"]


@dataclass(frozen=True, eq=False)
class Flow:
    """A connection that a pod of the stack needs. `peer` is the other pod or a host, where it is known."""

    pod: Pod
    direction: Direction
    port: int
    protocol: str
    what: str
    peer: Pod | str | None = None
    widest: Widest = "peer"
    """Whom a rule may open to where nobody said more: this peer alone, pods with some labels in any
    namespace, every pod of the cluster, any address."""
    needed: bool = True
    """Whether the stack fails without it; otherwise somebody whom the files do not name may want it."""


@lru_cache(maxsize=4)
def flows(reading: Reading) -> tuple[Flow, ...]:
    """Every connection that the stack needs or may need, as far as its files tell."""
    return tuple(_flows(reading))


@lru_cache(maxsize=4)
def stack_pods(reading: Reading) -> tuple[Pod, ...]:
    """The pods of the stack, and Permify's where somebody else deploys it."""
    elsewhere = permify_elsewhere(reading)
    return (*reading.own_pods, *([elsewhere] if elsewhere else []))


@lru_cache(maxsize=4)
def permify_elsewhere(reading: Reading) -> Pod | None:
    """Permify's pods where somebody else deploys them: of their labels only the name is known."""
    kustomization = reading.kustomization
    if kustomization is None or reading.running("permify") or not reading.topology.permify:
        return None
    namespace = as_text(kustomization.mapping.get("namespace"))
    return Pod(
        Manifest("pods", "of Permify", namespace, "", {}, kustomization, 0), {NAME_LABEL: "permify"}, ()
    )


def _flows(reading: Reading) -> Iterator[Flow]:
    pgcats = _pods(reading, "pgcat")
    elsewhere = permify_elsewhere(reading)
    permifys = [elsewhere] if elsewhere else _pods(reading, "permify")
    for pgcat in pgcats:
        yield from _of_pgcat(reading, pgcat, permifys)
    for permify in permifys:
        yield from _of_permify(reading, permify)
    for connection in [*migration_connections(reading), *direct_connections(reading)]:
        yield from _to_servers(reading, connection)
    through = permify_connections(reading) if elsewhere and pgcats else []
    for connection in [*psql_connections(reading), *through]:
        yield from _to_servers(reading, connection)
        yield from _to_pgcat(reading, connection)
    yield from _of_probes(reading, permifys)
    for pod in dict.fromkeys([*pgcats, *permifys, *_pods(reading, "migrate")]):
        yield Flow(pod, "Egress", 53, "UDP", "ask DNS on 53", widest="labels")
        yield Flow(pod, "Egress", 53, "TCP", "ask DNS on 53 for what fits no datagram", widest="labels")
        for protocol in ("UDP", "TCP"):
            yield Flow(pod, "Egress", OPENSHIFT_DNS_PORT, protocol, "ask DNS", widest="labels", needed=False)


def _pods(reading: Reading, program: Literal["pgcat", "permify", "migrate"]) -> list[Pod]:
    return list(dict.fromkeys(container.pod for container in reading.running(program) if container.pod))


def _of_pgcat(reading: Reading, pgcat: Pod, permifys: list[Pod]) -> Iterator[Flow]:
    topology = reading.topology
    port = topology.pgcat.port if topology.pgcat else None
    exporter = topology.pgcat.exporter if topology.pgcat else None
    for pool in topology.pools.values():
        for server in pool.servers:
            yield from _to_host(pgcat, server.address, f"reach {server.address}")
    for permify in permifys:
        if port is None or permify is pgcat:
            continue
        if permify is permify_elsewhere(reading):  # it may have other labels than we think
            yield Flow(pgcat, "Ingress", port, "TCP", f"be reached on {port}")
            continue
        yield Flow(permify, "Egress", port, "TCP", f"reach {pgcat.text} on {port}", pgcat)
        yield Flow(pgcat, "Ingress", port, "TCP", f"be reached by {permify.text} on {port}", permify)
    if not permifys and port is not None:
        yield Flow(pgcat, "Ingress", port, "TCP", f"be reached on {port}")
    if exporter is not None:
        asked, what = scraped(reading, pgcat), f"be scraped on {exporter}"
        yield Flow(pgcat, "Ingress", exporter, "TCP", what, widest="cluster", needed=asked)


def _of_permify(reading: Reading, pod: Pod) -> Iterator[Flow]:
    ports = permify_ports(reading)
    if ports is None and pod is permify_elsewhere(reading):
        ports = PERMIFY_DEFAULTS  # its chart's, too
    for number in (ports or {}).values():
        yield Flow(pod, "Ingress", number, "TCP", f"be called on {number}", widest="labels")
    for permify in reading.topology.permify:
        container = permify.workload.container
        if container is not None and container.pod is not pod:
            continue
        for collector in permify.collectors:
            yield from _to_host(pod, collector, f"push to {collector}")
        peers = permify.peers_port
        if peers is not None:
            yield Flow(pod, "Egress", peers, "TCP", f"ask its other pods on {peers}", pod)
            yield Flow(pod, "Ingress", peers, "TCP", f"be asked by its other pods on {peers}", pod)


def _of_probes(reading: Reading, permifys: list[Pod]) -> Iterator[Flow]:
    """From Prometheus to what makes its requests, and from there to Permify."""
    seen = set[tuple[Pod, int]]()
    for request in requests(reading):
        for pod in [container.pod for container in makers(reading, request) or [] if container.pod]:
            if request.port is None or (pod, request.port) in seen:
                continue
            seen.add((pod, request.port))
            yield Flow(pod, "Ingress", PROBE_PORT, "TCP", f"be asked on {PROBE_PORT}", widest="cluster")
            for permify in permifys:
                on = f"on {request.port}"
                yield Flow(pod, "Egress", request.port, "TCP", f"reach {permify.text} {on}", permify)
                yield Flow(permify, "Ingress", request.port, "TCP", f"be reached by {pod.text} {on}", pod)


def psql_connections(reading: Reading) -> Iterator[Connection]:
    """What the containers open that wait for the migration, or note it."""
    for container in reading.own_containers:
        if container.pod is not None and not container.program:
            for uri in _uris(container):
                yield Connection("migration", uri, container)


def _uris(container: Container) -> Iterator[Uri]:
    for variable in container.variables:
        uri = (
            read_uri(variable.value, container.at(*variable.keys))
            if "://" in (variable.value or "")
            else None
        )
        if uri is not None:
            yield uri
    uri = read_uri(option(container.words, "--dbname", "-d"), container.at("command"))
    if uri is not None:
        yield uri


def _to_servers(reading: Reading, connection: Connection) -> Iterator[Flow]:
    """The way to the hosts of a connection string, but by which it reaches PgCat: PS412 judges."""
    pod = _opener(reading, connection)
    around = reach(reading, connection) or {}
    for address in connection.uri.servers:
        if pod is not None and address.host not in around:
            yield from _to_host(pod, address, f"reach {address}")


def _to_pgcat(reading: Reading, connection: Connection) -> Iterator[Flow]:
    """The way to PgCat in other pods, where a connection string leads there."""
    pod, pgcat = _opener(reading, connection), reading.topology.pgcat
    around = reach(reading, connection) or {}
    named = any(address.host in around for address in connection.uri.servers)
    for other in _pods(reading, "pgcat") if named else []:
        if pod is not None and pod is not other and pgcat and pgcat.port is not None:
            yield Flow(pod, "Egress", pgcat.port, "TCP", f"reach {other.text} on {pgcat.port}", other)


def _opener(reading: Reading, connection: Connection) -> Pod | None:
    return connection.container.pod if connection.container else permify_elsewhere(reading)


def _to_host(pod: Pod, host: Address, what: str) -> Iterator[Flow]:
    if not host.is_loopback and host.port:
        widest: Widest = "any" if address_of(host.host) is None else "peer"
        yield Flow(pod, "Egress", host.port, "TCP", what, host.host, widest)


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as; None for a name, which may have any."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
