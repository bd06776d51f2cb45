"""PS6xx: nothing is dropped when pods and containers are replaced, and timeouts end in the right order.

standalone   Permify's lifetime + jitter + health check ≤ PgCat's preStop wait − 10 s for endpoints to settle
             PgCat's preStop wait + shutdown_timeout < its grace period; stop signal SIGINT
sidecar      Permify's preStop wait + its shutdown + PgCat's shutdown_timeout < the pod's grace period
direct       Permify's preStop wait + its shutdown < its grace period
docker       shutdown_timeout < stop_grace_period; SIGINT
everywhere   Permify's max_connection_idle_time < PgCat's idle_timeout ≤ server_lifetime
"""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.files.quantities import Seconds, seconds_text, whole
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import PERMIFY, PGCAT, VALUES
from pgcat_stack.reading.permify import Permify
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.topology import Topology
from pgcat_stack.reading.workloads import DEFAULT_PROGRESS_DEADLINE_SECONDS, Workload

SETTLE_SECONDS = 10
"""How long endpoints may take to forget a pod that is going."""
PERMIFY_SHUTDOWN_SECONDS = 10
"""How long Permify may take to stop: its servers get 5 s (`internal/servers/server.go`)."""
_SIGINT = frozenset({"SIGINT", "INT", "2"})


def _standalone(topology: Topology) -> list[Workload]:
    return [w for w in topology.running("pgcat") if w.on_kubernetes and not w.sidecar]


def _shutdown(topology: Topology) -> Seconds | None:
    return topology.pgcat.general.shutdown if topology.pgcat else None


@check(
    code="PS601",
    name="lifetime-beyond-drain",
    severity="error",
    needs=(PGCAT, PERMIFY),
    why="A draining PgCat gets no new connections, but Permify keeps the ones it has until their lifetime,"
    " a random jitter and the next health check have passed. A PgCat that stops earlier fails the"
    " requests on them. A jitter of 0 means a fifth of the lifetime, a health check period of 0 a"
    " minute.",
    fix="Shorten Permify's max_connection_lifetime, max_connection_lifetime_jitter and"
    " health_check_period, or lengthen PgCat's preStop wait with its grace period and minReadySeconds.",
)
def lifetime_beyond_drain(reading: Reading) -> Iterator[Problem]:
    """Connections of Permify that outlive the preStop wait of a standalone PgCat."""
    topology = reading.topology
    waits = [w.pre_stop.seconds for w in _standalone(topology) if w.pre_stop and w.pre_stop.seconds > 0]
    for permify in topology.permify:
        pooled = any(topology.pooled(uri) for _, uri in permify.sides)
        if not waits or not pooled or permify.lifetime.value <= 0:
            continue
        wait, longest = min(waits), permify.longest_connection_seconds
        if longest > wait - SETTLE_SECONDS:
            yield Problem(permify.lifetime.location, _lives(permify, wait), _moves_within(wait, longest))


def _lives(permify: Permify, wait: float) -> str:
    parts = (
        f"lifetime {permify.lifetime.value:g} + jitter {permify.jitter.value:g} + health check"
        f" {permify.health_check.value:g} = {seconds_text(permify.longest_connection_seconds)}"
    )
    left = seconds_text(wait - SETTLE_SECONDS)
    return (
        f"Permify's connections stay for {parts}, and PgCat's preStop wait {wait:g} − {SETTLE_SECONDS} s to"
        f" settle leaves {left}"
    )


