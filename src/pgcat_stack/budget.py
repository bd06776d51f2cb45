"""The connection budget: how many connections each PostgreSQL server can be asked for, and how many it has.

    capacity = max_connections − other_connections, from budget.yaml
    demand   = Σ over pools, their users and shards with the server: pool_size × instances
               (directly: max_connections × instances for each of Permify's two pools that names the server)
               + 3 on the primary: what `permify migrate up` opens at most
    headroom = capacity − demand

Instances are the most processes that live at once, `peak`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgcat_stack.endpoints import Address
from pgcat_stack.files.quantities import Number, seconds_text
from pgcat_stack.findings import Location
from pgcat_stack.reading.capacities import BudgetServer
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.topology import Topology
from pgcat_stack.reading.workloads import Workload

MIGRATION_CONNECTIONS = 3


@dataclass(frozen=True, slots=True)
class Reason:
    """Why pods may pile up in a rollout or a scale-down, and what would hold them back."""

    location: Location
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Peak:
    """The most processes of a workload that live at once, in words, and why it is more than it need be."""

    count: int
    words: str
    reasons: tuple[Reason, ...] = ()
    least: int = 0
    """The count with every reason mended."""


def peak(workload: Workload) -> Peak:
    """The most processes that live at once, R being the replicas or the autoscaler's maximum.

    - Compose: R.
    - A Deployment whose rollout has maxSurge 1, maxUnavailable 0 and minReadySeconds ≥
      terminationGracePeriodSeconds: R + 2, one surge and one draining pod. A Deployment does not count
      terminating pods; so long as a new pod must be ready for as long as an old one may take to go, at most
      one is going.
    - Any other rolling update: 2 × R + 1. One rollout makes R new pods beside the R old, whatever surge and
      unavailable are; the one more is a pod that is replaced meanwhile.
    - Recreate: R + 1. The controller waits until all old pods have gone, but replaces a pod that is evicted
      while it still drains.
    - Autoscaled: one more, for the pod that a scale-down lets drain, so long as every scale-down policy that
      can be chosen lets one pod go in a period ≥ terminationGracePeriodSeconds; otherwise 2 × R + 1.
    - A StatefulSet: R. A pod must be gone before the next of its name starts.
    - By Permify's Helm chart: 2 × R + 1. It has no keys for surge, minReadySeconds, or a grace period.
    - Deployed elsewhere: R + 2. Those manifests are not here to be read.
    """
    replicas = workload.most_replicas
    if not workload.counted:
        return Peak(0, "an unknown number")
    noun = "replica" if replicas == 1 else "replicas"
    if workload.kind in ("compose", "statefulset", "other"):
        return Peak(replicas, f"{replicas} {noun}", least=replicas)
    if workload.kind == "helm":
        return Peak(2 * replicas + 1, f"2 × {replicas} {noun} + 1 by Helm", least=2 * replicas + 1)
    rollout = workload.rollout
    parts = [f"{replicas} {noun}"]
    if rollout is not None and rollout.strategy == "Recreate":
        extra = 1
        parts.append("1 draining")
    else:
        extra = 2
        parts += ["1 surge", "1 draining"]
    if workload.autoscaler is not None:
        extra += 1
        parts.append("1 scaled down")
    reasons = tuple(piling_up(workload))
    least, most = replicas + extra, 2 * replicas + 1
    if reasons and most > least:
        return Peak(most, f"2 × {replicas} {noun} + 1", reasons, least)
    return Peak(least, " + ".join(parts), least=least)


def piling_up(workload: Workload) -> Iterator[Reason]:
    """What lets more than one pod drain at a time."""
    grace = workload.grace.value
    rollout = workload.rollout
    if rollout is not None and rollout.strategy == "RollingUpdate":
        surge, unavailable, ready = rollout.max_surge, rollout.max_unavailable, rollout.min_ready
        if surge.value != 1:
            yield Reason(surge.location, f"maxSurge is {surge.value}", "set maxSurge: 1")
        if unavailable.value != 0:
            message = f"maxUnavailable is {unavailable.value}"
            yield Reason(unavailable.location, message, "set maxUnavailable: 0")
        if ready.value < grace:
            message = f"minReadySeconds {ready.value} is below the grace period of {seconds_text(grace)}"
            yield Reason(ready.location, message, f"set minReadySeconds: {grace:g}")
    for policy in workload.autoscaler.scale_down if workload.autoscaler else ():
        if policy.pods > 1 or policy.period.value < grace:
            pods = "1 pod" if policy.pods == 1 else f"{policy.pods} pods"
            period = seconds_text(policy.period.value)
            takes = f"each takes up to {seconds_text(grace)} to go"
            message = f"the autoscaler may remove {pods} in {period}, and {takes}"
            fix = f"let scaleDown remove 1 pod in a period of {grace:g} s, by no other policy"
            yield Reason(policy.period.location, message, fix)


@dataclass(frozen=True, slots=True)
class Use:
    """One pool's claim on a server: `size` connections in each of `instances.count` processes."""

    pool: str
    size: Number
    workload: Workload
    instances: Peak

    @property
    def demand(self) -> int:
        """The most connections that this pool opens on the server."""
        return self.size.value * self.instances.count


