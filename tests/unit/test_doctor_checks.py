"""The doctor's checks are pure: from the files and typed answers to problems, without a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from cases import DIRECT, DOCKER, SIDECAR, STANDALONE, Files, edit, load, rendered
from pgcat_stack.doctor.case import Answers, Case, ServerAnswer
from pgcat_stack.doctor.checks import check, registry, run_checks
from pgcat_stack.doctor.credentials import Credentials, Password
from pgcat_stack.doctor.expected import Facts, Server
from pgcat_stack.doctor.permify import PermifyAnswer
from pgcat_stack.doctor.pgcat import Ban, PgcatAnswer, PgcatFacts, PoolServerState, PoolState
from pgcat_stack.doctor.platforms import Place, Process
from pgcat_stack.doctor.postgres import PERMIFY_TABLES, Group, Lag, ServerFacts
from pgcat_stack.doctor.side_by_side import Trouble
from pgcat_stack.doctor.write_check import Stale, WriteCheck
from pgcat_stack.findings import Finding

TENANTS = frozenset({("t1", datetime(2026, 1, 1, tzinfo=UTC))})
KNOWN = Credentials(Password("secret"), Password("secret"))


def server_facts(facts: Facts, server: Server) -> ServerFacts:
    """What a healthy server says."""
    primary = server.role == "primary"
    row = server.row
    assert row is not None and row.server.capacity is not None and row.server.max_connections is not None
    encrypted = facts.encrypted is not None
    return ServerFacts(
        address="10.0.0.1" if primary else "10.0.0.2",
        port=server.address.port,
        version=150008,
        in_recovery=not primary,
        max_connections=row.server.max_connections,
        reserved_superuser=3,
        reserved_others=0,
        plan_cache_mode="force_custom_plan",
        track_commit_timestamp=False,
        superuser=False,
        connection_limit=row.server.capacity,
        groups=(Group("pgcat", "10.0.1.1", encrypted, 5), Group("pgcat", "10.0.1.2", encrypted, 4)),
        others_ordinary=4,
        others_superuser=1,
        position="0/3000000",
        receives=not primary,
        replay_paused=False,
        noted=facts.migration is not None,
        system="7712444296225523183",
        notes=frozenset({facts.migration[0]}) if facts.migration else None,
        tenants=TENANTS,
    )


def pgcat_facts(facts: Facts) -> PgcatFacts:
    """What a PgCat that runs from the file says."""
    assert facts.topology.pgcat is not None
    servers = tuple(
        PoolServerState(
            pool.pool, server.role, server.address, "permify", pool.user.name, pool.size.value, False
        )
        for pool in facts.topology.pgcat.opened
        for server in pool.servers
    )
    calm = tuple(PoolState(pool.name, 3, 0, 1, 0.0) for pool in facts.pools)
    config = {
        "ban_time": "60",
        "pools.permify_writer.load_balancing_mode": "least_outstanding_connections",
        "port": "1",
    }
    return PgcatFacts(
        "1.2.0", config, servers, (calm, calm, calm), (), {servers[0].pool + "_shard_0_primary": 0}
    )


def healthy(files: Files) -> Case:
    facts = Facts(load(files))
    told = {server.address: server_facts(facts, server) for server in facts.servers}
    through = {
        pool.name: tuple(told[address] for address in dict.fromkeys(s.address for s in pool.servers))
        for pool in facts.pools
    }
    pgcats = []
    for name in ("one", "two") if facts.fronted else ():
        state = pgcat_facts(facts)
        exporter = {(server.pool, server.role): server.size for server in state.servers}
        pgcats.append(PgcatAnswer(name, state, None, through, exporter))
    answers = {
        server.address: ServerAnswer(
            told[server.address], lag=None if server.role == "primary" else Lag(0.01, 0, True)
        )
        for server in facts.servers
    }
    permify = PermifyAnswer("permify", Place("10.0.2.1", 3476), tenants=TENANTS)
    return Case(facts, Answers(answers, tuple(pgcats), (permify,)), KNOWN)


def with_server(case: Case, role: str, **changes: Any) -> Case:
    """The case with something else said by the server of this role."""
    servers = dict(case.answers.servers)
    for server in case.facts.servers:
        said = servers[server.address]
        if server.role == role and said.facts is not None:
            servers[server.address] = replace(said, facts=replace(said.facts, **changes))
    return with_answers(case, servers=servers)


def with_answer(case: Case, role: str, **changes: Any) -> Case:
    servers = dict(case.answers.servers)
    for server in case.facts.servers:
        if server.role == role:
            servers[server.address] = replace(servers[server.address], **changes)
    return with_answers(case, servers=servers)


def with_pgcat(case: Case, **changes: Any) -> Case:
    """The case with something else said by the first PgCat."""
    first, *others = case.answers.pgcats
    assert first.facts is not None
    mine = {key: value for key, value in changes.items() if key in PgcatFacts.__dataclass_fields__}
    rest = {key: value for key, value in changes.items() if key not in mine}
    return with_answers(case, pgcats=(replace(first, facts=replace(first.facts, **mine), **rest), *others))


def refused_by_permify(case: Case, said: str, **credentials: Any) -> Case:
    """Permify refuses to list tenants, with these credentials."""
    return with_answers(
        replace(case, credentials=replace(case.credentials, **credentials)),
        permifys=(PermifyAnswer("p", Place("h", 1), tenants=Trouble("login", said)),),
    )


def with_answers(case: Case, **changes: Any) -> Case:
    return replace(case, answers=replace(case.answers, **changes))


@pytest.mark.parametrize(
    "answers", [STANDALONE, SIDECAR, DIRECT, DOCKER], ids=["standalone", "sidecar", "direct", "docker"]
)
def test_a_healthy_case_is_clean(answers: Mapping[str, Any]) -> None:
    assert run_checks(healthy(rendered(answers))) == []


WRONG_PASSWORD = Trouble("login", 'password authentication failed for user "permify"')

FAULTS: dict[str, tuple[str, Mapping[str, Any], Callable[[Case], Case], str]] = {
    "too old": (
        "PD210",
        STANDALONE,
        lambda c: with_server(with_server(c, "primary", version=130007), "replica", version=130007),
        "13.7",
    ),
    "another major version": (
        "PD211",
        STANDALONE,
        lambda c: with_server(c, "replica", version=140002),
        "14.2",
    ),
    "another cluster": (
        "PD214",
        STANDALONE,
        lambda c: with_server(c, "replica", system="1"),
        "another cluster",
    ),
    "one connection too few": (
        "PD204",
        STANDALONE,
        lambda c: with_server(c, "replica", max_connections=99),
        "99",
    ),
    "others by one": ("PD206", STANDALONE, lambda c: with_server(c, "primary", others_ordinary=18), "21"),
    "superusers beyond their reserve": (
        "PD206",
        STANDALONE,
        lambda c: with_server(c, "primary", others_superuser=17),
        "21",
    ),
    "more is reserved than kept, by two settings": (
        "PD225",
        STANDALONE,
        lambda c: with_server(c, "primary", reserved_superuser=5, reserved_others=16),
        "reserves 21 connections (superuser_reserved_connections 5 + reserved_connections 16), the budget"
        " keeps 20 for others",
    ),
    "more is reserved than kept, by one": (
        "PD225",
        STANDALONE,
        lambda c: with_server(c, "replica", reserved_superuser=21, others_ordinary=30),
        "reserves 21 connections (superuser_reserved_connections 21), the budget keeps 20",
    ),
    "pg_hba": (
        "PD201",
        STANDALONE,
        lambda c: with_answer(
            c, "replica", facts=None, lag=None, trouble=Trouble("login", "no pg_hba.conf entry for host")
        ),
        "pg_hba.conf, for PgCat's addresses",
    ),
    "password, on every server": (
        "PD201",
        DOCKER,
        lambda c: with_answer(
            with_answer(c, "replica", facts=None, lag=None, trouble=WRONG_PASSWORD),
            "primary",
            facts=None,
            trouble=WRONG_PASSWORD,
        ),
        "refuse permify: password authentication failed",
    ),
    "database": (
        "PD202",
        STANDALONE,
        lambda c: with_answer(c, "primary", trouble=Trouble("database", 'database "permify" does not exist')),
        "no database permify",
    ),
    "one connection more than the plan": (
        "PD221",
        STANDALONE,
        lambda c: with_server(c, "primary", groups=(Group("x", "10.9.9.9", True, 80),)),
        "80 of x from 10.9.9.9",
    ),
    "role limit": ("PD207", DIRECT, lambda c: with_server(c, "primary", connection_limit=79), "is 79"),
    "no tables": (
        "PD218",
        DOCKER,
        lambda c: with_server(c, "primary", missing=PERMIFY_TABLES),
        "docker compose run --rm migrate",
    ),
    "no note": (
        "PD219",
        SIDECAR,
        lambda c: with_server(c, "primary", notes=frozenset({"v0"})),
        "new Permify pods wait",
    ),
    "no table of notes": (
        "PD219",
        SIDECAR,
        lambda c: with_server(c, "primary", noted=False, notes=None),
        "is not noted",
    ),
    "in the clear": (
        "PD222",
        {**DIRECT, "database_tls": "require"},
        lambda c: with_server(c, "primary", groups=(Group("", "10.0.1.1", False, 2),)),
        "restart Permify",
    ),
    "version": ("PD302", STANDALONE, lambda c: with_pgcat(c, version="1.3.0"), "of the line 1.2"),
    "setting": ("PD303", STANDALONE, lambda c: with_pgcat(c, config={"ban_time": "61"}), "the file says 60"),
    "pool setting": (
        "PD303",
        STANDALONE,
        lambda c: with_pgcat(c, config={"pools.permify_writer.load_balancing_mode": "random"}),
        "file says least_outstanding_connections",
    ),
    "long wait": (
        "PD306",
        STANDALONE,
        lambda c: with_pgcat(
            c,
            samples=(
                (PoolState("permify_reader", 9, 1, 5, 1.5), PoolState("permify_writer", 9, 0, 5, 0.0)),
                (PoolState("permify_reader", 9, 0, 5, 0.0), PoolState("permify_writer", 9, 0, 5, 0.0)),
            ),
        ),
        "1 client waits for permify_reader in PgCat one, the longest 1.5 s",
    ),
    "banned": (
        "PD307",
        STANDALONE,
        lambda c: with_pgcat(c, bans=(Ban("permify_reader", "db2", "FailedCheckout", 40),)),
        "db2:5432 is banned",
    ),
    "does not serve": (
        "PD309",
        STANDALONE,
        lambda c: with_pgcat(
            c, through={"permify_reader": Trouble("refused", "could not get connection from the pool")}
        ),
        "can PgCat reach and log in to db2:5432, db1:5432",
    ),
    "other exporter": (
        "PD311",
        STANDALONE,
        lambda c: with_pgcat(c, exporter={("x", "primary"): 1}),
        "gives other pools",
    ),
    "not serving": (
        "PD401",
        STANDALONE,
        lambda c: with_answers(
            c, permifys=(PermifyAnswer("p", Place("h", 1), Trouble("refused", "status 503: no")),)
        ),
        "does not serve: status 503",
    ),
    "without a key": (
        "PD407",
        STANDALONE,
        lambda c: refused_by_permify(c, "status 500: x", token="", no_token="set PERMIFY_TOKEN"),
        "set PERMIFY_TOKEN",
    ),
    "with another key": (
        "PD407",
        STANDALONE,
        lambda c: refused_by_permify(c, "status 401: x", token="k"),
        "refuses the key: status 401",
    ),
    "with keys that Compose reads anew": (
        "PD407",
        DOCKER,
        lambda c: refused_by_permify(c, "status 401: x", token="k"),
        "run docker compose up --wait --no-deps permify if the keys were changed",
    ),
    "with keys that a rollout reads anew": (
        "PD407",
        STANDALONE,
        lambda c: refused_by_permify(c, "status 401: x", token="k"),
        "restart it (kubectl rollout restart) if the keys were changed",
    ),
    "open to anyone": (
        "PD408",
        STANDALONE,
        lambda c: with_answers(c, permifys=(PermifyAnswer("p", Place("h", 1), answers_anyone=True),)),
        "answers a request without a key",
    ),
    "in memory": (
        "PD402",
        STANDALONE,
        lambda c: with_answers(c, permifys=(PermifyAnswer("p", Place("h", 1), tenants=frozenset()),)),
        "in memory",
    ),
    "other tenants": (
        "PD402",
        STANDALONE,
        lambda c: with_answers(
            c,
            permifys=(
                PermifyAnswer(
                    "p", Place("h", 1), tenants=frozenset({("t1", datetime(2026, 1, 2, tzinfo=UTC))})
                ),
            ),
        ),
        "in another database",
    ),
    "stale": (
        "PD405",
        STANDALONE,
        lambda c: with_answers(c, write_check=WriteCheck("t", stale=[Stale("p", 1.0, True, "")])),
        "for 1.0 s",
    ),
    "leftover": (
        "PD406",
        STANDALONE,
        lambda c: with_answers(c, write_check=WriteCheck("t", leftover="status 500")),
        "send_key -X DELETE",
    ),
}


@pytest.mark.parametrize(("code", "answers", "change", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(
    code: str, answers: Mapping[str, Any], change: Callable[[Case], Case], words: str
) -> None:
    found = run_checks(change(healthy(rendered(answers))))
    assert {finding.code for finding in found} == {code}, found
    assert any(words in f"{finding.message} ({finding.fix})" for finding in found), found


NO_FAULT: dict[str, tuple[Mapping[str, Any], Callable[[Case], Case]]] = {
    "others to the last": (STANDALONE, lambda c: with_server(c, "primary", others_ordinary=17)),
    "the whole plan": (
        STANDALONE,
        lambda c: with_server(c, "primary", groups=(Group("pgcat", "h", True, 79),)),
    ),
    "plan_cache_mode, direct": (DIRECT, lambda c: with_server(c, "primary", plan_cache_mode="auto")),
    "waiting once": (
        STANDALONE,
        lambda c: with_pgcat(
            c,
            samples=(
                (
                    PoolState("permify_writer", 9, 2, 9, 0.1),
                    PoolState("permify_reader", 9, 0, 1, 0.0),
                ),
                (
                    PoolState("permify_writer", 9, 0, 9, 0.0),
                    PoolState("permify_reader", 9, 0, 1, 0.0),
                ),
            ),
        ),
    ),
    "the oldest version that Permify takes, another minor one on the replica": (
        STANDALONE,
        lambda c: with_server(with_server(c, "primary", version=130008), "replica", version=130014),
    ),
    "a wait that nobody waits any more": (
        STANDALONE,
        lambda c: with_pgcat(
            c,
            samples=((PoolState("permify_reader", 9, 0, 5, 1.5), PoolState("permify_writer", 9, 0, 5, 0.0)),),
        ),
    ),
    "stale for less than a second": (
        STANDALONE,
        lambda c: with_answers(c, write_check=WriteCheck("t", stale=[Stale("p", 0.9, True, "")])),
    ),
    "system identifier not visible": (STANDALONE, lambda c: with_server(c, "replica", system="")),
    "a pool that was not asked": (STANDALONE, lambda c: with_pgcat(c, through={})),
    "tenants not readable": (
        STANDALONE,
        lambda c: with_server(with_server(c, "primary", tenants=None), "replica", tenants=None),
    ),
}


@pytest.mark.parametrize(("answers", "change"), NO_FAULT.values(), ids=NO_FAULT)
def test_no_fault(answers: Mapping[str, Any], change: Callable[[Case], Case]) -> None:
    assert run_checks(change(healthy(rendered(answers)))) == []


def codes(found: list[Finding]) -> list[str]:
    return [finding.code for finding in found]


def test_a_failover_names_the_new_primary() -> None:
    case = with_server(healthy(rendered(STANDALONE)), "primary", in_recovery=True, receives=True)
    found = run_checks(with_server(case, "replica", in_recovery=False))
    assert codes(found) == ["PD212", "PD213"]
    assert "the primary is db2:5432 now" in found[0].fix


def test_a_writer_pool_on_a_replica_is_said_once() -> None:
    """Where budget.yaml's primary itself is a replica, PD212 says it."""
    case = healthy(rendered(STANDALONE))
    following = replace(next(facts for _, facts in case.told), in_recovery=True)
    only_pool = with_pgcat(case, through={"permify_writer": (following,)})
    assert codes(run_checks(only_pool)) == ["PD310"]
    both = with_server(only_pool, "primary", in_recovery=True, receives=True)
    assert "PD310" not in codes(run_checks(both)) and "PD212" in codes(run_checks(both))


