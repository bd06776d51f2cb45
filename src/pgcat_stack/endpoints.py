"""PostgreSQL servers by address, and the connection strings that name them.

Both spellings that pgx reads: `postgresql://user@host:port,host/database?option=value` and
`host=… port=… dbname=…`. Nothing raises: what is no connection string is one without parts.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from pgcat_stack.findings import Location

DEFAULT_PORT = 5432
LOOPBACK = ("127.0.0.1", "localhost", "::1", "ip6-localhost")

_URI = re.compile(
    r"postgres(?:ql)?://(?:(?P<login>[^@/?#]*)@)?(?P<hosts>[^/?#]*)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>.*))?"
)
_WORD = re.compile(r"([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S*))")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a server listens. Hosts compare without case and the dot at the end, IPv6 in any spelling."""

    host: str
    port: int = DEFAULT_PORT

    @classmethod
    def of(cls, host: str, port: int | None = None) -> Address:
        """The address of a host as files write it: IPv6 with or without brackets, compressed or not."""
        return cls(
            _spelled(host.strip().strip("[]").rstrip(".").lower()), DEFAULT_PORT if port is None else port
        )

    @property
    def is_loopback(self) -> bool:
        """Whether the host is the machine, or the container, itself."""
        return self.host in LOOPBACK or self.host.startswith("127.")

    @property
    def is_name(self) -> bool:
        """Whether the host is a name, which DNS may lead elsewhere, and no address."""
        try:
            ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return bool(self.host) and not self.is_loopback
        return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _spelled(host: str) -> str:
    """IPv6 in its one spelling (RFC 5952), IPv4 where it is mapped into IPv6; names as they are."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or address)


@dataclass(frozen=True, slots=True)
class Uri:
    """A connection string: where it stands, the servers it names in order, and its other parts."""

    location: Location
    servers: tuple[Address, ...] = ()
    user: str = ""
    password: str | None = None
    database: str = ""
    """Where none is written, the user's name: that is what PostgreSQL and PgCat take."""
    options: Mapping[str, str] = field(default_factory=dict)


def read_uri(text: Any, location: Location) -> Uri | None:
    """The parts of a connection string that names a server; None for anything else."""
    uri = parse_uri(text, location) if isinstance(text, str) else None
    return uri if uri and uri.servers else None


def parse_uri(text: str, location: Location) -> Uri:
    """The parts of a connection string, none where the text is no connection string."""
    match = _URI.fullmatch(text.strip())
    if match is None:
        words = {key: quoted or plain for key, quoted, plain in _WORD.findall(text)}
    elif "@" in (match["path"] or ""):
        return Uri(location, password="")  # a password with a slash in it: no part may reach a message
    else:
        words = _words(match)
    ports = [_port(port) for port in words.get("port", "").split(",")]
    hosts = [host for host in words.get("host", "").split(",") if host]
    user = words.get("user", "")
    return Uri(
        location=location,
        servers=tuple(Address.of(host, ports[min(i, len(ports) - 1)]) for i, host in enumerate(hosts)),
        user=user,
        password=words.get("password"),
        database=words.get("dbname") or words.get("database") or user,
        options=words,
    )


def lists_brackets(text: str) -> bool:
    """Whether a URI lists several hosts, some in brackets: libpq reads it; Go, and so Permify, does not."""
    match = _URI.fullmatch(text.strip())
    return match is not None and "," in match["hosts"] and "[" in match["hosts"]


def _words(match: re.Match[str]) -> dict[str, str]:
    """A URI as `key=value` words; those of its query win."""
    entries = [_host_and_port(unquote(entry)) for entry in match["hosts"].split(",") if entry]
    user, colon, password = (match["login"] or "").partition(":")
    words = {
        "host": ",".join(host for host, _ in entries),
        "port": ",".join(port for _, port in entries),
        "user": unquote(user),
        "dbname": unquote(match["path"] or ""),
    }
    if colon:
        words["password"] = unquote(password)
    return words | dict(parse_qsl(match["query"] or "", keep_blank_values=True))


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") > 1:  # IPv6 without brackets
        return text, ""
    host, _, port = text.partition(":")
    return host, port


def _port(text: str) -> int:
    """The number of a port; 0 for what is none."""
    if not text:
        return DEFAULT_PORT
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
