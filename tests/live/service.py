"""A TCP balancer in the place of a Kubernetes Service."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from live.support import LOOPBACK, clean_environment, free_port, program, running

PLACES = 16
"""For that many pods at a time."""

CONFIGURATION = """\
global
    stats socket {socket} level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    retries 0 # kube-proxy does not try another pod either
listen service
    bind {address}
    balance roundrobin
    server-template pod 1-{places} 127.0.0.1:1 disabled
"""


class Service:
    """New connections go to its pods in turn; those that are open stay where they are, as with kube-proxy."""

    def __init__(self, port: int, socket_path: Path):
        self.port = port
        self._socket = socket_path
        self._places: list[int | None] = [None] * PLACES

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            return bool(self._say("show info"))
        except OSError:
            return False

    def add(self, port: int, host: str = LOOPBACK) -> None:
        """A pod that became ready."""
        place = self._places.index(None)
        self._places[place] = port
        self._say(f"set server service/pod{place + 1} addr {host} port {port}")
        self._say(f"set server service/pod{place + 1} state ready")

    def remove(self, port: int) -> None:
        """A pod that is no endpoint any more: it keeps its connections and gets no new one."""
        place = self._places.index(port)
        self._say(f"set server service/pod{place + 1} state maint")
        self._places[place] = None

    def _say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            return connection.makefile().read()


@contextlib.contextmanager
def service(folder: Path) -> Iterator[Service]:
    """A Service without pods yet; `folder` must be short, for a socket is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    control = folder / "admin.sock"
    configuration = CONFIGURATION.format(socket=control, address=f"{LOOPBACK}:{port}", places=PLACES)
    (folder / "haproxy.cfg").write_text(configuration)
    command = [program("haproxy"), "-f", str(folder / "haproxy.cfg"), "-db"]
    with running(command, folder / "haproxy.log", clean_environment()) as process:
        balancer = Service(port, control)
        process.wait_until(balancer.answers)  # it makes the socket first, and listens there later
        yield balancer
