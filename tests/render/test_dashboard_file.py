"""The dashboard as a file: Grafana's schema, ids, places, and what follows from the answers."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from pydantic import ConfigDict, TypeAdapter, ValidationError

from rendering import render

register_default_plugins()

STANDALONE = {"topology": "standalone", "primary_host": "db", "replica_hosts": "r1,r2:5433"}
OPERATOR = {**STANDALONE, "monitoring": "prometheus-operator"}
PUSHING = {"advanced": True, "otlp_endpoint": "collector:4317"}
ANSWERS = {
    "docker": {},
    "docker, pushing": PUSHING,
    "docker, external, session": {
        "database": "external",
        "primary_host": "db",
        "advanced": True,
        "pool_mode": "session",
    },
    "standalone": STANDALONE,
    "operator, pushing": {**OPERATOR, "advanced": True, "otlp_endpoint": "collector.monitoring:4317"},
    "sidecar, no reads on the primary": {
        **STANDALONE,
        "topology": "sidecar",
        "advanced": True,
        "primary_reads": False,
        "permify_max_replicas": 4,
    },
}
# What Prometheus's annotations have beside what the schema knows.
MORE = {".annotations.list[0].titleFormat", ".annotations.list[0].textFormat"}


@pytest.fixture(scope="module", params=ANSWERS.values(), ids=ANSWERS.keys())
def dashboard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return dashboard_of(render(tmp_path_factory.mktemp("dashboard") / "deploy", request.param))


def dashboard_of(deploy: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((deploy / "monitoring" / "dashboard.json").read_text())
    return loaded


def unknown(written: Any, understood: Any, path: str = "") -> Iterator[str]:
    """What Grafana's own classes lose of a document that they read and write again."""
    if isinstance(written, dict) and isinstance(understood, dict):
        for key, value in written.items():
            if key in understood:
                yield from unknown(value, understood[key], f"{path}.{key}")
            elif f"{path}.{key}" not in MORE:
                yield f"{path}.{key}"
    elif isinstance(written, list) and isinstance(understood, list) and len(written) == len(understood):
        for index, pair in enumerate(zip(written, understood, strict=True)):
            yield from unknown(*pair, f"{path}[{index}]")
    elif written != understood:
        yield path


def mistyped(value: Any, path: str = "") -> Iterator[str]:
    """Values that are not of the types which Grafana's own classes state."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from mistyped(item, f"{path}[{index}]")
    elif hasattr(type(value), "from_json"):
        for name, hint in typing.get_type_hints(type(value)).items():
            found = getattr(value, name)
            try:
                TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(found)
            except ValidationError as error:
                yield f"{path}.{name}: {error}"
            yield from mistyped(found, f"{path}.{name}")


def test_grafana_knows_every_key_and_value(dashboard: dict[str, Any]) -> None:
    read = Dashboard.from_json(dashboard)
    assert list(unknown(dashboard, json.loads(JSONEncoder().encode(read)))) == []
    assert list(mistyped(read)) == []


def test_ids_differ_and_nothing_overlaps(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) > 20
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_panel_asks_the_chosen_prometheus_and_explains_itself(dashboard: dict[str, Any]) -> None:
    assert [v["type"] for v in dashboard["templating"]["list"] if v["name"] == "datasource"] == ["datasource"]
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["description"] and panel["targets"]
            assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on PATH")
def test_every_query_is_promql(dashboard: dict[str, Any], tmp_path: Path) -> None:
    rules = [
        {"record": "a:b", "expr": target["expr"].replace("$__rate_interval", "1m")}
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    # Rules with the same name and labels are duplicates.
    groups = [{"name": str(number), "rules": [rule]} for number, rule in enumerate(rules)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    command = ["promtool", "check", "rules", "--lint=none", str(tmp_path / "rules.yaml")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def expressions(dashboard: dict[str, Any]) -> str:
    return json.dumps([panel.get("targets") for panel in dashboard["panels"]])


def test_shows_what_is_watched_and_nothing_else(tmp_path: Path) -> None:
    postgres, permify = "pg_stat_activity_count", "rpc_server_call_duration_seconds"
    alone = expressions(dashboard_of(render(tmp_path / "alone", STANDALONE)))
    assert postgres not in alone and permify not in alone
    bundled = expressions(dashboard_of(render(tmp_path / "bundled", PUSHING)))
    assert postgres in bundled and permify in bundled


def panel(dashboard: dict[str, Any], title: str) -> dict[str, Any]:
    (found,) = [panel for panel in dashboard["panels"] if panel["title"] == title and panel["type"] == "stat"]
    return found


def test_thresholds_and_shares_come_from_the_plan(tmp_path: Path) -> None:
    dashboard = dashboard_of(render(tmp_path / "deploy", {**STANDALONE, "pgcat_replicas": 3}))
    steps = panel(dashboard, "PgCat up, of 3")["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert steps == [{"value": None, "color": "red"}, {"value": 3, "color": "green"}]
    shares = panel(dashboard, "Server connections, of the plan")["targets"]
    # (3 + 2) × (writer 7 + reader 8) on the primary, (3 + 2) × reader 8 on each replica
    assert [(share["legendFormat"], share["expr"].rpartition(" / ")[2]) for share in shares] == [
        ("db", "75"),
        ("r1", "40"),
        ("r2", "40"),
    ]


def test_the_operator_gets_it_as_a_config_map(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", OPERATOR)
    kustomization = yaml.safe_load((deploy / "kustomization.yaml").read_text())
    (generator,) = [
        one for one in kustomization["configMapGenerator"] if one["name"] == "pgcat-stack-dashboard"
    ]
    assert generator["files"] == ["pgcat-stack-permify.json=monitoring/dashboard.json"]
    assert generator["options"] == {"disableNameSuffixHash": True, "labels": {"grafana_dashboard": "1"}}
    assert (deploy / "monitoring" / "dashboard.json").stat().st_size < 262144  # what kubectl apply notes


def test_grafana_finds_what_is_mounted(tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy")
    grafana = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]["grafana"]
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in grafana["volumes"])
    provider = yaml.safe_load((deploy / "monitoring/grafana/dashboards.yaml").read_text())["providers"][0]
    shown = mounts["./monitoring/dashboard.json"]
    assert shown.startswith(provider["options"]["path"] + "/")
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == shown
    for kind in ("datasources", "dashboards"):
        assert mounts[f"./monitoring/grafana/{kind}.yaml"].startswith(f"/etc/grafana/provisioning/{kind}/")
