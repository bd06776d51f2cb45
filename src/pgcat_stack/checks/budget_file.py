"""PS504, PS505, PS509, PS513, PS516: budget.yaml itself, and what repeats its numbers elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pgcat_stack.checks import STACK, check
from pgcat_stack.checks._uris import used_pools
from pgcat_stack.endpoints import DEFAULT_PORT, Address
from pgcat_stack.files.quantities import whole_text
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import BOOTSTRAP, BUDGET, COMPOSE
from pgcat_stack.printable import show
from pgcat_stack.reading.capacities import BudgetServer, Entry, Section
from pgcat_stack.reading.compose import Command
from pgcat_stack.reading.reading import Reading

POSTGRES_DEFAULT_MAX_CONNECTIONS = 100
SUPERUSER_RESERVED_CONNECTIONS = 3
"""PostgreSQL's default, https://www.postgresql.org/docs/current/runtime-config-connection.html"""

TOP_KEYS = ("rendered", "servers", "permify_max_replicas")
SERVER_KEYS = ("host", "port", "role", "max_connections", "other_connections")
ROLES = ("primary", "replica")
_MOST_CONNECTIONS = 262_143
"""PostgreSQL's own limit of max_connections (its `guc_tables.c`: MAX_BACKENDS)."""
LIMITS = {
    "permify_max_replicas": (1, 100_000),
    "port": (1, 65_535),
    "max_connections": (1, _MOST_CONNECTIONS),
    "other_connections": (0, _MOST_CONNECTIONS),
}
"""The range of each number of budget.yaml; docs/budget.schema.json is made from these and the keys above."""


@check(
    code="PS504",
    name="budget-file",
    severity="error",
    why="Capacity comes from budget.yaml alone: what is missing or wrong there cannot be counted.",
    fix="Write host, role, max_connections and other_connections for each server, and nothing else; port"
    " is 5432 where it is left out.",
)
def budget_file(reading: Reading) -> Iterator[Problem]:
    """Missing, misspelt and impossible entries of budget.yaml."""
    capacities = reading.capacities
    if capacities is None:
        fix = "list each PostgreSQL server with host, port, role, max_connections and other_connections"
        yield Problem(Location(BUDGET), "missing: nothing says how many connections there are", fix)
        return
    source, section = capacities.source, capacities.section
    if not source.parsed:
        return
    if not section.is_mapping:
        yield Problem(source.here(), f"{show(section.written)} is no mapping", "start with servers:")
        return
    yield from _unknown(section, TOP_KEYS)
    if not capacities.sections:
        yield Problem(capacities.servers_place, "`servers` lists no server", "list each PostgreSQL server")
    for server in capacities.sections:
        yield from _server_problems(server)
    if section.has("permify_max_replicas"):
        yield from _number(capacities.permify_max_replicas)


def _server_problems(server: Section) -> Iterator[Problem]:
    if not server.is_mapping:
        text = f"{show(server.written)} is no server"
        yield Problem(server.at(), text, "write host, port, role and numbers")
        return
    yield from _unknown(server, SERVER_KEYS)
    host, role = server.entry("host"), server.entry("role")
    if not isinstance(host.value, str) or not host.value.strip():
        yield Problem(host.location, f"`host` is {_shown(host.value)}", "write the server's host name")
    if role.value not in ROLES:
        yield Problem(role.location, f"`role` is {_shown(role.value)}", "write primary or replica")
    if server.has("port"):
        yield from _number(server.entry("port"))
    most, others = server.entry("max_connections"), server.entry("other_connections")
    wrong = [*_number(most), *_number(others)]
    yield from wrong
    if not wrong and others.value >= most.value:
        message = f"other_connections {others.value} leaves nothing of max_connections {most.value}"
        yield Problem(others.location, message, "lower it below max_connections")


def _unknown(section: Section, known: tuple[str, ...]) -> Iterator[Problem]:
    for entry in section.entries:
        if entry.key not in known:
            text = f"unknown key {show(entry.key)}"
            yield Problem(entry.location, text, f"the keys are {', '.join(known)}")


def _number(entry: Entry) -> Iterator[Problem]:
    least, most = LIMITS[str(entry.key)]
    if entry.number is None or not least <= entry.number <= most:
        text = f"`{entry.key}` is {_shown(entry.value)}"
        yield Problem(entry.location, text, f"write a whole number, {least} to {most}")


def _shown(value: Any) -> str:
    return "missing" if value is None else show(value)


@check(
    code="PS516",
    name="reserved-connections",
    severity="error",
    needs=STACK,
    why="PostgreSQL keeps superuser_reserved_connections, 3 by default, for superusers: with max_connections"
    " 100 the 98th connection of an ordinary role is refused. other_connections must contain them, or the"
    " budget counts with connections that the role never gets.",
    fix="Answer other_connections with at least 3, and update.",
)
def reserved_connections(reading: Reading) -> Iterator[Problem]:
    """Servers that keep fewer connections for others than PostgreSQL keeps for superusers."""
    for server in reading.capacities.sections if reading.capacities else ():
        entry = server.entry("other_connections")
        kept = entry.number
        if kept is not None and 0 <= kept < SUPERUSER_RESERVED_CONNECTIONS:
            message = (
                f"other_connections {kept} is fewer than the {SUPERUSER_RESERVED_CONNECTIONS} that PostgreSQL"
                " reserves for superusers"
            )
            fix = f"answer other_connections={SUPERUSER_RESERVED_CONNECTIONS} or more, and update"
            yield Problem(entry.location, message, fix)


