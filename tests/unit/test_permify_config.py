from __future__ import annotations

import pytest

from handmade import PERMIFY, Change, Judge
from pgcat_stack.files.quantities import go_duration_seconds
from pgcat_stack.permify.settings import read_permify

YAML = "permify/permify.yaml"
LAST = "  health_check_period: 10s\n"


def more(text: str) -> Change:
    """Lines at the end of the section database, and after it."""
    return (LAST, f"{LAST}{text}\n")


CASES: list[tuple[str, str, Change, str]] = [
    (
        "misspelt",
        "PS301",
        ("  auto_migrate", "  auto_migrates: true\n  auto_migrate"),
        "did you mean `auto_migrate`?",
    ),
    ("dashes", "PS301", more("  max-retries: 3"), "did you mean `max_retries`?"),
    ("capitals", "PS301", more("  Max_Retries: 3"), "write `max_retries`"),
    ("at the top", "PS301", more("max_retries: 3"), "it belongs in database"),
    ("writer at the top", "PS301", more("writer: {uri: x}"), "it belongs in database"),
    ("section too deep", "PS301", more("  tracer: {enabled: false}"), "it belongs at the top level"),
    ("dotted", "PS301", more("database.max_retries: 3"), "remove it"),
    ("text for a number", "PS302", more("  max_retries: three"), "a whole number"),
    ("yes", "PS302", more('  garbage_collection: {enabled: "yes"}'), "true or false"),
    ("list for a section", "PS302", more("service: [1]"), "a table"),
    ("size", "PS302", more("service: {schema: {cache: {max_cost: lots}}}"), "10MiB"),
    ("port", "PS302", ('"3476"', '"http"'), "a whole number"),
    ("port range", "PS303", ('"3476"', '"70000"'), "at most 65535"),
    ("negative", "PS303", more("  max_retries: -1"), "at least 0"),
    ("lifetime 0", "PS303", ("lifetime: 30s", "lifetime: 0s"), "more than 0"),
    ("negative time", "PS303", more("  connect_timeout: -1s"), "at least 0"),
    ("level", "PS304", more("logger: {level: trace}"), "one of"),
    ("method", "PS304", more("authn: {method: basic}"), "one of"),
    ("protocol", "PS304", more("meter: {protocol: tcp}"), "one of"),
    ("no unit", "PS305", ("lifetime: 30s", "lifetime: 30"), "write 30s"),
    ("days", "PS305", ("lifetime: 30s", "lifetime: 1d"), "units"),
    ("blank", "PS305", ("lifetime: 30s", "lifetime: 30 s"), "units"),
    ("old maximum", "PS306", more("  max_open_connections: 8"), "use max_connections"),
    ("old minimum", "PS306", more("  max_idle_connections: 1"), "use min_connections"),
    ("memory", "PS307", ("engine: postgres", "engine: memory"), "write engine: postgres"),
    ("no engine", "PS307", ("  engine: postgres\n", ""), "write engine: postgres"),
    ("other engine", "PS307", ("engine: postgres", "engine: mysql"), "write engine: postgres"),
    (
        "no writer",
        "PS308",
        ("uri: postgres://permify@pgcat:6432/permify_writer", 'uri: ""'),
        "set database.writer.uri",
    ),
    (
        "no reader",
        "PS308",
        ("uri: postgres://permify@pgcat:6432/permify_reader", 'uri: ""'),
        "set database.reader.uri",
    ),
    (
        "several hosts in brackets",
        "PS308",
        ("uri: postgres://permify@pgcat:6432/permify_reader", "uri: postgres://permify@[::1]:1,pgcat:6432/d"),
        "write them among the options",
    ),
    (
        "collection",
        "PS309",
        more("  garbage_collection: {enabled: true, interval: 1h, timeout: 1m}"),
        "set window",
    ),
    ("migrations on", "PS310", ("auto_migrate: false", "auto_migrate: true"), "auto_migrate: false"),
    ("migrations by default", "PS310", ("  auto_migrate: false\n", ""), "auto_migrate: false"),
    ("empty section", "PS311", more("tracer:"), "remove it"),
    ("empty key", "PS311", more("logger: {level: }"), "remove it"),
    ("no maximum", "PS312", ("  max_connections: 8\n", ""), "set max_connections"),
    ("minimum above", "PS312", more("  min_connections: 9"), "at most 8"),
]


