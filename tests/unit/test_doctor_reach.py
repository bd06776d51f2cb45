"""How the doctor finds its way, its passwords and its time limits."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cases import DIRECT, DOCKER, HELM, SIDECAR, STANDALONE, edit, load, rendered
from pgcat_stack import cli
from pgcat_stack.deployment import Deployment, DeploymentError
from pgcat_stack.doctor import reach as reach_module
from pgcat_stack.doctor.answers import Answers, Case
from pgcat_stack.doctor.asking import Failed, Trouble, cut_after, probe, resolve, together
from pgcat_stack.doctor.checks.page import MARK, with_checks
from pgcat_stack.doctor.commands import json_of, output_of
from pgcat_stack.doctor.credentials import Credentials, Password, read_credentials
from pgcat_stack.doctor.display import report
from pgcat_stack.doctor.facts import Facts
from pgcat_stack.doctor.http import fetch
from pgcat_stack.doctor.platforms import Place, Process, _container, _pod_processes
from pgcat_stack.doctor.postgres import ask_facts, first_line
from pgcat_stack.doctor.reach import Options, Target, open_reach, parse_mapping
from pgcat_stack.endpoints import Address
from pgcat_stack.findings import Finding
from rendering import REPOSITORY, render

LOOPBACK = "127.0.0.1"


def failure(run: Callable[[], object]) -> Trouble:
    with pytest.raises(Failed) as caught:
        run()
    return caught.value.trouble


# Mappings


@pytest.mark.parametrize(
    ("text", "name", "port", "place"),
    [
        ("pgcat=127.0.0.1:16432", "pgcat", None, Place("127.0.0.1", 16432)),
        ("pgcat:9930=localhost:1", "pgcat", 9930, Place("localhost", 1)),
        ("DB.example.com:5432=10.0.0.1:5432", "db.example.com", 5432, Place("10.0.0.1", 5432)),
        ("[fd00::1]:5432=[::1]:5433", "fd00::1", 5432, Place("::1", 5433)),
    ],
)
def test_a_mapping(text: str, name: str, port: int | None, place: Place) -> None:
    mapping = parse_mapping(text)
    assert (mapping.name, mapping.port, mapping.place) == (name, port, place)


@pytest.mark.parametrize(
    "text", ["pgcat", "pgcat=host", "=host:1", "pgcat=host:0", "pgcat=host:99999", "a=b=c:1"]
)
def test_what_is_no_mapping_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", ".", "--reach", text])
    assert caught.value.code == 2
    assert f"{text}: not NAME[:PORT]=HOST:PORT" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "601"])
def test_what_is_no_time_limit(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["doctor", ".", f"--timeout={text}"])
    assert "not a number of seconds" in capsys.readouterr().err


# Targets


def opened(answers: dict[str, Any], *mappings: str) -> Any:
    options = Options(mappings=tuple(map(parse_mapping, mappings)), docker=False, kubectl=False)
    with open_reach(Facts(load(rendered(answers))), options) as reach:
        return reach


def test_addresses_as_they_stand_in_the_files() -> None:
    reach = opened(STANDALONE)
    assert [target.places[6432] for target in reach.pgcats] == [(Place("pgcat", 6432),)]
    assert [target.places[3476] for target in reach.permifys] == [(Place("permify", 3476),)]
    assert reach.servers[Address("db1")].places == {5432: (Place("db1", 5432),)}


def test_a_sidecar_is_not_looked_for_on_this_machine() -> None:
    """It listens on its pod's loopback: who answers on ours is somebody else."""
    assert opened(SIDECAR).pgcats == ()


def test_permify_elsewhere_is_not_guessed() -> None:
    assert opened(HELM).permifys == ()
    assert opened(HELM, "permify=h:1").permifys[0].places == {3476: (Place("h", 1),)}


def test_each_mapping_of_pgcat_is_a_process() -> None:
    reach = opened(STANDALONE, "pgcat=a:1", "pgcat:9930=a:2", "pgcat=b:3", "pgcat:9930=b:4")
    assert [(t.name, t.places) for t in reach.pgcats] == [
        ("at a:1", {6432: (Place("a", 1),), 9930: (Place("a", 2),)}),
        ("at b:3", {6432: (Place("b", 3),), 9930: (Place("b", 4),)}),
    ]


