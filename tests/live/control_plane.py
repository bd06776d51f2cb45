"""A Kubernetes API server on loopback, with its controllers where they are wanted, and without a node.

What it admits, adds, refuses and makes of a Deployment is real; no container runs. Its programs are those on
PATH, of any version from 1.30.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from live.support import LOOPBACK, NotReady, certificate, clean_environment, free_port, program, running

PROGRAMS = ("kubectl", "etcd", "kube-apiserver")
# Kinds of operators that are not here: group, version, kind, and the part of their schema that adds defaults.
_REMOTE_REFERENCE = {"conversionStrategy": "Default", "decodingStrategy": "None", "metadataPolicy": "None"}
OPERATORS: list[tuple[str, str, str, dict[str, Any]]] = [
    (
        *("external-secrets.io", "v1", "ExternalSecret"),
        {
            "refreshInterval": {"type": "string", "default": "1h"},
            "target": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {
                    "creationPolicy": {"type": "string", "default": "Owner"},
                    "deletionPolicy": {"type": "string", "default": "Retain"},
                },
            },
            "data": {
                "type": "array",
                "items": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {
                        "remoteRef": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                            "properties": {
                                name: {"type": "string", "default": value}
                                for name, value in _REMOTE_REFERENCE.items()
                            },
                        }
                    },
                },
            },
        },
    ),
    ("monitoring.coreos.com", "v1", "PodMonitor", {}),
    ("monitoring.coreos.com", "v1", "PrometheusRule", {}),
    ("cert-manager.io", "v1", "Certificate", {}),
]

_PATHS = {
    "api/v1": ("ConfigMap", "Secret", "Service", "ServiceAccount"),
    "apis/apps/v1": ("Deployment",),
    "apis/batch/v1": ("Job",),
    "apis/networking.k8s.io/v1": ("NetworkPolicy",),
    "apis/policy/v1": ("PodDisruptionBudget",),
    "apis/autoscaling/v2": ("HorizontalPodAutoscaler",),
    "apis/external-secrets.io/v1": ("ExternalSecret",),
    "apis/monitoring.coreos.com/v1": ("PodMonitor", "PrometheusRule"),
    "apis/cert-manager.io/v1": ("Certificate",),
}


def _plural(kind: str) -> str:
    return f"{kind.lower().removesuffix('y')}{'ies' if kind.endswith('y') else 's'}"


KINDS = {
    kind: f"/{path}/namespaces/{{namespace}}/{_plural(kind)}"
    for path, kinds in _PATHS.items()
    for kind in kinds
}
"""Where the objects of a namespace are listed, for each kind that is rendered or made by a README."""


@dataclass
class Answer:
    """What kubectl said."""

    code: int
    out: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def accepted(self) -> bool:
        """Nothing was refused, and nothing was warned of."""
        return self.code == 0 and not self.errors


@dataclass
class ControlPlane:
    """An API server, with the tests as its administrator."""

    folder: Path
    port: int
    token: str

    def __post_init__(self) -> None:
        self._tls = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        self.environment = clean_environment(
            HOME=str(self.folder), KUBECONFIG=str(self.folder / "kubeconfig.yaml"), TMPDIR=str(self.folder)
        )

    def kubectl(self, *arguments: str | Path, given: str = "") -> Answer:
        command = ["kubectl", *map(str, arguments)]
        done = subprocess.run(
            command,
            input=given,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def apply(self, folder: Path, *options: str) -> Answer:
        return self.kubectl("apply", "--validate=strict", *options, "-k", folder)

    def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        """A request to the API; raises `urllib.error.HTTPError`."""
        return json.loads(self._send(method, path, body, content))

    def _send(self, method: str, path: str, body: Any = None, content: str = "application/json") -> bytes:
        request = urllib.request.Request(
            f"https://{LOOPBACK}:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": content},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as answer:
            return bytes(answer.read())

    def objects(self, namespace: str) -> dict[str, dict[str, Any]]:
        """What a deployment has made in a namespace, by `Kind/name`."""
        return {
            f"{kind}/{one['metadata']['name']}": one
            for kind, path in KINDS.items()
            for one in self.call("GET", path.format(namespace=namespace))["items"]
            if one["metadata"]["name"] not in ("kube-root-ca.crt", "default")
        }

    def versions(self, namespace: str) -> dict[str, tuple[str, int | None]]:
        """Version and generation of the same."""
        return {
            name: (one["metadata"]["resourceVersion"], one["metadata"].get("generation"))
            for name, one in self.objects(namespace).items()
        }

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/api/v1/namespaces/{namespace}/pods")["items"])

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):  # an HTTPError is one
            return self._send("GET", "/readyz") == b"ok"
        return False

    def wait_until(self, ready: Callable[[], Any], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise NotReady(f"{what}: not within {seconds} s")
            time.sleep(0.1)

    def know(self, group: str, version: str, kind: str, specification: dict[str, Any]) -> None:
        """A kind of an operator that is not here."""
        plural = f"{kind.lower()}s"
        schema = {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": specification,
                }
            },
        }
        definition = {
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                "versions": [
                    {
                        "name": version,
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema},
                    }
                ],
            },
        }
        self.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)

        def served() -> bool:
            with contextlib.suppress(urllib.error.HTTPError):
                return "items" in self.call("GET", f"/apis/{group}/{version}/{plural}")
            return False

        self.wait_until(served, f"{kind} is not served")

    @contextlib.contextmanager
    def controllers(self) -> Iterator[None]:
        """What makes pods of Deployments and Jobs, counts for disruption budgets, scales, and cleans up."""
        port = free_port()
        command = [
            program("kube-controller-manager"),
            f"--kubeconfig={self.folder / 'kubeconfig.yaml'}",
            f"--service-account-private-key-file={self.folder / 'server.key'}",
            f"--root-ca-file={self.folder / 'ca.crt'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self.folder / 'controllers'}",
            "--leader-elect=false",
            "--kube-api-qps=500",
            "--kube-api-burst=500",
            "--horizontal-pod-autoscaler-sync-period=1s",
        ]
        with running(command, self.folder / "controllers.log", self.environment) as process:

            def working() -> bool:
                return bool(
                    json.loads(self.kubectl("-n", "default", "get", "serviceaccounts", "-o", "json").out)[
                        "items"
                    ]
                )

            process.wait_until(working)
            yield


@contextlib.contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """etcd and an API server, which know the kinds of External Secrets and of the Prometheus Operator."""
    for name in PROGRAMS:
        program(name)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgcat-stack-kubernetes-")))
        for name, content in certificate().items():
            (folder / name).write_bytes(content)
        store, peers, port = free_port(), free_port(), free_port()
        token = os.urandom(16).hex()
        (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        access = {
            "clusters": [
                {
                    "name": "tests",
                    "cluster": {
                        "server": f"https://{LOOPBACK}:{port}",
                        "certificate-authority": str(folder / "ca.crt"),
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
            "current-context": "tests",
        }
        (folder / "kubeconfig.yaml").write_text(
            yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **access})
        )
        plane = ControlPlane(folder, port, token)
        etcd = [
            program("etcd"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://{LOOPBACK}:{store}",
            f"--advertise-client-urls=http://{LOOPBACK}:{store}",
            f"--listen-peer-urls=http://{LOOPBACK}:{peers}",
            f"--initial-advertise-peer-urls=http://{LOOPBACK}:{peers}",
            f"--initial-cluster=default=http://{LOOPBACK}:{peers}",
            "--unsafe-no-fsync",
        ]
        server = [
            program("kube-apiserver"),
            f"--etcd-servers=http://{LOOPBACK}:{store}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={folder / 'tokens.csv'}",
            f"--tls-cert-file={folder / 'server.crt'}",
            f"--tls-private-key-file={folder / 'server.key'}",
            f"--service-account-key-file={folder / 'server.key'}",
            f"--service-account-signing-key-file={folder / 'server.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
        ]
        stack.enter_context(running(etcd, folder / "etcd.log", plane.environment))
        process = stack.enter_context(running(server, folder / "server.log", plane.environment))
        process.wait_until(plane._answers, seconds=60)
        for operator in OPERATORS:
            plane.know(*operator)
        important = {"metadata": {"name": "important"}, "value": 1000}
        plane.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", important)
        yield plane
