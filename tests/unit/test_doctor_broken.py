"""Nothing that the living parts answer ends the doctor: one question costs one finding, the others go on."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cases import DIRECT, DOCKER, STANDALONE
from pgcat_stack.doctor import exporter as exporter_module
from pgcat_stack.doctor import permify as permify_module
from pgcat_stack.doctor import pgcat as pgcat_module
from pgcat_stack.doctor import platforms as platforms_module
from pgcat_stack.doctor import postgres as postgres_module
from pgcat_stack.doctor import routes as reach_module
from pgcat_stack.doctor import session as session_module
from pgcat_stack.doctor.checks import run_checks
from pgcat_stack.doctor.expected import Facts
from pgcat_stack.doctor.postgres import Connector, shortened
from pgcat_stack.doctor.routes import Options, parse_mapping
from pgcat_stack.doctor.session import Diagnosis, examine
from pgcat_stack.doctor.side_by_side import Failed, Questions
from pgcat_stack.findings import Finding
from pgcat_stack.reading.reading import Reading
from pgcat_stack.report.findings import text_line
from rendering import render

SEED = os.environ.get("PGCAT_STACK_SEED") or str(random.SystemRandom().randrange(10**6))
"""Of the hostile answers; a failure prints it."""
ROUNDS = 25
ENVIRONMENT = {"DATABASE_PASSWORD": "x", "PGCAT_ADMIN_PASSWORD": "x", "PERMIFY_TOKEN": "x"}
TENANT = "t1", datetime(2026, 1, 1)

Spoil = Callable[[str, Any], Any]
"""Makes another answer of one, by what was asked."""


class World:
    """PostgreSQL, PgCat, Permify and the platform as they answer where all is well; `spoil` changes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.facts = Facts(Reading.load(root))
        self.spoil: Spoil = lambda question, answer: answer

    def postgres(self, primary: bool) -> dict[str, Any]:
        """What `_FACTS` gets."""
        migration = self.facts.migration
        return {
            "address": "10.0.0.1" if primary else "10.0.0.2",
            "port": 5432,
            "version": 150008,
            "in_recovery": not primary,
            "max_connections": 100,
            "reserved_superuser": 3,
            "reserved_others": 0,
            "plan_cache_mode": "force_custom_plan",
            "track_commit_timestamp": False,
            "superuser": False,
            "connection_limit": 80,
            "groups": [["pgcat", "10.0.1.1", True, 5], ["pgcat", "10.0.1.2", True, 4]],
            "others": [4, 1],
            "position": "0/3000000",
            "receives": not primary,
            "replay_paused": False,
            "missing": None,
            "noted": migration is not None,
            "synchronous_standbys": "",
            "invalid": None,
            "settings": [["permify", "", "plan_cache_mode", "force_custom_plan"]],
            "read_only": ["off", "default", "", 0],
            "holders": [["permify", "pgcat", 9, False], ["reports", "", 4, False]],
            "waits": [[7, [8]]],
            "sessions": [
                [7, "permify", "pgcat", "10.0.1.1", "active", 0.2, 0.1, "SELECT 1", "Lock"],
                [8, "reports", "", "", "", None, None, "<insufficient privilege>", ""],
            ],
            "long": [[9, "permify", "pgcat", "10.0.1.1", "active", 2.0, 0.1, "SELECT 'x'", "ClientRead"]],
            "prepared": None,
            "hidden": ["reports"],
        }

    def rows(self, database: str, primary: bool, statement: str) -> list[tuple[Any, ...]]:
        pools = [(pool.name, server) for pool in self.facts.pools for server in pool.servers]
        names = [f"{pool}_shard_0_{server.role}_{number}" for number, (pool, server) in enumerate(pools)]
        sizes = {pool.name: pool.users[0].size for pool in self.facts.pools}
        if "SHOW VERSION" in statement:
            return [("PgCat 1.2.0",)]
        if "SHOW CONFIG" in statement:
            return [("ban_time", "60", "60", "no")]
        if "SHOW POOLS" in statement:
            counts = ["2", "1", "0", "0", "1", "3", "0", "0", "0", "0", "0"]
            return [(name, "permify", "transaction", *counts) for name in sizes]
        if "SHOW DATABASES" in statement:
            rows = []
            for name, (pool, server) in zip(names, pools, strict=True):
                size = str(getattr(sizes[pool], "value", 1))
                where = (name, server.address.host, str(server.address.port), "permify", "permify")
                rows.append((*where, size, "0", "0", "transaction", "9", "3", "0", "0"))
            return rows
        if "SHOW STATS" in statement:
            return [(name, *["0"] * 20) for name in names]
        if "SHOW BANS" in statement:
            return []
        if "json_build_object" in statement:
            return [(self.postgres(primary),)]
        if "pg_wal_lsn_diff" in statement:
            return [(["10.0.0.2", 5432, 0, 0.1],)]
        if "json_build_array" in statement:
            return [(["10.0.0.1" if primary else "10.0.0.2", 5432],)]
        if "pg_control_system" in statement:
            return [("7712444296225523183",)]
        if "pgcat_stack_migrations" in statement:
            migration = self.facts.migration
            return [(migration[0],)] if migration else []
        assert "FROM tenants" in statement, statement
        return [TENANT]

    def page(self, path: str) -> str:
        if path == "/metrics":
            lines = []
            for pool in self.facts.pools:
                for role in {server.role for server in pool.servers}:
                    size = pool.users[0].size
                    labels = f'pool="{pool.name}",role="{role}"'
                    lines.append(f"pgcat_databases_pool_size{{{labels}}} {size.value if size else 1}")
            return "\n".join(lines)
        if path == "/healthz":
            return '{"status":"SERVING"}'
        return json.dumps({"tenants": [{"id": "t1", "created_at": "2026-01-01T00:00:00Z"}]})

    def command(self, words: list[str]) -> str:
        line = " ".join(words)
        if "exec" in words:
            return "Max open files            65536                65536                files\n12\n"
        if "current-context" in line:
            return "here\n"
        if "ps --all" in line:
            return "a\nb\n"
        if "inspect" in words:
            return json.dumps([self.container("pgcat"), self.container("permify")])
        if "secret" in words:
            return json.dumps({"data": {"password": "eA==", "keys": "eA=="}})
        pods = [self.pod(name, number) for name in ("pgcat", "permify") for number in (0, 1)]
        return json.dumps({"items": pods})

    def container(self, name: str) -> dict[str, Any]:
        return {
            "Name": f"/{name}",
            "Config": {"Image": self.image(name), "Labels": {"com.docker.compose.service": name}},
            "State": {"Status": "running", "ExitCode": 0},
            "RestartCount": 0,
            "NetworkSettings": {"Networks": {"a": {"IPAddress": "10.0.1.1"}}, "Ports": {}},
        }

    def image(self, name: str) -> str:
        return next(str(u.data["image"]) for u in self.facts.deployment.containers if u.name == name)

    def pod(self, name: str, number: int) -> dict[str, Any]:
        return {
            "metadata": {"name": f"{name}-{number}"},
            "spec": {"containers": [{"name": name, "image": self.image(name)}]},
            "status": {"containerStatuses": [{"name": name, "ready": True, "restartCount": 0}]},
        }

    def examined(self, *reaches: str, **more: Any) -> Diagnosis:
        options = Options(mappings=tuple(map(parse_mapping, reaches)), timeout_seconds=2, **more)
        return examine(Reading.load(self.root), options, ENVIRONMENT)


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(render(tmp_path / "deployment", getattr(request, "param", STANDALONE)))
    calls = {"n": 0}

    @contextlib.contextmanager
    def connected(
        self: Connector, database: str = "", user: str = "", *, hold: bool = False
    ) -> Iterator[Any]:
        calls["n"] += 1
        primary = "writer" in database or self.place.host == "db1" or (hold and calls["n"] % 2 == 0)

        def ask(statement: str) -> list[tuple[Any, ...]]:
            rows = world.rows(database, primary, statement)
            said: list[tuple[Any, ...]] = world.spoil(f"{database}: {statement}", rows)
            return said

        yield ask

    def fetch(place: Any, path: str, *_: Any, token: str = "", **__: Any) -> str:
        if "tenants" in path and not token:
            raise Failed("login", "status 401")
        return str(world.spoil(f"GET {path}", world.page(path)))

    def output_of(words: list[str], *_: Any) -> str:
        return str(world.spoil(" ".join(words), world.command(words)))

    monkeypatch.setattr(postgres_module.Connector, "connected", connected)
    monkeypatch.setattr(reach_module, "probe", lambda host, port, seconds: host)
    for module in (exporter_module, permify_module):
        monkeypatch.setattr(module, "fetch", fetch)
    monkeypatch.setattr(platforms_module, "output_of", output_of)
    monkeypatch.setattr(platforms_module, "json_of", lambda words, *_: json.loads(output_of(words)))
    monkeypatch.setattr(
        platforms_module.Cluster,
        "forwarded",
        lambda self, pod, ports: contextlib.nullcontext({p: (reach_module.Place("h", p),) for p in ports}),
    )
    monkeypatch.setattr(reach_module.shutil, "which", lambda name: name)
    monkeypatch.setattr(pgcat_module, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(session_module, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(session_module, "LAG_WATCH_SECONDS", 0.05)
    return world


REACHES = ("pgcat=a:1", "pgcat:9930=a:2", "pgcat=b:1", "pgcat:9930=b:2", "permify=p:1", "db1=db1:5432")
REACHES += ("db2=db2:5432",)


def found(diagnosis: Diagnosis) -> list[Finding]:
    return run_checks(diagnosis.case)


def shown(findings: list[Finding]) -> str:
    return "\n".join(f"{one.code} {one.message} ({one.fix})" for one in findings)


def test_a_world_that_is_well_is_clean(world: World) -> None:
    diagnosis = world.examined(*REACHES, docker=False, kubectl=False)
    assert found(diagnosis) == [], shown(found(diagnosis))
    assert len(list(diagnosis.case.told)) == 2 and diagnosis.case.answers.broken == ()
    assert any("hidden" in note or "does not see" in note for note in diagnosis.notes)


def test_an_error_in_any_question_costs_that_question_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question of the healthy run raises in its turn."""
    asked: list[str] = []
    raising = ""
    put, together = Questions.put, Questions.together

    def boom() -> Any:
        raise ZeroDivisionError("planted")

    def spoiled_put(self: Questions, question: str, ask: Any, otherwise: Any) -> Any:
        asked.append(question)
        return put(self, question, boom if question == raising else ask, otherwise)

    def spoiled_together(self: Questions, jobs: Any, *more: Any) -> Any:
        asked.extend(words for words, _ in jobs.values())
        changed = {key: (words, boom if words == raising else job) for key, (words, job) in jobs.items()}
        return together(self, changed, *more)

    monkeypatch.setattr(Questions, "put", spoiled_put)
    monkeypatch.setattr(Questions, "together", spoiled_together)
    ways: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (REACHES, {"docker": False, "kubectl": False}),
        ((), {}),
    ]
    for reaches, how in ways:
        asked.clear()
        raising = ""
        world.examined(*reaches, **how)
        questions = list(dict.fromkeys(asked))
        assert len(questions) > 25
        for raising in questions:
            diagnosis = world.examined(*reaches, **how)
            named = [broken.question for broken in diagnosis.case.answers.broken]
            assert raising in named, (raising, named)
            findings = found(diagnosis)
            assert any(one.code == "PD110" and raising in one.message for one in findings)
            assert not [one for one in findings if "itself failed: Z" in one.message and one.code != "PD110"]
            if raising not in WHOLE:
                assert named == [raising], named
                wrong = [one for one in findings if one.code != "PD110"]
                assert wrong == [], f"{raising}:\n{shown(findings)}"


WHOLE = ("everything", "how everything is reached", "which passwords there are")
"""Without these there is nothing to ask, or to ask with: more is missing than one answer."""

JUNK: list[Any] = [
    *(None, "", "x", "é\u202e\x1b[31m", "\ud800", -1, 10**30, 1.5, float("nan"), True, b"\xff", [], [[]], {}),
    *({"a": [1]}, "9" * 5000, datetime(2026, 1, 1, tzinfo=UTC), (1, 2, 3), "2026-13-45", "0/0"),
]


def spoiler(draw: random.Random, share: float) -> Spoil:
    """Changes, cuts or replaces some answers, or some part deep in them."""

    def junk(value: Any) -> Any:
        how = draw.randrange(4)
        if isinstance(value, dict) and value and how:
            changed = copy.copy(value)
            key = draw.choice(list(changed))
            if how == 1:
                del changed[key]
            else:
                changed[key] = junk(changed[key])
            return changed
        if isinstance(value, (list, tuple)) and value and how:
            changed_list = list(value)
            index = draw.randrange(len(changed_list))
            if how == 1:
                del changed_list[index:]
            else:
                changed_list[index] = junk(changed_list[index])
            return type(value)(changed_list)
        if isinstance(value, str) and value and how:
            cut = draw.randrange(len(value))
            return value[:cut] + (str(draw.choice(JUNK)) if how == 1 else value[cut + 1 :])
        return draw.choice(JUNK)

    def spoil(question: str, answer: Any) -> Any:
        if draw.random() > share:
            return answer
        if draw.random() < 0.2:
            raise draw.choice(
                [Failed("failed", "x\ny"), OSError(5, "z"), ValueError("v"), RecursionError(), KeyError(1)]
            )
        if isinstance(answer, str):
            return junk(answer)
        return junk(answer) if draw.random() < 0.3 else [junk(row) for row in answer]

    return spoil


@pytest.mark.parametrize(
    "world", [STANDALONE, DOCKER, DIRECT], indirect=True, ids=["standalone", "docker", "direct"]
)
@pytest.mark.parametrize("share", [0.1, 0.6], ids=["few", "most"])
def test_hostile_answers_are_findings(world: World, share: float) -> None:
    """No traceback, no check that fails, one printable line a finding."""
    reaches = [reach for reach in REACHES if world.facts.fronted or not reach.startswith("pgcat")]
    for number in range(ROUNDS):
        draw = random.Random(f"{SEED} {share} {number}")
        world.spoil = spoiler(draw, share)
        by_platform = number % 2 == 0 or world.facts.platform == "docker"
        said = f"PGCAT_STACK_SEED={SEED}, round {number}"
        diagnosis = world.examined() if by_platform else world.examined(*reaches, docker=False, kubectl=False)
        findings = found(diagnosis)
        failed = [one for one in findings if one.message.startswith("the check ")]
        assert failed == [], f"{said}: {shown(failed)}"
        assert all(text_line(one).isprintable() for one in findings), said


def test_a_statement_is_shown_without_what_may_be_secret() -> None:
    assert shortened("ALTER ROLE x PASSWORD 'it''s secret'") == "ALTER ROLE x PASSWORD '…'"
    assert shortened("SELECT 1\n\tFROM  t WHERE a = 'b") == "SELECT 1 FROM t WHERE a = '…'"
    assert shortened("DO $x$ BEGIN secret; END $x$; SELECT $$more$$") == "DO $$…$$; SELECT $$…$$"
    assert len(shortened("SELECT " + "a" * 500)) == 80


class Closed:
    """A connection that has ended."""

    closed = True

    def fileno(self) -> int:
        raise postgres_module.psycopg.OperationalError("the connection is closed")

    def execute(self, *_: Any) -> None:
        raise postgres_module.psycopg.OperationalError("the connection is closed")


def test_a_connection_that_has_ended_is_asked_again() -> None:
    connector = Connector(
        reach_module.Place("h", 1),
        "127.0.0.1",
        None,
        None,
        "x",
        1.0,  # type: ignore[arg-type]
    )
    ask = connector._asker(Closed(), read_only=True, hold=False)  # type: ignore[arg-type]
    with pytest.raises(Failed, match="the connection is closed") as caught:
        ask("SELECT 1")
    assert caught.value.lost
    answers = iter([Failed("failed", "gone", lost=True), 5])

    def job() -> object:
        answer = next(answers)
        if isinstance(answer, Failed):
            raise answer
        return answer

    assert session_module._again(job)() == 5
