"""Quiet times under a real Prometheus, with the rendered rules and their own minutes: nothing may fire."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from faults import side_by_side
from figures import table

from live.controller import Deployment, Pod, deployment
from live.load import Load
from live.service import service
from live.stack import EXTERNAL, MAX_CONNECTIONS, Stack, pgcat_program, require_programs
from live.support import (
    KEY,
    LOOPBACK,
    clean_environment,
    free_port,
    get,
    listens,
    postgres_cluster,
    program,
    running,
)

HOUR_SECONDS = 3600
SETTLING_SECONDS = 900
"""After the last pod has gone: longer than any rule looks back, and its `for` thereafter."""
POLL_SECONDS = 10
HOSTS = {"primary": "127.0.0.2", "replica": "127.0.0.3"}
"""One for each server, since labels tell servers by the host."""
WATCHED = {"advanced": True, "postgres_metrics": True}
STANDALONE = {
    **{"topology": "standalone", "permify_replicas": 3, "monitoring": "prometheus-operator", "probe": True},
    **{**WATCHED, **EXTERNAL},
}
DOCKER = {"topology": "docker", "database": "external", "monitoring": "prometheus", **WATCHED, **EXTERNAL}


@dataclass
class Site:
    """A deployment under watch: who is there, and what Prometheus knows of them."""

    stack: Stack
    folder: Path
    probe_port: int
    prometheus_port: int
    postgres: Mapping[str, int]
    """The exporter's port of each PostgreSQL server, by its role."""
    permify_port: int = 0
    """Where callers send requests."""
    pods: list[Pod] = field(default_factory=list)
    """Every one that was started, also those that have gone."""
    rolled: list[Deployment] = field(default_factory=list)

    @property
    def requests(self) -> dict[str, str]:
        """The path of each request of the probe, by its name."""
        if self.stack.docker:
            jobs = yaml.safe_load((self.stack.rendered / "monitoring" / "prometheus.yml").read_text())
            (probe,) = [job for job in jobs["scrape_configs"] if job["job_name"] == "probe"]
            return {
                target["labels"]["request"]: target["targets"][0].removeprefix("http://permify:3476")
                for target in probe["static_configs"]
            }
        text = (self.stack.rendered / "kubernetes" / "pod-monitor.yaml").read_text()
        _, probe = yaml.safe_load_all(text)
        found = {}
        for endpoint in probe["spec"]["podMetricsEndpoints"]:
            replaced = {
                each["targetLabel"]: each for each in endpoint["relabelings"] if "targetLabel" in each
            }
            path = replaced["__param_target"]["replacement"].removeprefix("http://$1")
            found[replaced["request"]["replacement"]] = path
        return found

    def discover(self) -> None:
        """Tell Prometheus which processes live, as service discovery does."""
        here = {} if self.stack.docker else {"namespace": "permify"}
        targets: dict[str, list[dict[str, Any]]] = {"pgcat": [], "postgres": [], "probe": []}
        for number, pod in enumerate(self.pods):
            if pod.pgcat and not pod.pgcat.process.ended:
                named = {} if self.stack.docker else {"pod": f"pgcat-{number}"}
                address = f"{LOOPBACK}:{pod.pgcat.exporter}"
                targets["pgcat"].append({"targets": [address], "labels": {**here, **named}})
            if pod.permify and not pod.permify.process.ended:
                address = f"{LOOPBACK}:{pod.permify.port}"
                for request, path in self.requests.items():
                    asked = {
                        "__param_target": f"http://{address}{path}",
                        "__param_module": f"permify_{request}",
                    }
                    labels = {**here, **asked, "request": request, "instance": address}
                    targets["probe"].append({"targets": [f"{LOOPBACK}:{self.probe_port}"], "labels": labels})
        for role, port in self.postgres.items():
            targets["postgres"].append({"targets": [f"{LOOPBACK}:{port}"], "labels": {"instance": role}})
        for name, each in targets.items():
            new = self.folder / f"{name}.new"
            new.write_text(json.dumps(each))
            new.replace(self.folder / f"{name}.json")

    def active(self) -> dict[str, str]:
        """Alerts that fire or are about to, with their state."""
        answer = json.loads(get(self.prometheus_port, "/api/v1/alerts"))
        return {each["labels"]["alertname"]: each["state"] for each in answer["data"]["alerts"]}

    def calm(self) -> bool:
        """Every target answers, and no alert of the time before that is left."""
        answer = json.loads(get(self.prometheus_port, "/api/v1/targets"))
        health = {each["health"] for each in answer["data"]["activeTargets"]}
        return health == {"up"} and not self.active()