def test_nobody_in_the_pools_while_permify_serves() -> None:
    idle = (
        (
            PoolState("permify_writer", 0, 0, 0, 0.0),
            PoolState("permify_reader", 0, 0, 0, 0.0),
        ),
    )
    case = healthy(rendered(STANDALONE))
    assert run_checks(with_pgcat(case, samples=idle)) == []  # the other PgCat has them
    first, second = with_pgcat(case, samples=idle).answers.pgcats
    assert second.facts is not None
    both = with_answers(case, pgcats=(first, replace(second, facts=replace(second.facts, samples=idle))))
    assert codes(run_checks(both)) == ["PD312", "PD312"]
    only_one = with_answers(both, pgcats=both.answers.pgcats[:1])
    assert run_checks(only_one) == []  # the second was not asked


def test_the_same_in_several_pgcat_is_one_line() -> None:
    case = healthy(rendered(STANDALONE))
    answer = case.answers.pgcats[0]
    assert answer.facts is not None
    wrong = replace(answer, facts=replace(answer.facts, config={"ban_time": "5"}))
    case = with_answers(case, pgcats=tuple(replace(wrong, name=f"p{number}") for number in range(5)))
    (found,) = run_checks(case)
    assert found.message == "ban_time is 5 in PgCat p0, p1, p2 and 2 more, the file says 60"


