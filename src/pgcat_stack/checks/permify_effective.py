"""PS313 to PS318: what Permify takes in the end, from its environment, its arguments or its Helm chart.

The environment beats permify.yaml, and arguments beat both. The chart turns a part of `app` into the
environment and drops the rest without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pgcat_stack.checks import check
from pgcat_stack.files.issues import OUT_OF_RANGE, Issue, nearest
from pgcat_stack.files.plain_data import Key
from pgcat_stack.findings import Location, Problem
from pgcat_stack.permify.settings import (
    AUTO_MIGRATE,
    CONNECTIONS,
    DATABASE_URIS,
    DEPRECATED,
    ENGINE,
    VARIABLES,
    read_permify,
)
from pgcat_stack.printable import show, show_at
from pgcat_stack.reading.chart import ChartValues
from pgcat_stack.reading.connections import word_location
from pgcat_stack.reading.permify import PermifySettings
from pgcat_stack.reading.reading import Reading


@dataclass(frozen=True, slots=True)
class _Effective:
    """Issues of Permify's settings as it takes them, and where the environment sets one."""

    issues: tuple[Issue, ...]
    places: Mapping[tuple[Key, ...], tuple[str, Location]]


def _effective(settings: PermifySettings) -> _Effective:
    """The database and authentication of a process, with its environment over them."""
    layered = settings.layered("database", "authn")
    issues = [issue for issue in read_permify(layered.data).issues if not _elsewhere(issue)]
    return _Effective(tuple(issues), layered.places)


def _elsewhere(issue: Issue) -> bool:
    """Whether PS608 reports it."""
    return issue.kind == OUT_OF_RANGE and issue.keys == ("database", "max_connection_lifetime")


def _beside_a_file(reading: Reading) -> Iterator[tuple[_Effective, frozenset[Issue]]]:
    """The processes whose environment changes permify.yaml, with the issues that the file has by itself."""
    if reading.permify is None or not reading.permify.parsed:
        return
    for permify in reading.topology.permify:
        if not permify.settings.by_chart:
            found = _effective(permify.settings)
            if found.places:
                yield found, frozenset(read_permify(permify.settings.handed).issues)


@check(
    code="PS313",
    name="permify-environment",
    severity="error",
    why="PERMIFY_DATABASE_… and PERMIFY_AUTHN_… in the environment beat permify.yaml: the file says postgres,"
    " and Permify keeps everything in memory, or every process migrates.",
    fix="Remove the variable and set permify.yaml, where everybody looks.",
)
def permify_environment(reading: Reading) -> Iterator[Problem]:
    """Variables that make wrong what permify.yaml says rightly."""
    for found, known in _beside_a_file(reading):
        for issue in found.issues:
            if issue.kind != DEPRECATED and issue not in known:
                name, place = found.places.get(issue.keys) or next(
                    place for keys, place in found.places.items() if keys[0] == issue.keys[0]
                )
                text = f"{name} beats permify.yaml: {issue.message}"
                yield Problem(place, text, f"remove {name}; in permify.yaml: {issue.fix}")


@check(
    code="PS314",
    name="permify-environment-deprecated",
    severity="warning",
    why="Permify still reads the old variable, which a later version will drop.",
    fix="Set the new name, in permify.yaml or, with the chart, in extraEnvVars.",
)
def permify_environment_deprecated(reading: Reading) -> Iterator[Problem]:
    """Deprecated settings in the environment."""
    found = [effective for effective, _ in _beside_a_file(reading)]
    found += [effective for effective, _ in _chart(reading)]
    for effective in found:
        for issue in effective.issues:
            if issue.kind == DEPRECATED and issue.keys in effective.places:
                name, place = effective.places[issue.keys]
                yield Problem(place, f"{name} is deprecated", issue.fix)


@check(
    code="PS315",
    name="permify-arguments",
    severity="error",
    why="Arguments beat the environment and permify.yaml, and nothing here judges them.",
    fix="Move the setting to permify.yaml, where it is judged.",
)
def permify_arguments(reading: Reading) -> Iterator[Problem]:
    """Settings of the database and of authentication among the arguments of a serving Permify."""
    for container in reading.running("permify"):
        for word in dict.fromkeys(container.words):
            name = word.partition("=")[0]
            if name.startswith(("--database-", "--authn-")):
                text = f"{show(name)} beats permify.yaml: settings belong there, where they are judged"
                instead = (
                    "set PERMIFY_AUTHN_PRESHARED_KEYS" if "preshared-keys" in name else "set permify.yaml"
                )
                yield Problem(word_location(container, name), text, f"remove {name} and {instead}")