def test_a_mapped_server() -> None:
    servers = opened(STANDALONE, "db1:5432=h:1").servers
    assert servers[Address("db1")].places == {5432: (Place("h", 1),)}
    assert servers[Address("db2")].places == {5432: (Place("db2", 5432),)}


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeploymentError, match="it has pgcat, permify, db1, db2"):
        opened(STANDALONE, "db3=h:1")
    with pytest.raises(DeploymentError, match="it has permify, db1, db2"):
        opened(DIRECT, "pgcat=h:1")


def test_a_bundled_server_is_reached_by_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {5432: (Place("172.18.0.2", 5432),)}
    running = [
        Process("postgres-primary", "p", "i", places=places),
        Process("pgcat", "c", "i", places={6432: (Place("172.18.0.3", 6432),)}),
        Process("pgcat", "old", "i", going=True),
    ]
    monkeypatch.setattr(reach_module, "docker_processes", lambda folder, ports, seconds: running)
    monkeypatch.setattr(reach_module.shutil, "which", lambda name: name)
    with open_reach(Facts(load(rendered(DOCKER))), Options()) as reach:
        assert reach.servers[Address("postgres-primary")].places == places
        assert reach.servers[Address("postgres-replica")].places == {5432: (Place("postgres-replica", 5432),)}
        assert [target.name for target in reach.pgcats] == ["c"]
        assert reach.permifys == ()


def test_a_server_without_functions_of_its_wal_is_asked_for_the_rest() -> None:
    asked = []

    def ask(statement: str) -> list[tuple[Any, ...]]:
        asked.append(statement)
        raise Failed("failed", "pg_last_wal_replay_lsn is not supported")

    assert failure(lambda: ask_facts(ask, direct=True)).kind == "failed"
    assert ["pg_last_wal_replay_lsn" in statement for statement in asked] == [True, False]

    def mute(statement: str) -> list[tuple[Any, ...]]:
        asked.append(statement)
        raise Failed("mute", "no answer")

    asked.clear()
    assert failure(lambda: ask_facts(mute, direct=True)).kind == "mute" and len(asked) == 1


def test_the_first_place_that_takes_connections_is_taken() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        target = Target("x", {1: (Place(LOOPBACK, free()), Place("localhost", port), Place(LOOPBACK, port))})
        place, address = target.open(1, 2)
        assert place == Place("localhost", port) and address in (LOOPBACK, "::1")
    trouble = failure(lambda: target.open(1, 2))
    assert trouble.kind == "unreachable" and "connection refused" in trouble.text
    assert failure(lambda: target.open(2, 2)).kind == "unreachable"


def free() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind((LOOPBACK, 0))
        return int(probe_socket.getsockname()[1])


# Platforms


def test_a_container() -> None:
    process = _container(
        {
            "Name": "/pgcat-stack-pgcat-1",
            "Config": {"Image": "i", "Labels": {"com.docker.compose.service": "pgcat"}},
            "State": {"Status": "running", "Health": {"Status": "healthy"}},
            "RestartCount": 2,
            "NetworkSettings": {
                "Networks": {"a": {"IPAddress": "172.18.0.3"}},
                "Ports": {"6432/tcp": [{"HostIp": "0.0.0.0", "HostPort": "16432"}], "9930/tcp": None},
            },
        },
        (6432, 9930),
    )
    assert (process.program, process.name, process.trouble, process.restarts) == (
        "pgcat",
        "pgcat-stack-pgcat-1",
        "",
        2,
    )
    assert process.places[6432] == (Place("172.18.0.3", 6432), Place(LOOPBACK, 16432))
    assert process.places[9930] == (Place("172.18.0.3", 9930),)


@pytest.mark.parametrize(
    ("state", "policy", "trouble", "going"),
    [
        ({"Status": "exited", "ExitCode": 0}, "no", "", True),
        ({"Status": "exited", "ExitCode": 1}, "no", "is exited with exit code 1", False),
        ({"Status": "exited", "ExitCode": 0}, "unless-stopped", "is exited with exit code 0", False),
        ({"Status": "restarting"}, "unless-stopped", "is restarting", False),
        ({"Status": "running", "Health": {"Status": "starting"}}, "unless-stopped", "", False),
    ],
)
def test_the_state_of_a_container(state: dict[str, Any], policy: str, trouble: str, going: bool) -> None:
    process = _container({"State": state, "HostConfig": {"RestartPolicy": {"Name": policy}}}, ())
    assert (process.trouble, process.going) == (trouble, going)


def pod(status: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", **more},
        "spec": {
            "initContainers": [{"name": "pgcat", "image": "i"}],
            "containers": [{"name": "permify", "image": "j"}],
        },
        "status": {"phase": "Running", **status},
    }


