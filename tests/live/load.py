"""Steady checks and writes through Permify, every one of them remembered."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from live.stack import CHECKS, TENANT, relation_tuple, write_body
from live.support import KEY, LOOPBACK

TIMEOUT_SECONDS = 30
"""After which a client gives up: longer than anything here is to take."""


@dataclass(frozen=True)
class Request:
    kind: str
    """`check` or `write`."""
    began: float
    """By `time.monotonic()`."""
    seconds: float
    error: str
    """What was wrong with the answer; empty when it was right."""
    written: str = ""
    """The document of a write."""


class Client:
    """An HTTP client that keeps a connection for a while, as clients of Permify do."""

    def __init__(self, keep_seconds: float, address: str = LOOPBACK, key: Callable[[], str] = lambda: KEY):
        self._keep_seconds = keep_seconds
        self._address = address
        self._key = key
        self._open: dict[int, tuple[http.client.HTTPConnection, float]] = {}

    def post(self, port: int, path: str, body: dict[str, Any]) -> Any:
        """The answer; any status but 200 is a ValueError."""
        connection, until = self._open.pop(port, (None, 0.0))
        if connection is None or time.monotonic() > until:
            if connection is not None:
                connection.close()
            connection = http.client.HTTPConnection(self._address, port, timeout=TIMEOUT_SECONDS)
            until = time.monotonic() + self._keep_seconds
        try:
            headers = {"Content-Type": "application/json"}
            if self._key():
                headers["Authorization"] = f"Bearer {self._key()}"
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except BaseException:
            connection.close()
            raise
        self._open[port] = connection, until
        if answer.status != 200:
            raise ValueError(f"{answer.status} {text[:300]}")
        return json.loads(text)


class Load:
    """Clients that check and write in turn through some ports, until the block ends.

    Each waits `pause_seconds` between two requests, so that the programs are busy and the machine is not. A
    check is only right with the right answer; every write is of a document of its own, so that one which was
    acknowledged can be looked for afterwards.
    """

    def __init__(
        self,
        ports: Sequence[int],
        checkers: int = 6,
        writers: int = 2,
        pause_seconds: float = 0.15,
        keep_seconds: float = 2.0,
        address: str = LOOPBACK,
        key: str = KEY,
    ):
        self._ports = ports
        self.key = key
        """What every client sends from now on; empty: nothing."""
        self._address = address
        self._pause_seconds = pause_seconds
        self._keep_seconds = keep_seconds
        self._done = threading.Event()
        self._requests: list[Request] = []  # appended to by all threads, which is atomic
        kinds = ["check"] * checkers + ["write"] * writers
        self._threads = [
            threading.Thread(target=self._run, args=(kind, number), daemon=True)
            for number, kind in enumerate(kinds)
        ]
        self._name = f"{random.SystemRandom().randrange(16**8):08x}"

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No more requests; waits for those under way."""
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kind: str, number: int) -> None:
        client = Client(self._keep_seconds, self._address, lambda: self.key)
        draw = random.Random(number)
        count = 0
        while not self._done.wait(self._pause_seconds * draw.uniform(0.5, 1.5)):
            count += 1
            port = self._ports[count % len(self._ports)]
            written = f"w-{self._name}-{number}-{count}" if kind == "write" else ""
            began = time.monotonic()
            try:
                error = self._write(client, port, written) if written else self._check(client, port, draw)
            except (OSError, http.client.HTTPException, ValueError) as failure:
                error = f"{type(failure).__name__}: {failure}"
            self._requests.append(Request(kind, began, time.monotonic() - began, error, written))

    def _check(self, client: Client, port: int, draw: random.Random) -> str:
        check = draw.choice(CHECKS)
        answer = client.post(port, f"{TENANT}/permissions/check", check.body)
        wanted = "CHECK_RESULT_ALLOWED" if check.allowed else "CHECK_RESULT_DENIED"
        return "" if answer["can"] == wanted else f"{check}: {answer['can']}"

    def _write(self, client: Client, port: int, document: str) -> str:
        client.post(port, f"{TENANT}/data/write", write_body(relation_tuple(document, "viewer", 1)))
        return ""

    # What happened

    def requests(
        self, kind: str | None = None, since: float = 0.0, until: float = float("inf")
    ) -> list[Request]:
        """Those that ended, in the order of their beginnings; of one kind, begun within a span of time."""
        chosen = [
            request
            for request in list(self._requests)
            if (kind is None or request.kind == kind) and since <= request.began < until
        ]
        return sorted(chosen, key=lambda request: request.began)

    def failed(
        self, kind: str | None = None, since: float = 0.0, until: float = float("inf")
    ) -> list[Request]:
        return [request for request in self.requests(kind, since, until) if request.error]

    def outage_seconds(self, kind: str, since: float = 0.0) -> float:
        """The longest time in which none of a kind succeeded."""
        ends = [
            request.began + request.seconds for request in self.requests(kind, since) if not request.error
        ]
        first = self.requests(kind, since)[0].began
        last = max(request.began + request.seconds for request in self.requests(kind, since))
        moments = [first, *sorted(ends), last]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    @property
    def acknowledged(self) -> set[str]:
        """Documents whose write was answered as done."""
        return {request.written for request in self.requests("write") if not request.error}

    def lost(self, primary: psycopg.Connection[Any]) -> set[str]:
        """Documents whose write was acknowledged and which the database does not have."""
        rows = primary.execute(
            "SELECT entity_id FROM relation_tuples WHERE entity_type = 'document' AND entity_id LIKE %s",
            [f"w-{self._name}-%"],
        )
        return self.acknowledged - {name for (name,) in rows}

    def errors(self) -> Iterator[str]:
        """The different errors and how often each was, for a failure's message."""
        texts = [f"{request.kind}: {request.error}" for request in self.failed()]
        for text in sorted(set(texts)):
            yield f"{texts.count(text)} × {text}"
