"""PostgreSQL servers by address, and the connection strings that name them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from pgcat_stack.findings import Location

DEFAULT_PORT = 5432

_URI = re.compile(
    r"postgres(?:ql)?://(?:(?P<login>[^@/?#]*)@)?(?P<hosts>[^/?#]*)(?:/(?P<database>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)
_PAIR = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S*)")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a server listens. Hosts compare without case, brackets of IPv6 and the dot at the end."""

    host: str
    port: int = DEFAULT_PORT

    @classmethod
    def of(cls, host: str, port: int | None = None) -> Address:
        """The address of a host as files write it."""
        return cls(host.strip().strip("[]").rstrip(".").lower(), DEFAULT_PORT if port is None else port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Uri:
    """A connection string: the servers it names in order, user and database, and where it stands."""

    servers: tuple[Address, ...]
    user: str
    database: str
    location: Location


def read_uri(text: Any, location: Location) -> Uri | None:
    """Read a URI or a `key=value` string as pgx does; None where it is neither or names no host."""
    if not isinstance(text, str):
        return None
    match = _URI.match(text)
    if match is None:
        return _read_pairs(text, location)
    options = dict(parse_qsl(match["query"] or ""))
    hosts = [entry for entry in match["hosts"].split(",") if entry]
    servers = tuple(_server(unquote(entry)) for entry in hosts)
    if not servers and options.get("host"):
        servers = _listed(options["host"], options.get("port", ""))
    user = unquote((match["login"] or "").split(":", 1)[0]) or options.get("user", "")
    database = unquote(match["database"] or "") or options.get("dbname", "") or user
    return Uri(servers, user, database, location) if servers else None


def _read_pairs(text: str, location: Location) -> Uri | None:
    pairs = {key: value.strip("'") for key, value in _PAIR.findall(text)}
    if not pairs.get("host"):
        return None
    user = pairs.get("user", "")
    servers = _listed(pairs["host"], pairs.get("port", ""))
    return Uri(servers, user, pairs.get("dbname") or pairs.get("database") or user, location)


def _listed(hosts: str, ports: str) -> tuple[Address, ...]:
    """Hosts and ports as two lists; one port counts for all hosts."""
    numbers = [int(port) if port.isdigit() else DEFAULT_PORT for port in ports.split(",")]
    names = hosts.split(",")
    return tuple(
        Address.of(host, numbers[index] if index < len(numbers) else numbers[-1])
        for index, host in enumerate(names)
    )


def _server(entry: str) -> Address:
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (entry.startswith("[") or ":" not in host):
        return Address.of(host, int(port))
    return Address.of(entry)
