"""budget.yaml: how many connections each PostgreSQL server has, and how many Permify processes others run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from pgcat_stack.endpoints import Address
from pgcat_stack.files.gaps import At, Gap, list_gaps, mapping_gaps
from pgcat_stack.files.plain_data import Key, as_list, as_mapping, dig
from pgcat_stack.files.quantities import whole
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of budget.yaml with what is written there, of any type; None where nothing is."""

    key: Key
    value: Any
    location: Location

    @property
    def number(self) -> int | None:
        """The value where it is a whole number."""
        return whole(self.value)


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping of budget.yaml, or what stands in place of one."""

    written: Any
    at: At

    @property
    def is_mapping(self) -> bool:
        """Whether it has entries at all."""
        return isinstance(self.written, dict)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every key that is written."""
        return tuple(self.entry(key) for key in as_mapping(self.written))

    def entry(self, key: Key) -> Entry:
        """What is written under a key."""
        return Entry(key, dig(self.written, key), self.at(key))

    def has(self, key: Key) -> bool:
        """Whether the key is written, perhaps without a value."""
        return key in as_mapping(self.written)


@dataclass(frozen=True, slots=True)
class BudgetServer:
    """A server of budget.yaml. `capacity` is None where its numbers cannot be read."""

    address: Address
    role: str
    max_connections: int | None
    other_connections: int | None
    location: Location

    @property
    def capacity(self) -> int | None:
        """The connections that are left for this deployment."""
        if self.max_connections is None or self.other_connections is None:
            return None
        return self.max_connections - self.other_connections


@dataclass(frozen=True, eq=False)
class Capacities:
    """What budget.yaml says."""

    source: Source
    section: Section
    servers_place: Location
    sections: tuple[Section, ...]
    """The entries of `servers`, of any type."""

    @cached_property
    def servers(self) -> tuple[BudgetServer, ...]:
        """The servers that have an address."""
        found = (_server(section) for section in self.sections)
        return tuple(server for server in found if server is not None)

    @property
    def permify_max_replicas(self) -> Entry:
        """How many Permify processes others run at most."""
        return self.section.entry("permify_max_replicas")

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What of it could not be read."""
        gaps = mapping_gaps(self.section.written, self.section.at)
        gaps += list_gaps(self.section.entry("servers").value, self.section.at, "servers")
        for section in self.sections:
            gaps += mapping_gaps(section.written, section.at, what="an entry of servers")
        return tuple(gaps)


def read_capacities(source: Source | None) -> Capacities | None:
    """What budget.yaml says; None without the file."""
    if source is None:
        return None
    sections = (
        Section(entry, partial(source.at, "servers", index))
        for index, entry in enumerate(as_list(dig(source.data, "servers")))
    )
    return Capacities(source, Section(source.data, source.at), source.at("servers"), tuple(sections))


def _server(section: Section) -> BudgetServer | None:
    host, port = section.entry("host").value, section.entry("port")
    if not isinstance(host, str) or not host.strip() or (port.value is not None and port.number is None):
        return None
    return BudgetServer(
        address=Address.of(host, port.number),
        role=str(section.entry("role").value),
        max_connections=section.entry("max_connections").number,
        other_connections=section.entry("other_connections").number,
        location=section.at(),
    )