def test_errors_come_before_warnings_and_reaching_before_the_rest() -> None:
    case = with_server(healthy(rendered(STANDALONE)), "primary", max_connections=200, superuser=True)
    case = with_answers(case, permifys=(PermifyAnswer("p", trouble=Trouble("unreachable", "gone")),))
    assert codes(run_checks(case)) == ["PD103", "PD208", "PD205"]


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    case = healthy(rendered(STANDALONE))
    monkeypatch.setattr(Case, "primary", property(lambda case: 1 / 0))
    found = run_checks(case)
    assert "PD214" in codes(found) and all("itself failed" in finding.message for finding in found)


def process(program: str = "pgcat", **more: Any) -> Process:
    images = {"pgcat": "ghcr.io/postgresml/pgcat:v1.2.0", "permify": "ghcr.io/permify/permify:v1.7.3"}
    return Process(**{"program": program, "name": f"{program}-x", "image": images[program], **more})


def test_processes_as_planned() -> None:
    case = healthy(rendered(STANDALONE))
    well = (process(), process(), process("permify"), process("permify"))
    assert run_checks(with_answers(case, processes=well)) == []
    assert codes(run_checks(with_answers(case, processes=well[1:]))) == ["PD106"]
    assert codes(run_checks(with_answers(case, processes=(*well, *well[:2])))) == []
    assert codes(run_checks(with_answers(case, processes=(*well, *well[:2], well[0])))) == ["PD107"]
    assert run_checks(with_answers(case, processes=(*well, process(going=True, trouble="")))) == []


