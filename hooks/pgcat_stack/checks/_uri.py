"""PostgreSQL connection strings, as far as they can be judged without a driver.

Both spellings that pgx reads: `postgresql://user@host:port,host/database?option=value` and
`host=… port=… dbname=…`. Nothing raises: what is no connection string is one without parts.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

POSTGRES_PORT = 5432
LOOPBACK = frozenset({"localhost", "::1", "ip6-localhost"})

_URI = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^/?#]*)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>.*))?"
)
_WORD = re.compile(r"([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S*))")


@dataclass(frozen=True, slots=True)
class Uri:
    """The parts of a connection string. `password` is its text where it carries one."""

    user: str = ""
    password: str | None = None
    hosts: tuple[tuple[str, int], ...] = ()
    database: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def is_loopback(host: str) -> bool:
    """Whether the host is the machine, or the container, itself."""
    return host in LOOPBACK or host.startswith("127.")


def server_text(host: str, port: int) -> str:
    """`host:port`, IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(maxsize=256)
def parse_uri(text: str) -> Uri:
    """The parts of a connection string; an empty `Uri` for any other text."""
    match = _URI.fullmatch(text.strip())
    if match:
        return _from_uri(match)
    words = {key: quoted or plain for key, quoted, plain in _WORD.findall(text)}
    return _from_words(words) if words else Uri()


def _from_uri(match: re.Match[str]) -> Uri:
    if "@" in (match["path"] or ""):
        return Uri(password="")  # a password with a slash in it: no part may reach a message
    options: dict[str, str] = {}
    for pair in (match["query"] or "").split("&"):
        name, _, value = pair.partition("=")
        if name:
            options[unquote(name)] = unquote(value)
    user, colon, password = (match["user"] or "").partition(":")
    hosts = [_host_and_port(unquote(part)) for part in match["hosts"].split(",") if part]
    if "host" in options:
        hosts = [_host_and_port(part) for part in options["host"].split(",")]
    if "port" in options:
        hosts = [(host, _port(options["port"])) for host, _ in hosts]
    return Uri(
        user=options.get("user", unquote(user)),
        password=options.get("password", unquote(password) if colon else None),
        hosts=tuple(hosts),
        database=options.get("dbname", unquote(match["path"] or "")),
        options=options,
    )


def _from_words(words: dict[str, str]) -> Uri:
    ports = words.get("port", "").split(",")
    names = [name for name in words.get("host", "").split(",") if name]
    hosts = [(name.lower(), _port(ports[min(index, len(ports) - 1)])) for index, name in enumerate(names)]
    return Uri(
        user=words.get("user", ""),
        password=words.get("password"),
        hosts=tuple(hosts),
        database=words.get("dbname", words.get("database", "")),
        options=words,
    )


def _host_and_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host.lower(), _port(rest.removeprefix(":"))
    host, _, port = text.partition(":")
    return host.lower(), _port(port)


def _port(text: str) -> int:
    return (
        int(text)
        if text.isascii() and text.isdigit() and len(text) <= 5
        else POSTGRES_PORT
        if not text
        else 0
    )
