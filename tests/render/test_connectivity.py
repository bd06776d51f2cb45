"""Who may reach whom, as network-config-analyzer computes it of the rendered policies, is a reviewed table.

`connectivity/` has a file for each topology: the answers, and all that they allow from or to a pod of the
stack (`allowed`). The pods around it, attackers too, are in `connectivity/world/`. The analyzer knows nothing
of this project, the tables nothing of the template. For the analyzer an ipBlock is what lies outside of the
cluster; some network plugins count pods among the addresses.

Mutations of the policies then show that the analyzer sees every flow that is added or taken away, but for
those that the other end or another policy forbids or allows anyhow (`no_difference`), and so does the
validator, but for what no file of a deployment tells (`not_told`): who calls Permify, where DNS answers and
Prometheus runs, which pods are PostgreSQL.
"""

from __future__ import annotations

import copy
import functools
import ipaddress
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from live.repeats import drawn
from pgcat_stack.checks import registry
from pgcat_stack.files.sources import Source, parse_source
from pgcat_stack.reading.reading import Reading
from rendering import render

TABLES = Path(__file__).parent / "connectivity"
WORLD = TABLES / "world"
POLICIES = "kubernetes/network-policies.yaml"
NAMES = sorted(path.stem for path in TABLES.glob("*.yaml"))
NETWORK_CHECKS = ("PS426", "PS470", "PS471", "PS472")

Table = dict[str, str]
"""Ports by `FROM -> WHOM`."""


