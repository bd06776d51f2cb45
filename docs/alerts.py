"""Writes docs/alerts.md from docs/alerts.yaml: which alert tells of which fault, and after how long.

    ./dev python docs/alerts.py > docs/alerts.md

The times are promtool's: the rendered rules see the series that a fault shows, scraped every 15 s, and the
first evaluation at which each alert fires is looked for.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent / "tests")]

from pgcat_stack.doctor.checks import registry  # noqa: E402
from rendering import render  # noqa: E402

STANDALONE = {"topology": "standalone", "primary_host": "db1", "replica_hosts": "db2"}
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "docker": {"database": "external", "primary_host": "db1", "replica_hosts": "db2"},
    "with the probe": {**STANDALONE, "monitoring": "prometheus-operator", "probe": True},
    "without": {**STANDALONE, "monitoring": "prometheus-operator", "probe": False},
}
LIMIT_SECONDS = {"total": 120, "partial": 300, "warning": 900}
BEGINS = 400
"""The sample with which a fault begins: 100 minutes of steady load before it."""
AFTER = 80
STEADY = {
    **{("probe_success", f"request={name}"): "1" for name in ("read", "write")},
    **{("probe_duration_seconds", f"request={name}"): "0.01" for name in ("read", "write")},
    **{("up", f"request={name}"): "1" for name in ("read", "write")},
    **{("pgcat_pools_cl_idle", f"pool=permify_{name}"): "8" for name in ("reader", "writer")},
    **{("pgcat_pools_cl_active", f"pool=permify_{name}"): "0" for name in ("reader", "writer")},
    **{("pgcat_pools_cl_waiting", f"pool=permify_{name}"): "0" for name in ("reader", "writer")},
    **{("pgcat_pools_maxwait", f"pool=permify_{name}"): "0" for name in ("reader", "writer")},
    **{("pgcat_pools_maxwait_us", f"pool=permify_{name}"): "0" for name in ("reader", "writer")},
    **{("pgcat_pools_sv_active", f"pool=permify_{name}"): "1" for name in ("reader", "writer")},
    ("pgcat_stats_total_query_count", "pool=permify_writer,host=db1"): "+150",
    ("pgcat_stats_total_xact_count", "pool=permify_writer,host=db1"): "+40",
    ("pgcat_stats_total_query_time", "pool=permify_writer,host=db1"): "+300",
    ("pgcat_stats_total_query_count", "pool=permify_reader,host=db1"): "+300",
    ("pgcat_stats_total_query_count", "pool=permify_reader,host=db2"): "+300",
    ("pgcat_stats_total_query_time", "pool=permify_reader,host=db1"): "+600",
    ("pgcat_stats_total_query_time", "pool=permify_reader,host=db2"): "+600",
}
"""What each series of a healthy deployment shows at each scrape, or `+` how much it grows."""
SHOWN: dict[str, tuple[tuple[str, str, str], ...]] = {
    "reads fail": (("probe_success", "read", "0"),),
    "writes fail": (("probe_success", "write", "0"),),
    "one read in four fails": (("probe_success", "read", "0 1 1 1"),),
    "nothing answered": (("pgcat_stats_", "", "+0"), ("pgcat_pools_sv_active", "", "0")),
    "reader not answered": (
        ("pgcat_stats_", "permify_reader", "+0"),
        ("pgcat_pools_sv_active", "permify_reader", "0"),
    ),
    "writer not answered": (
        ("pgcat_stats_", "permify_writer", "+0"),
        ("pgcat_pools_sv_active", "permify_writer", "0"),
        ("pgcat_pools_cl_waiting", "permify_writer", "5"),
    ),
    "all statements hang": (
        ("pgcat_stats_total_query_count", "", "+8"),
        ("pgcat_pools_sv_active", "", "8"),
    ),
    "clients wait": (("pgcat_pools_cl_waiting", "", "5"),),
    "no exporter": (("pgcat_", "", ""),),
    "writes hang": (
        ("pgcat_stats_total_query_count", "permify_writer", "+8"),  # what still ends is the health check
        ("pgcat_pools_sv_active", "permify_writer", "8"),
    ),
    "long waits": (("pgcat_pools_maxwait", "", "4"), ("pgcat_pools_cl_waiting", "", "5")),
    "slow queries": (("pgcat_stats_total_query_time", "", "+45000"),),
    "slow requests": (("probe_duration_seconds", "", "0.45"),),
    "reads in the writer pool": (
        ("pgcat_stats_total_query_count", "permify_writer", "+600"),
        ("pgcat_stats_total_xact_count", "permify_writer", "+500"),
        ("pgcat_stats_total_query_count", "permify_reader", "+8"),
    ),
    "no reads on the replica": (("pgcat_stats_", "db2", "+0"),),
}
"""What a fault does to series whose names begin so and whose labels hold a word; "" is a series that ends."""


def faults() -> list[dict[str, Any]]:
    """The rows of alerts.yaml."""
    return list(yaml.safe_load((HERE / "alerts.yaml").read_text()))


def series(shown: Sequence[str], docker: bool) -> list[dict[str, str]]:
    """Steady load, then the fault, as promtool takes series."""
    found = []
    for (name, labels), steady in STEADY.items():
        then = steady
        for what in shown:
            for begins, word, change in SHOWN[what]:
                if name.startswith(begins) and word in labels:
                    then = change
        mine = ("job=probe" if "request" in labels else "job=pgcat") if docker else "namespace=permify"
        pod = "" if docker or "request" in labels else ",pod=pgcat-1"
        text = ",".join(
            f'{key}="{value}"'
            for key, _, value in (
                pair.partition("=") for pair in f"{mine},instance=one{pod},{labels}".split(",")
            )
        )
        found.append({"series": f"{name}{{{text}}}", "values": _values(steady, then)})
        if not docker and name.startswith("pgcat") and pod:  # the second of two PgCat
            found.append(
                {"series": found[-1]["series"].replace('"one"', '"two"'), "values": found[-1]["values"]}
            )
    return found


def _values(steady: str, then: str) -> str:
    if steady.startswith("+"):
        each, after = int(steady), int(then or "0")
        before = f"0{steady}x{BEGINS - 1}"
        return f"{before} stale" if not then else f"{before} {each * BEGINS}+{after}x{AFTER}"
    before, many = f"{steady}x{BEGINS - 1}", then.split()
    if not many:
        return f"{before} stale"
    return f"{before} {f'{then}x{AFTER}' if len(many) == 1 else ' '.join(many * (AFTER // len(many)))}"


def first_firing(
    monitoring: Path, alerts: Sequence[str], input_series: list[dict[str, str]]
) -> dict[str, int]:
    """Seconds from the fault until each alert fires first; below 0 for one that fired before it."""
    begins, step = BEGINS * 15, 15
    times = [begins - 15, *range(begins, begins + AFTER * 15, step)]
    cases = [{"eval_time": f"{time}s", "alertname": name} for time in times for name in alerts]
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": input_series, "alert_rule_test": cases}],
    }
    (monitoring / "one.yaml").write_text(yaml.safe_dump(test))
    command = ["promtool", "test", "rules", "one.yaml"]
    done = subprocess.run(command, cwd=monitoring, capture_output=True, text=True, check=False)
    found: dict[str, int] = {}
    for name, text in re.findall(r"alertname: (\w+), time: (\S+?),", done.stdout + done.stderr):
        parts = dict((unit, int(number)) for number, unit in re.findall(r"(\d+)([hms])", text))
        seconds = parts.get("h", 0) * 3600 + parts.get("m", 0) * 60 + parts.get("s", 0) - begins
        found[name] = min(found.get(name, seconds), seconds)
    return found


def known(monitoring: Path) -> list[str]:
    """The names of the alerts that are rendered."""
    groups = yaml.safe_load((monitoring / "rules.yaml").read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def measured(folder: Path) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
    """For each deployment, and each fault whose series are known, when which alert fires."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for number, (name, answers) in enumerate(DEPLOYMENTS.items()):
        monitoring = render(folder / str(number), answers) / "monitoring"
        found[name] = {
            row["fault"]: first_firing(monitoring, known(monitoring), series(row["shows"], name == "docker"))
            for row in faults()
            if row["shows"]
        }
    return found