# Helm


def _chart(reading: Reading) -> Iterator[tuple[_Effective, ChartValues]]:
    if reading.chart is None or not reading.chart.source.parsed:
        return
    for permify in reading.topology.permify:
        if permify.settings.by_chart:
            yield _effective(permify.settings), reading.chart


@check(
    code="PS316",
    name="helm-values",
    severity="error",
    why="The chart hands a part of `app` to Permify's environment and drops what it does not know, and every"
    " false. Without `engine: postgres` Permify keeps everything in memory, without"
    " PERMIFY_DATABASE_AUTO_MIGRATE every process migrates.",
    fix="Correct the key under `app`, and set what the chart drops by extraEnvVars.",
)
def helm_values(reading: Reading) -> Iterator[Problem]:
    """Settings that the chart drops, and what Permify takes in the end."""
    for found, values in _chart(reading):
        yield from _dropped(values)
        hidden = {VARIABLES.get(variable.name) for variable in values.variables if variable.secret}
        by_secret = values.uri_by_secret or ("database", "uri") in hidden
        for issue in found.issues:
            unknown_uri = issue.kind == DATABASE_URIS and (by_secret or issue.keys in hidden)
            if issue.kind != DEPRECATED and not unknown_uri:
                yield _chart_problem(found, values, issue)


def _dropped(values: ChartValues) -> Iterator[Problem]:
    for each in values.dropped:
        name = "_".join(("PERMIFY", *each.section[1:], str(each.key))).upper()
        near = nearest(str(each.key), each.known)
        fix = f"did you mean {near}?" if near else "remove it"
        if name in VARIABLES:
            fix = f"set {name} in extraEnvVars"
        text = f"{show(str(each.key))} in {'.'.join(each.section)}: the chart drops it without a word"
        yield Problem(each.location, text, fix)


def _chart_problem(found: _Effective, values: ChartValues, issue: Issue) -> Problem:
    name = next((name for name, keys in VARIABLES.items() if keys == issue.keys), "")
    fix = issue.fix
    place = values.at("app", *issue.keys)
    if issue.keys in found.places:
        place = found.places[issue.keys][1]
        fix = f"remove {name}; under app.{issue.keys[0]}: {fix}"
    elif issue.kind == ENGINE:
        place = values.at("app", "database", "engine")
    if issue.kind == AUTO_MIGRATE:
        fix = f'{name} with the value "false" in extraEnvVars; the chart drops auto_migrate: false'
    elif issue.kind == CONNECTIONS:
        place = found.places[issue.keys][1] if issue.keys in found.places else values.at("extraEnvVars")
        fix = f"{name} in extraEnvVars: {issue.fix}"
    return Problem(place, issue.message, fix)


@check(
    code="PS317",
    name="helm-value-not-text",
    severity="error",
    why="The API takes only text as the value of a variable, so the release fails to install.",
    fix="Put the value in quotes.",
)
def helm_value_not_text(reading: Reading) -> Iterator[Problem]:
    """Values in extraEnvVars that are numbers or booleans."""
    for each in reading.chart.not_text if reading.chart else ():
        text = f"the value of {show(each.name)} is {show_at([each.name], each.value)}, which is no text"
        fix = "put it in quotes" if isinstance(each.value, (bool, int, float)) else "write text in quotes"
        yield Problem(each.location, text, fix)


@check(
    code="PS318",
    name="helm-name",
    severity="error",
    why="The chart labels its pods app.kubernetes.io/name by nameOverride, and the NetworkPolicies know"
    " Permify by the name permify: with another one nobody may talk to it, nor it to PgCat.",
    fix="Write nameOverride: permify, and use fullnameOverride for the names of its objects.",
)
def helm_name(reading: Reading) -> Iterator[Problem]:
    """A nameOverride that the NetworkPolicies do not know."""
    values = reading.chart
    name = values.name_override if values else None
    if values is not None and name and name != "permify" and reading.of_kind("NetworkPolicy"):
        text = f"nameOverride {show(name)}: the NetworkPolicies know Permify's pods as permify"
        yield Problem(values.at("nameOverride"), text, "nameOverride: permify")
