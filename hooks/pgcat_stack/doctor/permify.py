"""What a Permify process is asked, and its typed answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgcat_stack.doctor.asking import Failed, Trouble
from pgcat_stack.doctor.http import fetch
from pgcat_stack.doctor.platforms import Place
from pgcat_stack.doctor.postgres import MOST_TENANTS


@dataclass(frozen=True, slots=True)
class PermifyAnswer:
    """One Permify process."""

    name: str
    place: Place | None = None
    trouble: Trouble | None = None
    """Why it was not reached, or what its health check says."""
    tenants: frozenset[tuple[str, datetime]] | Trouble | None = None
    """The first of its tenants, from its reader pool, which PostgreSQL must have just so."""


def ask_permify(name: str, place: Place, token: str, seconds: float) -> PermifyAnswer:
    """Its health, and its tenants. Raises `Failed` where it does not answer at all."""
    try:
        health = fetch(place, "/healthz", seconds)  # which Permify answers without a key
    except Failed as failed:
        if failed.trouble.kind not in ("refused", "login"):
            raise
        return PermifyAnswer(name, place, failed.trouble)
    if "SERVING" not in health or "NOT_SERVING" in health:
        return PermifyAnswer(name, place, Trouble("refused", f"its health check says {health.strip()[:80]}"))
    try:
        return PermifyAnswer(name, place, tenants=_tenants(place, token, seconds))
    except Failed as failed:
        return PermifyAnswer(name, place, tenants=failed.trouble)


def _tenants(place: Place, token: str, seconds: float) -> frozenset[tuple[str, datetime]]:
    answer = post(place, "/v1/tenants/list", {"page_size": MOST_TENANTS}, token, seconds)
    try:
        return frozenset(
            (tenant["id"], datetime.fromisoformat(tenant["created_at"])) for tenant in answer["tenants"]
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
