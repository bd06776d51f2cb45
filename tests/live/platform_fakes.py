"""`docker` and `kubectl` as small programs that answer from a file, and that really forward ports."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live.support import LOOPBACK

KUBECTL = '''\
#!{python}
"""kubectl: config current-context, get pods, secret or configmap, port-forward pod/NAME :PORT…, exec NAME"""
import json, os, socket, sys, threading
state = json.load(open({state!r}))
options = [word for word in sys.argv[1:] if word.startswith("--")]
words = [word for word in sys.argv[1:] if not word.startswith("--")]
if state.get("complaint"):
    sys.exit(state["complaint"])
if f"--namespace={{state['namespace']}}" not in options and words[0] != "config":
    sys.exit(f"asked with {{options}}")


def pipe(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass
    for end in (one, other):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def forward(server, target):
    while True:
        client, _ = server.accept()
        there = socket.create_connection(("127.0.0.1", target))
        for pair in ((client, there), (there, client)):
            threading.Thread(target=pipe, args=pair, daemon=True).start()


if words[:2] == ["config", "current-context"]:
    print(state["context"]) if state["context"] else sys.exit("error: current-context is not set")
elif words[:2] == ["get", "pods"]:
    print(json.dumps({{"items": state["pods"]}}))
elif words[:2] == ["get", "secret"]:
    if words[2] not in state["secrets"]:
        sys.exit(f'Error from server (NotFound): secrets "{{words[2]}}" not found')
    print(json.dumps({{"data": state["secrets"][words[2]]}}))
elif words[:2] == ["get", "configmap"]:
    if words[2] not in state.get("configmaps", {{}}):
        sys.exit(f'Error from server (NotFound): configmaps "{{words[2]}}" not found')
    print(json.dumps({{"data": state["configmaps"][words[2]]}}))
elif words[0] == "exec":
    pid = state.get("pids", {{}}).get(words[1]) or sys.exit("Error: pods is forbidden")
    print(open(f"/proc/{{pid}}/limits").read() + str(len(os.listdir(f"/proc/{{pid}}/fd"))))
elif words[0] == "port-forward":
    targets = state["forwards"][words[1].removeprefix("pod/")]
    for word in words[2:]:
        server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=forward, args=(server, targets[word[1:]]), daemon=True).start()
        print(f"Forwarding from 127.0.0.1:{{server.getsockname()[1]}} -> {{word[1:]}}", flush=True)
    open({state!r} + ".forwarding", "a").write(words[1] + "\\n")
    threading.Event().wait()
'''

DOCKER = '''\
#!{python}
"""docker compose ps --all --quiet, docker inspect ID…, docker exec NAME"""
import json, os, sys
state = json.load(open({state!r}))
if state.get("complaint"):
    sys.exit(state["complaint"])
if sys.argv[1:] == ["compose", "ps", "--all", "--quiet"]:
    print("\\n".join(state["containers"]))
elif sys.argv[1] == "inspect":
    print(json.dumps([state["containers"][name] for name in sys.argv[2:]]))
elif sys.argv[1] == "exec":
    pid = state.get("pids", {{}}).get(sys.argv[2]) or sys.exit("Error: it does not run")
    print(open(f"/proc/{{pid}}/limits").read() + str(len(os.listdir(f"/proc/{{pid}}/fd"))))
'''


@dataclass
class Fake:
    """One of the two, in a folder to put on PATH."""

    folder: Path
    name: str
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.file = self.folder / f"{self.name}.json"
        program = {"kubectl": KUBECTL, "docker": DOCKER}[self.name]
        path = self.folder / self.name
        path.write_text(program.format(python=sys.executable, state=str(self.file)))
        path.chmod(0o755)
        self.save()

    def save(self) -> None:
        self.file.write_text(json.dumps(self.state))

    @property
    def path(self) -> str:
        return f"{self.folder}{os.pathsep}/usr/bin{os.pathsep}/bin"


def pod(name: str, containers: Mapping[str, str], *, ready: bool = True, **more: Any) -> dict[str, Any]:
    """A pod by its containers and their images."""
    return {
        "metadata": {"name": name, **more},
        "spec": {"containers": [{"name": name, "image": image} for name, image in containers.items()]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"name": name, "ready": ready, "restartCount": 0, "state": {"running": {}}}
                for name in containers
            ],
        },
    }


def secret(**values: str) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def container(service: str, image: str, ports: Mapping[int, int], **state: Any) -> dict[str, Any]:
    """A container as `docker inspect` has it, its ports published on loopback."""
    return {
        "Name": f"/pgcat-stack-{service}-1",
        "Config": {"Image": image, "Labels": {"com.docker.compose.service": service}},
        "State": {"Status": "running", **state},
        "RestartCount": 0,
        "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}},
        "NetworkSettings": {
            "Networks": {"default": {"IPAddress": ""}},
            "Ports": {
                f"{port}/tcp": [{"HostIp": LOOPBACK, "HostPort": str(here)}] for port, here in ports.items()
            },
        },
    }
