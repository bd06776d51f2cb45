from __future__ import annotations

import pytest

from cases import AUTOSCALED, DIRECT, DOCKER, ELSEWHERE, HELM, SIDECAR, STANDALONE, edit, load, rendered
from pgcat_stack.endpoints import Address, read_uri
from pgcat_stack.files.quantities import duration_seconds, share_of, whole_text
from pgcat_stack.findings import Location

HERE = Location("x")
DEPLOYMENT = "kubernetes/pgcat-deployment.yaml"
PERMIFY = "permify/permify.yaml"


@pytest.mark.parametrize(
    ("answers", "workloads"),
    [
        (DOCKER, [("pgcat", "compose", 1, False), ("permify", "compose", 1, False)]),
        (
            {**DOCKER, "pooling": "direct", "permify_replicas": 3},
            [("permify", "compose", 3, False)],
        ),
        (STANDALONE, [("pgcat", "deployment", 2, False), ("permify", "deployment", 2, False)]),
        (SIDECAR, [("pgcat", "deployment", 2, True), ("permify", "deployment", 2, True)]),
        (AUTOSCALED, [("pgcat", "deployment", 5, True), ("permify", "deployment", 5, True)]),
        (DIRECT, [("permify", "deployment", 2, False)]),
        (
            {**HELM, "permify_max_replicas": 4},
            [("pgcat", "deployment", 2, False), ("permify", "helm", 4, False)],
        ),
        (ELSEWHERE, [("permify", "elsewhere", 2, False)]),
    ],
    ids=["docker", "docker-direct", "standalone", "sidecar", "autoscaled", "direct", "helm", "elsewhere"],
)
def test_what_runs(answers, workloads):
    found = load(rendered(answers)).topology.workloads
    assert [(w.program, w.kind, w.most_replicas, w.sidecar) for w in found] == workloads


def test_a_migration_with_permifys_image_is_no_workload():
    files = rendered(DOCKER)
    assert "migrate:" in files["compose.yaml"]
    assert [w.name for w in load(files).topology.workloads] == ["pgcat", "permify"]


def test_compose_scale_counts():
    files = edit(rendered(DOCKER), "compose.yaml", r"^    deploy:\n      replicas: 1", "    scale: 4")
    assert load(files).topology.running("permify")[0].most_replicas == 4


def test_workloads_know_where_they_stand():
    files = rendered(STANDALONE)
    pgcat = load(files).topology.running("pgcat")[0]
    lines = files[DEPLOYMENT].splitlines()
    assert "replicas: 2" in lines[pgcat.replicas.location.line - 1]
    assert "terminationGracePeriodSeconds" in lines[pgcat.grace.location.line - 1]
    assert pgcat.pre_stop is not None
    assert "seconds: 60" in lines[pgcat.pre_stop.location.line - 1]


def test_a_rollout_without_a_strategy_has_the_defaults_of_the_api():
    files = edit(rendered(STANDALONE, pgcat_replicas=5), DEPLOYMENT, r"^  strategy:(\n    .*)+", "")
    rollout = load(files).topology.running("pgcat")[0].rollout
    assert rollout is not None
    assert (rollout.max_surge.value, rollout.max_unavailable.value) == (2, 1)


def test_surge_and_unavailable_cannot_both_be_zero():
    files = edit(rendered(STANDALONE), DEPLOYMENT, "maxSurge: 1", "maxSurge: 0%")
    rollout = load(files).topology.running("pgcat")[0].rollout
    assert rollout is not None
    assert (rollout.max_surge.value, rollout.max_unavailable.value) == (0, 1)


def test_an_exec_sleep_counts_as_a_wait():
    files = edit(
        rendered(STANDALONE), DEPLOYMENT, r"sleep:\n +seconds: 60.*", 'exec: {command: [sh, -c, "sleep 1m"]}'
    )
    hook = load(files).topology.running("pgcat")[0].pre_stop
    assert hook is not None
    assert (hook.seconds, hook.needs_shell) == (60, True)


def test_the_environment_wins_over_the_file():
    files = edit(
        rendered(STANDALONE),
        "kubernetes/permify-deployment.yaml",
        r"(?<=Secret does not have.\n)          env:\n",
        "          env:\n            - {name: PERMIFY_DATABASE_MAX_CONNECTIONS, value: '3'}\n",
    )
    most = load(files).topology.permify[0].max_connections
    assert (most.value, most.location.path) == (3, "kubernetes/permify-deployment.yaml")


def test_an_empty_variable_does_not_win():
    files = edit(
        rendered(DOCKER),
        "compose.yaml",
        r"PGPASSFILE: /run/secrets/database.pgpass\n    env_file: .*\n    secrets: "
        r"\[database.pgpass\]\n    volumes",
        "PERMIFY_DATABASE_MAX_CONNECTIONS: ''\n    volumes",
    )
    assert load(files).topology.permify[0].max_connections.value == 8


def test_helm_values_and_their_environment():
    permify = load(rendered(HELM)).topology.permify[0]
    assert (permify.max_connections.value, permify.lifetime.value, permify.jitter.value) == (8, 30, 10)
    assert permify.writer is not None
    assert permify.writer.database == "permify_writer"


def test_the_chart_drops_what_it_does_not_know():
    files = edit(
        rendered(HELM), "permify/values.yaml", r"^  - name: PERMIFY_DATABASE_MAX_CONNECTIONS\n.*\n", ""
    )
    files = edit(
        files, "permify/values.yaml", "    engine: postgres", "    engine: postgres\n    max_connections: 3"
    )
    assert load(files).topology.permify[0].max_connections.value == 20