def table(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((TABLES / f"{name}.yaml").read_text())
    return found


@pytest.fixture(scope="session")
def analyzer() -> Path:
    """The program `nca` of the Python that runs the tests, or on PATH."""
    beside = Path(sys.executable).with_name("nca")
    found = beside if beside.exists() else shutil.which("nca")
    if not found:
        pytest.skip("network-config-analyzer (nca) is not installed")
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    return Path(found)


@dataclass(frozen=True)
class Stack:
    """A rendered deployment; its policies and its other objects as kustomize hands them to a cluster."""

    folder: Path
    policies: list[dict[str, Any]]
    others: list[dict[str, Any]]

    @functools.cached_property
    def sources(self) -> Mapping[str, Source]:
        return Reading.load(self.folder).sources


def deployed(answers: Mapping[str, Any], folder: Path) -> Stack:
    built = subprocess.run(["kubectl", "kustomize", render(folder, answers)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    objects = list(yaml.safe_load_all(built.stdout))
    others = [one for one in objects if one["kind"] in ("Deployment", "Job")]
    if not any(one["metadata"]["name"] == "permify" for one in others):
        others += yaml.safe_load_all((WORLD / "permify-elsewhere.yaml").read_text())
    return Stack(folder, [one for one in objects if one["kind"] == "NetworkPolicy"], others)


# The analyzer

OUTPUT = {"outputFormat": "txt_no_fw_rules", "outputEndpoints": "pods", "excludeIPv6Range": False}


def connectivity(
    analyzer: Path, folder: Path, variants: Mapping[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]
) -> dict[str, Table]:
    """What policies allow in the world, by the name of each variant (objects, policies): one run for all."""
    folder.mkdir()
    shutil.copy(WORLD / "pods.yaml", folder / "world.yaml")
    configs, queries = [], []
    for index, (objects, policies) in enumerate(variants.values()):
        config = f"variant-{index}"
        (folder / f"{config}-pods.yaml").write_text(yaml.safe_dump_all(objects))
        (folder / f"{config}.yaml").write_text(yaml.safe_dump_all(policies))
        pods = ["world.yaml", f"{config}-pods.yaml"]
        world = {"namespaceList": ["world.yaml"], "podList": pods}
        configs.append({"name": config, "networkPolicyList": [f"{config}.yaml"], **world})
        output = {"outputPath": str(folder / f"{config}.txt"), **OUTPUT}
        queries.append({"name": config, "connectivityMap": [config], "outputConfiguration": output})
    (folder / "scheme.yaml").write_text(yaml.safe_dump({"networkConfigList": configs, "queries": queries}))
    scheme = [analyzer, "--scheme", folder / "scheme.yaml"]
    done = subprocess.run(scheme, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        name: read_map((folder / f"variant-{index}.txt").read_text()) for index, name in enumerate(variants)
    }


LINE = re.compile(r"(?P<source>\S+) => (?P<target>\S+) : (?P<ports>.+)")
PORTS = re.compile(r"\{protocols:([A-Z, ]+),dst_ports:([0-9,-]+)\}")
STACK = re.compile(r"permify/(pgcat|permify-migrate|permify-probe|permify)(-v[0-9-]+-[0-9a-f]{8})?(-\d+)?")
"""Pods of the stack, with the hash of the Job and the number of the replica."""


def read_map(text: str) -> Table:
    """A connectivity map as a table, of what has a pod of the stack at one end."""
    pods: dict[tuple[str, str], set[str]] = defaultdict(set)
    networks: dict[tuple[str, str, str], set[Any]] = defaultdict(set)
    for match in LINE.finditer(text):
        source, target = match["source"], match["target"]
        if not STACK.fullmatch(source) and not STACK.fullmatch(target):
            continue
        for port in _ports(match["ports"]):
            if "/" in source and "/" in target:
                pods[_pod(source), _pod(target)].add(port)
            elif "/" in source:
                networks[_pod(source), port, "to"].update(_networks(target))
            else:
                networks[_pod(target), port, "from"].update(_networks(source))
    for (pod, port, way), found in networks.items():
        for version in (4, 6):
            for network in ipaddress.collapse_addresses(one for one in found if one.version == version):
                pods[(pod, str(network)) if way == "to" else (str(network), pod)].add(port)
    return {f"{source} -> {target}": _joined(ports) for (source, target), ports in sorted(pods.items())}


def _pod(text: str) -> str:
    match = STACK.fullmatch(text)
    return match[1] if match else text


def _ports(text: str) -> set[str]:
    if text == "All connections":
        return {"everything"}
    found = set()
    for names, spans in PORTS.findall(text):
        for span in spans.split(","):
            first, _, last = span.partition("-")
            many = range(int(first), int(last or first) + 1)
            for protocol in names.split(","):
                found |= {f"{protocol.strip()} {port}" for port in (many if len(many) < 10 else [span])}
    assert found and not PORTS.sub("", text).strip(" ,"), text
    return found


def _joined(ports: set[str]) -> str:
    return ", ".join(
        sorted(ports, key=lambda port: (port.split()[0], int(re.sub(r"\D.*", "", port.split()[-1]) or 0)))
    )


def _networks(text: str) -> Iterator[Any]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from ipaddress.summarize_address_range(
            ipaddress.ip_address(first), ipaddress.ip_address(last or first)
        )


def test_what_the_policies_allow_is_the_table(analyzer: Path, tmp_path: Path) -> None:
    variants = {}
    for name in NAMES:
        stack = deployed(table(name)["answers"], tmp_path / name)
        variants[name] = (stack.others, stack.policies)
    found = connectivity(analyzer, tmp_path / "nca", variants)
    differences = {
        name: {
            way: (wanted.get(way), found[name].get(way))
            for way in sorted({*wanted, *found[name]})
            if wanted.get(way) != found[name].get(way)
        }
        for name, wanted in ((name, table(name)["allowed"]) for name in NAMES)
    }
    assert not any(differences.values()), yaml.safe_dump(
        {name: ways for name, ways in differences.items() if ways}
    )


# Mutations

Policies = dict[str, dict[str, Any]]
"""NetworkPolicies by name."""
Mutation = Callable[[Policies], object]
STRANGERS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}}
ANYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}


def mutations(policies: Policies) -> Iterator[tuple[str, Mutation]]:
    """Every policy, rule, peer and port taken away or widened, and rules, peers and ports added."""
    for name, policy in policies.items():
        yield f"{name}: deleted", lambda found, name=name: found.pop(name)
        for way in policy["spec"]["policyTypes"]:
            yield f"{name}: not for {way}", lambda found, name=name, way=way: _types(found[name], way)
            yield (
                f"{name}: everything added to {way}",
                lambda found, name=name, way=way: found[name]["spec"].setdefault(way.lower(), []).append({}),
            )
            rules = policy["spec"].get(way.lower(), [])
            for index, rule in enumerate(rules):
                place = ("spec", way.lower(), index)
                for what, change in _rule_mutations(rule, "from" if way == "Ingress" else "to"):
                    yield (
                        f"{name}: {way} {index + 1}: {what}",
                        lambda found, name=name, place=place, change=change: change(found[name], *place),
                    )


