"""How each address of the deployment is reached from here.

In this order: what `--reach` says; what docker or kubectl says of the running processes; the address as it
stands in the files.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pgcat_stack.doctor.expected import Facts, Server
from pgcat_stack.doctor.platforms import Cluster, Place, Process, docker_processes
from pgcat_stack.doctor.side_by_side import Failed, Questions, Trouble, probe, together
from pgcat_stack.endpoints import Address
from pgcat_stack.reading.deployment import DeploymentError

_MAPPING = re.compile(
    r"(?P<name>[^=:\[\]]+|\[[^\]=]+\])(?::(?P<port>\d{1,5}))?=(?P<host>[^=:]+|\[[^\]=]+\]):(?P<to>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class ReachMapping:
    """`--reach NAME[:PORT]=HOST:PORT`: a name of the deployment, and where it is reached instead."""

    name: str
    port: int | None
    place: Place


def parse_mapping(text: str) -> ReachMapping:
    """The parts of a `--reach`. Raises ValueError for what is none."""
    match = _MAPPING.fullmatch(text.strip())
    if match is None or not 0 < int(match["to"]) < 65536:
        raise ValueError(f"{text}: not NAME[:PORT]=HOST:PORT, such as pgcat=127.0.0.1:6432")
    port = int(match["port"]) if match["port"] else None
    return ReachMapping(
        Address.of(match["name"]).host, port, Place(match["host"].strip("[]"), int(match["to"]))
    )


@dataclass(frozen=True, slots=True)
class Options:
    """How to reach and ask."""

    timeout_seconds: float = 5.0
    mappings: tuple[ReachMapping, ...] = ()
    docker: bool = True
    kubectl: bool = True
    context: str = ""
    namespace: str = ""
    write_check: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Something to ask, and where its ports may be reached, the likeliest place first."""

    name: str
    places: Mapping[int, tuple[Place, ...]]
    trouble: Trouble | None = None
    """Why it cannot be reached at all."""
    process: Process | None = None
    """What its platform says of it, where that was asked."""

    def main(self, port: int) -> str:
        """Where the port is reached first, for messages; empty where nothing says."""
        places = self.places.get(port, ())
        return str(places[0]) if places else ""

    def open(self, port: int, seconds: float) -> tuple[Place, str]:
        """The first place that takes connections for the port, and its address. Raises `Failed`."""
        if self.trouble is not None:
            raise Failed(self.trouble.kind, self.trouble.text)
        places = self.places.get(port, ())
        if not places:
            raise Failed("unreachable", f"nothing says where port {port} is reached")
        tried = together(
            {place: lambda place=place: probe(place.host, place.port, seconds) for place in places},  # type: ignore[misc]
            2 * seconds + 1,
        )
        for place, address in tried.items():
            if isinstance(address, str):
                return place, address
        reasons = [trouble.text for trouble in tried.values() if isinstance(trouble, Trouble)]
        raise Failed("unreachable", "; ".join(dict.fromkeys(reasons)))


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything that can be asked, and what the platform says about it."""

    pgcats: tuple[Target, ...] = ()
    permifys: tuple[Target, ...] = ()
    servers: Mapping[Address, Target] = field(default_factory=dict)
    processes: tuple[Process, ...] | None = None
    """What docker or Kubernetes runs; None where it was not asked or did not answer."""
    cluster: Cluster | None = None
    notes: tuple[str, ...] = ()
    hint: str = ""
    """What to try where something cannot be reached."""

    @property
    def everything(self) -> tuple[Target, ...]:
        """All targets."""
        return (*self.servers.values(), *self.pgcats, *self.permifys)


@contextlib.contextmanager
def open_reach(facts: Facts, options: Options, questions: Questions | None = None) -> Iterator[Reach]:
    """Find out how everything is reached. Port-forwards last as long as the context.

    Raises `DeploymentError` for a mapping of a name that the deployment does not have.
    """
    _check_names(facts, options)
    questions = questions or Questions()
    with contextlib.ExitStack() as forwards:
        opening = _Opening(facts, options, forwards, questions)
        yield questions.put("how everything is reached", opening.reach, Reach())


def _check_names(facts: Facts, options: Options) -> None:
    known = {"permify"} | ({"pgcat"} if facts.fronted else set())
    hosts = {server.address.host for server in facts.servers}
    for mapping in options.mappings:
        if mapping.name not in known | hosts:
            names = ", ".join(sorted(known, key=len) + sorted(hosts))
            raise DeploymentError(f"--reach {mapping.name}: the deployment has no such name; it has {names}")


class _Opening:
    def __init__(
        self, facts: Facts, options: Options, forwards: contextlib.ExitStack, questions: Questions
    ) -> None:
        self.facts, self.options, self.forwards = facts, options, forwards
        self.questions = questions
        self.notes: list[str] = []
        self.hint = ""
        self.cluster: Cluster | None = None
        exporter = (facts.exporter_port,) if facts.exporter_port else ()
        self.ports: dict[str, tuple[int, ...]] = {
            "pgcat": (facts.pgcat_port, *exporter),
            "permify": (facts.permify_port,),
        }

    def reach(self) -> Reach:
        mapped = {name: self._mapped(name) for name in self.ports}
        wanted = {name for name, targets in mapped.items() if not targets}
        if not self.facts.fronted:
            wanted.discard("pgcat")
        processes = self.questions.put(
            f"what {'docker' if self.facts.platform == 'docker' else 'kubectl'} says of the processes",
            lambda: self._processes(wanted),
            None,
        )
        found = {
            name: mapped[name] or (self._found(name, processes) if name in wanted else ())
            for name in self.ports
        }
        if self.facts.platform == "kubernetes" and processes is not None:
            found = {**found, **self._forwarded(found, processes, wanted)}
        return Reach(
            pgcats=found["pgcat"] if self.facts.fronted else (),
            permifys=found["permify"],
            servers={server.address: self._server(server, processes) for server in self.facts.servers},
            processes=None if processes is None else tuple(processes),
            cluster=self.cluster,
            notes=tuple(self.notes),
            hint=self.hint,
        )

    def _mapped(self, name: str) -> tuple[Target, ...]:
        """One target for each time that its port is mapped."""
        by_port: dict[int, list[Place]] = {}
        for mapping in self.options.mappings:
            if mapping.name == name:
                by_port.setdefault(mapping.port or self.ports[name][0], []).append(mapping.place)
        count = max((len(places) for places in by_port.values()), default=0)
        main = by_port.get(self.ports[name][0], [])
        return tuple(
            Target(
                f"at {main[number]}" if number < len(main) else str(number + 1),
                {port: (places[number],) for port, places in by_port.items() if number < len(places)},
            )
            for number in range(count)
        )

    def _processes(self, wanted: set[str]) -> list[Process] | None:
        """What docker or kubectl says; None where neither was asked, or the one did not answer."""
        facts, options = self.facts, self.options
        seconds = 2 * options.timeout_seconds
        if not wanted:
            return None
        try:
            if facts.platform == "docker":
                if not options.docker or shutil.which("docker") is None:
                    self.hint = "run this where docker is, or name an address by --reach"
                    return None
                ports = [port for numbers in self.ports.values() for port in numbers]
                ports += [server.address.port for server in facts.servers]
                return docker_processes(facts.deployment.root.resolve(), ports, seconds)
            self.hint = "name an address by --reach, or run this where kubectl is"
            if not options.kubectl or shutil.which("kubectl") is None:
                return None
            cluster = Cluster(
                facts.deployment.root.resolve(),
                seconds,
                options.context,
                options.namespace or facts.namespace,
            )
            if not cluster.has_context():
                self.notes.append(
                    "kubectl has no current context, so it was not asked: choose one by --context"
                )
                return None
            self.cluster = cluster
            self.hint = "is this the right --context and --namespace?"
            return cluster.processes()
        except Failed as failed:
            self.notes.append(failed.trouble.text)
            self.cluster = None
            return None

    def _found(self, name: str, processes: list[Process] | None) -> tuple[Target, ...]:
        if processes is not None and self.facts.platform == "docker":
            return tuple(
                Target(process.name, process.places, process=process)
                for process in processes
                if process.program == name and not process.going
            )
        return () if processes is not None else self._as_written(name)

    def _as_written(self, name: str) -> tuple[Target, ...]:
        """The host that the files give it, where it is one that could be reached from elsewhere."""
        if name == "permify":
            workload = self.facts.workload("permify")
            hosts = ["permify"] if workload is not None and workload.container is not None else []
        else:
            hosts = [
                server.host
                for uri in self.facts.uris
                if self.facts.topology.pooled(uri)
                for server in uri.servers
                if not server.is_loopback
            ]
        return tuple(
            Target(f"at {host}", {port: (Place(host, port),) for port in self.ports[name]})
            for host in dict.fromkeys(hosts)
        )

    def _forwarded(
        self, found: Mapping[str, tuple[Target, ...]], processes: list[Process], wanted: set[str]
    ) -> dict[str, tuple[Target, ...]]:
        """A port-forward to every pod with a PgCat and to one with Permify."""
        pods: dict[str, set[str]] = {}
        alive = [process for process in processes if process.program in wanted and not process.going]
        asked_permify = False
        for process in sorted(alive, key=lambda process: bool(process.trouble)):
            if process.program == "permify" and asked_permify:
                continue
            asked_permify = asked_permify or process.program == "permify"
            pods.setdefault(process.name, set()).add(process.program)

        def forward(pod: str) -> Callable[[], Mapping[int, tuple[Place, ...]]]:
            ports = [port for program in pods[pod] for port in self.ports[program]]
            assert self.cluster is not None
            context = self.cluster.forwarded(pod, ports)
            return lambda: self.forwards.enter_context(context)

        jobs = {pod: (f"the port-forward to {pod}", forward(pod)) for pod in pods}
        opened = self.questions.together(jobs, 3 * self.options.timeout_seconds)
        by_pod = {(process.name, process.program): process for process in alive}
        return {
            program: found[program]
            or tuple(
                Target(pod, {}, trouble=_once(ports))
                if isinstance(ports, Trouble)
                else Target(pod, ports, process=by_pod.get((pod, program)))
                for pod, ports in sorted(opened.items())
                if program in pods[pod]
            )
            for program in self.ports
        }

    def _server(self, server: Server, processes: list[Process] | None) -> Target:
        host, port = server.address.host, server.address.port
        for mapping in self.options.mappings:
            if mapping.name == host and mapping.port in (None, port):
                return Target(str(server.address), {port: (mapping.place,)})
        places: list[Place] = []
        for process in processes or ():
            if process.program == host:
                places += process.places.get(port, ())
        if (not places and not server.address.is_loopback) or self.facts.platform == "none":
            places.append(Place(host, port))
        if not places and self.facts.platform == "docker":
            places.append(Place(host, port))
        trouble = None
        if not places:
            trouble = Trouble("unreachable", f"{host} in the files is loopback where PgCat or Permify runs")
        return Target(str(server.address), {port: tuple(places)}, trouble)


def _once(trouble: Trouble) -> Trouble:
    """A trouble for those who come after: what is broken is told once."""
    return Trouble("unasked", trouble.text) if trouble.kind == "broken" else trouble
