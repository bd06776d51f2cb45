"""PS219, PS220, PS223, PS417, PS418: names that move are followed, and a demoted server gets no writes."""

from __future__ import annotations

from typing import Any

import pytest

from cases import (
    COMPOSE,
    DIRECT,
    DOCKER,
    HELM,
    PERMIFY,
    SIDECAR,
    STANDALONE,
    VALUES,
    codes,
    edit,
    one,
    rendered,
)
from pgcat_stack.endpoints import Address

PGCAT, BUDGET = "pgcat/pgcat.toml", "budget.yaml"
MIGRATION = "kubernetes/migration-job.yaml"
DEPLOYMENT = "kubernetes/permify-deployment.yaml"
ENVIRONMENT = r"(?<=does not have.\n)          env:\n"
ASKED = "          env:\n            - {{name: PGTARGETSESSIONATTRS, value: {}}}\n"
ADDRESSES = {**STANDALONE, "primary_host": "192.0.2.1", "replica_hosts": "192.0.2.2"}
EXTERNAL_DOCKER = {**DOCKER, "database": "external", "primary_host": "db1", "replica_hosts": "db2"}
DIRECT_DOCKER = {**EXTERNAL_DOCKER, "pooling": "direct"}
DIRECT_BUNDLED = {**DOCKER, "pooling": "direct"}
DIRECT_HELM = {**DIRECT, "permify_install": "helm"}
DIRECT_ALONE = {**DIRECT, "replica_hosts": ""}
CACHE = "^dns_cache_enabled = true"
OFF = "dns_cache_enabled = false"
READ_WRITE = "&target_session_attrs=read-write"
BOTH_URIS = r"  writer:\n    uri: .*\n  reader:\n    uri: .*"
REST = "sslmode=require&plan_cache_mode=force_custom_plan&default_query_exec_mode=cache_describe"
MINE = ("PS219", "PS220", "PS223", "PS417", "PS418")

CHANGES: list[tuple[dict[str, Any], str, str, str, set[str]]] = [
    # the cache
    (STANDALONE, PGCAT, CACHE, OFF, {"PS220"}),
    (STANDALONE, PGCAT, CACHE, "", {"PS220"}),
    (STANDALONE, PGCAT, "dns_max_ttl = 2", "dns_max_ttl = 86400", {"PS220"}),
    (STANDALONE, PGCAT, "dns_max_ttl = 2", "dns_max_ttl = 30", set()),
    (SIDECAR, PGCAT, CACHE, OFF, {"PS220"}),
    (EXTERNAL_DOCKER, PGCAT, CACHE, OFF, {"PS220"}),
    (STANDALONE, PGCAT, "^dns_max_ttl = 2", "dns_max_ttl = 30", set()),
    (ADDRESSES, PGCAT, "192.0.2.2", "db2", {"PS220"}),
    (ADDRESSES, PGCAT, "192.0.2.2", "[2001:db8::2]", set()),
    (ADDRESSES, PGCAT, "192.0.2.2", "192.0.2.3", set()),
    # Compose's own names move with the container alone
    (DOCKER, PGCAT, "^port = 6432", "port = 6432\ndns_cache_enabled = false", set()),
    (DOCKER, PGCAT, '"postgres-replica"', '"db.example.com"', {"PS220"}),
    # names that are not followed
    (STANDALONE, PGCAT, '"db1"', '"db_1"', {"PS219"}),
    (STANDALONE, PGCAT, '"db1"', '"a.my_zone.example"', {"PS219"}),
    (STANDALONE, PGCAT, '"db1"', '"_db.example.com"', set()),
    (ADDRESSES, PGCAT, "192.0.2.2", "db_2", {"PS219"}),
    # what ends a connection to a standby
    (STANDALONE, PGCAT, "pg_is_in_recovery", "pg_is_in_backup", {"PS223"}),
    (STANDALONE, PGCAT, r"prewarmer\]\nenabled = true", "prewarmer]\nenabled = false", {"PS223"}),
    (STANDALONE, PGCAT, r"^\[pools.permify_writer.plugins", "[pools.permify_reader.plugins", {"PS223"}),
    (STANDALONE, PGCAT, r"^\[pools.permify_writer.plugins", "[plugins", set()),
    (SIDECAR, PGCAT, "pg_is_in_recovery", "pg_is_in_backup", {"PS223"}),
    (ADDRESSES, PGCAT, "pg_is_in_recovery", "pg_is_in_backup", set()),
    (
        STANDALONE,
        PGCAT,
        r"^\[pools.permify_writer.plugins.prewarmer\]\nenabled = true\nqueries = .*",
        "",
        {"PS223"},
    ),
    # what the connection strings ask for
    (DIRECT, PERMIFY, READ_WRITE, "", {"PS418"}),
    (DIRECT, PERMIFY, READ_WRITE, "&target_session_attrs=any", {"PS418"}),
    (DIRECT, PERMIFY, READ_WRITE, "&target_session_attrs=primary", set()),
    (DIRECT, PERMIFY, READ_WRITE, "&target_session_attrs=standby", {"PS417"}),
    (DIRECT_DOCKER, PERMIFY, READ_WRITE, "", {"PS418"}),
    (DIRECT_HELM, VALUES, READ_WRITE, "", {"PS418"}),
    (DIRECT, PERMIFY, r"(?<=@db2:5432/permify\?)", READ_WRITE[1:] + "&", {"PS417"}),
    (DIRECT, PERMIFY, r"(?<=@db2:5432/permify\?)", "target_session_attrs=prefer-standby&", set()),
    (
        DIRECT_ALONE,
        PERMIFY,
        r"(?<=reader:\n    uri: postgresql://permify@db1:5432/permify\?)",
        READ_WRITE[1:] + "&",
        {"PS418"},
    ),
    (
        DIRECT_ALONE,
        PERMIFY,
        BOTH_URIS,
        f"  uri: postgresql://permify@db1/permify?{REST}{READ_WRITE}",
        {"PS418"},
    ),
    (DIRECT_ALONE, PERMIFY, BOTH_URIS, f"  uri: postgresql://permify@db1/permify?{REST}", set()),
    (DIRECT, PERMIFY, BOTH_URIS, f"  uri: postgresql://permify@db1,db2/permify?{REST}{READ_WRITE}", set()),
    # behind PgCat it is asked of PgCat, once
    (STANDALONE, PERMIFY, "cache_describe", f"cache_describe{READ_WRITE}", set()),
    (DIRECT, DEPLOYMENT, ENVIRONMENT, ASKED.format("standby"), set()),
    (DIRECT, DEPLOYMENT, ENVIRONMENT, ASKED.format("primary"), {"PS417"}),
    (DIRECT_ALONE, DEPLOYMENT, ENVIRONMENT, ASKED.format("primary"), {"PS418"}),
    (DIRECT, DEPLOYMENT, ENVIRONMENT, ASKED.format("any"), set()),
    (DIRECT, MIGRATION, r"(?<=sslmode=require)", "&target_session_attrs=read-write", set()),
    (DIRECT, MIGRATION, r"(?<=sslmode=require)", "&target_session_attrs=read-only", {"PS417"}),
]


