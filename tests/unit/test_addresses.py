"""IP addresses and networks by the template's own rules, against Python's `ipaddress`."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from draws import examples
from rendering import environment

RULES: Any = environment().get_template("questions/answers.jinja").module

numbers = st.one_of(
    st.integers(0, 2**128 - 1),
    st.lists(st.sampled_from([0, 1, 0xFFFF]), min_size=8, max_size=8).map(
        lambda groups: sum(group << 16 * place for place, group in enumerate(groups))
    ),
)
ipv6 = numbers.map(ipaddress.IPv6Address).flatmap(
    lambda address: st.sampled_from(
        [str(address), address.exploded, f"{str(address)[:-1]}", f"::{address.ipv4_mapped or '1.2.3.4'}"]
    )
)
ipv4 = st.ip_addresses(v=4).map(str)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid address, with up to three characters replaced, removed or inserted."""
    text = draw(st.one_of(ipv6, ipv4))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        text = (
            text[:place] + draw(st.sampled_from(["", *":.:0f1g25"])) + text[place + draw(st.integers(0, 1)) :]
        )
    return text


def parsed(text: str, version: int) -> Any:
    try:
        return (ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(text)
    except ValueError:
        return None


@settings(max_examples=examples(3000), deadline=None)
@given(st.one_of(mutated(), st.text(":.0123456789abcdef", max_size=20)))
@example("::")
@example("1::")
@example(":1:2:3:4:5:6:7")
@example("1:2:3:4:5:6:7::")
@example("::ffff:1.2.3.4")
def test_what_an_address_is(text: str) -> None:
    assert bool(RULES.is_ipv6(text)) == (parsed(text, 6) is not None)
    assert bool(RULES.whole(text, RULES.ipv4)) == (parsed(text, 4) is not None)
    address = parsed(text, 6) or parsed(text, 4)
    if address is not None:
        number = int(RULES.address_number(text))
        assert number == int(address)
        spelled = RULES.written(number, address.version == 6)
        assert spelled == (plain(address) if address.version == 6 else str(address))


def plain(address: ipaddress.IPv6Address) -> str:
    """Its one spelling without dots, which Python 3.13 writes for IPv4-mapped addresses."""
    return (
        str(address)
        if address.ipv4_mapped is None
        else f"::ffff:{int(address) >> 16 & 65535:x}:{int(address) & 65535:x}"
    )


@settings(max_examples=examples(1500), deadline=None)
@given(mutated(), st.integers(0, 140))
@example("10.0.0.0", 8)
@example("0.0.0.0", 0)
@example("::", 0)
def test_what_a_network_is(address: str, length: int) -> None:
    cidr = f"{address}/{length}"
    refused = str(RULES.check("database_cidrs", cidr)).strip()
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        assert "is not a network" in refused or "prefix length" in refused, refused
        return
    if isinstance(network, ipaddress.IPv6Network) and length >= 96 and network.network_address.ipv4_mapped:
        assert "IPv4 in IPv6" in refused
    elif ipaddress.ip_address(address) == network.network_address:
        assert refused == ""
    else:
        first = network.network_address
        spelled = plain(first) if isinstance(first, ipaddress.IPv6Address) else str(first)
        assert refused.endswith(f"did you mean {spelled}/{length}?")


@settings(max_examples=examples(600), deadline=None)
@given(st.one_of(ipv6, ipv4), st.one_of(st.none(), st.integers(-1, 70000)))
def test_a_host_and_its_port(address: str, port: int | None) -> None:
    host = f"[{address}]" if ":" in address else address
    found: dict[str, Any] = {}
    RULES.split_host(host if port is None else f"{host}:{port}", found)
    kind = "ipv6" if parsed(address, 6) else "ipv4" if parsed(address, 4) else "wrong"
    assert (found["kind"], found["port"]) == (kind, "5432" if port is None else str(port))
