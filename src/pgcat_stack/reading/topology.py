"""What runs where, from the files: workloads, PgCat's pools, Permify's database settings, servers.

Everything knows where it stands, for messages. Values of a wrong type are skipped: other checks report them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pgcat_stack.endpoints import Address, Uri
from pgcat_stack.pgcat.config import Pgcat, Pool
from pgcat_stack.reading.capacities import BudgetServer
from pgcat_stack.reading.chart import ChartValues
from pgcat_stack.reading.deployment import Deployment
from pgcat_stack.reading.permify import Permify, Side, read_permify_process
from pgcat_stack.reading.workloads import Workload


@dataclass(frozen=True, eq=False)
class Topology:
    """A deployment as processes, pools and servers."""

    workloads: tuple[Workload, ...]
    pgcat: Pgcat | None
    permify: tuple[Permify, ...]
    servers: tuple[BudgetServer, ...]
    """Those of budget.yaml."""
    fronted: bool = False
    """Whether there is a PgCat, also where its configuration cannot be read and `pgcat` is None."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """PgCat's pools by name."""
        return self.pgcat.pools if self.pgcat else {}

    @cached_property
    def _known_servers(self) -> set[Address]:
        """Every PostgreSQL server that budget.yaml or a pool names."""
        opened = self.pgcat.opened if self.pgcat else ()
        named = {server.address for pool in opened for server in pool.servers}
        return named | {server.address for server in self.servers}

    def running(self, program: str) -> list[Workload]:
        """The workloads of a program."""
        return [workload for workload in self.workloads if workload.program == program]

    def pooled(self, uri: Uri) -> bool:
        """Whether a URI of Permify leads to PgCat rather than to a PostgreSQL server."""
        if not self.fronted or all(server in self._known_servers for server in uri.servers):
            return False
        if self.pgcat is None:
            return True
        return uri.database in self.pools or any(server.port == self.pgcat.port for server in uri.servers)

    def direct_sides(self, permify: Permify) -> Iterator[tuple[Side, Uri]]:
        """The pools of Permify that reach PostgreSQL without PgCat."""
        return ((side, uri) for side, uri in permify.sides if not self.pooled(uri))


def read_topology(
    deployment: Deployment, workloads: tuple[Workload, ...], pgcat: Pgcat | None, chart: ChartValues | None
) -> Topology:
    """What the files of a deployment run."""
    fronted = deployment.pgcat is not None or any(workload.program == "pgcat" for workload in workloads)
    servers = deployment.capacities.servers if deployment.capacities else ()
    permify = tuple(
        read_permify_process(workload, deployment.permify, chart)
        for workload in workloads
        if workload.program == "permify"
    )
    return Topology(workloads, pgcat, permify, servers, fronted)
