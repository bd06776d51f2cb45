"""What an update changed in the connection budget, against the last commit."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from pgcat_stack.budget import Plan, Row, plan
from pgcat_stack.deployment import Deployment, DeploymentError

Cells = tuple[str, str, str]


def budget_change(root: Path, deployment: Deployment) -> str:
    """A table of the budget in the last commit and now.

    Empty where they agree, nothing was committed, or a file cannot be read: then a finding says why.
    """
    before = _committed(root)
    if before is None or deployment.budget is None or any(s.broken for s in deployment.sources.values()):
        return ""
    now = _counts(plan(deployment))
    if before == now:
        return ""
    rows: list[Cells] = [("The budget changed", "before", "now")]
    rows += [("  " + " ".join(key), before.get(key, "-"), now.get(key, "-")) for key in {**now, **before}]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _committed(root: Path) -> dict[tuple[str, ...], str] | None:
    with tempfile.TemporaryDirectory(prefix="pgcat-stack-") as folder:
        try:
            archive = subprocess.run(
                ["git", "archive", "--format=tar", "HEAD", "."], cwd=root, capture_output=True, check=True
            )
            with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
                files.extractall(folder, filter="data")
            deployment = Deployment.load(Path(folder))
        except (OSError, subprocess.CalledProcessError, tarfile.TarError, DeploymentError):
            return None
        return _counts(plan(deployment)) if deployment.budget is not None else None


def _counts(budget: Plan) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    for row in budget.rows:
        server = str(row.server.address)
        for use in row.uses:
            found[server, use.pool] = f"{use.size.value} x {use.instances.count} = {use.demand}"
        found[server, "all"] = _total(row)
    return found


def _total(row: Row) -> str:
    migration = f", {row.migration} for the migration" if row.migration else ""
    capacity = "?" if row.server.capacity is None else row.server.capacity
    return f"{row.demand} of {capacity}{migration}"
