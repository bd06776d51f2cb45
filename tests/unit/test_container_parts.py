"""The typed parts of a reading that tell what containers are: values, their places, and what is not read."""

from __future__ import annotations

import pytest

from cases import DIRECT, DOCKER, ELSEWHERE, HELM, SIDECAR, STANDALONE, load, rendered
from pgcat_stack.checks import run_checks
from pgcat_stack.reading.reading import Reading

EVERY = {
    **{"standalone": STANDALONE, "sidecar": SIDECAR, "direct": DIRECT, "docker": DOCKER, "helm": HELM},
    "elsewhere": ELSEWHERE,
}
ODD = [5, "text", True, None, [], {}, [5], ["text"], [None], [[]], [{}], {"a": 5}, {5: [{}]}]


def pod(container: str, spec: str = "") -> Reading:
    """A Deployment whose container `pgcat` has these lines, and its pods those."""
    text = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  template:\n    spec:\n"
        f"{spec}      containers:\n        - name: pgcat\n{container}"
    )
    return load({"kustomization.yaml": "resources: [a.yaml]\n", "a.yaml": text})


def service(text: str) -> Reading:
    """A compose.yaml whose service `pgcat` has these lines."""
    return load({"compose.yaml": f"services:\n  pgcat:\n    image: pgcat\n{text}"})


def gaps_of(reading: Reading):
    """Everything that the parts say they could not read."""
    parts = (*reading.containers, *reading.pods, *reading.external_secrets, reading.project)
    parts += (reading.capacities,) if reading.capacities else ()
    return [gap for part in parts for gap in part.gaps]


@pytest.mark.parametrize("answers", EVERY.values(), ids=EVERY.keys())
def test_everything_that_is_rendered_is_read(answers):
    assert gaps_of(load(rendered(answers))) == []


# Rights


@pytest.mark.parametrize(
    ("of_pod", "own", "root", "may_be_root", "unconfined"),
    [
        ("{}", "{}", False, True, True),
        ("{runAsUser: 0}", "{runAsUser: 1}", False, True, True),
        ("{runAsUser: 0}", "{}", True, True, True),
        ("{runAsUser: 0}", "{runAsUser: null}", True, True, True),
        ("{runAsNonRoot: true}", "{}", False, False, True),
        ("{runAsNonRoot: true}", "{runAsNonRoot: odd}", False, True, True),
        ("{seccompProfile: {type: RuntimeDefault}}", "{}", False, True, False),
        (
            "{seccompProfile: {type: RuntimeDefault}}",
            "{seccompProfile: {type: Unconfined}}",
            False,
            True,
            True,
        ),
        ("odd", "odd", False, True, True),
    ],
)
def test_a_container_has_the_rights_of_its_pod(of_pod, own, root, may_be_root, unconfined):
    reading = pod(f"          securityContext: {own}\n", f"      securityContext: {of_pod}\n")
    rights = reading.containers[0].rights
    assert (rights.root.value, rights.may_be_root, rights.unconfined.value) == (root, may_be_root, unconfined)
    assert (rights.root.location.path, rights.root.location.line) == ("a.yaml", 10)


@pytest.mark.parametrize(
    ("user", "root"),
    [("", True), ("    user: 0:5\n", True), ("    user: '5'\n", False), ("    user: ${USER}\n", False)],
)
def test_a_service_without_a_user_is_root(user, root):
    assert service(user).containers[0].rights.root.value is root


@pytest.mark.parametrize(
    ("value", "writable", "certain"),
    [("true", False, True), ("${X}", False, False), ("${X:-false}", True, False), ("null", True, False)],
)
def test_a_variable_may_make_the_root_read_only(value, writable, certain):
    rights = service(f"    read_only: {value}\n").containers[0].rights
    assert (rights.writable_root.value, rights.read_only) == (writable, certain)


# Images