@pytest.mark.parametrize(("answers", "path", "pattern", "replacement", "expected"), CHANGES)
def test_a_change_is_found(
    answers: dict[str, Any], path: str, pattern: str, replacement: str, expected: set[str]
) -> None:
    files = edit(rendered(answers), path, pattern, replacement)
    assert codes(files, *MINE) == expected


ALL = [STANDALONE, SIDECAR, ADDRESSES, DOCKER, EXTERNAL_DOCKER, HELM, DIRECT, DIRECT_DOCKER, DIRECT_BUNDLED]


@pytest.mark.parametrize("answers", [*ALL, DIRECT_HELM, DIRECT_ALONE])
def test_what_is_rendered_is_followed(answers: dict[str, Any]) -> None:
    assert codes(rendered(answers), *MINE) == set()


def test_the_servers_that_are_not_followed_are_named() -> None:
    finding = one(edit(rendered(STANDALONE), PGCAT, CACHE, OFF), "PS220")
    assert "does not follow db1, db2" in finding.message
    assert finding.path == PGCAT


def test_a_service_of_compose_is_not_a_name_that_moves_by_any_of_its_names() -> None:
    files = edit(rendered(DOCKER), PGCAT, '"postgres-replica"', '"standby"')
    assert codes(files, *MINE) == {"PS220"}
    files = edit(
        files, COMPOSE, r"^  postgres-replica:\n", "  postgres-replica:\n    container_name: standby\n"
    )
    assert codes(files, *MINE) == set()


@pytest.mark.parametrize(
    ("host", "named"),
    [
        *[(host, True) for host in ("db", "db.example.com.", "DB1", "10.0.0", "1.2.3.4.example", "db_1")],
        *[
            (host, False)
            for host in ("10.0.0.1", "::1", "[::1]", "fe80::1%eth0", "localhost", "127.0.0.2", "")
        ],
    ],
)
def test_a_name_is_no_address(host: str, named: bool) -> None:
    assert Address.of(host).is_name is named
