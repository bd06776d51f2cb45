"""What `pgcat-stack adopt` makes of configurations written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pgcat_stack.adopt import Adoption, adopt
from pgcat_stack.cli import main
from pgcat_stack.reading.deployment import DeploymentError
from pgcat_stack.reading.reading import Reading
from rendering import render

# Like the configuration in Permify's guide: one pool in session mode, passwords in both files.
ONE_POOL = """
[general]
host = "0.0.0.0"
port = 6432
connect_timeout = 5000
admin_username = "postgres"
admin_password = "admin-secret"

[pools.postgres]
pool_mode = "session"
query_parser_enabled = true
query_parser_read_write_splitting = true
primary_reads_enabled = true

[pools.postgres.users.0]
username = "postgres"
password = "user-secret"
pool_size = 20

[pools.postgres.shards.0]
servers = [["primary.example.com", 5432, "primary"], ["replica.example.com", 5433, "replica"]]
database = "permify"
"""
BEHIND_IT = """
database:
  engine: postgres
  writer:
    uri: postgresql://postgres:user-secret@pgcat:6432/postgres?plan_cache_mode=force_custom_plan
  reader:
    uri: postgresql://postgres:user-secret@pgcat:6432/postgres?plan_cache_mode=force_custom_plan
  max_open_connections: 3
  max_idle_connections: 1
  garbage_collection:
    enabled: true
service:
  watch:
    enabled: true
"""
TWO_POOLS = """
[general]
admin_username = "admin"
admin_password = "admin-secret"
server_tls = true
bann_time = 30

[pools.w]
[pools.w.users.0]
username = "app"
password = "user-secret"
pool_size = 7
[pools.w.shards.0]
servers = [["10.0.0.5", 5432, "primary"]]
database = "authz"

[pools.r]
[pools.r.users.0]
username = "app"
password = "user-secret"
pool_size = 11
[pools.r.shards.0]
servers = [["10.0.0.6", 5432, "replica"], ["10.0.0.7", 5432, "replica"]]
database = "authz"
"""
BEHIND_THEM = """
database:
  engine: postgres
  writer: {uri: "postgresql://app@pgcat:6432/w"}
  reader: {uri: "postgresql://app@pgcat:6432/r"}
  auto_migrate: false
  max_connections: 4
"""
DIRECT = """
database:
  engine: postgres
  writer: {uri: "postgresql://app:user-secret@primary:6543/authz?sslmode=verify-full"}
  reader: {uri: "postgresql://app:user-secret@replica-1,replica-2:5433/authz?sslmode=verify-full"}
  max_connections: 4
