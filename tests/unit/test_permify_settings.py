"""What each Permify takes in the end, where it comes from, and what of it cannot be read."""

from __future__ import annotations

import pytest

from cases import (
    CHART_ENVIRONMENT,
    COMPOSE,
    COMPOSE_ENVIRONMENT,
    DOCKER,
    HELM,
    PERMIFY,
    PERMIFY_POD,
    POD_ENVIRONMENT,
    STANDALONE,
    VALUES,
    edit,
    load,
    rendered,
)
from pgcat_stack.reading.permify import Permify
from pgcat_stack.reading.reading import Reading

LIFETIME = "PERMIFY_DATABASE_MAX_CONNECTION_LIFETIME"


def only(reading: Reading) -> Permify:
    (found,) = reading.topology.permify
    return found


def in_pod(name: str, value: str) -> str:
    return f"            - {{name: {name}, value: {value}}}\n"


@pytest.mark.parametrize("answers", [STANDALONE, DOCKER, HELM])
def test_what_is_rendered_is_read_whole(answers):
    assert only(load(rendered(answers))).settings.gaps == ()


@pytest.mark.parametrize(
    ("answers", "path", "pattern", "variable"),
    [
        (STANDALONE, PERMIFY_POD, POD_ENVIRONMENT, in_pod(LIFETIME, "7s")),
        (DOCKER, COMPOSE, COMPOSE_ENVIRONMENT, f"      {LIFETIME}: 7s\n"),
        (HELM, VALUES, CHART_ENVIRONMENT, f"  - {{name: {LIFETIME}, value: 7s}}\n"),
    ],
)
def test_the_environment_beats_the_file_and_is_the_place(answers, path, pattern, variable):
    files = edit(rendered(answers), path, pattern, variable)
    lifetime = only(load(files)).lifetime
    line = files[path].splitlines().index(variable.rstrip("\n")) + 1
    assert (lifetime.value, lifetime.location.path, lifetime.location.line) == (7.0, path, line)


def test_where_the_file_is_silent_the_default_counts_and_has_a_place():
    files = edit(rendered(STANDALONE), PERMIFY, r"  max_connection_lifetime: .*\n", "")
    assert only(load(files)).lifetime.value == 300
    assert only(load(files)).lifetime.location.path == PERMIFY


def test_what_the_chart_does_not_hand_on_does_not_count():
    files = edit(
        rendered(HELM), VALUES, "    engine: postgres\n", "    engine: postgres\n    max_connections: 3\n"
    )
    files = edit(files, VALUES, r'    value: "8"', '    value: "9"')
    assert only(load(files)).max_connections.value == 9


@pytest.mark.parametrize(
    ("path", "pattern", "replacement", "gap"),
    [
        (PERMIFY, "max_connections: 8", "max_connections: many", "`max_connections` is 'many'"),
        (PERMIFY, "max_connection_lifetime: 30s", "max_connection_lifetime: 30", "without a unit"),
        (PERMIFY, "  http:\n    enabled: true", "  http:\n    enabled: perhaps", "`enabled` is 'perhaps'"),
        (PERMIFY_POD, POD_ENVIRONMENT, in_pod(LIFETIME, "soon"), "'soon' is no duration"),
    ],
)
def test_what_cannot_be_read_is_a_gap_where_it_stands(path, pattern, replacement, gap):
    files = edit(rendered(STANDALONE), path, pattern, replacement)
    (found,) = only(load(files)).settings.gaps
    assert gap in found.text
    assert replacement.strip().splitlines()[-1].strip() in files[path].splitlines()[found.location.line - 1]


def test_a_file_of_another_shape_is_one_gap():
    (found,) = only(load({**rendered(STANDALONE), PERMIFY: "- database\n"})).settings.gaps
    assert "no mapping" in found.text
