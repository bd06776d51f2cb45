"""PS82x: ports, restarts and addresses that behave in Compose, and on Kubernetes where the same holds.

https://docs.docker.com/reference/compose-file/services/#ports
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import dig
from pgcat_stack.findings import Problem
from pgcat_stack.paths import COMPOSE, PERMIFY, PGCAT, VALUES
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.ports import EVERYWHERE, Published, published_ports
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.workloads import compose_replicas


@check(
    code="PS821",
    name="port-on-all-interfaces",
    severity="warning",
    why="A port without an address is open on every interface of the machine, past most host firewalls.",
    fix="Write the address in front: 127.0.0.1:3476:3476, or ${PERMIFY_BIND:-127.0.0.1}:3476:3476.",
)
def port_on_all_interfaces(reading: Reading) -> Iterator[Problem]:
    """Published ports without an address, or with all of them."""
    for container in reading.services:
        for port in published_ports(container) if container.own else ():
            if port.host in EVERYWHERE:
                text = f"{container.text} publishes {show(port.text)} on all interfaces"
                yield Problem(port.location, text, "write 127.0.0.1: in front, or an address")


@check(
    code="PS822",
    name="port-clash",
    severity="error",
    why="A port of the host serves one container, so the second of two replicas, or of two"
    " services, does not start.",
    fix="Publish a range as long as the number of replicas, or leave the host port out.",
)
def port_clash(reading: Reading) -> Iterator[Problem]:
    """Fewer host ports than replicas, fixed names with replicas, ports that two services publish."""
    taken: list[tuple[Container, Published]] = []
    for container in reading.services:
        replicas = compose_replicas(container).value
        if replicas > 1 and container.fixed_name:
            text = f"{container.text} has {replicas} replicas and a fixed container_name"
            yield Problem(container.fixed_name, text, "remove the name")
        for port in published_ports(container):
            count = port.last - port.first + 1
            if port.first and count < replicas * port.targets:
                text = (
                    f"{container.text} has {replicas} replicas and publishes {count} of the"
                    f" host's ports for {show(port.text)}"
                )
                last = port.first + replicas * port.targets - 1
                yield Problem(port.location, text, f"publish a range, {port.first}-{last}")
            for other, theirs in taken:
                overlap = port.first and port.first <= theirs.last and theirs.first <= port.last
                same = port.host == theirs.host or {port.host, theirs.host} & EVERYWHERE
                if overlap and same:
                    text = f"{container.text} publishes {show(port.text)}, which {other.text} publishes, too"
                    yield Problem(port.location, text, "use another port of the host")
            taken.append((container, port))


@check(
    code="PS823",
    name="restart-policy",
    severity="warning",
    why="A service without a restart policy stays down after a crash or a reboot; one that runs"
    " to its end must not be"
    " started again.",
    fix='restart: unless-stopped for services that stay, restart: "no" for those that end.',
)
def restart_policy(reading: Reading) -> Iterator[Problem]:
    """Services that stay without a restart policy, services that end with one."""
    ending = reading.ending_services
    for container in (container for container in reading.services if container.own):
        policy = container.restart
        if container.name in ending:
            if policy.value in ("always", "unless-stopped", "any"):
                text = f"{container.text} runs to its end, and restart: {policy.value} starts it again"
                yield Problem(policy.location, text, 'set restart: "no"')
        elif policy.value in ("no", "none"):
            text = f"{container.text} is not started again"
            yield Problem(policy.location, text, "set restart: unless-stopped")


@check(
    code="PS824",
    name="profiler-enabled",
    severity="warning",
    why="Permify's profiler answers everybody who reaches its port, and costs time.",
    fix="profiler.enabled: false, and only for an investigation true.",
)
def profiler_enabled(reading: Reading) -> Iterator[Problem]:
    """The profiler, on by file or variable."""
    for path, keys in ((PERMIFY, ("profiler", "enabled")), (VALUES, ("app", "profiler", "enabled"))):
        source = reading.sources.get(path)
        if source is not None and dig(source.data, *keys) is True:
            yield Problem(source.at(*keys), "the profiler is on", "set it to false")
    for container in reading.running("permify"):
        variable = container.variable("PERMIFY_PROFILER_ENABLED")
        if variable is not None and str(variable.value).lower() in ("true", "1", "t"):
            yield Problem(
                container.at(*variable.keys), f"the profiler of {container.text} is on", "remove the variable"
            )


@check(
    code="PS825",
    name="loopback-database",
    severity="warning",
    needs=(COMPOSE, PGCAT, PERMIFY),
    why="Inside a container 127.0.0.1 is the container itself, where no PostgreSQL listens.",
    fix="Name the host as the container sees it: a service, a DNS name, or host.docker.internal.",
)
def loopback_database(reading: Reading) -> Iterator[Problem]:
    """Loopback addresses of PostgreSQL in pgcat.toml and in direct URIs."""
    programs = reading.running("pgcat" if reading.topology.fronted else "permify")
    if any(container.on_host_network for container in programs):
        return
    fix = "name the host as the container sees it"
    for pool in reading.topology.pools.values():
        for server in pool.servers:
            if server.address.is_loopback:
                yield Problem(server.location, f"{server.address} is PgCat's own container", fix)
    for connection in reading.connections.direct:
        for address in connection.uri.servers:
            if address.is_loopback:
                yield Problem(connection.location, f"{address} is Permify's own container", fix)


@check(
    code="PS826",
    name="log-rotation",
    severity="warning",
    why="Docker keeps all that a container writes unless told otherwise. A PgCat at its limit of open files"
    " writes 10 to 50 MB a second, and a full disk ends the database beside it.",
    fix='logging: {driver: json-file, options: {max-size: 10m, max-file: "5"}}, or the driver local. Where'
    " the daemon sends logs elsewhere, name its driver: logging: {driver: journald} keeps its options.",
)
def log_rotation(reading: Reading) -> Iterator[Problem]:
    """Services that stay and whose log may grow without end."""
    ending = reading.ending_services
    for container in reading.services:
        log = container.logging
        skipped = not container.own or container.name in ending or container.extends
        if not skipped and log.driver == "json-file" and not log.limited:
            yield Problem(
                log.location,
                f"the log of {container.text} grows without end",
                'set logging: {driver: json-file, options: {max-size: 10m, max-file: "5"}},'
                " or name the driver of the daemon",
            )


_FEW_FILES = 4096
"""Below it start.sh warns. A thousand pods of Permify are 2,000 connections, perhaps all at one PgCat."""


@check(
    code="PS827",
    name="file-limit",
    severity="warning",
    why="Each connection is an open file. PgCat and Permify raise their limit to the hard one, and no"
    " further. At its limit PgCat accepts no client.",
    fix="Remove ulimits.nofile: Docker's own hard limit is high. Or set a hard limit of at least 4096.",
)
def file_limit(reading: Reading) -> Iterator[Problem]:
    """A low hard limit of open files for PgCat or Permify in Compose; Kubernetes has no field for it."""
    for container in reading.services:
        hard = container.file_limit
        if container.program in ("pgcat", "permify") and hard is not None and 0 <= hard.value < _FEW_FILES:
            most = f"{hard.value} files at most"
            text = f"{container.text} may open {most}, fewer than its connections may need"
            yield Problem(hard.location, text, "remove ulimits.nofile")
