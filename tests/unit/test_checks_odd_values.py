"""No check fails on what users may write: any value of any file replaced by any other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import tomli_w
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cases import DIRECT, DOCKER, HELM, SIDECAR, STANDALONE, load, rendered
from draws import examples
from pgcat_stack.checks import registry

FAMILIES = ("PS4", "PS7", "PS8", "PS9")
OPERATOR = {**STANDALONE, "monitoring": "prometheus-operator", "secrets": "external-secrets"}
ANSWERS = [
    STANDALONE,
    SIDECAR,
    DIRECT,
    DOCKER,
    HELM,
    OPERATOR,
    {**DOCKER, "pooling": "direct", "permify_replicas": 3},
]
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        10**30,
        1.5,
        float("nan"),
        "",
        " ",
        "x",
        "0",
        "${",
        "${a}",
        "$(a)",
        "a:b:c",
        "::1",
        "1-",
        "-",
    ),
    *(
        "postgres://",
        "postgresql://a:b@[::1:x/y?z",
        "host=a port=x",
        "/",
        "..",
        "../x",
        "ü\n",
        "127.0.0.1:1-9:80-90/udp",
    ),
    *(
        [],
        {},
        [None],
        [[]],
        [{}],
        {"a": None},
        {"name": None},
        [{"name": 1}],
        {"": {}},
        [1, "a"],
        {"x": [{"y": 1}]},
    ),
]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _paths(item, (*path, index))
    return found


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    target = value
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = new
    return value


@settings(max_examples=examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_odd_values(data: st.DataObject) -> None:
    files = rendered(data.draw(st.sampled_from(ANSWERS)))
    source = load(files).sources
    path = data.draw(st.sampled_from([name for name, one in source.items() if one.documents]))
    documents = list(source[path].documents)
    number = data.draw(st.integers(0, len(documents) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        paths = _paths(documents[number])
        if paths:
            new = data.draw(st.sampled_from(ODD))
            documents[number] = _replaced(documents[number], data.draw(st.sampled_from(paths)), new)
    if path.endswith(".toml"):
        try:
            files[path] = tomli_w.dumps(documents[0])
        except (TypeError, ValueError, AttributeError):
            return  # TOML has no null
    else:
        files[path] = yaml.safe_dump_all(documents, allow_unicode=True)
    deployment = load(files)
    for rule in registry.all_checks():
        if rule.code.startswith(FAMILIES):
            for problem in rule.run(deployment):
                assert problem.location.line >= 1 and problem.message


def test_every_file_missing() -> None:
    for answers in ANSWERS:
        for path in rendered(answers):
            files = rendered(answers)
            del files[path]
            deployment = load(files)
            assert isinstance(deployment.root, Path)
            for rule in registry.all_checks():
                if rule.code.startswith(FAMILIES):
                    assert all(problem.message for problem in rule.run(deployment))
