"""Who reaches whom: the names and ports of PgCat, and the connections that the stack needs.

A `Flow` is a connection as NetworkPolicies see it: from or to a pod.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.endpoints import LOOPBACK, Address
from pgcat_stack.files.gaps import Gap
from pgcat_stack.files.plain_data import as_list, as_mapping, as_text, dig
from pgcat_stack.files.sources import Source
from pgcat_stack.permify.defaults import PEERS_PORT
from pgcat_stack.reading.connections import Connection, Connections
from pgcat_stack.reading.containers import Container, Program
from pgcat_stack.reading.monitoring import PodMonitor, Prometheus, Request, scrape_annotations
from pgcat_stack.reading.pods import Pod
from pgcat_stack.reading.ports import PERMIFY_DEFAULTS, PermifyPorts
from pgcat_stack.reading.selectors import NAME_LABEL
from pgcat_stack.reading.services import Service
from pgcat_stack.reading.topology import Topology

OPENSHIFT_DNS_PORT = 5353
"""Where DNS pods of OpenShift listen behind port 53 of their Service."""
BLACKBOX_PORT = 9115
"""Where a blackbox_exporter listens unless it is told otherwise."""

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
    calls_permify: bool = False
    """Whether its other end is a client of Permify."""


@dataclass(frozen=True, eq=False)
class Network:
    """How the programs of a deployment find each other."""

    containers: tuple[Container, ...]
    pods: tuple[Pod, ...]
    topology: Topology
    services: tuple[Service, ...]
    pod_monitors: tuple[PodMonitor, ...]
    prometheus: Prometheus
    connections: Connections
    permify_ports: PermifyPorts | None
    kustomization: Source | None
    complete: bool
    """Whether every object of the deployment is known."""

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What of Services, PodMonitors and prometheus.yml could not be read."""
        of_services = (gap for service in self.services for gap in service.gaps)
        of_monitors = (gap for monitor in self.pod_monitors for gap in monitor.gaps)
        return (*of_services, *of_monitors, *self.prometheus.gaps)

    def running(self, program: Program) -> list[Container]:
        """The containers that run this program."""
        return [container for container in self.containers if container.program == program]

    def _pods_of(self, program: Program) -> list[Pod]:
        return list(dict.fromkeys(container.pod for container in self.running(program) if container.pod))

    @cached_property
    def stack_pods(self) -> tuple[Pod, ...]:
        """The pods of the stack, and Permify's where somebody else deploys it."""
        own = {container.pod for container in self.containers if container.own}
        elsewhere = [self.permify_elsewhere] if self.permify_elsewhere else []
        return (*(pod for pod in self.pods if pod in own), *elsewhere)

    @cached_property
    def permify_elsewhere(self) -> Pod | None:
        """Permify's pods where somebody else deploys them: of their labels only the name is known."""
        source = self.kustomization
        if source is None or self.running("permify") or not self.topology.permify:
            return None
        namespace = as_text(source.mapping.get("namespace"))
        manifest = Manifest("pods", "of Permify", namespace, "", {}, source, 0)
        return Pod(manifest, {NAME_LABEL: "permify"}, ())

    # Where programs answer

    def listening(self, container: Container) -> set[int] | None:
        """The ports that its program listens on; None where that is not known."""
        pgcat, permify = self.topology.pgcat, self.permify_ports
        if container.program == "pgcat" and pgcat is not None and pgcat.port is not None:
            return {pgcat.port} | ({pgcat.exporter} if pgcat.exporter is not None else set())
        if container.program == "permify" and permify is not None:
            if any(variable.name.startswith("PERMIFY_SERVER_") for variable in container.variables):
                return None
            extra = {permify.profiler} if permify.profiler is not None else set()
            return {*permify.apis.values(), PEERS_PORT} | extra
        return None

    def reach(self, connection: Connection) -> dict[str, int] | None:
        """How whoever opens this connection reaches PgCat: the port by host name.

        None where the files do not tell.
        """
        pgcat = self.topology.pgcat
        port = pgcat.port if pgcat else None
        targets = self.running("pgcat")
        if port is None or not targets:
            return None
        found: dict[str, int] = {}
        for target in targets:
            if target.pod is None:
                found.update(dict.fromkeys(compose_names(target, connection.container), port))
            elif connection.container is not None and connection.container.pod is target.pod:
                found.update(dict.fromkeys(LOOPBACK, port))
            elif not self.complete:
                return None
            else:
                found.update(self._service_names(target.pod, port))
        return found

    def _service_names(self, pod: Pod, port: int) -> Iterator[tuple[str, int]]:
        for service in self.services:
            if service.pods == (pod,):
                for entry in service.ports:
                    if entry.outer is not None and pod.port_number(entry.inner) == port:
                        yield from ((name, entry.outer) for name in service.host_names)

    # Metrics and probes

    def scraped(self, pod: Pod) -> bool:
        """Whether annotations or a PodMonitor ask for metrics of these pods."""
        return scrape_annotations(pod) is not None or any(
            pod in monitor.pods and not all(endpoint.asks_another for endpoint in monitor.endpoints)
            for monitor in self.pod_monitors
        )

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        """The requests of Permify that Prometheus has made."""
        return (
            *self.prometheus.requests,
            *(request for monitor in self.pod_monitors for request in monitor.requests),
        )

    def makers(self, request: Request) -> list[Container] | None:
        """The containers that make a request; None where they are not of this deployment."""
        host, _, _ = request.exporter.rpartition(":")
        named = [
            container for container in self.containers if container.pod is None and container.name == host
        ]
        for service in self.services:
            if host in service.host_names:
                named += [
                    container
                    for container in self.containers
                    if container.own and container.pod and container.pod in service.pods
                ]
        outside = "." in host and not host.startswith(f"{host.partition('.')[0]}.{request.namespace}.")
        return named if named or not outside else None

    # What is needed

    @cached_property
    def flows(self) -> tuple[Flow, ...]:
        """Every connection that the stack needs or may need, as far as its files tell."""
        return tuple(self._flows())

    def _flows(self) -> Iterator[Flow]:
        pgcats = self._pods_of("pgcat")
        elsewhere = self.permify_elsewhere
        permifys = [elsewhere] if elsewhere else self._pods_of("permify")
        for pgcat in pgcats:
            yield from self._of_pgcat(pgcat, permifys)
        for permify in permifys:
            yield from self._of_permify(permify)
        known = self.connections
        for connection in (*known.migrations, *known.direct):
            yield from self._to_servers(connection)
        through = known.permify if elsewhere and pgcats else ()
        for connection in (*known.psql, *through):
            yield from self._to_servers(connection)
            yield from self._to_pgcat(connection)
        yield from self._of_probes(permifys)
        for pod in dict.fromkeys([*pgcats, *permifys, *self._pods_of("migrate")]):
            yield Flow(pod, "Egress", 53, "UDP", "ask DNS on 53", widest="labels")
            yield Flow(pod, "Egress", 53, "TCP", "ask DNS on 53 for what fits no datagram", widest="labels")
            for protocol in ("UDP", "TCP"):
                yield Flow(
                    pod, "Egress", OPENSHIFT_DNS_PORT, protocol, "ask DNS", widest="labels", needed=False
                )

    def _of_pgcat(self, pgcat: Pod, permifys: list[Pod]) -> Iterator[Flow]:
        topology = self.topology
        port = topology.pgcat.port if topology.pgcat else None
        exporter = topology.pgcat.exporter if topology.pgcat else None
        for pool in topology.pools.values():
            for server in pool.servers:
                yield from _to_host(pgcat, server.address, f"reach {server.address}")
        for permify in permifys:
            if port is None or permify is pgcat:
                continue
            if permify is self.permify_elsewhere:  # it may have other labels than we think
                yield Flow(pgcat, "Ingress", port, "TCP", f"be reached on {port}")
                continue
            yield Flow(permify, "Egress", port, "TCP", f"reach {pgcat.text} on {port}", pgcat)
            yield Flow(pgcat, "Ingress", port, "TCP", f"be reached by {permify.text} on {port}", permify)
        if not permifys and port is not None:
            yield Flow(pgcat, "Ingress", port, "TCP", f"be reached on {port}")
        if exporter is not None:
            what = f"be scraped on {exporter}"
            asked = self.scraped(pgcat)
            yield Flow(pgcat, "Ingress", exporter, "TCP", what, widest="cluster", needed=asked)

    def _of_permify(self, pod: Pod) -> Iterator[Flow]:
        ports = self.permify_ports.apis if self.permify_ports else {}
        if self.permify_ports is None and pod is self.permify_elsewhere:
            ports = PERMIFY_DEFAULTS  # its chart's, too
        for number in ports.values():
            what = f"be called on {number}"
            yield Flow(pod, "Ingress", number, "TCP", what, widest="labels", calls_permify=True)
        for permify in self.topology.permify:
            container = permify.workload.container
            if container is not None and container.pod is not pod:
                continue
            for collector in permify.collectors:
                yield from _to_host(pod, collector, f"push to {collector}")
            peers = permify.peers_port
            if peers is not None:
                yield Flow(pod, "Egress", peers, "TCP", f"ask its other pods on {peers}", pod)
                yield Flow(pod, "Ingress", peers, "TCP", f"be asked by its other pods on {peers}", pod)

    def _of_probes(self, permifys: list[Pod]) -> Iterator[Flow]:
        """From Prometheus to what makes its requests, and from there to Permify."""
        seen = set[tuple[Pod, int]]()
        for request in self.requests:
            for pod in [container.pod for container in self.makers(request) or [] if container.pod]:
                port = request.port
                if port is None or (pod, port) in seen:
                    continue
                seen.add((pod, port))
                asked = f"be asked on {BLACKBOX_PORT}"
                yield Flow(pod, "Ingress", BLACKBOX_PORT, "TCP", asked, widest="cluster")
                for permify in permifys:
                    yield Flow(pod, "Egress", port, "TCP", f"reach {permify.text} on {port}", permify)
                    reached = f"be reached by {pod.text} on {port}"
                    yield Flow(permify, "Ingress", port, "TCP", reached, pod)

    def _to_servers(self, connection: Connection) -> Iterator[Flow]:
        """The way to the hosts of a connection string, but by which it reaches PgCat: PS412 judges."""
        pod = self._opener(connection)
        around = self.reach(connection) or {}
        for address in connection.uri.servers:
            if pod is not None and address.host not in around:
                yield from _to_host(pod, address, f"reach {address}")

    def _to_pgcat(self, connection: Connection) -> Iterator[Flow]:
        """The way to PgCat in other pods, where a connection string leads there."""
        pod, pgcat = self._opener(connection), self.topology.pgcat
        around = self.reach(connection) or {}
        named = any(address.host in around for address in connection.uri.servers)
        for other in self._pods_of("pgcat") if named else []:
            if pod is not None and pod is not other and pgcat and pgcat.port is not None:
                yield Flow(pod, "Egress", pgcat.port, "TCP", f"reach {other.text} on {pgcat.port}", other)

    def _opener(self, connection: Connection) -> Pod | None:
        return connection.container.pod if connection.container else self.permify_elsewhere


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


def compose_names(target: Container, source: Container | None) -> Iterator[str]:
    """The names by which one Compose service finds another; `source` is None for any of the same networks."""
    mode = source.data.get("network_mode") if source else None
    if mode == f"service:{target.name}" or (mode == "host" and target.data.get("network_mode") == "host"):
        yield from LOOPBACK
        return
    yield target.name.lower()
    for key in ("container_name", "hostname"):
        name = target.data.get(key)
        if isinstance(name, str):
            yield name.lower()
    for network in as_mapping(target.data.get("networks")).values():
        yield from (alias.lower() for alias in as_list(dig(network, "aliases")) if isinstance(alias, str))
