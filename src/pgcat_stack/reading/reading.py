"""One reading of a deployment: what every check, the plan, the reports and the doctor judge by.

A `Reading` is the deployment's files and what they say, each part made once, when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pgcat_stack.build.kustomize import listed_files
from pgcat_stack.files.plain_data import as_mapping, dig
from pgcat_stack.paths import BUDGET, COMPOSE, KUSTOMIZATION, PERMIFY, PGCAT, VALUES
from pgcat_stack.reading.containers import Container, Pod, Program, Variable, read_containers, read_pods
from pgcat_stack.reading.deployment import Deployment
from pgcat_stack.reading.topology import Topology, read_topology
from pgcat_stack.reading.workloads import helm_variables, read_workloads


@dataclass(frozen=True, eq=False)
class Reading(Deployment):
    """The files of a deployment and what they say. `Reading.load(folder)` reads one."""

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        """The objects of the deployment that make pods."""
        return read_pods(self)

    @cached_property
    def containers(self) -> tuple[Container, ...]:
        """Every service of compose.yaml and every container of the manifests."""
        return read_containers(self, self.pods)

    @cached_property
    def topology(self) -> Topology:
        """What runs where: workloads, pools, Permify's settings of its database, servers."""
        return read_topology(self, read_workloads(self, self.containers))

    @cached_property
    def helm_variables(self) -> list[Variable]:
        """The environment that the Helm values give Permify."""
        return helm_variables(self)

    @property
    def services(self) -> list[Container]:
        """The services of compose.yaml."""
        return [container for container in self.containers if container.pod is None]

    @property
    def ending_services(self) -> frozenset[str]:
        """The Compose services that end by themselves: migrations, and those whose end another waits for."""
        waited_for = {
            str(name)
            for container in self.services
            for name, how in as_mapping(container.data.get("depends_on")).items()
            if dig(how, "condition") == "service_completed_successfully"
        }
        return frozenset(
            waited_for | {container.name for container in self.services if container.program == "migrate"}
        )

    @property
    def own_containers(self) -> list[Container]:
        """Those that the stack itself brings; what else runs in the same folder is its owner's matter."""
        return [container for container in self.containers if container.own]

    @property
    def own_pods(self) -> list[Pod]:
        """The objects that make pods with one of our programs."""
        own = {container.pod for container in self.own_containers}
        return [pod for pod in self.pods if pod in own]

    def running(self, program: Program) -> list[Container]:
        """The containers that run this program."""
        return [container for container in self.containers if container.program == program]

    @cached_property
    def unreadable(self) -> frozenset[str]:
        """The files that do not parse, or are missing although a program of the deployment reads them.

        A file that does not parse is one fault, and what names a missing file is another's: everything else
        that could be said would follow from the hole.
        """
        paths = (COMPOSE, KUSTOMIZATION, PGCAT, PERMIFY, BUDGET, VALUES)
        found = {path for path in paths if path in self.sources and self.sources[path].broken}
        if VALUES in found:  # Permify's settings where its chart deploys it
            found.add(PERMIFY)
        if self.pgcat is None and self.running("pgcat"):
            found.add(PGCAT)
        if self.permify is None and any(
            not any(variable.name.startswith("PERMIFY_DATABASE_") for variable in container.variables)
            for container in self.running("permify")
        ):
            found.add(PERMIFY)
        if not self._readable_manifests:
            found.add(KUSTOMIZATION)
        return frozenset(found)

    @property
    def _readable_manifests(self) -> bool:
        for source in self.kustomizations:
            for entry in listed_files(source):
                if entry.keys[0] != "resources" or self.remote(entry):
                    continue
                known = self.sources.get(entry.target)
                if not self.exists(entry.target) or (known is not None and known.broken):
                    return False
        return True
