"""Rendered deployments to change in one place, and the findings of some families on them."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgcat_stack.checks import registry
from pgcat_stack.files.sources import Source, parse_source
from pgcat_stack.findings import Finding
from pgcat_stack.reading.reading import Reading
from rendering import render

SERVERS = {"primary_host": "db1", "replica_hosts": "db2"}
STANDALONE = {"topology": "standalone", **SERVERS}
SIDECAR = {"topology": "sidecar", **SERVERS}
AUTOSCALED = {**SIDECAR, "permify_max_replicas": 5}
AUTOSCALED_PGCAT = {**STANDALONE, "pgcat_max_replicas": 5}
DIRECT = {"topology": "standalone", "pooling": "direct", **SERVERS}
DOCKER = {"topology": "docker"}
SESSION = {**STANDALONE, "pool_mode": "session"}
HELM = {**STANDALONE, "permify_install": "helm"}
ELSEWHERE = {**DIRECT, "permify_install": "none"}

COMPOSE, VALUES = "compose.yaml", "permify/values.yaml"
PERMIFY, PERMIFY_POD = "permify/permify.yaml", "kubernetes/permify-deployment.yaml"
COMPOSE_ENVIRONMENT = (
    r"(?<=environment:\n)"
    r"(?=      PGPASSFILE: .*\n(?:    env_file: .*\n)?    secrets: \[database.pgpass\]\n    vol)"
)
POD_ENVIRONMENT = r"(?<=Secret does not have.\n          env:\n)"  # of Permify, not of what waits before it
CHART_ENVIRONMENT = r"(?<=extraEnvVars:\n)"
"""Where a variable of Permify goes."""

Files = dict[str, str]


@functools.cache
def _rendered(answers: tuple[tuple[str, Any], ...]) -> Mapping[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        root = render(Path(folder) / "deployment", dict(answers))
        paths = [path for path in root.rglob("*") if path.is_file()]
        return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


def rendered(answers: Mapping[str, Any], **more: Any) -> Files:
    """The files that these answers give, to change."""
    return dict(_rendered(tuple(sorted({**answers, **more}.items()))))


def edit(files: Files, path: str, pattern: str, replacement: str) -> Files:
    """Replace the first match of a pattern in a file, which must be there and must change."""
    text, count = re.subn(pattern, lambda _: replacement, files[path], count=1, flags=re.MULTILINE)
    assert count == 1 and text != files[path], f"{pattern} changes nothing in {path}"
    return {**files, path: text}


@functools.lru_cache(maxsize=2000)
def _source(path: str, text: str) -> Source:
    """Most cases change one file; the others are read once for all of them."""
    return parse_source(path, text.encode())


def load(files: Files) -> Reading:
    """The files as a deployment, without a folder."""
    return Reading(Path("deployment"), {path: _source(path, text) for path, text in sorted(files.items())})


def findings(files: Files, *families: str) -> list[Finding]:
    """What the checks of these families say, in order of code."""
    deployment = load(files)
    found = {
        Finding(rule.code, rule.severity, p.location.path, p.location.line, p.message, p.fix)
        for rule in registry.all_checks()
        if rule.code.startswith(families)
        for p in rule.run(deployment)
    }
    return sorted(found, key=lambda finding: (finding.code, *finding.order))


def codes(files: Files, *families: str) -> set[str]:
    """The codes of what the checks of the connection budget and the drain, or of these families, say."""
    return {finding.code for finding in findings(files, *(families or ("PS5", "PS6")))}


def one(files: Files, code: str) -> Finding:
    """The only finding with this code."""
    found = [finding for finding in findings(files, code[:3]) if finding.code == code]
    assert len(found) == 1, found
    return found[0]
