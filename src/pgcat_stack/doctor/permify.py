"""What a Permify process is asked, and its typed answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgcat_stack.doctor.http import fetch
from pgcat_stack.doctor.platforms import Place
from pgcat_stack.doctor.postgres import MOST_TENANTS
from pgcat_stack.doctor.side_by_side import Failed, Trouble


@dataclass(frozen=True, slots=True)
class PermifyAnswer:
    """One Permify process."""

    name: str
    place: Place | None = None
    trouble: Trouble | None = None
    """Why it was not reached, or what its health check says."""
    tenants: frozenset[tuple[str, datetime]] | Trouble | None = None
    """The first of its tenants, from its reader pool, which PostgreSQL must have just so."""
    answers_anyone: bool | None = None
    """Whether it answers a request without a key; None where that was not asked, or is not known."""

    @property
    def refuses_key(self) -> bool:
        """Whether it asks for a key, and did not take what it was sent."""
        return isinstance(self.tenants, Trouble) and self.tenants.kind == "login"


def ask_permify(
    name: str, place: Place, token: str, seconds: float, needs_key: bool = False
) -> PermifyAnswer:
    """Its health, its tenants and, where it `needs_key`, whether it answers without one.

    Raises `Failed` where it does not answer at all.
    """
    try:
        health = fetch(place, "/healthz", seconds)  # which Permify answers without a key
    except Failed as failed:
        if failed.trouble.kind not in ("refused", "login"):
            raise
        return PermifyAnswer(name, place, failed.trouble)
    if "SERVING" not in health or "NOT_SERVING" in health:
        return PermifyAnswer(name, place, Trouble("refused", f"its health check says {health.strip()[:80]}"))
    anyone = _answers_anyone(place, seconds) if needs_key else None
    try:
        return PermifyAnswer(name, place, None, _tenants(place, token, seconds), anyone)
    except Failed as failed:
        return PermifyAnswer(name, place, None, failed.trouble, anyone)


def _answers_anyone(place: Place, seconds: float) -> bool | None:
    try:
        post(place, "/v1/tenants/list", {"page_size": 1}, "", seconds)
    except Failed as failed:
        return False if failed.trouble.kind == "login" else None
    return True


def _tenants(place: Place, token: str, seconds: float) -> frozenset[tuple[str, datetime]]:
    answer = post(place, "/v1/tenants/list", {"page_size": MOST_TENANTS}, token, seconds)
    try:
        return frozenset(
            (str(tenant["id"]), datetime.fromisoformat(tenant["created_at"])) for tenant in answer["tenants"]
        )
    except (KeyError, TypeError, ValueError):
        raise Failed("failed", "its list of tenants has another shape than this doctor knows") from None


def post(place: Place, path: str, body: dict[str, Any], token: str, seconds: float) -> dict[str, Any]:
    """Permify's answer to a request. Raises `Failed`."""
    text = fetch(place, path, seconds, body, token=token)
    try:
        answer = json.loads(text)
    except ValueError:
        raise Failed("failed", f"{place} did not answer with JSON") from None
    if not isinstance(answer, dict):
        raise Failed("failed", f"{place} did not answer with an object")
    return answer
