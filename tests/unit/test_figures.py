"""The README's figures are those that the benchmarks wrote into their pages."""

from __future__ import annotations

import re

from rendering import REPOSITORY

README = " ".join((REPOSITORY / "README.md").read_text().split())


def rows(page: str, name: str) -> list[list[str]]:
    """The cells of every row that a benchmark wrote, heads included."""
    text = (REPOSITORY / "docs" / page).read_text()
    _, found, rest = text.partition(f"<!-- bench: {name} -->")
    assert found
    lines = rest.partition("<!-- end -->")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def row(page: str, name: str, title: str) -> list[str]:
    return next(cells for cells in rows(page, name) if cells[0] == title)


def median(cell: str) -> float:
    return float(cell.split(" / ")[1])


def test_a_thousand_pods() -> None:
    _, _, *pods = rows("benchmarks.md", "pods")
    assert {cells[1] for cells in pods} == {"2,000"} and {cells[4] for cells in pods} == {"0"}
    kinds = ("1,000 simulated pods", "125 Permify processes")
    assert all(any(cells[0].startswith(kind) for cells in pods) for kind in kinds)
    requests = sum(int(cells[3].replace(",", "")) for cells in pods)
    assert f"none of {requests:,} requests failed" in README


def test_rolling_updates() -> None:
    _, _, *rolled = rows("benchmarks.md", "rollouts")
    assert {cells[2] for cells in rolled} == {"0 / 0 / 0"} and {cells[4] for cells in rolled} == {"0"}
    text = (REPOSITORY / "docs/benchmarks.md").read_text()
    runs = re.search(r"^(\d+) runs of each, \d+ rollouts at a time\.$", text, re.MULTILINE)
    assert runs and f"In {int(runs[1]) * len(rolled)} rolling updates" in README
    named = re.findall(r"(\d+) of (\d+)[,\]]", README)
    seen = [tuple(cells[5].split(" of ")) for cells in rolled]
    assert len(named) == 2 and all(pair in seen for pair in named)
    assert all(int(peak) <= int(planned) for peak, planned in seen)


def test_faults() -> None:
    _, _, *faults = (cells for cells in rows("faults.md", "faults") if len(cells) == 6)
    assert {cells[5] for cells in faults} == {"0 / 0 / 0"}
    assert f"{len(faults)} cases of parts" in README
    assert "Runs: 3, " in (REPOSITORY / "docs/faults.md").read_text() and "three times each" in README


def test_costs() -> None:
    permify = rows("benchmarks.md", "permify")
    ours = [cells for cells in permify if cells[0] == "this stack, transaction mode"]
    guide = [cells for cells in permify if cells[0] == "the guide's configuration"]
    # Checks and writes in turn, with 0, 1 and 5 ms.
    at_once, one_ms, five_ms = (median(ours[number][2]) for number in (0, 2, 4))
    assert 0.75 <= at_once <= 0.94 and 0.75 <= one_ms <= 0.94 and "0.8 to 0.9 of the checks" in README
    assert five_ms >= 0.95 and "about as many with 5 ms" in README
    assert f"makes {median(guide[0][2]):.1f} of them, {median(guide[4][2]):.1f} with 5 ms" in README
    pgcat, pgbouncer = (
        median(next(c for c in permify if c[0] == name and len(c) == 4)[2])
        for name in ("this stack, transaction mode", "PgBouncer, transaction mode")
    )
    assert 0.4 <= pgbouncer / pgcat <= 0.6 and "PgBouncer takes half the CPU" in README
    outage = median(row("benchmarks.md", "compose", "`up --force-recreate --no-deps pgcat`")[1])
    assert f"an outage of {outage} s" in README