@check(
    code="PS505",
    name="budget-servers",
    severity="error",
    why="There is one primary, where migrations and writes go, and each server has one capacity.",
    fix="List each server once, exactly one of them with the role primary.",
)
def budget_servers_once(reading: Reading) -> Iterator[Problem]:
    """Servers that are listed twice; none or several primaries."""
    if reading.capacities is None or not reading.capacities.source.parsed:
        return
    servers = reading.topology.servers
    seen: dict[Address, BudgetServer] = {}
    for server in servers:
        first = seen.setdefault(server.address, server)
        if first is not server:
            message = f"{server.address} is listed twice, first on line {first.location.line}"
            yield Problem(server.location, message, "remove one of the entries")
    primaries = [server for server in seen.values() if server.role == "primary"]
    if any(server.role not in ("primary", "replica") for server in servers):
        return  # PS504 says so
    if servers and not primaries:
        message = "no server has the role primary"
        yield Problem(reading.capacities.servers_place, message, "give it to the server that takes writes")
    for server in primaries[1:]:
        message = f"{server.address} is a second primary beside {primaries[0].address}"
        yield Problem(server.location, message, "make it a replica")


# The role's limit

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_ROLE = re.compile(
    r"\b(?:ALTER|CREATE)\s+(?:ROLE|USER)\s+"
    r"(?:\"(?P<quoted>(?:[^\"]|\"\")+)\"|(?P<bare>\w+))(?P<options>[^;]*)",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"\bCONNECTION\s+LIMIT\s+(-?\d+)", re.IGNORECASE)


@check(
    code="PS509",
    name="role-connection-limit",
    severity="error",
    needs=STACK,
    why="The role's CONNECTION LIMIT is the last guard, for what no arithmetic sees. Below the capacity it"
    " refuses connections that the budget allows; above it, it protects nothing. It binds on each server"
    " by itself.",
    fix="Set CONNECTION LIMIT in postgres/bootstrap.sql to max_connections − other_connections, the"
    " smallest of all servers, and run the file again.",
)
def role_connection_limit(reading: Reading) -> Iterator[Problem]:
    """A limit in bootstrap.sql that is not the capacity in budget.yaml."""
    script = reading.sources.get(BOOTSTRAP)
    servers = reading.topology.servers
    capacities = [server.capacity for server in servers if server.capacity is not None]
    if script is None or not script.text or not capacities:
        return
    capacity = min(capacities)
    roles = _roles(reading)
    text = _COMMENT.sub(_blank, script.text)
    limits = [
        (limit, _line(text, match.start("options") + limit.start()))
        for match in _ROLE.finditer(text)
        if not roles or (match["quoted"] or match["bare"].lower()) in roles
        for limit in _LIMIT.finditer(match["options"])
    ]
    if not limits:
        fix = f"ALTER ROLE … CONNECTION LIMIT {capacity}"
        yield Problem(script.here(), "no CONNECTION LIMIT for the role that connects", fix)
    for limit, line in limits:
        if int(limit[1]) != capacity:
            message = f"CONNECTION LIMIT is {limit[1]}, and the capacity in {BUDGET} is {capacity}"
            yield Problem(script.here(line), message, f"CONNECTION LIMIT {capacity}")


def _roles(reading: Reading) -> set[str]:
    """The roles that PgCat and Permify log in with."""
    topology = reading.topology
    pools = used_pools(reading) or topology.pools.values()
    roles = {user.server_name for pool in pools for user in pool.users}
    for permify in topology.permify:
        roles |= {uri.user for _, uri in topology.direct_sides(permify) if uri.user}
    return roles


def _blank(match: re.Match[str]) -> str:
    """Comments and strings as blanks that keep the lines."""
    return re.sub(r"[^\n]", " ", match[0])


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


# The bundled PostgreSQL

_OPTION = re.compile(r"(?:-c\s*|--)max[_-]connections=(\d+)\Z")


@check(
    code="PS513",
    name="bundled-max-connections",
    severity="error",
    needs=(COMPOSE, BUDGET),
    why="The bundled PostgreSQL takes max_connections from its command line; the budget is only as true as"
    " both agree. A replica below its primary does not start.",
    fix="Write the same number on the command lines and in budget.yaml.",
)
def bundled_max_connections(reading: Reading) -> Iterator[Problem]:
    """PostgreSQL services of compose.yaml with another max_connections than budget.yaml."""
    commands = reading.project.commands
    for server in reading.topology.servers:
        address = server.address
        service = next((name for name in commands if str(name).lower() == address.host), None)
        if service is None or address.port != DEFAULT_PORT or server.max_connections is None:
            continue
        found, place = _on_command_line(commands[service])
        written = POSTGRES_DEFAULT_MAX_CONNECTIONS if found is None else found
        if written != server.max_connections:
            default = ", its default" if found is None else ""
            wanted = server.max_connections
            message = f"{service} runs with max_connections {written}{default}; {BUDGET} says {wanted}"
            fix = f"-cmax_connections={wanted}, or {written} in {BUDGET}"
            yield Problem(place, message, fix)


def _on_command_line(command: Command) -> tuple[int | None, Location]:
    """The last max_connections in a service's command, which counts, and its place."""
    found: tuple[int | None, Location] = (None, command.location)
    before = ""
    for word in command.words:
        option = f"-c{word.value}" if before == "-c" else word.value
        before = word.value
        match = _OPTION.match(option)
        number = whole_text(match[1]) if match else None
        if number is not None:
            found = (number, word.location)
    return found
