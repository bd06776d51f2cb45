"""What a Deployment's controller, kubelet and kube-proxy do in a rolling update, with real processes as pods.

Counts and times are read from the rendered manifest, so that the test sees what a cluster would.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from live.peers import Peers
from live.service import Service
from live.stack import Permify, PgCat, Stack

ENDPOINT_SECONDS = 8.0
"""From a pod's deletion until no balancer sends it new connections; the drain contract allows 10."""


@dataclass(frozen=True)
class Rules:
    """What a Deployment says of its rollout."""

    replicas: int
    max_surge: int
    max_unavailable: int
    min_ready_seconds: float
    grace_seconds: float
    wait_seconds: float
    """The preStop wait of the container that leaves first."""

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> Rules:
        spec = deployment["spec"]
        pod = spec["template"]["spec"]
        strategy = spec["strategy"]["rollingUpdate"]
        waits = [
            container["lifecycle"]["preStop"]["sleep"]["seconds"]
            for container in pod["containers"]
            if "lifecycle" in container
        ]
        return cls(
            replicas=spec["replicas"],
            max_surge=strategy["maxSurge"],
            max_unavailable=strategy["maxUnavailable"],
            min_ready_seconds=spec.get("minReadySeconds", 0),
            grace_seconds=pod["terminationGracePeriodSeconds"],
            wait_seconds=max(waits, default=0),
        )


@dataclass
class Pod:
    """A PgCat, or a Permify, or both as in a sidecar's pod; running and ready."""

    permify: Permify | None
    pgcat: PgCat | None

    @property
    def port(self) -> int:
        """Where its Service sends connections."""
        return self.permify.port if self.permify else self.pgcat.port  # type: ignore[union-attr]

    def stop(self, within: float) -> None:
        """As kubelet does after the preStop wait, sidecars last; SIGKILL when the time is up."""
        end = time.monotonic() + within
        if self.permify:
            self.permify.process.stop(signal.SIGTERM, within)
        if self.pgcat:  # by the STOPSIGNAL of its image
            self.pgcat.process.stop(signal.SIGINT, max(end - time.monotonic(), 1))


@dataclass
class Deployment:
    """Pods behind a Service, rolled by the rules of the rendered manifest."""

    stack: Stack
    service: Service
    name: str
    """`pgcat`, or `permify`."""
    pgcat_port: int | None = None
    """The Service that Permify reaches PgCat by; none in a sidecar's pod, and without PgCat."""
    peers: Peers | None = None
    """Whom Permify shares its caches with."""
    pods: list[Pod] = field(default_factory=list)
    _all: ExitStack = field(default_factory=ExitStack)
    _started: int = 0
    _leaving: list[threading.Thread] = field(default_factory=list)

    @property
    def rules(self) -> Rules:
        return Rules.of(self.stack.manifest(self.name))

    def start(self) -> Pod:
        """A pod that is ready, and an endpoint."""
        number, self._started = self._started, self._started + 1
        enter = self._all.enter_context
        pgcat = enter(self.stack.pgcat(number)) if self.name == "pgcat" or self.stack.sidecar else None
        permify = None
        if self.name == "permify":
            port = pgcat.port if pgcat else self.pgcat_port
            with self.stack.started("wait-for-migration", port) as wait:
                assert wait.wait(60) == 0, wait.log.read_text()
            permify = enter(self.stack.permify(number, port))
        pod = Pod(permify, pgcat)
        self.pods.append(pod)
        if self.peers and permify:  # DNS knows it before a client asks
            self.peers.start(permify)
        self.service.add(pod.port)
        return pod

    def delete(self, pod: Pod) -> None:
        """Returns at once; the pod goes by the preStop wait and the grace period of the present manifest."""
        self.pods.remove(pod)
        rules = self.rules

        def leave() -> None:
            wait = threading.Timer(ENDPOINT_SECONDS, self._forget, [pod])
            wait.daemon = True
            wait.start()
            time.sleep(rules.wait_seconds)
            pod.stop(rules.grace_seconds - rules.wait_seconds)
            wait.join()
            if self.peers and pod.permify:
                self.peers.end(pod.permify)

        thread = threading.Thread(target=leave, daemon=True)
        thread.start()
        self._leaving.append(thread)

    def _forget(self, pod: Pod) -> None:
        self.service.remove(pod.port)
        if self.peers and pod.permify:
            self.peers.leave(pod.permify)

    def roll(self, started: Callable[[Pod], object] = lambda pod: None) -> None:
        """Replace every pod, as a changed template does; returns once the last old one has gone.

        The controller counts pods that are not being deleted. It starts one while they are fewer than
        replicas + surge, and deletes one while more than replicas − unavailable are available: ready for
        minReadySeconds.
        """
        rules = self.rules
        old = list(self.pods)
        available: dict[int, float] = {pod.port: 0.0 for pod in old}
        new = 0
        while old or new < rules.replicas:
            if new < rules.replicas and len(self.pods) < rules.replicas + rules.max_surge:
                pod = self.start()
                started(pod)
                available[pod.port] = time.monotonic() + rules.min_ready_seconds
                new += 1
            ready = sum(available[pod.port] <= time.monotonic() for pod in self.pods)
            if old and ready > rules.replicas - rules.max_unavailable:
                self.delete(old.pop(0))
            time.sleep(0.1)
        self.wait()

    def wait(self) -> None:
        """Until no pod is leaving."""
        for thread in self._leaving:
            thread.join()
        self._leaving.clear()


@contextmanager
def deployment(
    stack: Stack, service: Service, name: str, pgcat_port: int | None = None, peers: Peers | None = None
) -> Iterator[Deployment]:
    """All replicas of the rendered manifest, ready."""
    with ExitStack() as everything:
        result = Deployment(stack, service, name, pgcat_port, peers, _all=everything)
        for _ in range(result.rules.replicas):
            result.start()
        yield result
        result.wait()
