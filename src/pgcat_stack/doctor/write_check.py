"""A write and then checks through the whole stack, in a tenant of its own that is removed afterwards."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from pgcat_stack.doctor.http import fetch
from pgcat_stack.doctor.permify import post
from pgcat_stack.doctor.platforms import Place
from pgcat_stack.doctor.side_by_side import Failed, Trouble

T = TypeVar("T")

TENANT = "pgcat-stack-doctor-"
TENANT_NAME = "write check of pgcat-stack doctor; may be deleted"
SCHEMA = "entity user {}\nentity document {\n    relation viewer @user\n    permission view = viewer\n}\n"
PEOPLE = 100
"""Each question is about somebody else, for a wrong answer can stay in Permify's cache."""
PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Step:
    """What was done, and how long it took."""

    what: str
    ms: float


@dataclass(frozen=True, slots=True)
class Stale:
    """How long a process answered by old data; `ended` is false where it still did when watching ended."""

    process: str
    seconds: float
    ended: bool
    said: str


@dataclass(slots=True)
class WriteCheck:
    """What came of it."""

    tenant: str
    steps: list[Step] = field(default_factory=list)
    failed: tuple[str, Trouble] | None = None
    """The step that failed, and how."""
    stale: list[Stale] = field(default_factory=list)
    leftover: str = ""
    """Why the tenant could not be removed; empty where it was, or was never made."""

    def timed(self, what: str, run: Callable[[], T]) -> T:
        """Run a step and remember how long it took, or that it failed."""
        begun = time.monotonic()
        try:
            result = run()
        except Failed as failed:
            self.failed = what, failed.trouble
            raise
        self.steps.append(Step(what, (time.monotonic() - begun) * 1000))
        return result


def write_check(processes: Sequence[tuple[str, Place]], token: str, seconds: float) -> WriteCheck:
    """Write a schema and relationships by the first process, check by each, remove what was written."""
    tenant = TENANT + secrets.token_hex(6)
    result = WriteCheck(tenant)
    _, place = processes[0]
    made = False

    def ask(path: str, body: dict[str, Any], where: Place = place) -> dict[str, Any]:
        return post(where, f"/v1/tenants/{tenant}{path}", body, token, seconds)

    try:
        made = True  # also where the answer gets lost
        result.timed(
            "create a tenant",
            lambda: post(place, "/v1/tenants/create", {"id": tenant, "name": TENANT_NAME}, token, seconds),
        )
        result.timed("write a schema", lambda: ask("/schemas/write", {"schema": SCHEMA}))
        written = time.monotonic()
        result.timed("write relationships", lambda: _write_relationships(ask, seconds))
        for name, where in processes:
            check = partial(_check, result, name, where, ask, written, seconds)
            result.timed(f"check by {name}", check)
    except Failed:
        pass
    finally:
        if made:
            _remove(result, place, token, seconds)
    return result


def _write_relationships(ask: Callable[..., dict[str, Any]], seconds: float) -> None:
    """Permify looks the schema up among the readers, which may not have it yet."""
    tuples = [
        {
            "entity": {"type": "document", "id": "1"},
            "relation": "viewer",
            "subject": {"type": "user", "id": str(number)},
        }
        for number in range(PEOPLE)
    ]
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask("/data/write", {"metadata": {}, "tuples": tuples, "attributes": []})
            return
        except Failed as failed:
            if "SCHEMA_NOT_FOUND" not in failed.trouble.text or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def _check(
    result: WriteCheck,
    name: str,
    place: Place,
    ask: Callable[..., dict[str, Any]],
    written: float,
    seconds: float,
) -> None:
    """Ask until the answer is right. Raises `Failed` for an error that is not a reader's being behind."""
    begun = time.monotonic()
    said = ""
    number = 0
    while True:
        body = {
            "metadata": {"snap_token": "", "schema_version": "", "depth": 20},
            "entity": {"type": "document", "id": "1"},
            "permission": "view",
            "subject": {"type": "user", "id": str(number % PEOPLE)},
        }
        try:
            said = str(ask("/permissions/check", body, place).get("can"))
        except Failed as failed:
            if "NOT_FOUND" not in failed.trouble.text:
                raise
            said = failed.trouble.text
        now = time.monotonic()
        if said == "CHECK_RESULT_ALLOWED":
            if number:
                result.stale.append(Stale(name, now - written, True, said))
            return
        if now - begun > seconds:
            result.stale.append(Stale(name, now - written, False, said))
            return
        number += 1
        time.sleep(PAUSE_SECONDS)


def _remove(result: WriteCheck, place: Place, token: str, seconds: float) -> None:
    begun = time.monotonic()
    try:
        fetch(place, f"/v1/tenants/{result.tenant}", seconds, method="DELETE", token=token)
        result.steps.append(Step("remove the tenant", (time.monotonic() - begun) * 1000))
    except Failed as failed:
        with contextlib.suppress(AttributeError):
            nothing_made = result.failed is not None and result.failed[0] == "create a tenant"
            missing = "not found" in failed.trouble.text.lower() or "NOT_FOUND" in failed.trouble.text
            if not (nothing_made and (missing or failed.trouble.kind != "mute")):
                result.leftover = failed.trouble.text
