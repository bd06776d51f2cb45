"""A small deployment written by hand, and ways to change and judge it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pgcat_stack.checks import run_checks
from pgcat_stack.findings import Finding
from pgcat_stack.reading.reading import Reading

PGCAT = """\
[general]
host = "0.0.0.0"
port = 6432
enable_prometheus_exporter = true
dns_cache_enabled = true
prometheus_exporter_port = 9930
admin_username = "admin"
admin_password = "placeholder"

[pools.permify_writer]
pool_mode = "transaction"
default_role = "primary"

[pools.permify_writer.users.0]
username = "permify"
password = "placeholder"
pool_size = 5

[pools.permify_writer.shards.0]
database = "permify"
servers = [["primary", 5432, "primary"]]

[pools.permify_reader]
default_role = "any"

[pools.permify_reader.users.0]
username = "permify"
password = "placeholder"
pool_size = 5

[pools.permify_reader.shards.0]
database = "permify"
servers = [
    ["replica", 5432, "replica"],
    ["primary", 5432, "replica"],
]

[plugins.prewarmer]
enabled = true
queries = ["SELECT pg_terminate_backend(pg_backend_pid()) WHERE pg_is_in_recovery()"]
"""

PERMIFY = """\
server:
  http:
    port: "3476"
  grpc:
    port: "3478"
database:
  engine: postgres
  writer:
    uri: postgres://permify@pgcat:6432/permify_writer
  reader:
    uri: postgres://permify@pgcat:6432/permify_reader
  auto_migrate: false
  max_connections: 8
  max_connection_lifetime: 30s
  max_connection_lifetime_jitter: 10s
  max_connection_idle_time: 20s
  health_check_period: 10s
"""

COMPOSE = """\
services:
  pgcat:
    image: ghcr.io/postgresml/pgcat:v1.2.0
  permify:
    image: ghcr.io/permify/permify:v1.7.3
    environment: {PERMIFY_HTTP_CORS_ALLOWED_ORIGINS: "https://app.example.com"}
secrets:
  database_password:
    file: ./secrets/database_password
  admin_password:
    file: ./secrets/admin_password
  database.pgpass:
    file: ./secrets/database.pgpass
"""

Change = tuple[str, str]


def edit(folder: Path, name: str, *changes: Change) -> None:
    """Replace text in a file; every old text must be there."""
    file = folder / name
    text = file.read_text()
    for old, new in changes:
        assert old in text, f"{old!r} is not in {name}"
        text = text.replace(old, new, 1)
    file.write_text(text)


def findings_of(folder: Path, *families: str) -> list[Finding]:
    """The findings of these families (default: PS1, PS2 and PS3)."""
    wanted = families or ("PS1", "PS2", "PS3")
    return [finding for finding in run_checks(Reading.load(folder)) if finding.code.startswith(wanted)]


Judge = Callable[..., list[Finding]]
