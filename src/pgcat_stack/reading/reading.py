"""One reading of a deployment: what every check, the plan, the reports and the doctor judge by.

A `Reading` is the deployment's files and what they say, each part made once, when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pgcat_stack.build.kustomize import listed_files
from pgcat_stack.files.quantities import Number
from pgcat_stack.paths import BUDGET, COMPOSE, KUSTOMIZATION, PERMIFY, PGCAT, VALUES
from pgcat_stack.pgcat.config import Pgcat
from pgcat_stack.reading import monitoring
from pgcat_stack.reading.chart import ChartValues, read_chart
from pgcat_stack.reading.compose import Project, read_project
from pgcat_stack.reading.connections import Connections, read_connections
from pgcat_stack.reading.containers import Container, Program, Variable, read_containers
from pgcat_stack.reading.deployment import Deployment
from pgcat_stack.reading.images import Image, read_chart_image
from pgcat_stack.reading.kustomizations import Kustomization, read_kustomizations
from pgcat_stack.reading.names import (
    Annotations,
    Name,
    read_annotations,
    read_labels,
    read_names,
)
from pgcat_stack.reading.network import Network
from pgcat_stack.reading.permify import PermifySettings, settings_of_container
from pgcat_stack.reading.pods import Pod, read_pods
from pgcat_stack.reading.policies import Policies, read_policies
from pgcat_stack.reading.ports import read_permify_ports
from pgcat_stack.reading.scaling import (
    DisruptionBudget,
    Pause,
    ScaleTarget,
    read_chart_replicas,
    read_disruption_budgets,
    read_pauses,
    read_scale_targets,
)
from pgcat_stack.reading.secret_objects import (
    ExternalSecret,
    SecretData,
    read_external_secrets,
    read_secret_data,
)
from pgcat_stack.reading.selectors import OwnSelector, read_own_selectors
from pgcat_stack.reading.services import Service, read_services
from pgcat_stack.reading.topology import Topology, read_topology
from pgcat_stack.reading.workloads import read_workloads


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
    def pgcat_config(self) -> Pgcat | None:
        """What pgcat.toml says; None without the file or where it does not parse."""
        if self.pgcat is None or not self.pgcat.documents:
            return None
        return Pgcat(self.pgcat, self.pgcat_version)

    @cached_property
    def project(self) -> Project:
        """What compose.yaml declares."""
        return read_project(self.compose)

    @cached_property
    def chart_image(self) -> Image | None:
        """The image in the values of Permify's chart."""
        return read_chart_image(self.sources.get(VALUES))

    @cached_property
    def topology(self) -> Topology:
        """What runs where: workloads, pools, Permify's settings of its database, servers."""
        workloads = read_workloads(self, self.containers)
        return read_topology(self, workloads, self.pgcat_config, self.chart)

    @cached_property
    def chart(self) -> ChartValues | None:
        """The values of Permify's Helm chart; None without the file."""
        return read_chart(self.sources.get(VALUES))

    @property
    def helm_variables(self) -> tuple[Variable, ...]:
        """The environment that the Helm values give Permify."""
        return self.chart.variables if self.chart else ()

    @cached_property
    def permify_settings(self) -> tuple[PermifySettings, ...]:
        """The settings of each container that runs Permify, and of Permify from its chart."""
        found = [settings_of_container(container, self.permify) for container in self.running("permify")]
        found += [each.settings for each in self.topology.permify if each.settings.by_chart]
        return tuple(found)

    @property
    def services(self) -> list[Container]:
        """The services of compose.yaml."""
        return [container for container in self.containers if container.pod is None]

    @property
    def ending_services(self) -> frozenset[str]:
        """The Compose services that end by themselves: migrations, and those whose end another waits for."""
        waited_for = {
            str(dependency.name)
            for container in self.services
            for dependency in container.dependencies
            if dependency.to_its_end
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

    # How they find each other

    @cached_property
    def network(self) -> Network:
        """Services, what scrapes and probes, connection strings, and the connections that all these need."""
        return Network(
            containers=self.containers,
            pods=self.pods,
            topology=self.topology,
            services=self.kubernetes_services,
            pod_monitors=monitoring.read_pod_monitors(self.manifests, self.pods),
            prometheus=monitoring.read_prometheus(self.sources.get(monitoring.PROMETHEUS)),
            connections=self.connections,
            permify_ports=read_permify_ports(self.permify),
            kustomization=self.kustomization,
            complete=self.complete,
        )

    @cached_property
    def secret_data(self) -> tuple[SecretData, ...]:
        """What Secrets hold in files of the deployment."""
        return tuple(read_secret_data(self.sources.values()))

    @cached_property
    def external_secrets(self) -> tuple[ExternalSecret, ...]:
        """The ExternalSecrets."""
        return read_external_secrets(self.manifests)

    @cached_property
    def kubernetes_services(self) -> tuple[Service, ...]:
        """The Services of Kubernetes with the pods that they select."""
        return read_services(self.manifests, self.pods)

    @cached_property
    def own_selectors(self) -> tuple[OwnSelector, ...]:
        """By which labels objects find the pods that they made."""
        return read_own_selectors(self.pods)

    @cached_property
    def connections(self) -> Connections:
        """The connection strings in use."""
        return read_connections(self.containers, self.topology)

    @cached_property
    def policies(self) -> Policies:
        """The NetworkPolicies, and those of Cilium."""
        return read_policies(self.manifests)

    # What watches and scales them

    @cached_property
    def collector(self) -> monitoring.Collector | None:
        """The collector's configuration; None without it or where it does not parse."""
        return monitoring.read_collector(self.sources.get(monitoring.COLLECTOR))

    @cached_property
    def probe_modules(self) -> Mapping[str, monitoring.ProbeModule] | None:
        """The modules of blackbox.yml; None without it or where it does not parse."""
        return monitoring.read_probe_modules(self.sources.get(monitoring.BLACKBOX))

    @cached_property
    def expressions(self) -> tuple[monitoring.Expression, ...]:
        """PromQL in rules, their tests and dashboards."""
        return tuple(monitoring.read_expressions(self.sources, self.manifests))

    @cached_property
    def copied_rules(self) -> tuple[monitoring.CopiedRules, ...]:
        """The PrometheusRules beside a rule file."""
        return monitoring.read_copied_rules(self.sources.get(monitoring.RULES), self.manifests)

    @cached_property
    def scale_targets(self) -> tuple[ScaleTarget, ...]:
        """What HorizontalPodAutoscalers scale."""
        return read_scale_targets(self.manifests, self.pods)

    @cached_property
    def pauses(self) -> tuple[Pause, ...]:
        """The Deployments that are paused."""
        return read_pauses(self.pods)

    @cached_property
    def chart_replicas(self) -> Number | None:
        """The fixed number of replicas in the values of Permify's chart."""
        return read_chart_replicas(self.sources.get(VALUES))

    @cached_property
    def disruption_budgets(self) -> tuple[DisruptionBudget, ...]:
        """The PodDisruptionBudgets."""
        return read_disruption_budgets(self.manifests)

    # What kustomize makes of them, and what they are called

    @cached_property
    def kustomization_settings(self) -> tuple[Kustomization, ...]:
        """kustomization.yaml, and those that it leads to, with what they say."""
        return read_kustomizations(self.kustomizations)

    @cached_property
    def names(self) -> tuple[Name, ...]:
        """The names that manifests, kustomizations and compose.yaml write."""
        return tuple(read_names(self.manifests, self.pods, self.kustomization_settings, self.compose))

    @cached_property
    def labels(self) -> tuple[Name, ...]:
        """The keys and values of labels and selectors, and the keys of annotations."""
        return tuple(read_labels(self.manifests, self.pods, self.kustomization_settings))

    @cached_property
    def annotations(self) -> tuple[Annotations, ...]:
        """The annotations of each object that has some."""
        return tuple(read_annotations(self.manifests))
