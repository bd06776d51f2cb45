"""What is applied to an API server: rendered folders, and a component in somebody else's kustomization."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kubernetes_cases import CASES, COMPONENT
from live.control_plane import Answer
from rendering import render

Applied = Callable[[str], tuple[Path, Answer]]

# Every kind of object in every topology.
APPLIED = {
    **{name: CASES[name] for name in ("standalone-full", "sidecar-full", "direct-full", "helm", "none")},
    "component": COMPONENT,
}
_OWN = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "permify"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "authorization"}},
        "template": {
            "metadata": {"labels": {"app": "authorization"}},
            "spec": {"containers": [{"name": "permify", "image": "ghcr.io/permify/permify:v1.7.3"}]},
        },
    },
}


def deployment(folder: Path, namespace: str, answers: dict[str, Any]) -> Path:
    """A folder for `kubectl apply -k`, written anew. A component comes with a Deployment."""
    shutil.rmtree(folder, ignore_errors=True)
    if answers is not COMPONENT:
        return render(folder, answers, namespace=namespace)
    folder.mkdir()
    render(folder / "component", answers, namespace=namespace)
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    own_namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": labels},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump_all([_OWN, own_namespace]))
    kustomization = {"namespace": namespace, "resources": ["own.yaml"], "components": ["component"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def edited(deploy: Path, file: str, old: str, new: str) -> Path:
    """The same folder with one thing changed in one of its manifests."""
    path = deploy / "kubernetes" / file
    text = path.read_text()
    assert old in text, f"{old!r} is not in:\n{text}"
    path.write_text(text.replace(old, new))
    return deploy
