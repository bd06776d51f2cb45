"""Asking several at once, each within its time: nothing that is silent may hold up the rest."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Kind = Literal[
    "unreachable",
    "mute",
    "login",
    "limit",
    "database",
    "refused",
    "failed",
    "unasked",
    "untrusted",  # it did not prove who it is
    "md5",  # it asks for a login that only who has proven itself may get
    "no-ca",  # it was not asked: nothing here to verify its certificate by
]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why somebody could not be asked, as part of a sentence; `kind` tells checks apart."""

    kind: Kind
    text: str


class Failed(Exception):
    """What was asked did not answer, with the trouble that tells why."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.trouble = Trouble(kind, text)


def together(
    jobs: Mapping[K, Callable[[], V]], seconds: float, done: Callable[[K], None] = lambda key: None
) -> dict[K, V | Trouble]:
    """Run the jobs side by side; what each returns, or the trouble that it ended in.

    A job that has not ended after `seconds` is left behind: its thread never keeps the process from ending.
    `done` is called in the threads, with the key of each job that ends.
    """
    results: dict[K, V | Trouble] = {}
    errors: dict[K, BaseException] = {}

    def run(key: K, job: Callable[[], V]) -> None:
        try:
            results[key] = job()
        except Failed as failed:
            results[key] = failed.trouble
        except Exception as error:
            errors[key] = error
        done(key)

    threads = {key: threading.Thread(target=run, args=(key, job), daemon=True) for key, job in jobs.items()}
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    for error in errors.values():
        raise error
    late = Trouble("mute", f"no answer within {seconds:g} s")
    return {key: results.get(key, late) for key in jobs}


@contextlib.contextmanager
def cut_after(seconds: float, descriptor: int) -> Iterator[Callable[[], bool]]:
    """Shut a socket down after so many seconds, so that whoever waits for it gets an error.

    Yields a function that tells whether it came to that.
    """
    duplicate = socket.socket(fileno=os.dup(descriptor))
    fired = threading.Event()

    def cut() -> None:
        fired.set()
        with contextlib.suppress(OSError):
            duplicate.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield fired.is_set
    finally:
        timer.cancel()
        duplicate.close()


def resolve(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of a host. Raises `Failed` where it has none, or no name server answers in time."""
    found = together({host: lambda: _lookup(host, port)}, seconds)[host]
    if isinstance(found, Trouble):
        if found.kind == "mute":
            raise Failed("unreachable", f"no name server answered for {host} within {seconds:g} s")
        raise Failed(found.kind, found.text)
    return found


def _lookup(host: str, port: int) -> list[str]:
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Failed("unreachable", f"the name {host} is not known here") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def probe(host: str, port: int, seconds: float) -> str:
    """The address of `host` that takes connections at the port. Raises `Failed` with the reason."""
    reason = ""
    for address in resolve(host, port, seconds):
        try:
            with socket.create_connection((address, port), seconds):
                return address
        except TimeoutError:
            reason = f"{host}:{port} did not take a connection within {seconds:g} s"
        except OSError as error:
            reason = f"{host}:{port}: {(error.strerror or str(error)).lower()}"
    raise Failed("unreachable", reason or f"{host} has no address")
