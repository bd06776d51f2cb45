"""Asking several at once, each within its time.

A part that is silent does not hold up the others, and an answer that nobody expected does not cost theirs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

_LONGEST = 200

Kind = Literal[
    "unreachable",
    "mute",
    "login",
    "limit",
    "database",
    "refused",
    "failed",
    "unasked",
    "unmet",  # not reached from here, and PgCat gave others of its pool
    "untrusted",  # it did not prove who it is
    "md5",  # it asks for a login that only who has proven itself may get
    "no-ca",  # it was not asked: nothing here to verify its certificate by
    "broken",  # an error of the doctor's own, or an answer that it cannot read: `Questions.broken` has it
]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why somebody could not be asked, as part of a sentence; `kind` tells checks apart."""

    kind: Kind
    text: str


class Failed(Exception):
    """What was asked did not answer, with the trouble that tells why.

    `lost` is a connection that ended before the answer came: another try may get it.
    """

    def __init__(self, kind: Kind, text: str, *, lost: bool = False) -> None:
        super().__init__(text)
        self.trouble = Trouble(kind, text)
        self.lost = lost


@dataclass(frozen=True, slots=True)
class Broken:
    """A question that ended in an error of the doctor's own, or in an answer that it cannot read."""

    question: str
    """As part of a sentence: `what PgCat one says of its bans`."""
    error: str


@dataclass(slots=True)
class Questions:
    """Puts every question, so that one that goes wrong becomes a finding and costs no other its answer."""

    broken: list[Broken] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """What was not answered and no finding tells: whole sentences without a full stop, for notes."""

    def put(self, question: str, ask: Callable[[], V], otherwise: D) -> V | D:
        """What `ask` returns, or `otherwise` where an error that nobody expected ends it.

        `Failed` passes: it is an answer, which the checks judge.
        """
        try:
            return ask()
        except Failed as failed:
            if failed.trouble.kind != "broken":
                raise
            self.broken.append(Broken(question, failed.trouble.text))
        except Exception as error:
            self.broken.append(Broken(question, in_words(error)))
        return otherwise

    def step(self, question: str, run: Callable[[], V], otherwise: D) -> V | D:
        """`put` for work of the doctor's own, where `Failed` has no place either."""
        try:
            return self.put(question, run, otherwise)
        except Failed as failed:
            self.broken.append(Broken(question, failed.trouble.text))
        return otherwise

    def part(self, question: str, ask: Callable[[], V], otherwise: D) -> V | D:
        """The same for a part that others can do without: a refusal of it is noted and costs nothing."""
        try:
            return self.put(question, ask, otherwise)
        except Failed as failed:
            self.unseen.append(f"{question} was not seen: {failed.trouble.text}")
        return otherwise

    def together(
        self,
        jobs: Mapping[K, tuple[str, Callable[[], V]]],
        seconds: float,
        done: Callable[[K], None] = lambda key: None,
    ) -> dict[K, V | Trouble]:
        """`together` for questions, each with its words; a trouble of the kind `broken` is in the list."""
        results = together({key: job for key, (_, job) in jobs.items()}, seconds, done)
        for key, result in results.items():
            if isinstance(result, Trouble) and result.kind == "broken":
                self.broken.append(Broken(jobs[key][0], result.text))
        return results


def in_words(error: BaseException) -> str:
    """An error as one short line."""
    text = " ".join(str(error).split())[:_LONGEST]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def together(
    jobs: Mapping[K, Callable[[], V]], seconds: float, done: Callable[[K], None] = lambda key: None
) -> dict[K, V | Trouble]:
    """Run the jobs side by side; what each returns, or the trouble that it ended in.

    A job that has not ended after `seconds` is left behind: its thread never keeps the process from ending.
    `done` is called in the threads, with the key of each job that ends. An error that is no `Failed` is a
    trouble of the kind `broken`.
    """
    results: dict[K, V | Trouble] = {}

    def run(key: K, job: Callable[[], V]) -> None:
        try:
            results[key] = job()
        except Failed as failed:
            results[key] = failed.trouble
        except Exception as error:
            results[key] = Trouble("broken", in_words(error))
        with contextlib.suppress(Exception):
            done(key)

    threads = {key: threading.Thread(target=run, args=(key, job), daemon=True) for key, job in jobs.items()}
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
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