HEAD = """\
# Which alert tells of which fault

Made by `docs/alerts.py` from `docs/alerts.yaml`. Times are seconds from the first scrape that shows the
fault, up to 15 s after it, to the page, without what Alertmanager adds. promtool runs the rendered rules on
what the fault shows. With `postgres_metrics` also those marked \\*, some minutes later. *Live*: the fault is
also made with the real programs, in `tests/live/test_alerts.py`. **gap**: nothing tells of it.

| fault | kind | docker, and Kubernetes with the probe | Kubernetes without it | doctor | README | live |
|---|---|---|---|---|---|---|"""

ALONE = """
## What the doctor alone finds

No request fails by these yet, or not by them alone, so no alert is for them. Some break the next rollout,
failover or restart: run `pgcat-stack doctor` after every change, and once a week.

| code | name | severity |
|---|---|---|"""


def page() -> str:
    """docs/alerts.md."""
    with tempfile.TemporaryDirectory() as folder:
        times = measured(Path(folder))
    lines = [HEAD]
    for row in faults():
        more = row.get("exporter", [])
        with_probe = _cell(row["pages"], times["with the probe"].get(row["fault"], {}), more)
        bare = _cell(row["bare"], times["without"].get(row["fault"], {}), more)
        doctor = ", ".join(f"`{code}`" for code in row["doctor"]) or "**gap**"
        live = "yes" if row.get("live") else ""
        cells = (row["fault"], row["kind"], with_probe, bare, doctor, row["section"] or "**gap**", live)
        lines.append(f"| {' | '.join(cells)} |")
    paged = {code for row in faults() for code in row["doctor"]}
    alone = [check for check in registry.all_checks() if check.code not in paged]
    lines += [ALONE, *(f"| `{check.code}` | {check.name} | {check.severity} |" for check in alone)]
    return "\n".join(lines) + "\n"


def _cell(alerts: Sequence[str], times: Mapping[str, int], more: Sequence[str]) -> str:
    found = [f"`{name}` {times[name]}" for name in alerts] + [f"`{name}`\\*" for name in more]
    return ", ".join(found) or "**gap**"


if __name__ == "__main__":
    sys.stdout.write(page())
