"""PS50x and PS51x: what the deployment asks of PostgreSQL against what budget.yaml says is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pgcat_stack.budget import (
    Plan,
    Row,
    Use,
    largest_size_alone,
    largest_sizes,
    most_replicas_that_fit,
    peak,
    plan,
)
from pgcat_stack.checks import STACK, check
from pgcat_stack.files.quantities import Number, whole
from pgcat_stack.findings import Problem
from pgcat_stack.paths import BUDGET
from pgcat_stack.pgcat.config import PoolUser
from pgcat_stack.reading.permify import Permify, Side
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.topology import Topology
from pgcat_stack.reading.workloads import Workload

PROGRAM_NAMES = {"pgcat": "PgCat", "permify": "Permify"}


def _plan(reading: Reading) -> Plan | None:
    """The budget, or None where there is no budget.yaml to judge by: PS1xx and PS504 say so."""
    if reading.budget is None or not reading.budget.parsed:
        return None
    return plan(reading)


@check(
    code="PS501",
    name="over-budget",
    severity="error",
    needs=STACK,
    why="PostgreSQL refuses connections beyond its limit. Pools open them only under load, so a budget that"
    " does not hold fails at the worst moment: in a rollout at peak traffic. Instances are the most"
    " processes that live at once, with surge and draining pods.",
    fix="Lower pool sizes or replicas, raise max_connections on the server and in budget.yaml, or keep"
    " fewer connections for others.",
)
def over_budget(reading: Reading) -> Iterator[Problem]:
    """Demand above capacity on a server."""
    budget = _plan(reading)
    for row in budget.rows if budget else ():
        if row.over and row.uses:
            yield Problem(row.heaviest.size.location, _arithmetic(row), _what_fits(row))


def _arithmetic(row: Row) -> str:
    """`9 × 4 + 10 × 4 + 3`, with names, against the capacity."""
    server = row.server
    parts = [f"{use.pool} {use.size.value} × {use.instances.count}" for use in row.uses]
    if row.migration:
        parts.append(f"{row.migration} for the migration")
    counted = {
        use.workload.name: f"{use.instances.count} = {use.instances.words} of {_program(use)}"
        for use in row.uses
    }
    return (
        f"{server.address} can be asked for {' + '.join(parts)} = {row.demand} connections and has"
        f" {server.capacity} = max_connections {server.max_connections} − other_connections"
        f" {server.other_connections}; {'; '.join(counted.values())}"
    )


def _what_fits(row: Row) -> str:
    ways: list[str] = []
    sizes, alone = largest_sizes(row), largest_size_alone(row)
    if alone is not None:
        ways.append(f"pool_size of {alone[0]} ≤ {alone[1]}")
    elif sizes is not None:
        permify = all(use.workload.program == "permify" for use in row.uses)
        each = min(sizes.values())
        listed = " and ".join(f"{pool} ≤ {size}" for pool, size in sizes.items())
        ways.append(f"max_connections ≤ {each} in Permify" if permify else f"pool_size of {listed}")
    replicas = most_replicas_that_fit(row)
    if replicas is not None:
        ways.append(
            f"at most {replicas} {_program(row.uses[0])} {'replica' if replicas == 1 else 'replicas'}"
        )
    for reason in _reasons(row.uses):
        ways.append(reason)
    needed = row.demand + (row.server.other_connections or 0)
    ways.append(f"max_connections ≥ {needed} on {row.server.address} and in {BUDGET}")
    return "; or ".join(ways)


def _reasons(uses: tuple[Use, ...]) -> list[str]:
    """What would bring down the count of instances."""
    return list(dict.fromkeys(reason.fix for use in uses for reason in use.instances.reasons))


def _program(use: Use) -> str:
    return PROGRAM_NAMES[use.workload.program]


@check(
    code="PS502",
    name="server-not-in-budget",
    severity="error",
    needs=STACK,
    why="A server without a capacity in budget.yaml cannot be counted, so nothing protects it.",
    fix="List the server in budget.yaml with its max_connections and other_connections, or correct its"
    " address.",
)
def server_not_in_budget(reading: Reading) -> Iterator[Problem]:
    """Servers of pools and URIs that budget.yaml does not list."""
    budget = _plan(reading)
    for server in budget.unlisted if budget else ():
        message = f"{server.address}, used by {server.named_by}, is not in {BUDGET}"
        yield Problem(server.location, message, f"list it under servers in {BUDGET}, or correct the address")


@check(
    code="PS503",
    name="server-unused",
    severity="warning",
    needs=STACK,
    why="A server that no pool and no URI names is either left over or the sign of a wrong address"
    " elsewhere.",
    fix="Remove the server from budget.yaml, or add it to the pool that should use it.",
)
def server_unused(reading: Reading) -> Iterator[Problem]:
    """Servers of budget.yaml that nothing uses."""
    budget, topology = _plan(reading), reading.topology
    named = {server.address for pool in _pools(topology) for server in pool.servers}
    for permify in topology.permify:
        named |= {address for _, uri in permify.sides for address in uri.servers}
    for row in budget.rows if budget else ():
        if row.server.address not in named:
            message = f"no pool and no URI of Permify uses {row.server.address}"
            yield Problem(row.server.location, message, "remove it, or add it to the reader pool")


def _pools(topology: Topology) -> tuple[PoolUser, ...]:
    return topology.pgcat.opened if topology.pgcat else ()


@check(
    code="PS506",
    name="primary-disagrees",
    severity="error",
    needs=STACK,
    why="The migration's connections are counted on the server that budget.yaml calls primary, and writes"
    " fail on any other.",
    fix="Give the server the role primary in budget.yaml, or correct the address of the writer.",
)
def primary_disagrees(reading: Reading) -> Iterator[Problem]:
    """Writers that lead to servers which budget.yaml does not call primary."""
    budget, topology = _plan(reading), reading.topology
    roles = {row.server.address: row.server.role for row in budget.rows} if budget else {}
    if list(roles.values()).count("primary") != 1:
        return  # PS505
    primary = next(address for address, role in roles.items() if role == "primary")
    fix = f"the primary is {primary} there"
    for pool in _pools(topology):
        for server in pool.servers:
            if server.role == "primary" and roles.get(server.address, "primary") != "primary":
                message = f"{server.address} is the primary of {pool.pool} and a replica in {BUDGET}"
                yield Problem(server.location, message, fix)
    for permify in topology.permify:
        for side, uri in topology.direct_sides(permify):
            wrong = [address for address in uri.servers if roles.get(address, "primary") != "primary"]
            if side == "writer" and wrong:
                yield Problem(uri.location, f"Permify writes to {wrong[0]}, a replica in {BUDGET}", fix)


@check(
    code="PS507",
    name="pool-of-one",
    severity="warning",
    needs=STACK,
    why="With a single connection one slow query holds up everything behind it.",
    fix="Give the pool at least two connections; fewer replicas or more max_connections make room for them.",
)
def pool_of_one(reading: Reading) -> Iterator[Problem]:
    """Pools of one connection for each server."""
    topology = reading.topology
    for pool in _pools(topology):
        if pool.size.value == 1:
            message = (
                f"{pool.pool} has one connection to each server in each PgCat: a slow query holds up the rest"
            )
            yield Problem(pool.size.location, message, "set pool_size to 2 or more")
    for permify in topology.permify:
        if permify.max_connections.value == 1 and any(topology.direct_sides(permify)):
            message = "each of Permify's pools has one connection: a slow query holds up the rest"
            yield Problem(permify.max_connections.location, message, "set max_connections to 2 or more")


@check(
    code="PS508",
    name="session-pinning",
    severity="error",
    needs=STACK,
    why="In session mode every Permify process keeps its server connections for as long as it lives, and a"
    " Service may put all processes on one PgCat. Processes that find none left never start.",
    fix="Use transaction mode, raise pool_size within the budget, or run fewer Permify processes with"
    " fewer connections.",
)
def session_pinning(reading: Reading) -> Iterator[Problem]:
    """Session pools that cannot hold what Permify pins in them."""
    topology = reading.topology
    for pool in _pools(topology):
        if pool.user.mode != "session":
            continue
        for permify in topology.permify:
            sides = _sides_on(topology, permify, pool)
            if sides and permify.workload.counted:
                yield from _pinned(pool, permify, len(sides))


def _sides_on(topology: Topology, permify: Permify, pool: PoolUser) -> list[Side]:
    return [
        side
        for side, uri in permify.sides
        if topology.pooled(uri) and uri.database == pool.pool and uri.user in ("", pool.user.name)
    ]


def _pinned(pool: PoolUser, permify: Permify, sides: int) -> Iterator[Problem]:
    """What all processes pin, with one of the pool's servers gone; a sidecar holds its own pod's alone."""
    most, size = permify.max_connections.value, pool.size.value
    servers = sum(server.role != "mirror" for server in pool.servers)
    spread = 1 if permify.workload.sidecar else max(servers - 1, 1)
    processes, words = (1, "") if permify.workload.sidecar else _processes(permify.workload)
    demand = processes * most * sides
    if demand <= size * spread:
        return
    pins = f"max_connections {most}" + (f" × {sides} of its pools" if sides > 1 else "")
    pins = f"({words}) Permify processes × {pins} = {demand}" if words else f"{pins} of Permify"
    holds = f"pool_size {size}" + (
        f" × {spread} of {servers} servers = {size * spread}" if spread > 1 else ""
    )
    fix = f'pool_mode = "transaction", or pool_size ≥ {-(-demand // spread)} within the budget'
    fewer = size * spread // (processes * sides)
    if fewer >= 1:
        fix += f", or max_connections ≤ {fewer} in Permify"
    yield Problem(pool.size.location, f"session mode: {pins} pin more than {pool.pool} has, {holds}", fix)


def _processes(workload: Workload) -> tuple[int, str]:
    """The most Permify processes that one PgCat may meet: one surge and one draining beside the replicas."""
    most = workload.most_replicas
    rollout = peak(replace(workload, autoscaler=None, replicas=Number(most, workload.replicas.location)))
    if rollout.count > most + 2:
        return rollout.count, f"2 × {most} + 1"
    return most + 2, f"{most} + 2"


@check(
    code="PS510",
    name="costly-rollout",
    severity="warning",
    needs=STACK,
    why="A Deployment does not count pods that still drain. Unless each new pod must be ready for as long"
    " as an old one may take to go, a rollout or a scale-down piles them up, each with all its"
    " connections.",
    fix="Set maxSurge 1, maxUnavailable 0, minReadySeconds at least terminationGracePeriodSeconds, and let"
    " an autoscaler remove one pod in at least that time. Pools can then be larger within the same"
    " budget.",
)
def costly_rollout(reading: Reading) -> Iterator[Problem]:
    """Settings that let draining pods pile up, where the budget bears it: elsewhere PS501 names them."""
    budget = _plan(reading)
    if budget is None or any(row.over for row in budget.rows):
        return
    pods = {use.workload.pod: use for row in budget.rows for use in row.uses}
    for use in pods.values():
        instances = use.instances
        for reason in instances.reasons:
            cost = f"{instances.count} {_program(use)} processes count instead of {instances.least}"
            yield Problem(reason.location, f"{reason.message}: {instances.words}, so {cost}", reason.fix)


@check(
    code="PS511",
    name="permify-processes-unknown",
    severity="error",
    needs=STACK,
    why="Where Permify is deployed elsewhere, only budget.yaml can say how many processes of it there may"
    " be; each opens connections of its own directly, and pins some in session mode.",
    fix="Write permify_max_replicas into budget.yaml.",
)
def permify_processes_unknown(reading: Reading) -> Iterator[Problem]:
    """No number of Permify processes where it decides."""
    topology = reading.topology
    source = reading.budget
    if source is None or not source.parsed or "permify_max_replicas" in source.mapping:
        return  # its value is judged by PS504
    session = any(pool.user.mode == "session" for pool in _pools(topology))
    for permify in topology.permify:
        if not permify.workload.counted and (session or any(topology.direct_sides(permify))):
            reason = "pins connections in session mode" if session else "connects to PostgreSQL directly"
            message = f"permify_max_replicas is missing, and each Permify process {reason}"
            yield Problem(source.here(), message, "add permify_max_replicas: the most processes there may be")


@check(
    code="PS512",
    name="watch-needs-two",
    severity="error",
    needs=STACK,
    why="Each watch stream holds a reader connection and takes another for its queries: with one connection"
    " it blocks all reads of its process.",
    fix="Set max_connections to 2 or more, or switch the watch service off.",
)
def watch_needs_two(reading: Reading) -> Iterator[Problem]:
    """The watch service on pools of one connection."""
    for permify in reading.topology.permify:
        if permify.watch and permify.max_connections.value < 2:
            most = permify.max_connections.value
            message = f"watch is on and max_connections is {most}: a stream blocks all reads"
            yield Problem(permify.max_connections.location, message, "set max_connections to 2 or more")


@check(
    code="PS514",
    name="helm-beyond-budget",
    severity="error",
    needs=STACK,
    why="budget.yaml says how many Permify processes there may be, and the pools were sized for them.",
    fix="Lower the number in permify/values.yaml, or raise permify_max_replicas and look at the plan.",
)
def helm_beyond_budget(reading: Reading) -> Iterator[Problem]:
    """More replicas in the Helm values than budget.yaml allows."""
    most = whole(reading.budget.mapping.get("permify_max_replicas")) if reading.budget else None
    for workload in reading.topology.workloads:
        if workload.kind == "helm" and most is not None and workload.replicas.value > most:
            message = f"{workload.replicas.value} Permify processes, and {BUDGET} counts {most}"
            fix = f"at most {most}, or permify_max_replicas: {workload.replicas.value} in {BUDGET}"
            yield Problem(workload.replicas.location, message, fix)


@check(
    code="PS515",
    name="uncountable-workload",
    severity="error",
    needs=STACK,
    why="The number of pods of a DaemonSet follows the nodes, and single pods and ReplicaSets have no"
    " rollout: no budget can hold for them.",
    fix="Run PgCat and Permify as Deployments.",
)
def uncountable_workload(reading: Reading) -> Iterator[Problem]:
    """PgCat or Permify in something else than a Deployment or a StatefulSet."""
    for workload in reading.topology.workloads:
        if workload.kind == "other":
            message = f"{workload.name} runs {PROGRAM_NAMES[workload.program]}: its pods cannot be counted"
            yield Problem(workload.location, message, "make it a Deployment")