def test_a_process_that_was_just_restarted() -> None:
    case = healthy(rendered(STANDALONE))
    others = (process(), process("permify"), process("permify"))
    recent = process(restarts=2, restarted_seconds_ago=600.0)
    (found,) = run_checks(with_answers(case, processes=(recent, *others)))
    assert found.code == "PD108" and "restarted 2 times, last 10 min ago" in found.message
    long_ago = process(restarts=2, restarted_seconds_ago=7200.0)
    assert run_checks(with_answers(case, processes=(long_ago, *others))) == []


def test_no_password_is_a_warning_that_says_what_to_set() -> None:
    case = replace(
        healthy(rendered(STANDALONE)),
        credentials=Credentials(Password(None, "set DATABASE_PASSWORD"), Password("x")),
    )
    (found,) = run_checks(case)
    assert (found.code, found.severity, found.fix) == ("PD105", "warning", "set DATABASE_PASSWORD")


UNTRUSTED = Trouble("untrusted", "its certificate is refused: certificate has expired")
NO_CA = Trouble("no-ca", "configmap db-ca of the cluster was not read: set DATABASE_CA_FILE")
MD5 = Trouble("md5", "it asks for a login by MD5")
VERIFIED = {**DIRECT, "database_tls": "verify-full", "database_ca": "configmap/db-ca"}


