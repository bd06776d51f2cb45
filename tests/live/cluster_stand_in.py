"""`kubectl` and `psql` for the commands of a runbook, answered by the processes of a live stack.

What a command asks of a cluster, this program asks of the process that stands for the pod. CLUSTER names the
JSON file that lists them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


def kubectl(words: list[str], known: dict[str, Any]) -> int:
    """`get pods`, `get secret permify-authn`, `exec`, `logs` and `port-forward`, in the one namespace."""
    assert words[:2] == ["-n", known["namespace"]], words
    command, *rest = words[2:]
    if command == "get" and rest[0] == "secret":
        assert rest[1:] == ["permify-authn", "-o", "jsonpath={.data.keys}"], rest
        print(base64.b64encode(known["keys"].encode()).decode(), end="")
        return 0
    if command == "get":
        assert rest[0] == "pods", rest
        labels = rest[rest.index("-l") + 1] if "-l" in rest else "name in (pgcat, permify)"
        programs = re.findall(r"pgcat|permify", labels)
        names = [pod for pod, each in known["pods"].items() if each["program"] in programs]
        print("\n".join(f"pod/{name}" if rest[-1] == "name" else f"{name}  1/1  Running" for name in names))
        return 0
    pod = known["pods"][rest[0].removeprefix("pod/")]
    if command == "exec":
        assert rest[1:4] == ["-c", "pgcat", "--"] and pod["program"] == "pgcat", rest
        inside = [
            word.replace("/run/secrets", known["secrets"]).replace("-p 6432", f"-p {pod['port']}")
            for word in rest[4:]
        ]
        for address, here in known["servers"].items():
            host, _, number = address.rpartition(":")
            named = f"host={host} port={number}"
            inside = [word.replace(named, f"host=127.0.0.1 port={here}") for word in inside]
        return subprocess.run(inside, env={**os.environ, "PATH": known["path"]}).returncode
    if command == "logs":
        print(Path(pod["log"]).read_bytes()[pod["begins"] :].decode(errors="replace"))
        return 0
    assert command == "port-forward", words
    here, _, there = rest[1].partition(":")
    assert there == "3476"
    forward(int(here), pod["port"])
    return 0


def forward(here: int, there: int) -> None:
    def pump(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", here)) as listening:
        while True:
            client, _ = listening.accept()
            server = socket.create_connection(("127.0.0.1", there))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=pump, args=ends, daemon=True).start()


def psql(words: list[str], known: dict[str, Any]) -> int:
    """The real one; the hosts of the README are elsewhere here."""
    for number in range(len(words) - 3):
        if words[number] == "-h" and words[number + 2] == "-p":
            address = f"{words[number + 1]}:{words[number + 3]}"
            words[number + 1], words[number + 3] = "127.0.0.1", str(known["servers"][address])
            break
    return subprocess.run([known["psql"], *words]).returncode


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    cluster = json.loads(Path(os.environ["CLUSTER"]).read_text())
    sys.exit({"kubectl": kubectl, "psql": psql}[name](arguments, cluster))
