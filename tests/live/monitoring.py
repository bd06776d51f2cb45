"""What the Compose profile `monitoring` starts beside a stack: Prometheus, exporters, the collector.

From the rendered files, with other addresses, and faster: what is scraped every 15 s there is scraped every
second here.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from live.stack import Stack
from live.support import LOOPBACK, Address, clean_environment, free_port, get, program, readdressed, running

COLLECTOR = ("collector", 4317)


@dataclass
class Prometheus:
    port: int

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Each series of an instant query with its value."""
        answer = json.loads(get(self.port, f"/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    def unreached(self) -> list[dict[str, Any]] | None:
        """Targets that it does not reach, with the reason, or has not asked yet; None before it has any."""
        targets = json.loads(get(self.port, "/api/v1/targets"))["data"]["activeTargets"]
        return [target for target in targets if target["health"] != "up"] if targets else None


@contextlib.contextmanager
def collector(stack: Stack) -> Iterator[Address]:
    """Where it serves what Permify pushes; entered before the stack is up, whose Permify then pushes here."""
    folder = stack.folder / "collector"
    folder.mkdir()
    otlp, scraped = free_port(), free_port()
    text = (stack.rendered / "monitoring" / "collector.yaml").read_text()
    for port, here in ((COLLECTOR[1], otlp), (8889, scraped)):
        assert f'"0.0.0.0:{port}"' in text
        text = text.replace(f'"0.0.0.0:{port}"', f'"{LOOPBACK}:{here}"')
    assert "metrics_flush_interval: 15s" in text
    (folder / "config.yaml").write_text(
        text.replace("metrics_flush_interval: 15s", "metrics_flush_interval: 1s")
    )
    stack.replaced |= {"{}:{}".format(*COLLECTOR): f"{LOOPBACK}:{otlp}", "interval: 15": "interval: 1"}
    command = [
        program("otelcol-contrib"),
        f"--config={folder / 'config.yaml'}",
        "--set=service.telemetry.metrics.level=none",  # its own, on a port that is always the same
    ]
    with running(command, folder / "log", clean_environment(HOME=str(folder))) as process:
        process.wait_until(lambda: _serves(scraped))
        yield LOOPBACK, scraped


@contextlib.contextmanager
def exporters(stack: Stack) -> Iterator[dict[Address, Address]]:
    """Those of PostgreSQL, by the addresses that Prometheus has for them."""
    password = (stack.secrets / "postgres_password").read_text().strip()
    stack.cluster.primary.sql("ALTER ROLE postgres PASSWORD '" + password.replace("'", "''") + "'")
    stack.cluster.catch_up()
    found = {}
    with contextlib.ExitStack() as ends:
        for role, moved in stack.moved.items():
            name, port = f"postgres-exporter-{role}", free_port()
            service = stack._yaml("compose.yaml")["services"][name]
            environment = {
                key: readdressed(value, dict([moved])) if key.endswith("_URI") else value
                for key, value in service["environment"].items()
            }
            environment["DATA_SOURCE_PASS_FILE"] = environment["DATA_SOURCE_PASS_FILE"].replace(
                "/run/secrets", str(stack.secrets)
            )
            command = [program("postgres_exporter"), f"--web.listen-address={LOOPBACK}:{port}"]
            log = stack.folder / f"{name}.log"
            process = ends.enter_context(running(command, log, clean_environment(**environment)))
            process.wait_until(lambda port=port: _serves(port))  # type: ignore[misc]
            found[name, 9187] = (LOOPBACK, port)
        yield found


@contextlib.contextmanager
def prometheus(stack: Stack, targets: dict[Address, Address]) -> Iterator[Prometheus]:
    """With the rendered scrape jobs and rules; an alert fires as soon as its condition holds."""
    folder = stack.folder / "prometheus"
    folder.mkdir()
    text = (stack.rendered / "monitoring" / "prometheus.yml").read_text()
    text = readdressed(text, {("pgcat", 9930): (LOOPBACK, stack.pgcats[0].exporter), **targets})
    assert "scrape_interval: 15s" in text
    # With the label that series have on Kubernetes, too.
    exporter = f'targets: ["{LOOPBACK}:{stack.pgcats[0].exporter}"]'
    assert exporter in text
    text = text.replace(exporter, f"{exporter}\n        labels: {{namespace: permify}}")
    text = text.replace("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s")
    (folder / "prometheus.yml").write_text(text)
    rules = (stack.rendered / "monitoring" / "rules.yaml").read_text()
    (folder / "rules.yaml").write_text(re.sub(r"(?m)^( *for:) \w+$", r"\1 0s", rules))
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
    ]
    with running(command, folder / "log", clean_environment()) as process:
        process.wait_until(lambda: _serves(port, "/-/ready"))
        yield Prometheus(port)


def _serves(port: int, path: str = "/metrics") -> bool:
    with contextlib.suppress(OSError, AssertionError):
        get(port, path)
        return True
    return False
