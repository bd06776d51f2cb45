"""Template and validator compute the budget apart from each other, and come to the same numbers.

The template's own numbers stand in the deployment's README; the validator's come from the other files.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from draws import examples
from pgcat_stack.budget import plan
from pgcat_stack.checks import run_checks
from pgcat_stack.endpoints import Address
from pgcat_stack.reading.reading import Reading
from rendering import Refused, environment, render

ROW = re.compile(r"^\| (\S+:\d+) \((primary|replica)\) \| .* = (\d+) \| (\d+) \| (-?\d+) \|$", re.MULTILINE)

answers = st.fixed_dictionaries(
    {
        "topology": st.sampled_from(["docker", "standalone", "sidecar"]),
        "pooling": st.sampled_from(["pgcat", "direct"]),
        "database": st.just("external"),
        "primary_host": st.sampled_from(["db", "fd00::1"]),
        "replica_hosts": st.sampled_from(["", "r1", "r1,r2:5433", "10.0.0.7,r2,r3", "[FD00:0::2]:5433,r2"]),
        "postgres_max_connections": st.integers(40, 600),
        "other_connections": st.integers(0, 30),
        "permify_replicas": st.integers(1, 6),
        "permify_max_replicas": st.sampled_from([0, 6, 9]),
        "pgcat_replicas": st.integers(1, 4),
        "pgcat_max_replicas": st.sampled_from([0, 4, 7]),
        "permify_install": st.sampled_from(["manifests", "helm", "none"]),
        "pool_mode": st.sampled_from(["transaction", "session"]),
        "writer_pool_size": st.sampled_from([0, 0, 1, 3, 8]),
        "reader_pool_size": st.sampled_from([0, 0, 1, 3, 8]),
        "primary_reads": st.booleans(),
        "permify_max_connections": st.integers(0, 4),
    }
)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(answers)
def test_both_sides_agree_on_demand_and_capacity(answers: dict[str, object]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        deploy = render(folder / "deploy", answers)
        readme = {
            address: (int(demand), int(capacity), int(headroom))
            for address, _, demand, capacity, headroom in ROW.findall((deploy / "README.md").read_text())
        }
        computed = {
            str(row.server.address): (row.demand, row.server.capacity, row.headroom)
            for row in plan(Reading.load(deploy)).rows
        }
        assert readme == computed
    except Refused:
        assume(False)
    finally:
        shutil.rmtree(folder)


def rules() -> Any:
    return environment().get_template("questions/answers.jinja").module


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """An IPv6 address as people write it: zeros left out or leading, capitals, IPv4 at its end."""
    groups = draw(st.lists(st.sampled_from([0, 0, 1, 0x10, 0xFD00, 0xFFFF, 0x5432]), min_size=8, max_size=8))
    words = [draw(st.sampled_from(["{:x}", "{:04x}", "{:X}"])).format(group) for group in groups]
    if draw(st.booleans()):
        tail = ipaddress.IPv4Address(groups[6] * 65536 + groups[7])
        words[6:] = [str(tail)]
    zeros = [
        index for index, group in enumerate(groups[: len(words)]) if group == 0 and "." not in words[index]
    ]
    if zeros and draw(st.booleans()):
        first = last = draw(st.sampled_from(zeros))
        while last + 1 in zeros and draw(st.booleans()):
            last += 1
        return ":".join(words[:first]) + "::" + ":".join(words[last + 1 :])
    return ":".join(words)


@settings(max_examples=examples(300), deadline=None)
@given(spellings(), st.sampled_from(["", ":5433"]))
def test_both_sides_take_the_spellings_of_an_address_for_one_server(text: str, port: str) -> None:
    found: dict[str, Any] = {}
    rules().split_host(f"[{text}]{port}", found)
    assert found["kind"] == "ipv6"
    address = ipaddress.IPv6Address(text)
    assert found["host"] == str(ipaddress.IPv6Address(int(address)))
    if address.ipv4_mapped is None:  # the gate asks for the IPv4 address
        assert Address.of(f"[{text}]", int(found["port"])) == Address(found["host"], int(port[1:] or 5432))


@settings(max_examples=examples(500), deadline=None)
@given(
    st.one_of(st.text("0123456789abcdef:.", max_size=40), spellings().flatmap(lambda text: mistyped(text)))
)
def test_what_is_no_ipv6_address_is_none_to_the_gate(text: str) -> None:
    assume(":" in text)
    try:
        valid = bool(ipaddress.IPv6Address(text))
    except ValueError:
        valid = False
    assert bool(str(rules().is_ipv6(text)).strip()) == valid


def mistyped(text: str) -> st.SearchStrategy[str]:
    """The address with one character more, or less."""
    text = text.lower()
    at = st.integers(0, len(text))
    return st.one_of(
        st.tuples(at, st.sampled_from("0f:.")).map(
            lambda drawn: text[: drawn[0]] + drawn[1] + text[drawn[0] :]
        ),
        at.map(lambda index: text[:index] + text[index + 1 :]),
    )


def test_files_below_what_postgresql_reserves_are_refused_as_the_answer_is(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", database="external", primary_host="db")
    budget = deploy / "budget.yaml"
    text = budget.read_text()
    for number in (0, 2, 3):
        budget.write_text(text.replace("other_connections: 20", f"other_connections: {number}"))
        codes = {finding.code for finding in run_checks(Reading.load(deploy))}
        refused = ""
        try:
            render(tmp_path / str(number), database="external", primary_host="db", other_connections=number)
        except Refused as error:
            refused = str(error)
        assert ("PS516" in codes) == ("that PostgreSQL reserves" in refused) == (number < 3)


hosts = st.sampled_from(
    ["db", "db_1", "DB.example.com", "10.0.0.7", "2001:db8::7", "[2001:db8::8]:5433", "r:6000"]
)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["docker", "standalone", "sidecar"]),
    st.sampled_from(["pgcat", "direct"]),
    hosts,
    st.lists(hosts, max_size=2),
)
def test_both_sides_agree_on_what_is_a_name(
    topology: str, pooling: str, primary: str, replicas: list[str]
) -> None:
    """The template follows exactly the names that the validator knows, and leaves nothing to warn of."""
    answers = {"topology": topology, "pooling": pooling, "database": "external", "primary_host": primary}
    folder = Path(tempfile.mkdtemp())
    try:
        deployment = Reading.load(render(folder / "deploy", {**answers, "replica_hosts": ",".join(replicas)}))
        servers = [server.address for server in deployment.topology.servers]
        assert servers
        if deployment.pgcat is not None:
            follows = "dns_cache_enabled" in deployment.pgcat.mapping["general"]
            assert follows is any(server.is_name for server in servers)
        found = {finding.code for finding in run_checks(deployment)} & {"PS219", "PS220", "PS417", "PS418"}
        underscored = pooling == "pgcat" and any("_" in server.host for server in servers)
        assert found == ({"PS219"} if underscored else set())
    except Refused:
        assume(False)
    finally:
        shutil.rmtree(folder)


def test_start_script_warns_where_the_check_does(tmp_path: Path) -> None:
    script = (render(tmp_path / "deploy") / "pgcat" / "start.sh").read_text()
    (warned,) = re.findall(r'"\$files" -ge (\d+) \] \|\|$', script, re.MULTILINE)
    compose = (tmp_path / "deploy" / "compose.yaml").read_text()
    for hard, expected in ((int(warned) - 1, ["PS827"]), (int(warned), [])):
        limit = f"    ulimits: {{nofile: {hard}}}\n    stop_signal: SIGINT"
        (tmp_path / "deploy" / "compose.yaml").write_text(compose.replace("    stop_signal: SIGINT", limit))
        found = run_checks(Reading.load(tmp_path / "deploy"))
        assert [finding.code for finding in found if finding.code == "PS827"] == expected
