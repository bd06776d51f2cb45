"""Addresses of their own for Permify's peers: several behind one name, with one port, as pods have them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from live.network import Toxiproxy, toxiproxy
from live.stack import Permify
from live.support import LOOPBACK, Process, clean_environment, free_port, listens, program, running

NAME = "permify-peers"
IN_FILES = f"dns:///{NAME}:5000"


class Peers:
    """What stands for the headless Service: DNS answers with the address of each pod that is in it."""

    def __init__(self, hosts: Path, dns: Process, dns_port: int, proxy: Toxiproxy):
        self._hosts = hosts
        self._dns = dns
        self._proxy = proxy
        self._port = free_port()
        self._all: list[int] = []
        self._in_dns: set[int] = set()
        self.uri = f"dns://{LOOPBACK}:{dns_port}/{NAME}.:{self._port}"
        """In the place of that in the files."""

    def _address(self, permify: Permify) -> str:
        return f"127.0.0.{2 + self._all.index(permify.port)}"

    def start(self, permify: Permify) -> None:
        """An address of its own, which DNS knows."""
        self._all.append(permify.port)
        listen = f"{self._address(permify)}:{self._port}"
        body = {"name": str(permify.port), "listen": listen, "upstream": f"{LOOPBACK}:{permify.peer_port}"}
        self._proxy.say("POST", "/proxies", body)
        self._in_dns.add(permify.port)
        self._tell()

    def leave(self, permify: Permify) -> None:
        """DNS has forgotten it; it listens still."""
        self._in_dns.discard(permify.port)
        self._tell()

    def end(self, permify: Permify) -> None:
        """Nobody has its address any more."""
        self._proxy.say("DELETE", f"/proxies/{permify.port}")

    def vanish(self, permify: Permify) -> None:
        """As on a node that is lost: connections stay, and nothing comes through."""
        for stream in ("upstream", "downstream"):
            toxic = {"name": stream, "type": "timeout", "stream": stream, "attributes": {"timeout": 0}}
            self._proxy.say("POST", f"/proxies/{permify.port}/toxics", toxic)

    def _tell(self) -> None:
        lines = [f"127.0.0.{2 + self._all.index(port)} {NAME}\n" for port in sorted(self._in_dns)]
        said = self._dns.log.stat().st_size
        self._hosts.write_text("".join(lines))
        self._dns.popen.send_signal(signal.SIGHUP)
        read = f"read {self._hosts} - {len(lines)} names"
        self._dns.wait_until(lambda: read in self._dns.log.read_text()[said:])


@contextlib.contextmanager
def peers(folder: Path) -> Iterator[Peers]:
    folder.mkdir(parents=True, exist_ok=True)
    hosts = folder / "hosts"
    hosts.touch()
    port = free_port()
    command = [
        *(program("dnsmasq"), "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"),
        *(f"--addn-hosts={hosts}", f"--local=/{NAME}/", "--local-ttl=1"),
        *(f"--port={port}", f"--listen-address={LOOPBACK}", "--bind-interfaces"),
    ]
    with running(command, folder / "dnsmasq.log", clean_environment()) as dns, toxiproxy(folder) as proxy:
        dns.wait_until(lambda: listens(port))
        yield Peers(hosts, dns, port, proxy)
