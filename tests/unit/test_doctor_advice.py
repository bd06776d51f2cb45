"""The doctor's advice fits its figures, and of two findings the cause is the one that is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cases import DIRECT, DOCKER, STANDALONE, rendered
from pgcat_stack.doctor.case import Case
from pgcat_stack.doctor.checks import run_checks
from pgcat_stack.doctor.permify import PermifyAnswer
from pgcat_stack.doctor.pgcat import PoolState
from pgcat_stack.doctor.platforms import FileLimit, Place, file_limit
from pgcat_stack.doctor.postgres import PERMIFY_TABLES, Group, Holder, Prepared, ReadOnly, Session, Setting
from pgcat_stack.doctor.side_by_side import Broken, Trouble
from pgcat_stack.doctor.verdict import EXPLAINED, verdict
from pgcat_stack.findings import Finding
from test_doctor_checks import codes, healthy, with_answer, with_answers, with_pgcat, with_server

FULL = Trouble("limit", "sorry, too many clients already")
OTHERS = (
    Holder("reports", "nightly", 88, False),
    Holder("permify", "pgcat", 9, False),
    Holder("postgres", "", 2, True),
)


def only(findings: list[Finding], code: str) -> Finding:
    assert codes(findings) == [code], findings
    return findings[0]


def text(finding: Finding) -> str:
    return f"{finding.message} ({finding.fix})"


# Connections


def test_a_server_full_of_another_application_names_it() -> None:
    case = with_server(healthy(rendered(STANDALONE)), "primary", holders=OTHERS, others_ordinary=88)
    found = only(run_checks(with_answer(case, "primary", trouble=FULL)), "PD203")
    assert "held by 88 of reports (nightly), 9 of permify (pgcat)" in found.message
    assert "have reports use fewer (the budget keeps 20 for all others)" in found.fix
    assert "PgCat" not in found.fix and "other_connections" not in found.fix


def test_no_limit_is_proposed_for_a_superuser() -> None:
    """PostgreSQL does not hold one to it, and the administrator logs in by the same role."""
    holders = (Holder("postgres", "reporting", 90, True),)
    for answers, words in ((STANDALONE, "no limit binds a superuser"), (DOCKER, "docker compose top")):
        case = with_server(healthy(rendered(answers)), "primary", holders=holders, others_ordinary=0)
        found = only(run_checks(with_answer(case, "primary", trouble=FULL)), "PD203")
        assert "CONNECTION LIMIT" not in found.fix and words in found.fix


def test_a_statement_whose_client_is_gone_is_told_from_another_user_of_the_role() -> None:
    groups = (Group("psql", "10.0.1.1", True, 95),)
    case = with_server(healthy(rendered(STANDALONE)), "primary", groups=groups)
    assert "pg_cancel_backend" in only(run_checks(case), "PD221").fix


def test_a_server_full_of_ours_is_ours() -> None:
    case = with_server(
        healthy(rendered(STANDALONE)),
        "primary",
        groups=(Group("pgcat", "10.0.1.1", True, 95),),
        holders=(Holder("permify", "pgcat", 95, False),),
    )
    found = run_checks(with_answer(case, "primary", trouble=FULL))
    full = next(one for one in found if one.code == "PD203")
    assert "stop PgCat processes beyond the plan" in full.fix


def test_a_role_whose_limit_somebody_lowered_is_told_from_a_full_server() -> None:
    refused = Trouble("limit", 'too many connections for role "permify"')
    unseen = with_answer(healthy(rendered(STANDALONE)), "primary", facts=None, trouble=refused)
    seen = with_server(healthy(rendered(STANDALONE)), "primary", connection_limit=1)
    for case in (unseen, with_answer(seen, "primary", trouble=refused)):
        found = next(one for one in run_checks(case) if one.code == "PD203")
        assert "rolconnlimit" in found.fix and "bootstrap.sql" in found.fix and "superuser" not in found.fix


def test_where_superusers_are_refused_nobody_is_sent_to_ask_as_one() -> None:
    full = Trouble("limit", "sorry, too many clients already")
    for answers, words in ((STANDALONE, "its machine"), (DOCKER, "docker compose top")):
        case = with_answer(healthy(rendered(answers)), "primary", facts=None, trouble=full)
        found = next(one for one in run_checks(case) if one.code == "PD203")
        assert "superusers are refused" in found.fix and words in found.fix


def test_a_table_that_is_gone_after_the_migration_is_not_migrated_again() -> None:
    case = with_server(healthy(rendered(DOCKER)), "primary", missing=("schema_definitions",))
    found = only(run_checks(case), "PD218")
    assert "schema_definitions is not in" in found.message
    assert "compose run" not in found.fix and "renamed" in found.fix


def test_a_full_server_that_nobody_sees_into_says_so() -> None:
    reserved = Trouble("limit", "remaining connection slots are reserved for superusers")
    case = with_answer(healthy(rendered(STANDALONE)), "primary", facts=None, trouble=reserved)
    found = next(one for one in run_checks(case) if one.code == "PD203")
    assert "cannot be seen from here" in found.fix and "as a superuser" in found.fix


def test_others_beyond_what_the_plan_leaves_are_not_planned_for() -> None:
    """`other_connections=97` would leave nothing."""
    case = healthy(rendered(STANDALONE))
    found = only(run_checks(with_server(case, "primary", others_ordinary=94, holders=OTHERS)), "PD206")
    assert "most are held by 88 of reports (nightly)" in found.message
    assert "have reports use fewer" in found.fix and "the plan needs" in found.fix
    assert "answer" not in found.fix
    few = only(run_checks(with_server(case, "primary", others_ordinary=18, holders=OTHERS)), "PD206")
    assert few.fix.startswith("answer other_connections=21")


def waiting(in_use: int, pool: str = "permify_writer") -> tuple[tuple[PoolState, ...], ...]:
    return ((PoolState(pool, 20, 5, in_use, 3.0),),) * 3


@pytest.mark.parametrize(
    ("in_use", "words"),
    [
        (0, "a larger pool would not help"),
        (4, "not all are in use"),
        (9, "if the load is real, raise pool_size: the plan has"),
    ],
)
def test_clients_that_wait(in_use: int, words: str) -> None:
    case = healthy(rendered({**STANDALONE, "writer_pool_size": 9, "reader_pool_size": 3}))
    found = only(run_checks(with_pgcat(case, samples=waiting(in_use))), "PD306")
    assert f"with {in_use} of 9 server connections in use to db1:5432" in found.message
    assert words in found.fix
    assert ("raise pool_size" in found.fix) is (in_use == 9)


def test_clients_that_wait_where_the_plan_has_none_to_spare() -> None:
    case = healthy(rendered(STANDALONE))
    size = case.answers.pgcats[0].facts.size("permify_writer")  # type: ignore[union-attr]
    found = only(run_checks(with_pgcat(case, samples=waiting(size))), "PD306")
    assert "the plan has none to spare" in found.fix and "raise pool_size" not in found.fix


def test_clients_that_wait_for_a_server_that_refuses_are_led_there() -> None:
    case = with_answer(healthy(rendered(STANDALONE)), "primary", trouble=FULL)
    found = run_checks(with_pgcat(case, samples=waiting(0)))
    assert codes(found) == ["PD203", "PD306"]
    assert found[1].fix == "db1:5432 is the cause, see PD203"


def test_a_replica_that_is_asked_in_place_of_a_lost_server_leads_there() -> None:
    well = healthy(rendered(STANDALONE))
    facts, name = well.answers.pgcats[0].facts, "permify_reader_shard_0_replica_0"
    assert facts is not None
    servers = tuple(
        replace(one, name=name if one.address.host == "db2" else "") for one in facts.servers or ()
    )
    failing = with_pgcat(well, servers=servers, errors={name: 2})
    lost = with_answer(failing, "primary", facts=None, trouble=Trouble("refused", "connection refused"))
    (found,) = (one for one in run_checks(lost) if one.code == "PD308")
    assert found.fix == "db1:5432 does not answer, see PD101, and its requests come here"
    assert only(run_checks(failing), "PD308").fix == "PgCat's log says why"


# Sessions


def session(pid: int, **more: Any) -> Session:
    whole: dict[str, Any] = {
        "user": "permify",
        "application": "pgcat",
        "client": "10.0.1.1",
        "state": "active",
        "transaction_seconds": 9.0,
        "statement_seconds": 9.0,
        "statement": "SELECT 1",
        **more,
    }
    return Session(pid, **whole)


HIDDEN = session(
    8,
    user="reports",
    application="nightly",
    client="",
    state="",
    transaction_seconds=None,
    statement_seconds=None,
)


@pytest.mark.parametrize(
    ("waits", "sessions", "words"),
    [
        (((7, (8,)),), (session(7), HIDDEN), "only a member of pg_read_all_stats sees"),
        (((7, (9,)), (9, (8,))), (session(7), session(9), HIDDEN), "held by pid 8 of reports, nightly"),
        (
            ((7, (8,)),),
            (session(7), session(8, state="idle in transaction")),
            "idle in transaction for 9 s: SELECT",
        ),
        (((7, (0,)),), (session(7),), "a prepared transaction: two of app, 99 s old"),
        (((7, (5,)),), (session(7),), "which is gone by now"),
    ],
    ids=["hidden", "chain", "visible", "prepared", "gone"],
)
def test_who_blocks(waits: Any, sessions: Any, words: str) -> None:
    case = with_server(
        healthy(rendered(STANDALONE)),
        "primary",
        waits=waits,
        sessions=sessions,
        prepared=(Prepared("two", "app", 99.0),),
    )
    found = only(run_checks(case), "PD223")
    assert words in found.message and "on db1:5432" in found.message
    assert "the longest 9 s (SELECT 1)" in found.message


def test_a_replica_that_replays_a_lock_leads_to_the_primary() -> None:
    startup = replace(HIDDEN, user="", application="")
    case = with_server(
        healthy(rendered(STANDALONE)), "replica", waits=((7, (8,)),), sessions=(session(7), startup)
    )
    found = only(run_checks(case), "PD223")
    assert "the replay of a lock that a session of the primary has taken" in found.message
    assert "terminate" not in found.fix


def test_a_commit_that_waits_for_a_standby_is_not_to_be_ended() -> None:
    waiting = replace(session(7), waits_for="SyncRep", transaction_seconds=400.0, statement_seconds=400.0)
    healthy_one = replace(session(8), waits_for="SyncRep", statement_seconds=0.4)
    case = with_server(
        healthy(rendered(STANDALONE)),
        "primary",
        long=(waiting, healthy_one),
        synchronous_standbys="FIRST 1 (a)",
    )
    assert set(codes(run_checks(case))) == {"PD232"}
    found = only(run_checks(case), "PD232")
    assert "2 commits wait" in found.message and "the longest 400 s" in found.message
    assert "'FIRST 1 (a)'" in found.message
    assert "terminate" not in found.fix

    brief = with_server(healthy(rendered(STANDALONE)), "primary", long=(healthy_one,))
    assert codes(run_checks(brief)) == []


def test_who_waits_for_each_other_is_told() -> None:
    waits = ((7, (9,)), (9, (7,)))
    case = with_server(
        healthy(rendered(STANDALONE)), "primary", waits=waits, sessions=(session(7), session(9))
    )
    assert set(codes(run_checks(case))) == {"PD223"}


@pytest.mark.parametrize(
    ("waits", "sessions"),
    [
        (((7, (8,)),), (session(7, statement_seconds=0.5), HIDDEN)),
        (((8, (7,)),), (session(7), HIDDEN)),
    ],
    ids=["a moment", "another role"],
)
def test_waiting_that_is_no_fault(waits: Any, sessions: Any) -> None:
    case = with_server(healthy(rendered(STANDALONE)), "primary", waits=waits, sessions=sessions)
    assert run_checks(case) == []


def test_long_transactions() -> None:
    old = (
        session(7, transaction_seconds=299.0),
        session(8, transaction_seconds=300.0, state="idle in transaction"),
    )
    case = with_server(
        healthy(rendered(STANDALONE)), "primary", long=old, prepared=(Prepared("two", "app", 301.0),)
    )
    found = run_checks(case)
    assert codes(found) == ["PD224", "PD224"]
    assert "pid 8 of permify, pgcat from 10.0.1.1, idle in transaction for 300 s" in found[0].message
    assert "two of app is prepared for 301 s" in found[1].message


# Settings


READ_ONLY = "default_transaction_read_only"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"read_only": ReadOnly("on", "configuration file", "", 0)},
            "set by ALTER SYSTEM or postgresql.conf",
        ),
        (
            {"read_only": ReadOnly("on", "configuration file", "/p/postgresql.auto.conf", 3)},
            "set by ALTER SYSTEM (",
        ),
        (
            {"read_only": ReadOnly("on", "configuration file", "/p/postgresql.conf", 3)},
            "set by /p/postgresql.conf:3",
        ),
        ({"read_only": ReadOnly("on", "command line", "", 0)}, "set by its command line"),
        ({"settings": (Setting("", "permify", READ_ONLY, "on"),)}, "set by ALTER DATABASE permify ("),
        ({"settings": (Setting("permify", "", READ_ONLY, "true"),)}, "set by ALTER ROLE permify ("),
        ({"settings": (Setting("", "", READ_ONLY, "on"),)}, "set by ALTER ROLE ALL ("),
    ],
)
def test_where_writes_are_refused(changes: Any, words: str) -> None:
    found = only(run_checks(with_server(healthy(rendered(STANDALONE)), "primary", **changes)), "PD228")
    assert words in text(found) and "find out why" in found.fix


def test_the_most_particular_setting_counts() -> None:
    """A role that may write on a server that otherwise only reads; and a standby, which always only reads."""
    case = with_server(
        healthy(rendered(STANDALONE)),
        "primary",
        read_only=ReadOnly("on", "configuration file", "", 0),
        settings=(Setting("permify", "", READ_ONLY, "off"), Setting("", "permify", READ_ONLY, "on")),
    )
    assert run_checks(case) == []
    standby = with_server(
        healthy(rendered(STANDALONE)), "replica", read_only=ReadOnly("on", "configuration file", "", 0)
    )
    assert run_checks(standby) == []


@pytest.mark.parametrize(
    ("name", "harmful", "harmless"),
    [
        ("statement_timeout", "2s", "0"),
        ("idle_session_timeout", "60000", "0"),
        ("synchronous_commit", "off", "remote_apply"),
        ("default_transaction_isolation", "serializable", "read committed"),
        ("role", "app", "none"),
        ("log_statement", "", "all"),
    ],
)
def test_settings_of_the_role(name: str, harmful: str, harmless: str) -> None:
    case = healthy(rendered(STANDALONE))
    if harmful:
        setting = Setting("permify", "", name, harmful)
        found = only(run_checks(with_server(case, "primary", settings=(setting,))), "PD229")
        assert f"ALTER ROLE permify SET {name} = {harmful} on db1:5432" in found.message
        assert found.fix == f"ALTER ROLE permify RESET {name}, then restart PgCat"
    assert run_checks(with_server(case, "primary", settings=(Setting("permify", "", name, harmless),))) == []


def test_a_search_path_is_not_a_missing_migration() -> None:
    setting = Setting("", "permify", "search_path", "other")
    case = with_server(healthy(rendered(STANDALONE)), "primary", settings=(setting,), missing=PERMIFY_TABLES)
    found = only(run_checks(case), "PD230")
    assert "ALTER DATABASE permify SET search_path = other" in found.message


# Reaching


def test_a_server_that_answers_pgcat_alone_is_not_well() -> None:
    case = healthy(rendered(STANDALONE))
    mute = with_answer(case, "primary", trouble=Trouble("mute", "it takes connections and did not answer"))
    assert "those that PgCat has still work" in only(run_checks(mute), "PD231").message
    unmet = with_answer(case, "replica", facts=None, lag=None, trouble=Trouble("unmet", "no route"))
    assert "PgCat gave other servers of its pool" in only(run_checks(unmet), "PD114").message


def test_open_files() -> None:
    case = healthy(rendered(STANDALONE))

    def judged(used: int, soft: int | None, hard: int | None = None) -> list[Finding]:
        first, *others = case.answers.pgcats
        return run_checks(
            with_answers(case, pgcats=(replace(first, files=FileLimit(used, soft, hard)), *others))
        )

    assert judged(100, None) == judged(100, 4096) == judged(3600, 4096) == []
    assert "may open 1024 files" in only(judged(100, 1024, 1024), "PD113").message
    assert "start.sh" in only(judged(100, 1024, 524288), "PD113").fix
    assert "has 922 of 1024 files open" in only(judged(922, 1024, 1024), "PD111").message
    assert "nofile" in only(judged(3700, 4096, 4096), "PD111").fix
    limits = "Max processes 1 2 processes\nMax open files            1024                 unlimited"
    said = f"{limits}            files\n7\n"
    assert file_limit(said) == FileLimit(7, 1024, None)
    with pytest.raises(ValueError, match="no limit of open files"):
        file_limit("sh: not found")


def test_a_way_that_is_slow_behind_pgcat() -> None:
    case = healthy(rendered(STANDALONE))
    primary = case.primary
    assert primary is not None

    def far(here: float, there: float) -> list[Finding]:
        through = {"permify_writer": (replace(primary, round_trip_ms=there),)}
        return run_checks(with_pgcat(case, round_trip_ms=here, through=through))

    assert far(150.0, 160.0) == []  # the way from here to PgCat is slow
    assert "from PgCat one to db1:5432 takes 150 ms" in only(far(1.0, 151.0), "PD316").message


def test_a_permify_whose_reads_fail_proves_nothing_of_its_pools() -> None:
    idle = ((PoolState("permify_writer", 0, 0, 0, 0.0), PoolState("permify_reader", 0, 0, 0, 0.0)),)
    case = healthy(rendered(STANDALONE))
    case = with_answers(
        case,
        pgcats=tuple(
            replace(p, facts=replace(p.facts, samples=idle)) for p in case.answers.pgcats if p.facts
        ),
        permifys=(PermifyAnswer("p", Place("h", 1), tenants=Trouble("refused", "status 500: x")),),
    )
    assert codes(run_checks(case)) == ["PD403"]


def test_reads_in_the_writer_pool_are_told_from_reads_past_pgcat() -> None:
    case = healthy(rendered(STANDALONE))
    busy = ((PoolState("permify_writer", 9, 0, 1, 0.0), PoolState("permify_reader", 0, 0, 0, 0.0)),)
    case = with_answers(
        case,
        pgcats=tuple(
            replace(p, facts=replace(p.facts, samples=busy)) for p in case.answers.pgcats if p.facts
        ),
    )
    assert "its reads go to permify_writer" in only(run_checks(case), "PD314").message
    past = with_server(case, "replica", groups=(Group("permify", "10.0.9.9", True, 2),))
    assert "connected as permify from 10.0.9.9" in only(run_checks(past), "PD312").fix


def test_a_question_that_failed_is_an_error_at_its_place() -> None:
    broken = (Broken("PgCat one", "ValueError: x"), Broken("Permify p", "KeyError: y"), Broken("db1", "z"))
    found = run_checks(with_answers(healthy(rendered(STANDALONE)), broken=broken))
    assert {(one.code, one.severity, one.path) for one in found} == {
        ("PD110", "error", "pgcat/pgcat.toml"),
        ("PD110", "error", "permify/permify.yaml"),
        ("PD110", "error", "budget.yaml"),
    }


# The verdict


def test_the_files_come_first_and_what_they_explain_is_not_repeated() -> None:
    files = dict(rendered(STANDALONE))
    head, mark, tail = files["pgcat/pgcat.toml"].partition("[pools.permify_reader.shards.0]")
    files["pgcat/pgcat.toml"] = head + mark + tail.replace('"permify"', '"nowhere"', 1)
    case: Case = healthy(files)
    through = {"permify_reader": Trouble("database", 'database "nowhere" does not exist')}
    said = verdict(with_pgcat(case, through=through))
    assert codes(list(said.findings)) == ["PS410"], said
    assert any(note.startswith("PS410 explains PD") and "PD309" in note for note in said.notes)
    other = verdict(with_server(with_pgcat(case, through=through), "primary", max_connections=50))
    assert codes(list(other.findings)) == ["PS410", "PD204"]


def test_when_all_is_well_a_write_check_is_suggested_once() -> None:
    case = healthy(rendered(STANDALONE))
    assert [note for note in verdict(case).notes if "--write-check" in note] == list(verdict(case).notes)
    assert len(verdict(case).notes) == 1 and verdict(case).findings == ()
    assert verdict(case, wrote=True).notes == ()
    worse = with_server(case, "primary", max_connections=50)
    assert verdict(worse).notes == ()


def test_what_explains_and_what_is_explained_exists() -> None:
    from pgcat_stack.checks import registry as files
    from pgcat_stack.doctor.checks import registry as living

    known = {rule.code for rule in (*files.all_checks(), *living.all_checks())}
    assert EXPLAINED.keys() | set().union(*EXPLAINED.values()) <= known


def test_a_direct_deployment_is_judged_the_same() -> None:
    case = with_server(healthy(rendered(DIRECT)), "primary", read_only=ReadOnly("on", "command line", "", 0))
    assert codes(run_checks(case)) == ["PD228"]