"""


@pytest.fixture
def run(tmp_path: Path):
    def run(pgcat: str, permify: str, topology: str = "standalone") -> Adoption:
        files = []
        for name, text in (("pgcat.toml", pgcat), ("permify.yaml", permify)):
            if text:
                (tmp_path / name).write_text(text)
                files.append(tmp_path / name)
        return adopt(files, topology)

    return run


def test_one_pool_like_the_guides(run) -> None:
    found = run(ONE_POOL, BEHIND_IT)
    assert found.answers == {
        "topology": "standalone",
        "primary_host": "primary.example.com",
        "replica_hosts": "replica.example.com:5433",
        "database_name": "permify",
        "pool_mode": "session",
        "database_tls": "disable",
        "permify_max_connections": 3,
        "watch": True,
        "authn": "none",
        "advanced": True,
    }
    notes = "\n".join(found.notes)
    for word in (
        *("pool_size 20:", "database_user postgres:", "admin_password", "passwords in Permify's URIs"),
        *("max_open_connections is deprecated", "max_idle_connections is deprecated", "auto_migrate"),
        *("database.garbage_collection.enabled: what no question asks for", "[general]"),
    ):
        assert word in notes
    assert "service" not in notes, "watch became an answer"
    assert "secret" not in notes.replace("Secret", "").replace("secrets/", "")


def test_settings_without_a_question_are_named_once(run) -> None:
    more = "server: {http: {port: 3476}, grpc: {port: 9000}}\nlogger: {level: debug, colour: red}\n"
    notes = "\n".join(run(ONE_POOL, BEHIND_IT + more).notes)
    assert "logger.level, server.grpc.port: what no question asks for" in notes
    assert "server.http.port" not in notes, "that is rendered"
    assert notes.count("colour") == 1, "Permify does not read it"


def test_two_pools_keep_their_sizes(run) -> None:
    found = run(TWO_POOLS, BEHIND_THEM)
    assert found.answers == {
        "topology": "standalone",
        "primary_host": "10.0.0.5",
        "replica_hosts": "10.0.0.6,10.0.0.7",
        "database_name": "authz",
        "database_user": "app",
        "writer_pool_size": 7,
        "reader_pool_size": 11,
        "primary_reads": False,
        "database_tls": "require",
        "permify_max_connections": 4,
        "authn": "none",
        "advanced": True,
    }
    assert any("bann_time" in note and "PgCat 1.2 does not read it" in note for note in found.notes)
    assert not any("pool_size" in note for note in found.notes)


def test_without_pgcat_it_is_direct(run) -> None:
    found = run("", DIRECT)
    assert found.answers == {
        "topology": "standalone",
        "pooling": "direct",
        "primary_host": "primary:6543",
        "replica_hosts": "replica-1,replica-2:5433",
        "database_name": "authz",
        "database_user": "app",
        "database_tls": "verify-full",
        "permify_max_connections": 4,
        "authn": "none",
        "advanced": True,
    }


def test_what_opens_permify_or_turns_tls_off_is_said(run) -> None:
    guarded = BEHIND_IT + "authn: {enabled: true, method: preshared, preshared: {keys: [hidden]}}\n"
    adoption = run(ONE_POOL, guarded)
    notes = "\n".join(adoption.notes)
    assert adoption.answers["authn"] == "preshared"
    assert "write the keys that its callers have into the Secret permify-authn, key keys" in notes
    assert "web pages of any origin could call Permify, and none may now" in notes
    assert "secrets/permify.env" in "\n".join(run(ONE_POOL, guarded, "docker").notes)
    assert "no server_tls: database_tls disable" in notes
    assert "hidden" not in notes
    assert "server_tls" not in "\n".join(run(TWO_POOLS, BEHIND_THEM).notes)
    turned_on_elsewhere = BEHIND_IT + "authn: {method: preshared}\n"
    assert run(ONE_POOL, turned_on_elsewhere).answers["authn"] == "preshared"
    for turned_off in ("authn: {enabled: false, method: preshared}\n", ""):
        adoption = run(ONE_POOL, BEHIND_IT + turned_off)
        assert adoption.answers["authn"] == "none"
        assert "asks for no key, as it was" in "\n".join(adoption.notes)
        assert "cors_allowed_origins" not in "\n".join(adoption.notes)
    by_tokens = BEHIND_IT + "authn: {enabled: true, method: oidc, oidc: {issuer: 'https://id'}}\n"
    adoption = run(ONE_POOL, by_tokens)
    notes = "\n".join(adoption.notes)
    assert adoption.answers["authn"] == "none"
    assert "Write the section into permify/permify.yaml again" in notes
    assert "PRESHARED" not in notes


@pytest.mark.parametrize(
    ("written", "answered"),
    [
        ("['https://a.b', 'http://[::1]:3000']", "https://a.b, http://[::1]:3000"),
        ("'https://a.b,https://c.d'", "https://a.b, https://c.d"),
        ("['https://a.b', '*']", "*"),
        ("[]", "*"),
    ],
)
def test_the_origins_of_web_pages(run, written: str, answered: str) -> None:
    adoption = run(ONE_POOL, BEHIND_IT + f"server: {{http: {{cors_allowed_origins: {written}}}}}\n")
    assert adoption.answers["cors_allowed_origins"] == answered
    assert adoption.answers["advanced"] is True
    assert "server.http" not in "\n".join(adoption.notes)


def test_what_permify_cannot_read_is_named(run) -> None:
    with pytest.raises(DeploymentError, match="cannot read it: `authn` is"):
        run(ONE_POOL, BEHIND_IT + "authn: text\n")


def test_a_pgcat_is_not_taken_for_postgresql(run) -> None:
    with pytest.raises(DeploymentError, match="a PgCat: give its"):
        run("", BEHIND_IT)


@pytest.mark.parametrize(
    ("pgcat", "permify", "topology"),
    [
        (ONE_POOL, BEHIND_IT, "standalone"),
        (ONE_POOL, BEHIND_IT, "docker"),
        (TWO_POOLS, BEHIND_THEM, "standalone"),
        ("", DIRECT, "standalone"),
    ],
)
def test_the_answers_render(run, tmp_path: Path, pgcat: str, permify: str, topology: str) -> None:
    """What is rendered names the same servers, in pools of the same sizes where these were kept."""
    answers = {**run(pgcat, permify, topology).answers, "postgres_max_connections": 200}
    deployment = Reading.load(render(tmp_path / "deploy", answers))
    if not pgcat:
        return
    (tmp_path / "before").mkdir()
    (tmp_path / "before/permify").mkdir()
    (tmp_path / "before/permify/permify.yaml").write_text(permify)
    (tmp_path / "before/pgcat").mkdir()
    (tmp_path / "before/pgcat/pgcat.toml").write_text(pgcat)
    before = Reading.load(tmp_path / "before")
    pools = [list(reading.topology.pools.values()) for reading in (before, deployment)]
    old, new = ({server.address for pool in side for server in pool.servers} for side in pools)
    assert old == new
    if pgcat == TWO_POOLS:
        sizes = [[user.size.value for pool in side for user in pool.users if user.size] for side in pools]
        assert sizes[0] == sizes[1]


def test_the_command_prints_a_data_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pgcat.toml").write_text(ONE_POOL)
    assert main(["adopt", str(tmp_path / "pgcat.toml"), "--topology", "docker"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["database"] == "external"
    assert "# pool_size 20" in printed
    assert "secret" not in printed.replace("Secret", "").replace("secrets/", "")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("pgcat.toml", "[general\n", "pgcat.toml:1:"),
        ("pgcat.toml", "[general]\nport = 1\n", "no pgcat.toml, for it has no pools"),
        ("permify.yaml", "kind: ConfigMap\n", "give the file itself, not a ConfigMap"),
        ("permify.yaml", "database: {engine: postgres, max_connections: many}\n", "Permify cannot read it"),
        ("notes.txt", "x\n", "neither pgcat.toml nor"),
        ("missing.toml", None, "missing.toml: no such file"),
        ("missing", None, "missing: no such file"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, line: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["adopt", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_servers_and_pgcat_of_ipv6(run) -> None:
    there = (
        TWO_POOLS.replace("10.0.0.5", "FD00:0::5")
        .replace("10.0.0.6", "[fd00::6]")
        .replace("10.0.0.7", "fd00::7")
    )
    there = there.replace('"fd00::7", 5432', '"fd00::7", 5433').replace(
        "[general]", '[general]\nhost = "[::]"'
    )
    answers = run(there, BEHIND_THEM).answers
    assert answers["primary_host"] == "fd00::5"
    assert answers["replica_hosts"] == "fd00::6,[fd00::7]:5433"
    assert (answers["ip_family"], answers["advanced"]) == ("ipv6", True)


def test_hosts_of_ipv6_in_uris(run) -> None:
    permify = DIRECT.replace("@primary:6543", "@[FD00:0::5]:6543")
    permify = permify.replace("@replica-1,replica-2:5433/authz?", "@/authz?host=fd00::6,db-2&port=5433,5432&")
    answers = run("", permify).answers
    assert answers["primary_host"] == "[fd00::5]:6543"
    assert answers["replica_hosts"] == "[fd00::6]:5433,db-2"
    assert "ip_family" not in answers