def test_a_sidecar_pod_is_two_processes() -> None:
    statuses = {
        "initContainerStatuses": [{"name": "pgcat", "ready": True, "restartCount": 0}],
        "containerStatuses": [
            {
                "name": "permify",
                "ready": False,
                "restartCount": 3,
                "state": {"waiting": {"reason": "ImagePullBackOff"}},
            }
        ],
    }
    pgcat, permify = _pod_processes(pod(statuses))
    assert (pgcat.program, pgcat.trouble) == ("pgcat", "")
    assert (permify.program, permify.trouble, permify.restarts) == ("permify", "waits: ImagePullBackOff", 3)


def test_pods_that_end_or_have_ended() -> None:
    assert [p.going for p in _pod_processes(pod({}, deletionTimestamp="2026-01-01T00:00:00Z"))] == [
        True,
        True,
    ]
    assert list(_pod_processes(pod({"phase": "Succeeded"}))) == []


def test_a_pod_that_is_not_scheduled() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    assert [p.trouble for p in _pod_processes(pod({"conditions": [condition]}))] == [
        "is not scheduled: 0/3 nodes are available"
    ] * 2


# Commands


def test_a_command_that_fails_is_one_line(tmp_path: Path) -> None:
    trouble = failure(lambda: output_of(["sh", "-c", "echo one >&2; echo two >&2; exit 3"], tmp_path, 5))
    assert trouble.text.endswith("failed: two")
    assert failure(lambda: output_of(["no-such-program"], tmp_path, 5)).text.startswith(
        "no-such-program cannot be run"
    )
    assert "JSON" in failure(lambda: json_of(["echo", "hello"], tmp_path, 5)).text


def test_a_slow_command_ends_with_what_it_started(tmp_path: Path) -> None:
    begun = time.monotonic()
    trouble = failure(lambda: output_of(["sh", "-c", "sleep 61 & echo $! > pid; wait"], tmp_path, 0.5))
    assert trouble.kind == "mute" and time.monotonic() - begun < 5
    pid = (tmp_path / "pid").read_text().strip()
    done = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True)
    assert done.stdout.strip()[:1] in ("", "Z")


# Credentials


def credentials(root: Path, environment: dict[str, str] | None = None, cluster: Any = None) -> Credentials:
    return read_credentials(Facts(Deployment.load(root)), environment or {}, cluster)


def test_passwords_of_docker(tmp_path: Path) -> None:
    root = render(tmp_path / "deployment", DOCKER)
    assert credentials(root).database.missing == (
        "secrets/database_password is missing: set DATABASE_PASSWORD, or copy the file here"
    )
    (root / "secrets").mkdir(exist_ok=True)
    (root / "secrets/database_password").write_text("one\n")
    (root / "secrets/pgcat_admin_password").write_text("")
    found = credentials(root)
    assert found.database.value == "one" and "empty" in found.admin.missing
    assert credentials(root, {"DATABASE_PASSWORD": "two"}).database.value == "two"


def test_passwords_by_files(tmp_path: Path) -> None:
    root = render(tmp_path / "deployment", STANDALONE)
    (tmp_path / "file").write_text("three\n")
    found = credentials(
        root, {"DATABASE_PASSWORD_FILE": str(tmp_path / "file"), "PGCAT_ADMIN_PASSWORD_FILE": "/nowhere"}
    )
    assert found.database.value == "three"
    assert found.admin.missing == "PGCAT_ADMIN_PASSWORD_FILE names /nowhere, which is missing"


@pytest.mark.parametrize("answers", [STANDALONE, SIDECAR, DIRECT], ids=["standalone", "sidecar", "direct"])
def test_passwords_of_the_cluster(tmp_path: Path, answers: dict[str, Any]) -> None:
    root = render(tmp_path / "deployment", answers)
    asked = []

    def secret(name: str, key: str) -> str:
        asked.append((name, key))
        if name == "pgcat-admin":
            raise Failed("failed", "no rights")
        return "four"

    found = credentials(root, cluster=secret)
    assert found.database.value == "four" and asked[0] == ("permify-database", "password")
    if "pooling" not in answers:
        assert found.admin.missing == "no rights: set PGCAT_ADMIN_PASSWORD or PGCAT_ADMIN_PASSWORD_FILE"


def test_no_password_shows_in_a_text() -> None:
    shown = repr(Credentials(Password("hush-1"), Password("hush-2"), "hush-3"))
    assert "hush" not in shown


# Time