def _types(policy: dict[str, Any], way: str) -> None:
    policy["spec"]["policyTypes"].remove(way)
    policy["spec"].pop(way.lower(), None)


Change = Callable[..., object]


def _rule_mutations(rule: dict[str, Any], side: str) -> Iterator[tuple[str, Change]]:
    yield "removed", lambda policy, spec, way, index: policy[spec][way].pop(index)
    yield "without ports", lambda policy, *place: _at(policy, *place).pop("ports")
    yield "port 22 added", lambda policy, *place: _at(policy, *place, "ports").append({"port": 22})
    yield "without peers", lambda policy, *place: _at(policy, *place).pop(side)
    yield "strangers added", lambda policy, *place: _at(policy, *place, side).append(STRANGERS)
    yield "any address added", lambda policy, *place: _at(policy, *place, side).append(ANYWHERE)
    for number, port in enumerate(rule["ports"] if len(rule["ports"]) > 1 else []):
        text = f"{port.get('protocol', 'TCP')} {port['port']} removed"
        yield text, lambda policy, *place, number=number: _at(policy, *place, "ports").pop(number)
    for number, peer in enumerate(rule[side]):
        if len(rule[side]) > 1:
            yield (
                f"peer {number + 1} removed",
                lambda policy, *place, number=number: _at(policy, *place, side).pop(number),
            )
        for part in peer:
            if part == "ipBlock":
                wide = (
                    str(ipaddress.ip_network(peer[part]["cidr"]).supernet(new_prefix=8))
                    if not peer[part]["cidr"].endswith("/0")
                    else None
                )
            else:
                wide = {} if peer[part] else None
            if wide is not None:
                new = {"cidr": wide} if part == "ipBlock" else wide
                yield (
                    f"peer {number + 1}: {part} widened",
                    lambda policy, *place, number=number, part=part, new=new: _at(
                        policy, *place, side, number
                    ).update({part: new}),
                )


def _at(policy: Any, *keys: Any) -> Any:
    for key in keys:
        policy = policy[key]
    return policy


def mutated(policies: Iterable[dict[str, Any]], mutation: Mutation) -> list[dict[str, Any]]:
    found = {policy["metadata"]["name"]: policy for policy in copy.deepcopy(list(policies))}
    mutation(found)
    return list(found.values())


def codes(stack: Stack, policies: Iterable[dict[str, Any]]) -> set[str]:
    """What the checks of NetworkPolicies say of the rendered files with these policies."""
    text = yaml.safe_dump_all(policies, sort_keys=False).encode()
    deployment = Reading(stack.folder, {**stack.sources, POLICIES: parse_source(POLICIES, text)})
    return {
        rule.code
        for rule in registry.all_checks()
        if rule.code in NETWORK_CHECKS
        for _ in rule.run(deployment)
    }


@pytest.mark.parametrize(
    "name",
    drawn(
        [name for name in NAMES if "not_told" in table(name)],
        {"standalone-addresses", "standalone-in-cluster"},
    ),
)
def test_every_mutation_is_seen(name: str, analyzer: Path, tmp_path: Path) -> None:
    stack = deployed(table(name)["answers"], tmp_path / "deploy")
    written = list(yaml.safe_load_all((stack.folder / POLICIES).read_text()))
    known = dict(mutations({policy["metadata"]["name"]: policy for policy in written}))
    assert len(known) > 20 and not codes(stack, written)
    variants = {what: (stack.others, mutated(stack.policies, mutation)) for what, mutation in known.items()}
    found = connectivity(analyzer, tmp_path / "nca", variants)
    unchanged = [what for what in known if found[what] == table(name)["allowed"]]
    assert unchanged == table(name).get("no_difference", [])
    unseen = [
        what
        for what, mutation in known.items()
        if what not in unchanged and not codes(stack, mutated(written, mutation))
    ]
    assert unseen == table(name)["not_told"]