@pytest.mark.parametrize(
    ("answers", "trouble", "code", "severity", "words", "fix"),
    [
        (
            VERIFIED,
            UNTRUSTED,
            "PD112",
            "error",
            "db1:5432 is not trusted and got no password: its",
            "for db1",
        ),
        (
            STANDALONE,
            Trouble("untrusted", "it refuses TLS"),
            "PD112",
            "error",
            "refuses TLS",
            "turn its TLS on",
        ),
        (VERIFIED, NO_CA, "PD226", "warning", "was not asked: configmap db-ca", "set DATABASE_CA_FILE"),
        (DIRECT, MD5, "PD227", "warning", "asks for a login by MD5", "scram-sha-256"),
    ],
)
def test_a_server_that_got_no_login(
    answers: dict[str, Any], trouble: Trouble, code: str, severity: str, words: str, fix: str
) -> None:
    """One finding, with or without what came through PgCat."""
    case = healthy(rendered(answers))
    for facts in (None, case.primary):
        lost = with_answer(case, "primary", facts=facts, trouble=trouble)
        found = [finding for finding in run_checks(lost) if finding.code not in ("PD214",)]
        assert [(one.code, one.severity) for one in found] == [(code, severity)], found
        assert words in found[0].message and fix in found[0].fix
        assert lost.anybody