@contextmanager
def monitoring(stack: Stack, folder: Path) -> Iterator[Site]:
    """Prometheus with the rendered rules, the rendered probe, and an exporter for each PostgreSQL server."""
    folder.mkdir()
    with ExitStack() as exits:

        def run(name: str, port: int, *arguments: str, **environment: str) -> None:
            command = [program(name), *arguments]
            log = folder / f"{name}-{port}.log"
            process = exits.enter_context(running(command, log, clean_environment(**environment)))
            process.wait_until(lambda: listens(port))

        probe, prometheus = free_port(), free_port()
        (folder / "key").write_text(KEY)
        modules = (stack.rendered / "monitoring" / "blackbox.yml").read_text()
        (folder / "blackbox.yml").write_text(modules.replace("/run/probe/key", str(folder / "key")))
        listen = f"--web.listen-address={LOOPBACK}"
        run("blackbox_exporter", probe, f"--config.file={folder / 'blackbox.yml'}", f"{listen}:{probe}")

        primary = stack.cluster.primary
        primary.sql("CREATE ROLE watcher LOGIN PASSWORD 'watcher'")
        primary.sql("GRANT pg_monitor TO watcher")
        stack.cluster.catch_up()
        exporters = {role: free_port() for role in stack.moved}
        for role, (_, (host, port)) in stack.moved.items():
            login = {"DATA_SOURCE_USER": "watcher", "DATA_SOURCE_PASS": "watcher"}
            uri = f"{host}:{port}/postgres?sslmode=disable"
            run(
                "postgres_exporter",
                exporters[role],
                f"{listen}:{exporters[role]}",
                DATA_SOURCE_URI=uri,
                **login,
            )

        rules = (stack.rendered / "monitoring" / "rules.yaml").read_text()
        for (host, port), (new_host, new_port) in stack.moved.values():
            for escaped in (".", "[.]"):  # as they are, and in regular expressions
                old, new = host.replace(".", escaped), new_host.replace(".", escaped)
                rules = rules.replace(f"{old}:{port}", f"{new}:{new_port}").replace(old, new)
        (folder / "rules.yaml").write_text(rules)
        site = Site(stack, folder, probe, prometheus, exporters)
        site.discover()
        jobs = [
            {
                "job_name": name,
                "metrics_path": "/probe" if name == "probe" else "/metrics",
                "file_sd_configs": [{"files": [f"{name}.json"], "refresh_interval": "5s"}],
            }
            for name in ("pgcat", "postgres", "probe")
        ]
        every = {"scrape_interval": "15s", "evaluation_interval": "15s"}
        config = {"global": every, "rule_files": ["rules.yaml"], "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        data = f"--storage.tsdb.path={folder / 'data'}"
        run(
            "prometheus",
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            data,
            f"{listen}:{prometheus}",
        )
        yield site


@contextmanager
def site(folder: Path, answers: Mapping[str, Any]) -> Iterator[Site]:
    """The deployment, all of it ready, with its own probes going on."""
    folder.mkdir()
    with ExitStack() as exits:
        enter = exits.enter_context
        listen = ",".join([LOOPBACK, *HOSTS.values()])
        cluster = enter(postgres_cluster(MAX_CONNECTIONS, {"listen_addresses": listen}))
        by = {server.role: (HOSTS[server.role], server.port) for server in cluster.servers}
        stack = Stack(cluster, answers, pgcat_program("pgcat"), folder / "deployment", folder / "live", by)
        stack.prepare()
        here = enter(monitoring(stack, folder / "monitoring"))
        if stack.docker:
            pod = Pod(pgcat=enter(stack.pgcat()), permify=None)
            assert pod.pgcat
            pod.permify = enter(stack.permify(0, pod.pgcat.port))
            here.permify_port = pod.permify.port
            here.pods.append(pod)
        else:
            front, middle = enter(service(folder / "f")), enter(service(folder / "m"))
            pgcat = enter(deployment(stack, middle, "pgcat"))
            permify = enter(deployment(stack, front, "permify", middle.port))
            here.permify_port = front.port
            here.rolled += [pgcat, permify]
            here.pods += [*pgcat.pods, *permify.pods]
        first = next(pod.permify for pod in here.pods if pod.permify)
        first.write(cluster)
        done = threading.Event()
        thread = threading.Thread(target=_look_after, args=(here, done), daemon=True)
        thread.start()
        try:
            yield here
        finally:
            done.set()
            thread.join()


def _look_after(here: Site, done: threading.Event) -> None:
    """What goes on without callers: service discovery, and in docker the health check of PgCat."""
    while not done.wait(2):
        here.discover()
        if here.stack.docker:
            pgcat = here.pods[0].pgcat
            assert pgcat
            here.stack._healthy(here.stack._pgcat_container, pgcat.port)


def hour(here: Site) -> None:
    time.sleep(HOUR_SECONDS)


def replaced(here: Site) -> None:
    """All PgCat, then all Permify, then one Permify less; and the time until the rules forget it."""
    time.sleep(60)
    pgcat, permify = here.rolled
    for each in (pgcat, permify):
        each.roll(here.pods.append)
    permify.delete(permify.pods[0])
    permify.wait()
    time.sleep(SETTLING_SECONDS)


@dataclass(frozen=True)
class Quiet:
    answers: Mapping[str, Any]
    load: bool
    happens: Callable[[Site], None]


QUIET = {
    "standalone, an hour of steady load": Quiet(STANDALONE, True, hour),
    "standalone, an hour without a request": Quiet(STANDALONE, False, hour),
    "standalone, every pod replaced and one Permify less": Quiet(STANDALONE, True, replaced),
    "docker, an hour of steady load": Quiet(DOCKER, True, hour),
    "docker, an hour without a request": Quiet(DOCKER, False, hour),
}


def quiet(folder: Path, runs: int) -> str:
    """An hour of it, and longer: all side by side, because they mostly wait."""
    require_programs()
    for name in ("haproxy", "prometheus", "blackbox_exporter", "postgres_exporter"):
        program(name)

    def visit(job: tuple[str, int]) -> list[object]:
        name, run = job
        each = QUIET[name]
        with site(folder / f"{list(QUIET).index(name)}-{run}", each.answers) as here:
            load = Load([here.permify_port], checkers=3, writers=1, pause_seconds=0.4)
            with load if each.load else nullcontext():
                while not here.calm():
                    time.sleep(1)
                begun = time.monotonic()
                ends = threading.Event()

                def happen() -> None:
                    try:
                        each.happens(here)
                    finally:
                        ends.set()

                thread = threading.Thread(target=happen)
                thread.start()
                seen: dict[str, set[str]] = {"firing": set(), "pending": set()}
                while not ends.wait(POLL_SECONDS):
                    for alert, state in here.active().items():
                        seen[state].add(alert)
                thread.join()
                minutes = (time.monotonic() - begun) / 60
            requests, failed = len(load.requests()), len(load.failed())
        told = [
            ", ".join(sorted(names)) or "none" for names in (seen["firing"], seen["pending"] - seen["firing"])
        ]
        return [name, f"{minutes:.0f}", f"{requests:,}", failed, *told]

    jobs = [(name, run) for run in range(runs) for name in QUIET]
    rows = [row for _, row in side_by_side(jobs, visit, at_once=len(QUIET))]
    head = ["what happens", "minutes", "requests", "failed", "alerts that fired", "that nearly did"]
    count = f"{len(rows)} of {len(jobs)} deployments ended well."
    return "\n\n".join([count, table(head, rows)])
