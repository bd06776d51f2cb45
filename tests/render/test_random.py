"""Random answers either render a deployment without errors or are refused in one line; they never crash."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from draws import examples
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading
from rendering import Refused, environment, render

hosts = st.sampled_from(
    [
        *("db", "db-1.example.com", "db-1.example.com:6543", "10.0.0.5", "10.0.0.6:5433", "DB", "db_1"),
        *("fd00::10", "[FD00:0::0010]", "[fd00::11]:5433", "[fd00::12:5432]", "2001:db8:0:1:1:1:1:1"),
    ]
)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
networks = st.sampled_from(["10.0.0.0/24", "192.168.0.0/16", "fd00::/8", "FD00::/64", "0.0.0.0/0", "::/0"])

TABLE: Any = environment().get_template("questions/table.jinja").module.questions  # type: ignore[attr-defined]

TEXTS: dict[str, st.SearchStrategy[str]] = {
    "hosts": st.lists(hosts, max_size=4).map(",".join),
    "identifier": names,
    "names": labels,
    "networks": st.lists(networks, max_size=3).map(",".join),
    "object": st.sampled_from(["", "configmap/roots", "secret/db-ca"]),
    "issuer": st.sampled_from(["", "private-ca"]),
    "labels": st.sampled_from(["", "app=postgres", "cnpg.io/cluster=db,role=primary"]),
    "origins": st.sampled_from(["", "*", "https://a.example", "http://[::1]:3000, x://y"]),
    "page": st.sampled_from(["", "https://git.example.com/team/deploy/-/blob/main/README.md"]),
    "endpoint": st.sampled_from(
        ["", "collector:4317", "a.b:4317", "otel.example.com:443", "[fd00::5]:4317"],
    ),
    "image": st.sampled_from(["", "registry.example.com/x:v1"]),
    "cpu": st.sampled_from(["250m", "1.5"]),
    "memory": st.sampled_from(["256Mi", "1Gi"]),
}
NUMBERS = {"postgres_max_connections": (1, 2000), "other_connections": (0, 200), "drain_seconds": (1, 900)}
"""Between which a deployment is likely; all others up to 40."""


def likely(key: str, rule: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Answers that the table takes, most of which go together with others."""
    if "choices" in rule:
        return st.sampled_from(rule["choices"])
    if "numbers" in rule:
        low, high = NUMBERS.get(key, (rule["numbers"][0], min(rule["numbers"][1], 40)))
        return st.integers(low, high)
    return st.booleans() if "boolean" in rule else TEXTS[rule["text"]]


TYPED_KEYS = [key for key in TABLE if key != "database"]
FIRST = {"topology", "database", "primary_host"}
plausible = st.fixed_dictionaries(
    {
        "topology": likely("topology", TABLE["topology"]),
        "database": st.just("external"),
        "primary_host": hosts,
    },
    optional={key: likely(key, rule) for key, rule in TABLE.items() if key not in FIRST | {"advanced"}},
)

anything = st.one_of(
    st.text(max_size=200),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.lists(st.text(max_size=20), max_size=3),
    st.sampled_from(
        [
            "{{ 7 * 7 }}",
            "{% raw %}",
            "'; DROP ROLE permify; --",
            'x"]\n[general]\nhost = "evil',
            "a: b\nc: d",
            "${database_password}",
            "a" * 10_000,
            "naïve.example.com",
            *(
                "::",
                "[::1",
                "fe80::1%eth0",
                "fd00::10:5432",
                "::ffff:10.0.0.1",
                "[fd00::1]:5432,fd00::1",
                "[]:1",
            ),
            "db\u202eexample",
            "db\n",
            "-1",
            "1e3",
            "0x10",
            " 5 ",
            "null",
            "../../etc/passwd",
        ]
    ),
)


def _outcome(answers: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        deployment = Reading.load(render(folder / "deploy", answers))
    except Refused as refused:
        event("refused")
        line = str(refused)
        assert "\n" not in line
        assert re.search(r"refuses \S+?: |refuses (budget|session mode)", line), line
        assert len(line) < 1000, line
    else:
        event("rendered")
        errors = [finding for finding in run_checks(deployment) if finding.severity == "error"]
        assert not errors, errors
    finally:
        shutil.rmtree(folder)


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plausible)
def test_plausible_answers_render_or_are_refused(answers: dict[str, Any]) -> None:
    _outcome(answers)


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    plausible,
    st.sampled_from(TYPED_KEYS),
    anything,
)
def test_any_value_renders_or_is_refused(answers: dict[str, Any], key: str, value: Any) -> None:
    _outcome({**answers, key: value})