@dataclass(frozen=True, slots=True)
class Row:
    """The budget of one server."""

    server: BudgetServer
    uses: tuple[Use, ...]

    @property
    def migration(self) -> int:
        """Connections of the migration: it runs on the primary alone."""
        return MIGRATION_CONNECTIONS if self.server.role == "primary" else 0

    @property
    def demand(self) -> int:
        """The most connections that the server can be asked for."""
        return sum(use.demand for use in self.uses) + self.migration

    @property
    def heaviest(self) -> Use:
        """The pool with the largest demand. Raises ValueError where no pool uses the server."""
        return max(self.uses, key=lambda use: use.demand)

    @property
    def headroom(self) -> int | None:
        """What is left; less than nothing where the budget does not hold."""
        capacity = self.server.capacity
        return None if capacity is None else capacity - self.demand

    @property
    def over(self) -> bool:
        """Whether the server can be asked for more than it has."""
        return self.headroom is not None and self.headroom < 0


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A server that a pool or URI names and budget.yaml does not."""

    address: Address
    named_by: str
    location: Location


@dataclass(frozen=True, slots=True)
class Plan:
    """The budget of a deployment."""

    rows: tuple[Row, ...]
    unlisted: tuple[Unlisted, ...]

    @property
    def counted(self) -> bool:
        """Whether every process that opens connections could be counted."""
        return all(use.workload.counted for row in self.rows for use in row.uses)

    @property
    def holds(self) -> bool:
        """Whether everything is listed, could be counted, and is within its capacity."""
        readable = bool(self.rows) and all(row.server.capacity is not None for row in self.rows)
        return readable and self.counted and not self.unlisted and not any(row.over for row in self.rows)


def plan(reading: Reading) -> Plan:
    """The budget of each server, in the order of budget.yaml. Listed twice, its first entry counts."""
    topology = reading.topology
    servers: dict[Address, BudgetServer] = {}
    for server in topology.servers:
        servers.setdefault(server.address, server)
    uses: dict[Address, list[Use]] = {address: [] for address in servers}
    unlisted: dict[Address, Unlisted] = {}
    for address, use, location in _uses(topology):
        if address in uses:
            uses[address].append(use)
        else:
            unlisted.setdefault(address, Unlisted(address, use.pool, location))
    rows = tuple(Row(server, tuple(uses[address])) for address, server in servers.items())
    return Plan(rows, tuple(unlisted.values()))


def _uses(topology: Topology) -> Iterator[tuple[Address, Use, Location]]:
    """Every claim on a server, with the place where the server is named."""
    if topology.pgcat is not None:
        pools = topology.pgcat.opened
        for workload in topology.running("pgcat"):
            instances = peak(workload)
            for pool in pools:
                several = len({other.user.name for other in pools if other.pool == pool.pool}) > 1
                name = f"{pool.pool} ({pool.user.name})" if several else pool.pool
                for server in pool.servers:
                    yield server.address, Use(name, pool.size, workload, instances), server.location
    for permify in topology.permify:
        instances = peak(permify.workload)
        for side, uri in topology.direct_sides(permify):
            use = Use(f"Permify's {side}", permify.max_connections, permify.workload, instances)
            for address in dict.fromkeys(uri.servers):
                yield address, use, uri.location


# What would fit


def largest_sizes(row: Row) -> dict[str, int] | None:
    """The largest sizes of the server's pools that fit, in their present proportion; None where none does.

    Permify's own two pools have one size between them.
    """
    capacity = row.server.capacity
    if capacity is None or not row.uses:
        return None
    left = capacity - row.migration
    wanted = sum(use.demand for use in row.uses)
    if wanted <= 0 or left <= 0:
        return None
    sizes = {use.pool: use.size.value * left // wanted for use in row.uses}
    if all(use.workload.program == "permify" for use in row.uses):
        return sizes if min(sizes.values()) >= 1 else None
    counts = {use.pool: use.instances.count for use in row.uses}
    for pool in sizes:
        sizes[pool] = max(sizes[pool], 1)
    spare = left - sum(sizes[pool] * counts[pool] for pool in sizes)
    for pool in sorted(sizes, key=lambda pool: sizes[pool]):
        if spare >= counts[pool] > 0:
            sizes[pool] += 1
            spare -= counts[pool]
    return sizes if spare >= 0 else None


def largest_size_alone(row: Row) -> tuple[str, int] | None:
    """PgCat's pool with the largest demand, and its largest size beside the others as they are; else None."""
    if row.server.capacity is None or len(row.uses) < 2:
        return None
    heaviest = row.heaviest
    if heaviest.workload.program != "pgcat" or heaviest.instances.count < 1:
        return None
    others = row.demand - heaviest.demand
    size = (row.server.capacity - others) // heaviest.instances.count
    return (heaviest.pool, size) if size >= 1 else None


def most_replicas_that_fit(row: Row) -> int | None:
    """The most replicas with which the pools fit as they are, by rollouts as they are; None where none do."""
    capacity = row.server.capacity
    workloads = {id(use.workload): use for use in row.uses}
    if capacity is None or len(workloads) != 1:
        return None
    use = next(iter(workloads.values()))
    each = sum(other.size.value for other in row.uses)
    if each <= 0:
        return None
    now, count = use.workload.most_replicas, use.instances.count
    processes = (capacity - row.migration) // each
    fitting = (processes - 1) // 2 if use.instances.reasons else processes - (count - now)
    return fitting if 1 <= fitting < now else None