@pytest.mark.parametrize(
    ("kind", "code"), [("untrusted", "PD112"), ("no-ca", "PD226")], ids=["untrusted", "no-ca"]
)
@pytest.mark.parametrize("where", ["admin", "pool"])
def test_a_pgcat_that_got_no_login(kind: Any, code: str, where: str) -> None:
    answers = {**STANDALONE, "client_tls": "cert-manager", "client_tls_issuer": "ca"}
    case = healthy(rendered(answers))
    trouble = Trouble(kind, "its certificate is refused: set PGCAT_CA_FILE")
    first, *others = case.answers.pgcats
    changed = replace(first, facts=None, trouble=trouble, through={}, exporter=None)
    if where == "pool":
        changed = replace(first, through=dict.fromkeys(first.through, trouble))
    (found,) = run_checks(with_answers(case, pgcats=(changed, *others)))
    assert found.code == code and "PGCAT_CA_FILE" in found.fix
    assert found.path == "permify/permify.yaml" and found.line > 1


def test_findings_lead_to_the_line_that_states_it() -> None:
    files = rendered(STANDALONE)
    case = with_server(healthy(files), "replica", max_connections=50)
    (found,) = run_checks(case)
    line = files["budget.yaml"].splitlines()[found.line - 1]
    assert found.path == "budget.yaml" and "max_connections: 100" in line
    assert found.line > files["budget.yaml"].splitlines().index(line)  # the second server's, not the first's


def test_watch_needs_commit_timestamps() -> None:
    case = healthy(rendered(STANDALONE, watch=True))
    assert set(codes(run_checks(case))) == {"PD217"}
    case = with_server(
        with_server(case, "primary", track_commit_timestamp=True), "replica", track_commit_timestamp=True
    )
    assert run_checks(case) == []


def test_whose_limit_is_judged_on_the_primary_alone() -> None:
    case = with_server(healthy(rendered(STANDALONE)), "replica", connection_limit=1)
    assert run_checks(case) == []


def test_an_image_by_a_variable_is_not_judged() -> None:
    service = r"^  permify:\n    <<: \*hardened\n    image: \S+"
    written = "  permify:\n    <<: *hardened\n    image: ${PERMIFY}"
    files = edit(rendered(DOCKER), "compose.yaml", service, written)
    case = healthy(files)
    images = (process(), process("permify", image="other"))
    assert "PD109" not in codes(run_checks(with_answers(case, processes=images)))


def test_codes_and_names_are_unique() -> None:
    rules = registry.all_checks()
    assert len({rule.code for rule in rules}) == len({rule.name for rule in rules}) == len(rules) > 40
    with pytest.raises(ValueError, match="registered twice"):
        check(code="PD101", name="another", severity="error", why="", fix="")
    with pytest.raises(ValueError, match="malformed"):
        check(code="PS101", name="another", severity="error", why="", fix="")
    assert all(rule.why.endswith(".") and rule.fix.rstrip("`").endswith(".") for rule in rules)


def test_connections_from_before_a_name_moved_are_told_from_a_wrong_primary() -> None:
    """The name leads to a primary, and PgCat's connection to what it led to before."""
    case = healthy(rendered(STANDALONE))
    following = replace(next(facts for _, facts in case.told), in_recovery=True)
    (finding,) = run_checks(with_pgcat(case, through={"permify_writer": (following,)}))
    assert finding.code == "PD310"
    assert "although db1:5432 leads to a primary" in finding.message
    assert "rollout restart" in finding.fix and "dns_cache_enabled" in finding.fix
    by_address = healthy(rendered({**STANDALONE, "primary_host": "192.0.2.1"}))
    (finding,) = run_checks(with_pgcat(by_address, through={"permify_writer": (following,)}))
    assert finding.fix == "correct the primary of this pool, then restart PgCat"
