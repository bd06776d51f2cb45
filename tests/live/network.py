"""Networks that are slow, mute or swallow packets."""

from __future__ import annotations

import contextlib
import ctypes
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from live.support import (
    LOOPBACK,
    Address,
    Server,
    clean_environment,
    free_port,
    listens,
    program,
    run,
    running,
)


def in_own_network(work: Callable[[], Any], within_seconds: float = 600) -> Any:
    """Runs in a thread with a loopback and packet filter of its own, which only root may have."""
    results: list[Any] = []
    errors: list[BaseException] = []
    iptables = program("iptables")

    def thread() -> None:
        try:
            new_network = 0x40000000
            if ctypes.CDLL(None).unshare(new_network) != 0:
                pytest.skip("a network of one's own needs root")
            run([program("ip"), "link", "set", "lo", "up"])
            run([iptables, "-L", "-n"])
            results.append(work())
        except BaseException as error:
            errors.append(error)

    runner = threading.Thread(target=thread, daemon=True)
    runner.start()
    runner.join(within_seconds)
    if runner.is_alive():
        raise TimeoutError(f"not done after {within_seconds} s")
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def packets_vanish(port: int, host: str = "0.0.0.0/0") -> Iterator[None]:
    """To and from a port of one host or of all, without a word; in a network of one's own."""
    rules = [
        ["INPUT", "-p", "tcp", side, host, direction, str(port), "-j", "DROP"]
        for side, direction in (("--destination", "--dport"), ("--source", "--sport"))
    ]
    for rule in rules:
        run([program("iptables"), "-w", "-A", *rule])
    yield
    for rule in rules:
        run([program("iptables"), "-w", "-D", *rule])


class Toxiproxy:
    """Between a pooler and its servers."""

    def __init__(self, port: int):
        self._port = port

    def say(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self._port}{path}", json.dumps(body or {}).encode(), method=method
        )
        urllib.request.urlopen(request, timeout=10).close()

    def add(self, server: Server) -> Address:
        """Where the server is reached through it."""
        port = free_port()
        listen, upstream = f"{LOOPBACK}:{port}", f"{LOOPBACK}:{server.port}"
        self.say("POST", "/proxies", {"name": server.role, "listen": listen, "upstream": upstream})
        return LOOPBACK, port

    def delay(self, server: Server, milliseconds: int) -> None:
        """Of every answer, from now on."""
        toxics = f"/proxies/{server.role}/toxics"
        toxic = {"name": "delay", "type": "latency", "stream": "downstream"}
        with contextlib.suppress(urllib.error.HTTPError):  # there was none
            self.say("DELETE", f"{toxics}/delay")
        self.say("POST", toxics, {**toxic, "attributes": {"latency": milliseconds}})

    @contextlib.contextmanager
    def mute(self, server: Server) -> Iterator[None]:
        """Connections stay and open, and nothing comes through; afterwards they are cut."""
        proxy = f"/proxies/{server.role}"
        for stream in ("upstream", "downstream"):
            toxic = {"name": stream, "type": "timeout", "stream": stream, "attributes": {"timeout": 0}}
            self.say("POST", f"{proxy}/toxics", toxic)
        yield
        self.say("POST", proxy, {"enabled": False})
        for stream in ("upstream", "downstream"):
            self.say("DELETE", f"{proxy}/toxics/{stream}")
        self.say("POST", proxy, {"enabled": True})


@contextlib.contextmanager
def toxiproxy(folder: Path) -> Iterator[Toxiproxy]:
    """One that stands before no server yet."""
    port = free_port()
    command = [program("toxiproxy-server"), "-host", LOOPBACK, "-port", str(port)]
    with running(command, folder / "toxiproxy.log", clean_environment()) as process:
        process.wait_until(lambda: listens(port))
        yield Toxiproxy(port)