@pytest.mark.parametrize(
    ("code", "change", "fix"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_mistake_is_reported_once(judge: Judge, code: str, change: Change, fix: str) -> None:
    (finding,) = judge(YAML, change)
    assert (finding.code, finding.path) == (code, YAML)
    assert fix in finding.fix


def test_the_message_names_the_key_and_the_line(judge: Judge) -> None:
    (finding,) = judge(YAML, more("max_retries: 3"))
    assert finding.message == "unknown key `max_retries` at the top level: Permify ignores it silently"
    assert finding.line == 18


def test_uri_wins_over_writer_and_reader(judge: Judge) -> None:
    found = judge(YAML, more("  uri: postgres://permify@pgcat/permify"))
    assert [finding.code for finding in found] == ["PS308", "PS308"]


def test_uri_alone_is_taken(judge: Judge) -> None:
    changes = [
        (
            "  writer:\n    uri: postgres://permify@pgcat:6432/permify_writer\n",
            "  uri: postgres://pgcat/permify\n",
        ),
        ("  reader:\n    uri: postgres://permify@pgcat:6432/permify_reader\n", ""),
    ]
    assert judge(YAML, *changes) == []


def test_the_old_maximum_alone_is_only_deprecated(judge: Judge) -> None:
    (finding,) = judge(YAML, ("max_connections: 8", "max_open_connections: 8"))
    assert (finding.code, finding.severity) == ("PS306", "warning")


def test_a_misplaced_database_means_memory(judge: Judge) -> None:
    found = judge(YAML, ("database:", "databases:"))
    assert {finding.code for finding in found} == {"PS301", "PS307", "PS308", "PS310", "PS312"}


@pytest.mark.parametrize("text", ["", "database:\n", "[1, 2]\n", "text\n", "5: {}\n"])
def test_files_of_another_shape(judge: Judge, text: str) -> None:
    found = judge(YAML, (PERMIFY, text))
    assert "error" in {finding.severity for finding in found}


ACCEPTED: list[tuple[str, Change]] = [
    ("quoted number", ("max_connections: 8", 'max_connections: "8"')),
    ("number for a port", ('"3476"', "3476")),
    ("quoted flag", ("auto_migrate: false", 'auto_migrate: "F"')),
    ("zero duration", more("  connect_timeout: 0")),
    ("quoted zero", more('  connect_timeout: "0"')),
    ("fraction", more("  connect_timeout: .5s")),
    ("number for a size", more("service: {schema: {cache: {max_cost: 1000}}}")),
    ("collection", more("  garbage_collection: {enabled: true, interval: 1h, timeout: 1m, window: 720h}")),
    ("collection off", more("  garbage_collection: {enabled: false}")),
    ("headers as text", more('tracer: {headers: "a,b"}')),
    ("everything else", more("account_id: x\ndistributed: {enabled: true, load: 1.25, port: '5000'}")),
]


@pytest.mark.parametrize("change", [case[1] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED])
def test_what_permify_takes_is_not_reported(judge: Judge, change: Change) -> None:
    assert judge(YAML, change) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1h2m3.5s", 3723.5),
        ("-1.5h", -5400.0),
        ("+5ms", 0.005),
        ("0", 0.0),
        ("1us", 1e-6),
        ("", None),
        ("30", None),
        ("1d", None),
        ("1 s", None),
        ("s", None),
        (".s", None),
        ("1m\n", None),
        ("٣s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    found = go_duration_seconds(text)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_fallbacks_that_permify_takes() -> None:
    config = read_permify({"database": {"max_connection_lifetime": "100s"}}).config
    assert config is not None
    database = config.database
    assert (database.pool_max_connections, database.pool_min_connections) == (20, 1)
    assert (database.jitter_seconds, database.health_check_seconds) == (20.0, 60.0)
    assert database.longest_connection_seconds == 180.0


def test_uri_is_used_for_both_pools() -> None:
    config = read_permify({"database": {"uri": "u", "writer": {"uri": "w"}}}).config
    assert config is not None
    assert (config.database.writer_uri, config.database.reader_uri) == ("u", "u")