def test_jitter_and_health_check_of_zero_have_meanings():
    files = edit(rendered(STANDALONE), PERMIFY, "jitter: 10s", "jitter: 0s")
    files = edit(files, PERMIFY, "period: 10s", "period: 0s")
    permify = load(files).topology.permify[0]
    assert (permify.jitter.value, permify.health_check.value) == (6, 60)
    assert permify.longest_connection_seconds == 96


def test_max_connections_falls_back_to_the_deprecated_key_and_then_to_twenty():
    files = edit(rendered(STANDALONE), PERMIFY, "max_connections: 8", "max_open_connections: 5")
    assert load(files).topology.permify[0].max_connections.value == 5
    files = edit(files, PERMIFY, "max_open_connections: 5", "max_connections: 0")
    assert load(files).topology.permify[0].max_connections.value == 20


def test_one_uri_serves_both_pools():
    files = edit(
        rendered(DIRECT), PERMIFY, "  engine: postgres", "  engine: postgres\n  uri: postgres://p@db9/x"
    )
    permify = load(files).topology.permify[0]
    assert [uri.servers for _, uri in permify.sides] == [(Address("db9"),)] * 2


def test_timeouts_of_the_user_win_over_the_pool_and_the_process():
    files = edit(
        rendered(STANDALONE), "pgcat/pgcat.toml", "pool_mode = ", "idle_timeout = 5000\npool_mode = "
    )
    files = edit(files, "pgcat/pgcat.toml", "min_pool_size = 0", "min_pool_size = 0\nserver_lifetime = 7000")
    pgcat = load(files).topology.pgcat
    assert pgcat is not None
    writer, reader = pgcat.opened
    assert (writer.user.idle_timeout.value, writer.user.server_lifetime.value) == (5, 7)
    assert (reader.user.idle_timeout.value, reader.user.server_lifetime.value) == (300, 300)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "services: []", "services: {pgcat: 1, permify: [x]}", "services:\n  pgcat: {deploy: 3}"],
)
def test_a_compose_file_of_another_shape_is_skipped(text):
    assert load({**rendered(DOCKER), "compose.yaml": text}).topology


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pools = 3",
        "[pools]\na = 1",
        '[pools.a]\nusers = []\nshards = "x"',
        '[pools.a.users.0]\npool_size = "9"',
    ],
)
def test_a_pgcat_configuration_of_another_shape_is_skipped(text):
    pgcat = load({**rendered(DOCKER), "pgcat/pgcat.toml": text}).topology.pgcat
    assert pgcat is not None
    assert pgcat.opened == ()


@pytest.mark.parametrize(
    ("text", "servers", "user", "database"),
    [
        ("postgresql://u@h/d", ("h:5432",), "u", "d"),
        ("postgres://u:p@H.:6432/d?sslmode=disable", ("h:6432",), "u", "d"),
        ("postgresql://u@a,b:5433/d", ("a:5432", "b:5433"), "u", "d"),
        ("postgresql://u@[::1]:5433/d", ("[::1]:5433",), "u", "d"),
        ("postgresql://u@[FD00:0::1],[fd00::2]:5433/d", ("[fd00::1]:5432", "[fd00::2]:5433"), "u", "d"),
        ("postgresql://u@/d?host=fd00::1,db&port=1,2", ("[fd00::1]:1", "db:2"), "u", "d"),
        ("host=0:0::1 user=u dbname=d", ("[::1]:5432",), "u", "d"),
        ("postgresql:///d?host=a,b&port=1,2&user=u", ("a:1", "b:2"), "u", "d"),
        ("postgresql://u@h", ("h:5432",), "u", "u"),
        ("host=a,b port=6432 user=u dbname='d'", ("a:6432", "b:6432"), "u", "d"),
    ],
)
def test_connection_strings(text, servers, user, database):
    uri = read_uri(text, HERE)
    assert uri is not None
    assert (tuple(map(str, uri.servers)), uri.user, uri.database) == (servers, user, database)


@pytest.mark.parametrize("text", ["", None, 3, "http://h/d", "postgresql:///d"])
def test_what_names_no_server_is_no_connection_string(text):
    assert read_uri(text, HERE) is None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("[FD00:0:0::0010]", "fd00::10"),
        ("fd00:0:0:0:0:0:0:10", "fd00::10"),
        ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:a00:1", "10.0.0.1"),
    ],
)
def test_spellings_of_an_address_are_one_server(text, same):
    assert Address.of(text) == Address.of(same)
    assert str(Address.of(text)) == (f"[{same}]:5432" if ":" in same else f"{same}:5432")


def test_loopback_in_every_spelling():
    assert all(Address.of(host).is_loopback for host in ("[::1]", "0:0::1", "::ffff:127.0.0.1", "localhost"))
    assert not any(Address.of(host).is_loopback for host in ("[::]", "fd00::1", "0.0.0.0"))


def test_hosts_compare_without_case_and_with_the_default_port():
    assert Address.of("DB1.Example.") == Address.of("db1.example", 5432)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("-5s", -5),
        ("0", 0),
        (0, 0),
        ("30", None),
        (30, None),
        (None, None),
        (True, None),
    ],
)
def test_durations(text, seconds):
    assert duration_seconds(text) == seconds


def test_shares_round_up_or_down():
    assert [share_of("25%", 5, up=True), share_of("25%", 5, up=False), share_of(3, 5, up=True)] == [2, 1, 3]
    assert [share_of(value, 5, up=True) for value in ("3", -1, True, None)] == [None] * 4


def test_numbers_in_text_and_defaults_of_variables():
    assert [whole_text(v) for v in ("3", "${N:-4}", "${N}", "x", True, 2)] == [3, 4, None, None, None, 2]
