"""A DNS server whose answers a test decides, and a thread whose programs ask it alone."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from live.support import program, run

ADDRESS = ("127.0.0.53", 53)
_A, _NO_ERROR, _NO_SUCH_NAME, _FAILURE = 1, 0, 3, 2

Addresses = Callable[[], Sequence[str]]
"""What a name leads to when it is asked for."""


class Names:
    """Names and their IPv4 addresses. An unknown name does not exist."""

    def __init__(self, ttl_seconds: int):
        self.ttl_seconds = ttl_seconds
        self.fails = False
        """Whether every question ends in SERVFAIL."""
        self.asked: Counter[str] = Counter()
        """How often each name was asked for its IPv4 addresses."""
        self._names: dict[str, Addresses] = {}

    def point(self, name: str, *addresses: str) -> None:
        """From now on the name leads to these."""
        self.follow(name, lambda: addresses)

    def follow(self, name: str, addresses: Addresses) -> None:
        """From now on the name leads to what the function says at each question."""
        self._names[name] = addresses

    def answer(self, question: bytes) -> bytes:
        """The packet that answers a packet with one question."""
        number, _, count = struct.unpack(">HHH", question[:6])
        labels, end = [], 12
        while length := question[end]:
            labels.append(question[end + 1 : end + 1 + length].decode().lower())
            end += 1 + length
        (kind,) = struct.unpack(">H", question[end + 1 : end + 3])
        name = ".".join(labels)
        known = self._names.get(name)
        addresses: Sequence[str] = ()
        if kind == _A:
            self.asked[name] += 1
            addresses = known() if known else ()
        code = _FAILURE if self.fails else _NO_ERROR if known else _NO_SUCH_NAME
        if code != _NO_ERROR:
            addresses = ()
        head = struct.pack(">HHHHHH", number, 0x8580 | code, count, len(addresses), 0, 0)
        records = [
            struct.pack(">HHHIH", 0xC00C, _A, 1, self.ttl_seconds, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        return head + question[12 : end + 5] + b"".join(records)


@contextlib.contextmanager
def own_names(folder: Path, ttl_seconds: int) -> Iterator[Names]:
    """Programs that this thread starts ask the names of the test, and nobody else.

    For a thread in a network of its own (`in_own_network`): it gets mounts of its own as well, with another
    /etc/resolv.conf, and keeps them until it ends.
    """
    new_mounts = 0x00020000
    if ctypes.CDLL(None).unshare(new_mounts) != 0:
        pytest.skip("an /etc/resolv.conf of one's own needs root")
    run([program("mount"), "--make-rprivate", "/"])
    settings = folder / "resolv.conf"
    settings.write_text(f"nameserver {ADDRESS[0]}\noptions timeout:1 attempts:3\n")
    settings.chmod(0o644)
    run([program("mount"), "--bind", str(settings), "/etc/resolv.conf"])
    names = Names(ttl_seconds)
    over = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(ADDRESS)
        listening.settimeout(0.2)

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    question, asker = listening.recvfrom(4096)
                    listening.sendto(names.answer(question), asker)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        try:
            yield names
        finally:
            over.set()
            server.join()