@pytest.mark.parametrize(
    ("text", "name", "tag", "pinned"),
    [
        ("ghcr.io:443/x/pgcat:v1", "pgcat", "v1", False),
        ("pgcat", "pgcat", "", False),
        (f"x/pgcat:v1@sha256:{'0' * 64}", "pgcat", "v1", True),
        ("x/pgcat@sha256:0", "pgcat", "", False),
    ],
)
def test_the_parts_of_an_image(text, name, tag, pinned):
    image = pod(f"          image: {text}\n").containers[0].image
    assert image is not None
    assert (image.name, image.tag, image.pinned, image.location.line) == (name, tag, pinned, 9)


# Compose


def test_what_a_service_takes():
    reading = service(
        "    depends_on: {a: {condition: service_completed_successfully}, b: {required: false}}\n"
        "    secrets: [one, {source: two}, {odd: 5}]\n"
        "    env_file: [{path: x.env, required: false}, ./y.env]\n"
        "    volumes: [./f:/f, data:/d, /only]\n"
        "secrets: {one: {file: ./secrets/one}, two: {external: true}, three: null}\n"
    )
    (found,) = reading.containers
    assert [(one.name, one.optional, one.to_its_end) for one in found.dependencies] == [
        ("a", False, True),
        ("b", True, False),
    ]
    assert [(one.kind, one.name, one.location.line) for one in found.uses] == [
        ("secrets", "one", 5),
        ("secrets", "two", 5),
        ("volumes", "data", 7),
    ]
    assert [(one.path, one.required) for one in found.env_files] == [("x.env", False), ("./y.env", True)]
    assert [(one.source, one.target) for one in found.volumes] == [
        ("./f", "/f"),
        ("data", "/d"),
        ("", "/only"),
    ]
    declared = reading.project.declared["secrets"]
    assert [(name, one.file, one.bare) for name, one in declared.items()] == [
        ("one", "./secrets/one", False),
        ("two", None, False),
        ("three", None, True),
    ]
    assert reading.ending_services == {"a"}


# What is not read


def test_gaps_of_a_service():
    reading = service("    ports: odd\n    read_only: ${X}\n    logging: 5\nsecrets: []\n")
    assert [(gap.location.line, gap.text) for gap in gaps_of(reading)] == [
        (4, "ports is not a list"),
        (6, "logging is not a mapping"),
        (7, "secrets is not a mapping"),
    ]


def test_gaps_of_a_container():
    reading = pod("          env: odd\n          readinessProbe: []\n", "      volumes: 5\n")
    assert [(gap.location.line, gap.text) for gap in gaps_of(reading)] == [
        (10, "env is not a list of mappings"),
        (11, "readinessProbe is not a mapping"),
        (7, "volumes is not a list of mappings"),
    ]


@pytest.mark.parametrize(
    ("text", "hosts", "gaps"),
    [
        ("servers: [{host: a, port: null}, {host: b, port: odd}, {host: ''}]\n", ["a"], []),
        ("servers: [5, {host: a}]\n", ["a"], ["an entry of servers is not a mapping"]),
        ("servers: {host: a}\n", [], ["servers is not a list"]),
        ("5\n", [], ["the file is not a mapping"]),
    ],
)
def test_the_servers_of_a_budget(text, hosts, gaps):
    capacities = load({"budget.yaml": text, "compose.yaml": "services: {}\n"}).capacities
    assert capacities is not None
    assert [server.address.host for server in capacities.servers] == hosts
    assert [gap.text for gap in capacities.gaps] == gaps


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_no_shape_stops_the_reading(odd):
    keys = ("securityContext", "volumes", "ports", "secrets", "configs", "networks", "depends_on", "logging")
    keys += ("env_file", "ulimits", "readinessProbe", "resources", "volumeMounts", "user", "image", "restart")
    keys += ("mem_limit", "cap_drop", "security_opt", "devices", "deploy", "lifecycle", "environment", "env")
    for reading in (
        service("".join(f"    {key}: {odd!r}\n".replace("None", "null") for key in keys if key != "image")),
        pod("".join(f"          {key}: {odd!r}\n".replace("None", "null") for key in keys)),
        pod("", "".join(f"      {key}: {odd!r}\n".replace("None", "null") for key in keys[:2])),
    ):
        assert all(source.parsed for source in reading.sources.values())
        assert isinstance(gaps_of(reading), list)
        assert not [one for one in run_checks(reading) if "itself failed" in one.message]
