"""HTTP with a time limit, past any proxy."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from pgcat_stack.doctor.platforms import Place
from pgcat_stack.doctor.side_by_side import Failed, Kind

_MOST_BYTES = 8 * 1024 * 1024


class _NoRedirects(HTTPRedirectHandler):
    """Permify and PgCat redirect nobody, and a key must not follow one elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = build_opener(ProxyHandler({}), _NoRedirects)


def fetch(
    place: Place,
    path: str,
    seconds: float,
    body: Mapping[str, Any] | None = None,
    method: str = "",
    token: str = "",
) -> str:
    """The answer as text. Raises `Failed`: `refused` with Permify's message where the status is an error."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = Request(
        f"http://{place}{path}", data, headers, method=method or ("GET" if body is None else "POST")
    )
    try:
        with _OPENER.open(request, timeout=seconds) as answer:
            return str(answer.read(_MOST_BYTES).decode(errors="replace"))
    except HTTPError as error:
        with error:
            text = error.read(_MOST_BYTES).decode(errors="replace")
        # Permify answers 500 where a caller sends nothing, and 401 where it does not know the key.
        asks = error.code in (401, 403) or "ERROR_CODE_MISSING_BEARER_TOKEN" in text
        kind: Kind = "login" if asks else "refused"
        raise Failed(kind, f"status {error.code}: {_message(text)}") from None
    except TimeoutError:
        raise Failed("mute", f"{place} takes connections and did not answer within {seconds:g} s") from None
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise Failed("mute", f"{place} did not answer within {seconds:g} s") from None
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise Failed("unreachable", f"{place}: {text.lower()}") from None


def _message(text: str) -> str:
    try:
        message = json.loads(text).get("message")
    except (ValueError, AttributeError):
        message = None
    return " ".join(str(message or text or "no reason given").split())[:200]
