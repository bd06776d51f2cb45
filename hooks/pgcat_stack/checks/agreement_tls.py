"""PS413: PgCat and the migration agree whether connections to PostgreSQL are encrypted."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.checks._connections import migration_connections
from pgcat_stack.deployment import Deployment
from pgcat_stack.findings import Problem
from pgcat_stack.sources import as_mapping

_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})


@check(
    code="PS413",
    name="server-tls-differs",
    severity="error",
    why="PgCat and the migration reach the same server. Where only one of them encrypts, either passwords and"
    " data of the other travel in clear, or the server refuses one of them.",
    mend="Set server_tls = true in pgcat.toml with sslmode=require in the migration's URI, or neither.",
)
def server_tls_differs(deployment: Deployment) -> Iterator[Problem]:
    """server_tls in pgcat.toml against sslmode of the migration; sslmode=prefer fits both."""
    pgcat = deployment.pgcat
    if pgcat is None or not pgcat.mapping:
        return
    encrypted = as_mapping(pgcat.mapping.get("general")).get("server_tls", False)
    place = pgcat.at("general", "server_tls")
    for connection in migration_connections(deployment):
        mode = connection.uri.options.get("sslmode", "")
        where = f"the migration's URI ({connection.location.path}:{connection.location.line})"
        if encrypted is False and mode in _ENCRYPTED:
            text = f"server_tls is off, {where} says sslmode={mode}"
            yield Problem(place, text, "server_tls = true, or sslmode=disable there")
        elif encrypted is True and mode == "disable":
            text = f"server_tls is on, {where} says sslmode=disable"
            yield Problem(place, text, "sslmode=require there, or server_tls = false")