def _moves_within(wait: float, longest: float) -> str:
    """Times that fit into the wait, and the wait that would fit these times."""
    left = int(wait - SETTLE_SECONDS)
    part = max(left // 5, 1)
    longer = (
        f"preStop wait of {longest + SETTLE_SECONDS:g} s with the grace period and minReadySeconds to match"
    )
    if left < 3:
        return longer
    return (
        f"max_connection_lifetime: {left - 2 * part}s, max_connection_lifetime_jitter: {part}s and"
        f" health_check_period: {part}s; or a {longer}"
    )


@check(
    code="PS602",
    name="no-drain-wait",
    severity="error",
    why="Kubernetes stops a pod while it is still being taken out of the Service. Neither program finishes"
    " what arrives meanwhile, so a preStop hook has to wait first.",
    fix="Add lifecycle.preStop.sleep to the container. Permify's image has no shell, so an exec hook fails"
    " there.",
)
def no_drain_wait(reading: Reading) -> Iterator[Problem]:
    """Pods behind a Service that stop at once. A sidecar serves its own pod alone and needs no wait."""
    topology = reading.topology
    permify = [w for w in topology.running("permify") if w.on_kubernetes]
    for workload in (*_standalone(topology), *permify):
        hook = workload.pre_stop
        name = "PgCat" if workload.program == "pgcat" else "Permify"
        if hook is None or hook.seconds <= 0:
            message = f"{name} has no preStop wait: it stops while requests still arrive"
            place = hook.location if hook else workload.location
            yield Problem(place, message, f"lifecycle.preStop.sleep.seconds: {_usual_wait(workload)}")
        elif hook.needs_shell and workload.program == "permify":
            message = "the preStop hook runs a command, and Permify's image has none: the hook fails at once"
            yield Problem(hook.location, message, f"lifecycle.preStop.sleep.seconds: {hook.seconds:g}")


def _usual_wait(workload: Workload) -> str:
    room = workload.grace.value - 25
    return f"{room:g}" if room >= 15 else "60, with a grace period to match"


@check(
    code="PS603",
    name="grace-too-short",
    severity="error",
    why="When terminationGracePeriodSeconds is over, Kubernetes kills whatever still runs. The preStop wait"
    " and the programs' own shutdown count into it; in a sidecar pod PgCat stops after Permify.",
    fix="Raise terminationGracePeriodSeconds, with minReadySeconds, above the sum; or shorten what it is"
    " made of.",
)
def grace_too_short(reading: Reading) -> Iterator[Problem]:
    """Grace periods that do not cover waiting and stopping."""
    topology = reading.topology
    shutdown = _shutdown(topology)
    for workload in _standalone(topology):
        wait = workload.pre_stop.seconds if workload.pre_stop else 0.0
        if shutdown is not None:
            parts = [("preStop wait", wait), ("shutdown_timeout", shutdown.value)]
            yield from _beyond_grace(workload, parts)
    sidecars = {w.pod: w for w in topology.running("pgcat") if w.sidecar}
    for workload in topology.running("permify"):
        if not workload.on_kubernetes:
            continue
        wait = workload.pre_stop.seconds if workload.pre_stop else 0.0
        parts = [("preStop wait", wait), ("Permify's shutdown", PERMIFY_SHUTDOWN_SECONDS)]
        if workload.pod in sidecars and shutdown is not None:
            parts.append(("PgCat's shutdown_timeout", shutdown.value))
        yield from _beyond_grace(workload, parts)


def _beyond_grace(workload: Workload, parts: list[tuple[str, float]]) -> Iterator[Problem]:
    needed = sum(seconds for _, seconds in parts)
    grace = workload.grace
    if needed >= grace.value:
        words = " + ".join(f"{name} {seconds:g}" for name, seconds in parts if seconds)
        message = f"{words} = {seconds_text(needed)}, and the grace period is {seconds_text(grace.value)}"
        enough = int(needed) + 5
        fix = f"terminationGracePeriodSeconds: {enough}, with minReadySeconds: {enough}"
        yield Problem(grace.location, message, fix)


@check(
    code="PS604",
    name="pgcat-stop-signal",
    severity="error",
    why="PgCat drains on SIGINT and drops every connection on SIGTERM. Its image asks for SIGINT, but an"
    " image built on it may not, and Compose lets the service decide.",
    fix="Set stop_signal: SIGINT in compose.yaml; on Kubernetes leave lifecycle.stopSignal out, or set"
    " SIGINT.",
)
def pgcat_stop_signal(reading: Reading) -> Iterator[Problem]:
    """A stop signal for PgCat other than SIGINT, or none in Compose."""
    for workload in reading.topology.running("pgcat"):
        signal = workload.stop_signal
        place = workload.stop_signal_location or workload.location
        if signal is None:
            if workload.kind == "compose":
                message = "PgCat has no stop_signal: an image without SIGINT would drop every connection"
                yield Problem(workload.location, message, "stop_signal: SIGINT")
        elif signal.upper() not in _SIGINT:
            key = "stop_signal" if workload.kind == "compose" else "stopSignal"
            message = f"PgCat is stopped by {signal}, which drops every connection at once"
            yield Problem(place, message, f"{key}: SIGINT")


@check(
    code="PS605",
    name="compose-grace",
    severity="error",
    why="Docker kills a container when stop_grace_period is over, 10 seconds unless it is set.",
    fix="Raise stop_grace_period above the program's own shutdown time.",
)
def compose_grace(reading: Reading) -> Iterator[Problem]:
    """Compose services that are killed before they have stopped."""
    topology = reading.topology
    shutdown = _shutdown(topology)
    for workload in topology.workloads:
        if workload.kind != "compose":
            continue
        if workload.program == "permify":
            name, needed = "Permify's shutdown takes up to", float(PERMIFY_SHUTDOWN_SECONDS)
        elif shutdown is not None:
            name, needed = "PgCat's shutdown_timeout is", shutdown.value
        else:
            continue
        if needed >= workload.grace.value:
            grace = seconds_text(workload.grace.value)
            message = f"{name} {seconds_text(needed)}, and stop_grace_period is {grace}"
            yield Problem(workload.grace.location, message, f"stop_grace_period: {int(needed) + 5}s")


@check(
    code="PS606",
    name="timeout-order",
    severity="error",
    needs=(PGCAT, PERMIFY),
    why="Who closes an idle connection must be the client: a connection that PgCat closes first fails the"
    " next request on it. And a server connection cannot idle for longer than it lives.",
    fix="Keep Permify's max_connection_idle_time below PgCat's idle_timeout, and that at or below"
    " server_lifetime, in [general], in the pool and for the user.",
)
def timeout_order(reading: Reading) -> Iterator[Problem]:
    """Permify's idle time, PgCat's idle_timeout and server_lifetime out of order, by any of their levels."""
    topology = reading.topology
    idle = [p.idle for p in topology.permify if any(topology.pooled(uri) for _, uri in p.sides)]
    for pool in topology.pgcat.opened if topology.pgcat else ():
        timeout, lifetime = pool.user.idle_timeout, pool.user.server_lifetime
        for client in idle:
            if client.value >= timeout.value:
                message = (
                    f"idle_timeout {seconds_text(timeout.value)} is not above Permify's"
                    f" max_connection_idle_time {seconds_text(client.value)} ({_place(client.location)})"
                )
                fix = f"idle_timeout above {client.value * 1000:g}, or a shorter max_connection_idle_time"
                yield Problem(timeout.location, message, fix)
        if timeout.value > lifetime.value:
            message = (
                f"idle_timeout {seconds_text(timeout.value)} is above server_lifetime"
                f" {seconds_text(lifetime.value)} ({_place(lifetime.location)})"
            )
            fix = f"idle_timeout at most {lifetime.value * 1000:g}, or a longer server_lifetime"
            yield Problem(timeout.location, message, fix)


def _place(location: Location) -> str:
    return f"{location.path}:{location.line}"


@check(
    code="PS607",
    name="progress-deadline",
    severity="error",
    why="A pod counts as available only after minReadySeconds, so the API refuses a Deployment whose"
    " progress deadline (600 seconds unless it is set) is not above that.",
    fix="Raise progressDeadlineSeconds above minReadySeconds, with room for starting and pulling images.",
)
def progress_deadline(reading: Reading) -> Iterator[Problem]:
    """Deployments that the API refuses for their deadline."""
    for manifest in reading.of_kind("Deployment"):
        ready = whole(manifest.get("spec", "minReadySeconds")) or 0
        written = whole(manifest.get("spec", "progressDeadlineSeconds"))
        deadline = DEFAULT_PROGRESS_DEADLINE_SECONDS if written is None else written
        if deadline <= ready:
            default = ", its default," if written is None else ""
            message = f"progressDeadlineSeconds {deadline}{default} is not above minReadySeconds {ready}"
            place = manifest.at("spec", "minReadySeconds" if written is None else "progressDeadlineSeconds")
            yield Problem(place, message, f"progressDeadlineSeconds: {max(600, 3 * ready)}")


@check(
    code="PS608",
    name="connection-lifetime",
    severity="error",
    needs=(PERMIFY,),
    why="At a lifetime of 0 or less Permify's driver replaces every connection after its first use. In"
    " permify.yaml PS303 reports it; here the environment and the Helm values are read.",
    fix="Set a lifetime with a unit, such as 30s behind a standalone PgCat or 30m without one.",
)
def connection_lifetime(reading: Reading) -> Iterator[Problem]:
    """Lifetimes that end connections at once, where permify.yaml does not set them."""
    for permify in reading.topology.permify:
        lifetime = permify.lifetime
        written = reading.permify.path if reading.permify else VALUES
        if lifetime.value <= 0 and (lifetime.location.path != written or written == VALUES):
            message = (
                f"max_connection_lifetime is {seconds_text(lifetime.value)}: no connection is used twice"
            )
            yield Problem(lifetime.location, message, "set a lifetime above 0, such as 30s")


@check(
    code="PS609",
    name="sidecar-order",
    severity="error",
    why="Only a native sidecar, an init container with restartPolicy Always, starts before Permify and"
    " stops after it. Beside Permify PgCat stops first, under its requests; as an ordinary init"
    " container it never lets Permify start.",
    fix="Make PgCat an init container with restartPolicy: Always (Kubernetes 1.29 or newer).",
)
def sidecar_order(reading: Reading) -> Iterator[Problem]:
    """PgCat in Permify's pod as anything but a native sidecar."""
    for workload in reading.topology.running("pgcat"):
        if not workload.sidecar or workload.container_role == "native-sidecar":
            continue
        if workload.container_role == "main":
            message = (
                "PgCat is an ordinary container of Permify's pod: both stop at once, requests in flight fail"
            )
        else:
            message = "PgCat is an init container that never ends, so Permify never starts"
        yield Problem(workload.location, message, "an item of initContainers with restartPolicy: Always")


@check(
    code="PS610",
    name="rollout-outage",
    severity="warning",
    why="A rollout that first takes every pod away leaves nobody to answer until a new one is ready.",
    fix="Use RollingUpdate with maxSurge 1 and maxUnavailable 0.",
)
def rollout_outage(reading: Reading) -> Iterator[Problem]:
    """Deployments that may have no pod in a rollout."""
    pods = {w.pod: w for w in reading.topology.workloads if w.rollout is not None}
    for workload in pods.values():
        rollout, replicas = workload.rollout, workload.most_replicas
        if rollout is None or replicas < 1:
            continue
        if rollout.strategy == "Recreate":
            message = "Recreate stops every pod before the first new one starts"
            yield Problem(rollout.location, message, "type: RollingUpdate with maxSurge 1, maxUnavailable 0")
        elif rollout.max_unavailable.value >= replicas:
            message = f"maxUnavailable lets {rollout.max_unavailable.value} of {replicas} pods go at once"
            yield Problem(rollout.max_unavailable.location, message, "maxUnavailable: 0")


@check(
    code="PS611",
    name="short-drain-wait",
    severity="warning",
    why="Endpoints take about 10 seconds to forget a pod everywhere. A preStop wait below that stops the"
    " program while some nodes still send it requests.",
    fix="Wait 10 seconds or more in preStop, with a grace period to match.",
)
def short_drain_wait(reading: Reading) -> Iterator[Problem]:
    """Pods behind a Service that wait, but not for long enough."""
    topology = reading.topology
    permify = [w for w in topology.running("permify") if w.on_kubernetes]
    for workload in (*_standalone(topology), *permify):
        hook = workload.pre_stop
        if hook is not None and 0 < hook.seconds < SETTLE_SECONDS:
            name = "PgCat" if workload.program == "pgcat" else "Permify"
            text = f"{name} waits {hook.seconds:g} s before it stops, endpoints settle in {SETTLE_SECONDS} s"
            yield Problem(hook.location, text, f"lifecycle.preStop.sleep.seconds: {_usual_wait(workload)}")
