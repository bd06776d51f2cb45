from __future__ import annotations

from pathlib import Path

import pytest

from handmade import PGCAT, Change, Judge, edit
from pgcat_stack.files.issues import WRONG_TYPE
from pgcat_stack.files.sources import parse_source
from pgcat_stack.findings import Location
from pgcat_stack.pgcat.config import General, Pgcat, Pool, Shard
from pgcat_stack.pgcat.settings import issues_in
from pgcat_stack.pgcat.version import pgcat_version

TOML = "pgcat/pgcat.toml"
POOL = 'default_role = "primary"\n'
USER = "pool_size = 5\n"
SERVERS = '    ["replica", 5432, "replica"],\n    ["primary", 5432, "replica"],\n'
PORT = "port = 6432\n"
ADMIN = 'admin_password = "placeholder"\n'


def servers(text: str) -> Change:
    return (SERVERS, text)


def add(after: str, text: str) -> Change:
    return (after, f"{after}{text}\n")


CASES: list[tuple[str, str, Change, str]] = [
    ("misspelt", "PS201", ("pool_mode", "pol_mode"), "did you mean `pool_mode`?"),
    (
        "misplaced in general",
        "PS201",
        add(PORT, "pool_size = 3"),
        "it belongs in [pools.<name>.users.<number>]",
    ),
    ("misplaced in pool", "PS201", add(POOL, "shutdown_timeout = 3"), "it belongs in [general]"),
    ("top level", "PS201", ("[general]", "[generl]\nx = 1\n[general]"), "did you mean `general`?"),
    (
        "server table",
        "PS201",
        servers('{host = "a", port = 1, role = "replica", rôle = 1}\n'.replace("rôle", "rol")),
        "",
    ),
    (
        "plugin",
        "PS201",
        add(ADMIN, "[plugins.query_logger]\nenabled = true\nenable = true"),
        "did you mean `enabled`?",
    ),
    ("quoted number", "PS202", ("pool_size = 5", 'pool_size = "5"'), "a whole number"),
    ("float", "PS202", ("pool_size = 5", "pool_size = 5.0"), "a whole number"),
    ("true is no number", "PS202", ("pool_size = 5", "pool_size = true"), "a whole number"),
    ("number for flag", "PS202", ("exporter = true", "exporter = 1"), "true or false"),
    ("number for text", "PS202", ('"admin"', "5"), "a string"),
    ("short server", "PS202", servers('["a", 5432]\n'), "write [host, port, role]"),
    ("long server", "PS202", servers('["a", 5432, "replica", 1]\n'), "write [host, port, role]"),
    ("quoted port", "PS202", servers('["a", "5432", "replica"]\n'), "a whole number"),
    ("no admin password", "PS203", ('admin_password = "placeholder"\n', ""), "add admin_password"),
    ("no pool size", "PS203", (USER, ""), "add pool_size"),
    ("no database", "PS203", ('database = "permify"\n', ""), "add database"),
    ("pool_size 0", "PS204", ("pool_size = 5", "pool_size = 0"), "at least 1"),
    ("negative", "PS204", ("pool_size = 5", "pool_size = -1"), "at least 1"),
    ("port", "PS204", ("port = 6432", "port = 65536"), "at most 65535"),
    ("exporter port", "PS204", ("9930", "32768"), "at most 32767"),
    ("timeout 0", "PS204", add(PORT, "idle_timeout = 0"), "at least 1"),
    ("workers 0", "PS204", add(PORT, "worker_threads = 0"), "at least 1"),
    ("autoreload 0", "PS204", add(PORT, "autoreload = 0"), "at least 1"),
    ("u32", "PS204", add(PORT, "tcp_keepalives_count = 4294967296"), "at most 4294967295"),
    ("pool mode", "PS205", ('"transaction"', '"statement"'), "one of"),
    ("role", "PS205", servers('["a", 5432, "master"]\n'), "one of"),
    (
        "default role",
        "PS205",
        ('default_role = "any"', 'default_role = "Primary"'),
        "'any', 'primary' or 'replica'",
    ),
    ("default shard", "PS205", add(POOL, 'default_shard = "0"'), "one of"),
    ("1.3 in 1.2", "PS206", add(POOL, "checkout_failure_limit = 3"), "an image of the 1.3 line"),
    ("1.3 user", "PS206", add(USER, 'auth_type = "trust"'), "an image of the 1.3 line"),
    ("minimum", "PS207", add(USER, "min_pool_size = 6"), "at most 5"),
    ("two primaries", "PS208", servers('["a", 1, "primary"], ["b", 1, "primary"]\n'), "one primary"),
    ("twice", "PS208", servers('["a", 1, "replica"], ["a", 1, "Replica"]\n'), "once"),
    ("no servers", "PS208", servers(""), "add a server"),
    ("mirror role", "PS208", servers('["a", 1, "mirror"]\n'), "under mirrors"),
    ("absent role", "PS208", ('default_role = "any"', 'default_role = "primary"'), "add a primary"),
    ("mirror of nothing", "PS208", add('database = "permify"', '\nmirrors = [["a", 1, 7]]'), "at most 0"),
    ("shard name", "PS209", ("writer.shards.0", "writer.shards.main"), "number shards from 0"),
    ("default shard 1", "PS209", add(POOL, 'default_shard = "shard_1"'), "at most shard_0"),
    ("splitting", "PS210", add(POOL, "query_parser_read_write_splitting = true"), "switch it off"),
    (
        "pool plugins",
        "PS210",
        add(
            POOL,
            "[pools.permify_writer.plugins.prewarmer]\nenabled = true\nqueries = ['SHOW pg_is_in_recovery']",
        ),
        "the parser on",
    ),
    ("sharding key", "PS210", add(POOL, 'automatic_sharding_key = "id"'), "table.column"),
    ("auth_query", "PS211", add(POOL, 'auth_query = "x"\nauth_query_user = "y"'), "add auth_query_password"),
    (
        "no password",
        "PS211",
        ('username = "permify"\npassword = "placeholder"', 'username = "permify"'),
        "add password",
    ),
    ("exporter host", "PS212", ('"0.0.0.0"', '"localhost"'), "use 0.0.0.0"),
    ("bare IPv6", "PS212", ('"0.0.0.0"', '"::"'), "write [::], which serves IPv4 also"),
    ("bare IPv6 address", "PS212", ('"0.0.0.0"', '"FD00:0::1"'), "write [fd00::1]"),
    ("certificate alone", "PS213", add(PORT, 'tls_certificate = "/x"'), "both or none"),
    ("key alone", "PS213", add(PORT, 'tls_private_key = "/x"'), "both or none"),
    ("verify alone", "PS213", add(PORT, "verify_server_certificate = true"), "server_tls = true"),
    ("regex", "PS215", add(POOL, 'shard_id_regex = "("'), "mend"),
    ("look-around", "PS215", add(POOL, 'shard_id_regex = "a(?=b)"'), "mend"),
    ("host with port", "PS217", servers('["a:5432", 5432, "replica"]\n'), "a value of its own"),
    ("two ports", "PS217", servers('["fd00::1:15432", 5432, "replica"]\n'), "a value of its own"),
    ("name in brackets", "PS217", servers('["[a]", 5432, "replica"]\n'), "the host alone"),
    ("interface", "PS217", servers('["fe80::1%eth0", 5432, "replica"]\n'), "another address"),
    ("interface in brackets", "PS217", servers('["[fe80::1%eth0]", 5432, "replica"]\n'), "another address"),
    ("no address", "PS217", servers('["0.0.0.0", 5432, "replica"]\n'), "name the PostgreSQL server"),
    ("no IPv6 address", "PS217", servers('["[::0]", 5432, "replica"]\n'), "name the PostgreSQL server"),
    (
        "one server in two spellings",
        "PS208",
        servers('["fd00::1", 5432, "replica"], ["FD00:0::1", 5432, "replica"]\n'),
        "list each server once",
    ),
    ("link-local", "PS217", servers('["fe80::1", 5432, "replica"]\n'), "another address"),
    ("multicast", "PS217", servers('["ff02::1", 5432, "replica"]\n'), "another address"),
    ("scheme", "PS217", servers('["tcp://a", 5432, "replica"]\n'), "without port or scheme"),
]