def test_jobs_run_side_by_side_and_late_ones_are_left_behind() -> None:
    stop = threading.Event()

    def refuse() -> int:
        raise Failed("refused", "no")

    begun = time.monotonic()
    found = together({"quick": lambda: 1, "late": lambda: stop.wait(20) and 2, "no": refuse}, 0.3)
    assert time.monotonic() - begun < 3
    assert found == {
        "quick": 1,
        "late": Trouble("mute", "no answer within 0.3 s"),
        "no": Trouble("refused", "no"),
    }
    stop.set()


def test_an_error_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        together({"x": lambda: 1 / 0}, 1)


def test_a_silent_socket_is_cut() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, cut_after(0.2, ours.fileno()) as cut:
        assert ours.recv(1) == b"" and cut()
    ours, theirs = socket.socketpair()
    with ours, theirs, cut_after(5, ours.fileno()) as cut:
        theirs.send(b"x")
        assert ours.recv(1) == b"x" and not cut()


def test_names_that_are_not_known() -> None:
    trouble = failure(lambda: resolve("nowhere.invalid", 1, 5))
    assert trouble == Trouble("unreachable", "the name nowhere.invalid is not known here")
    assert probe(LOOPBACK, listening := serve(b"")[0], 1) == LOOPBACK and listening


# HTTP


def serve(answer: bytes) -> tuple[int, socket.socket]:
    server = socket.create_server((LOOPBACK, 0))

    def run() -> None:
        while True:
            client, _ = server.accept()
            client.recv(65536)
            client.sendall(answer)
            client.close()

    threading.Thread(target=run, daemon=True).start()
    return server.getsockname()[1], server


def test_http_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # never asked
    port, _ = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert fetch(Place(LOOPBACK, port), "/", 2) == "hi"
    body = json.dumps({"code": 5, "message": "ERROR_CODE_SCHEMA_NOT_FOUND"}).encode()
    port, _ = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert failure(lambda: fetch(Place(LOOPBACK, port), "/", 2)) == Trouble(
        "refused", "status 404: ERROR_CODE_SCHEMA_NOT_FOUND"
    )
    port, _ = serve(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    assert failure(lambda: fetch(Place(LOOPBACK, port), "/", 2)).kind == "login"
    port, _ = serve(b"nonsense\r\n")
    assert failure(lambda: fetch(Place(LOOPBACK, port), "/", 2)).kind == "unreachable"


# The report


def test_the_report_wraps_between_words_on_a_terminal() -> None:
    case = Case(Facts(load(rendered(STANDALONE))), Answers(), Credentials(Password("x"), Password("x")))
    finding = Finding("PD204", "error", "budget.yaml", 9, "word " * 20 + "end", "do a-b-c")
    plain = report([finding], ["n\x1b"], case, width=None)
    assert plain.splitlines()[0].startswith("budget.yaml:9: PD204 word") and "\x1b" not in plain
    assert (
        plain.splitlines()[-1] == "1 error, 0 warnings; asked 0 of 2 PostgreSQL servers, 0 PgCat, 0 Permify"
    )
    narrow = report([finding], [], case, width=40).splitlines()
    assert "\x1b[1;31mPD204\x1b[0m" in narrow[0]
    assert all(len(line) <= 40 for line in narrow[1:]) and narrow[1].startswith("  word")


def test_what_libpq_says_is_shortened() -> None:
    import psycopg

    text = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  password '
    text += "authentication failed"
    assert first_line(psycopg.OperationalError(text)) == "password authentication failed"


def test_the_page_is_current() -> None:
    page = (REPOSITORY / "docs" / "doctor.md").read_text()
    assert page == with_checks(page), "run: ./dev python -m pgcat_stack.doctor.checks.page docs/doctor.md"
    assert page.count(MARK) == 1


def test_the_hook_does_not_import_the_doctor(tmp_path: Path) -> None:
    """It runs where psycopg is not."""
    root = render(tmp_path / "deployment", DOCKER)
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'hooks')!r}); from pathlib import Path\n"
        f"from pgcat_stack.cli import hook; hook(Path({str(root)!r}))\n"
        "absent = ('psycopg', 'pgcat_stack.doctor', 'rich')\n"
        "assert not [name for name in sys.modules if name.startswith(absent)]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pgcat_toml_that_names_another_namespace() -> None:
    files = rendered(STANDALONE)
    assert Facts(load(files)).namespace == "permify"
    moved = edit(files, "kustomization.yaml", r"^namespace: \S+", "namespace: elsewhere")
    assert Facts(load(moved)).namespace == "elsewhere"