@pytest.mark.parametrize(
    ("code", "change", "fix"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_mistake_is_reported_once(judge: Judge, code: str, change: Change, fix: str) -> None:
    (finding,) = judge(TOML, change)
    assert (finding.code, finding.path) == (code, TOML)
    assert fix in finding.fix


def test_the_line_is_that_of_the_key(judge: Judge) -> None:
    (finding,) = judge(TOML, ('    ["primary", 5432, "replica"]', '    ["primary", 0, "replica"]'))
    assert PGCAT.splitlines()[finding.line - 1] == '    ["primary", 5432, "replica"],'


def test_the_message_names_table_and_key(judge: Judge) -> None:
    (finding,) = judge(TOML, ("pool_mode", "pol_mode"))
    assert finding.message == "unknown key `pol_mode` in [pools.permify_writer]: pgcat ignores it silently"


def test_reserved_pool_names(judge: Judge) -> None:
    text = [("permify_reader", "pgbouncer")] * 3
    assert [finding.code for finding in judge(TOML, *text)] == ["PS214"]


def test_a_user_twice(judge: Judge) -> None:
    second = '\n[pools.permify_writer.users.1]\nusername = "permify"\npassword = "x"\npool_size = 1\n'
    assert {finding.code for finding in judge(TOML, add("pool_size = 5", second))} == {"PS216"}


ACCEPTED: list[tuple[str, Change]] = [
    ("capital role", servers('["a", 5432, "Replica"]\n')),
    ("server table", servers('{host = "a", port = 5432, role = "replica"}\n')),
    ("same host, other role", servers('["a", 5432, "replica"], ["a", 5432, "primary"]\n')),
    ("IPv6 server", servers('["fd00::1", 5432, "replica"]\n')),
    ("IPv6 exporter", ('"0.0.0.0"', '"[::]"')),
    ("capital mode", ('"transaction"', '"Session"')),
    ("least connections", add(POOL, 'load_balancing_mode = "loc"')),
    ("random shard", add(POOL, 'default_shard = "random_healthy"')),
    ("signed shard", ("writer.shards.0", "writer.shards.7")),
    ("parser", add(POOL, "query_parser_enabled = true\nquery_parser_read_write_splitting = true")),
    ("quoted sharding key", add(POOL, "automatic_sharding_key = '\"t\".id'")),
    ("equal minimum", add(USER, "min_pool_size = 5")),
    ("negative ban time", add(PORT, "ban_time = -1")),
    ("rust regex", add(POOL, "sharding_key_regex = '(?<key>\\pL+)'")),
    ("mirror", add('database = "permify"', '\nmirrors = [["a", 1, 0]]')),
    (
        "auth_query in place of passwords",
        add(PORT, 'auth_query = "x"\nauth_query_user = "y"\nauth_query_password = "z"'),
    ),
]


@pytest.mark.parametrize("change", [case[1] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED])
def test_what_pgcat_takes_is_not_reported(judge: Judge, change: Change) -> None:
    assert judge(TOML, change) == []


def test_keys_of_1_3_with_an_image_of_1_3(judge: Judge, folder: Path) -> None:
    edit(folder, "compose.yaml", ("pgcat:v1.2.0", "pgcat:main"))
    assert judge(TOML, add(POOL, "checkout_failure_limit = 3"), add(USER, 'auth_type = "trust"')) == []


def test_activity_routing_of_1_3_needs_its_times() -> None:
    data = {
        "general": {"admin_username": "a", "admin_password": "b"},
        "pools": {
            "p": {
                "db_activity_based_routing": True,
                "db_activity_ttl": 0,
                "shards": {"0": {"database": "d", "servers": [["h", 1, "primary"]]}},
                "users": {"0": {"username": "u", "password": "p", "pool_size": 1}},
            }
        },
    }
    assert [issue.kind for issue in issues_in(data, "1.3")] == ["parser"]


def test_unknown_keys_do_not_hide_what_is_wrong_besides(judge: Judge) -> None:
    found = judge(TOML, ("pool_mode", "pol_mode"), ("pool_size = 5", "pool_size = 0"))
    assert {finding.code for finding in found} == {"PS201", "PS204"}


@pytest.mark.parametrize(
    "data", [None, [], "x", {}, {"pools": []}, {"general": 5, "pools": {"a": 1}}, {"pools": {"": {}}}]
)
def test_any_shape_is_read(data: object) -> None:
    assert issues_in(data, "1.2")


SILENT = """\
[general]
admin_username = "a"
admin_password = "b"
[pools.p.users.0]
username = "u"
pool_size = 1
[pools.p.shards.0]
database = "d"
servers = [["h", 5432, "primary"]]
"""


def read(text: str) -> Pgcat:
    return Pgcat(parse_source(TOML, text.encode()), "1.2")


def test_a_silent_file_has_the_defaults_of_pgcat() -> None:
    pgcat = read(SILENT)
    (opened,) = pgcat.opened
    assert (pgcat.port, pgcat.exporter, pgcat.general.host.value) == (5432, None, "0.0.0.0")
    assert (pgcat.general.shutdown.value, pgcat.general.dns_max_ttl.value) == (60, 30)
    assert (opened.user.idle_timeout.value, opened.user.server_lifetime.value) == (600, 3600)
    assert (opened.user.mode, pgcat.pools["p"].prepared_statements_cache_size.value) == ("transaction", 0)
    assert (pgcat.general.server_tls.value, pgcat.general.tls_certificate.value) == (False, None)
    assert read(f"{SILENT[:10]}enable_prometheus_exporter = true\n{SILENT[10:]}").exporter == 9930


def test_an_empty_file_says_nothing() -> None:
    pgcat = read("")
    assert pgcat.empty and (pgcat.port, pgcat.exporter, pgcat.general.server_tls.value) == (None, None, None)


@pytest.mark.parametrize("table", [General, Pool, Shard])
def test_settings_have_the_types_of_the_models(table: type[General | Pool | Shard]) -> None:
    samples: dict[type, object] = {str: "x", int: 1, bool: True}
    kinds = {key: found.kind for key, found in vars(table).items() if hasattr(found, "kind")}
    assert kinds
    for key, kind in kinds.items():
        for sample, value in samples.items():
            written: dict[str, object] = {key: value}
            below = {"general": written, "pools": {"p": {**written, "shards": {"0": written}}}}
            wrong = {issue.keys[-1] for issue in issues_in(below, "1.2") if issue.kind == WRONG_TYPE}
            assert (key in wrong) is (sample is not kind), (key, value)


@pytest.mark.parametrize(
    ("change", "line", "gap"),
    [
        (("[general]\n", '[general]\nport = "6432"\n'), 2, "`port` is '6432'"),
        (("[general]\n", "[general]\nadmin_auth_type = 5\n"), None, ""),
        (("pool_size = 1", "pool_size = true"), 6, "`pool_size` is True"),
        (('database = "d"', "database = 5"), 8, "`database` is 5"),
        (('"h", 5432', '"h", "5432"'), 9, "`port` is '5432'"),
        (('5432, "primary"', "5432"), 9, "`servers[0]`: 2 values in ['h', 5432]"),
        (("[general]\n", "plugins = 5\n[general]\n"), 1, "`plugins` is 5"),
        (("[pools.p.users.0]", "[pools.p]\nusers = 5\n[x]"), 5, "`users` is 5"),
    ],
)
def test_a_value_of_another_type_is_a_gap(change: Change, line: int | None, gap: str) -> None:
    found = [(gap.location.line, gap.text) for gap in read(SILENT.replace(*change)).gaps]
    assert found == ([(line, gap)] if line else [])


def test_a_value_of_another_type_counts_as_absent() -> None:
    text = SILENT.replace(
        "[general]\n", '[general]\nport = "6432"\nidle_timeout = 5000\nshutdown_timeout = []\n'
    )
    pgcat = read(text.replace("pool_size = 1", 'pool_size = 1\nidle_timeout = "x"\npool_mode = 5'))
    assert (pgcat.port, pgcat.general.shutdown.value) == (None, 60)
    (user,) = pgcat.pools["p"].users
    assert (user.idle_timeout.value, user.mode) == (5, "transaction")
    assert user.idle_timeout.location == Location(TOML, 3)


def test_settings_are_known_by_their_path() -> None:
    written = read(SILENT).written
    user = ("pools", "p", "users", "0")
    assert {keys: setting.value for keys, setting in written.items()} == {
        ("general", "admin_username"): "a",
        ("general", "admin_password"): "b",
        (*user, "username"): "u",
        (*user, "pool_size"): 1,
    }
    assert written[(*user, "pool_size")].location == Location(TOML, 6)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("ghcr.io/postgresml/pgcat:v1.2.0", "1.2"),
        ("ghcr.io/postgresml/pgcat:1.1.1", "1.2"),
        ("localhost:5000/pgcat:v1.2.0@sha256:abc", "1.2"),
        ("", "1.2"),
        ("ghcr.io/postgresml/pgcat:v1.3.0", "1.3"),
        ("ghcr.io/postgresml/pgcat:main", "1.3"),
        ("ghcr.io/postgresml/pgcat:latest", "1.3"),
        ("localhost:5000/pgcat", "1.3"),
        ("pgcat@sha256:abc", "1.3"),
        ("ghcr.io/postgresml/pgcat:5b038813eb01", "1.3"),
        ("ghcr.io/postgresml/pgcat:v1.20.0", "1.3"),
        ("ghcr.io/postgresml/pgcat:1.2", "1.2"),
    ],
)
def test_the_version_follows_from_the_image(image: str, version: str) -> None:
    assert pgcat_version(image) == version


@pytest.mark.parametrize(
    ("host", "tls", "cache", "expected"),
    [
        ("[fd00::1]", "true", "true", [("PS221", "write 'fd00::1'")]),
        ("[fd00::1]", "true", "false", [("PS221", "write 'fd00::1'")]),
        ("[fd00::1]", "false", "true", [("PS222", "write 'fd00::1'")]),
        ("[fd00::1]", "false", "false", []),
        ("fd00::1", "true", "true", []),
    ],
)
def test_ipv6_in_brackets_is_a_name_to_pgcat(
    judge: Judge, host: str, tls: str, cache: str, expected: list[tuple[str, str]]
) -> None:
    found = judge(
        TOML,
        servers(f'["{host}", 5432, "replica"]\n'),
        add(PORT, f"server_tls = {tls}"),
        ("dns_cache_enabled = true", f"dns_cache_enabled = {cache}"),
    )
    address = ("PS217", "PS221", "PS222")
    assert [(finding.code, finding.fix) for finding in found if finding.code in address] == expected
