"""What an update means for what runs, against the last commit: the budget, and what an apply alone misses."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pgcat_stack.budget import Plan, Row, plan
from pgcat_stack.checks.permify_authn import permifys
from pgcat_stack.files.git import GitError, committed_files
from pgcat_stack.files.plain_data import dig
from pgcat_stack.files.sources import read_source
from pgcat_stack.paths import BOOTSTRAP, COMPOSE
from pgcat_stack.printable import printable
from pgcat_stack.reading.deployment import DeploymentError
from pgcat_stack.reading.reading import Reading
from pgcat_stack.reading.workloads import Workload

Cells = tuple[str, str, str]

ANSWERS = ".copier-answers.yml"
"""Where Copier keeps the answers, unless it is told otherwise."""

_LINK = 0o120000
"""Git's mode of a symbolic link."""
_LIMIT = re.compile(r"CONNECTION LIMIT (\d+)")
_ANSWERS = {
    "permify_writer": "writer_pool_size",
    "permify_reader": "reader_pool_size",
    "Permify's writer": "permify_max_connections",
    "Permify's reader": "permify_max_connections",
}
"""The answer that gives a pool its size, by the pool's name in the budget."""


def update_report(root: Path, reading: Reading, answers_file: str = ANSWERS) -> str:
    """The budget in the last commit and now, and what the change needs beside an apply; lines, or nothing.

    Empty where nothing was committed, or a file cannot be read: then a finding says why.
    """
    answers = read_source(root, answers_file).mapping
    options = "" if answers_file == ANSWERS else f" --answers-file {_word(answers_file)}"
    with _committed(root) as before:
        if before is None or before.budget is None or reading.budget is None:
            return ""
        sources = [*before.sources.values(), *reading.sources.values()]
        if any(source.broken for source in sources):
            return ""
        was, now = plan(before), plan(reading)
        paragraphs = [
            _table(was, now),
            _two_applies(was, now, answers, options),
            _bootstrap(before, reading),
            _callers(before, reading, options),
        ]
        return "\n".join(paragraph for paragraph in paragraphs if paragraph)


@contextmanager
def _committed(root: Path) -> Iterator[Reading | None]:
    with tempfile.TemporaryDirectory(prefix="pgcat-stack-") as folder:
        try:
            files = committed_files(root)
            for path in sorted(files, key=lambda each: files[each][0] == _LINK):  # last, so none is followed
                _write(Path(folder, path), Path(folder), *files[path])
            before = Reading.load(Path(folder))
        except (OSError, GitError, DeploymentError):
            before = None
        yield before


def _write(file: Path, root: Path, mode: int, content: bytes) -> None:
    """Write a file of a commit, or a link that does not lead out of `root`."""
    if not _below(file, root):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    if mode != _LINK:
        file.write_bytes(content)
    elif _below(file.parent / os.fsdecode(content), root):
        file.symlink_to(os.fsdecode(content))


def _below(path: Path, root: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(root)


def _table(was: Plan, now: Plan) -> str:
    before, after = _counts(was), _counts(now)
    if before == after:
        return ""
    rows: list[Cells] = [("The budget changed", "before", "now")]
    rows += [("  " + " ".join(key), before.get(key, "-"), after.get(key, "-")) for key in {**after, **before}]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _counts(budget: Plan) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    for row in budget.rows:
        server = printable(str(row.server.address))
        for use in row.uses:
            found[server, printable(use.pool)] = f"{use.size.value} x {use.instances.count} = {use.demand}"
        found[server, "all"] = _total(row)
    return found


def _total(row: Row) -> str:
    migration = f", {row.migration} for the migration" if row.migration else ""
    capacity = "?" if row.server.capacity is None else row.server.capacity
    return f"{row.demand} of {capacity}{migration}"


# The number of pods and the size of their pools at once


def _two_applies(was: Plan, now: Plan, answers: Mapping[str, Any], options: str) -> str:
    """Where pods with the old pools, as many as there will be, do not fit: in which two steps it goes.

    A Deployment whose number and template have changed first scales the pods that it has, with the pools that
    they have, and then replaces them (`sync` of Kubernetes' controller). So more pods with smaller pools are
    for a while more pods with the larger ones, and fewer pods with larger pools begin beside all that drain.
    """
    old_rows = {row.server.address: row for row in was.rows}
    worst = max(
        (
            (reached, row)
            for row in now.rows
            if row.server.address in old_rows
            and (reached := _while_it_changes(old_rows[row.server.address], row)) is not None
            and row.server.capacity is not None
            and reached > row.server.capacity
        ),
        key=lambda found: found[0],
        default=None,
    )
    if worst is None:
        return ""
    reached, row = worst
    old, new = old_rows[row.server.address].uses[0].workload, row.uses[0].workload
    more = _each(row) < _each(old_rows[row.server.address])
    sizes = _sizes(now if more else was)
    let_go = {key: answers.get(key) or 0 for key in sizes}
    this, alone = "this update", f"copier update --trust --defaults --vcs-ref=:current:{options}"
    server = printable(str(row.server.address))
    held = {"advanced": "true", **sizes}
    first = f"{this}, but with{_data(_count(old) | held)}" if more else f"{alone}{_data(_count(new) | held)}"
    last = f"{alone}{_data(_count(new) | let_go)}" if more else f"{this} again, but with{_data(let_go)}"
    return f"""\
Two applies, not one: a Deployment scales the pods that it has before it replaces them, and for a while
those of {printable(new.name)} may open {reached} of {row.server.capacity} connections to {server}.
In the deployment's folder, from the last commit
(`git reset --quiet . && git checkout --quiet . && git clean --quiet --force -d .`):
  1. {first}
  2. apply, wait until the last old pod has gone, commit
  3. {last}
  4. apply, commit
"""


def _count(workload: Workload) -> dict[str, object]:
    """The answers that give a Deployment its number of pods."""
    pods = "permify" if workload.sidecar else workload.program
    autoscaled = workload.autoscaler is not None
    return {
        f"{pods}_replicas": workload.fewest_replicas,
        f"{pods}_max_replicas": workload.most_replicas if autoscaled else 0,
    }


def _data(answers: Mapping[str, object]) -> str:
    return "".join(f" --data {_word(f'{key}={value}')}" for key, value in answers.items())


def _word(text: str) -> str:
    """A word of a command to copy, whatever a file has in it."""
    return printable(shlex.quote(text))


def _while_it_changes(old: Row, new: Row) -> int | None:
    """The most connections to a server while number and pools of one Deployment change at once, else None."""
    if not (old.uses and new.uses):
        return None
    workloads = [use.workload for row in (old, new) for use in row.uses]
    if {(each.kind, each.name, each.program) for each in workloads} != {
        ("deployment", workloads[0].name, workloads[0].program)
    }:
        return None
    count_old, count_new = (_between_rollouts(row.uses[0].workload) for row in (old, new))
    if count_new > count_old and _each(new) < _each(old):
        return count_new * _each(old) + 2 * _each(new) + new.migration
    if count_new < count_old and _each(new) > _each(old):
        return count_old * _each(old) + _each(new) + new.migration
    return None


def _between_rollouts(workload: Workload) -> int:
    """The most processes while none is replaced; what an autoscaler removes is there until it has drained."""
    return workload.most_replicas + (0 if workload.autoscaler is None else 1)


def _each(row: Row) -> int:
    return sum(use.size.value for use in row.uses)


def _sizes(budget: Plan) -> dict[str, int]:
    uses = (use for row in budget.rows for use in row.uses if use.pool in _ANSWERS)
    return {_ANSWERS[use.pool]: use.size.value for use in uses}


# The role in PostgreSQL


def _bootstrap(before: Reading, now: Reading) -> str:
    """Whether an administrator must run bootstrap.sql again, and when."""
    compose = now.sources.get(COMPOSE)
    if compose is not None and dig(compose.data, "services", "bootstrap") is not None:
        return ""  # `docker compose up` runs it
    old, new = (_statements(each) for each in (before, now))
    if not old or not new or old == new:
        return ""
    limits = [_LIMIT.search(text) for text in (old, new)]
    was, allowed = (int(found[1]) if found else 0 for found in limits)
    changed = f"{BOOTSTRAP} changed"
    if was != allowed:
        changed = f"{BOOTSTRAP} allows the role {allowed} connections, before {was}"
    when = "after the rollout" if allowed < was else "before the apply"
    return f"{changed}: run it again as an administrator, {when}.\n"


def _callers(before: Reading, now: Reading, options: str) -> str:
    """Whether Permify has stopped asking its callers for a key, as by an answer that got lost in a merge."""
    asked = any(permify.authn.enabled for permify in permifys(before))
    if not asked or all(permify.authn.enabled for permify in permifys(now)):
        return ""
    return f"""\
Permify no longer asks its callers for a key (authn): anyone who reaches it may ask, and write.
To keep the key, before you apply:
  copier update --trust --defaults --vcs-ref=:current:{options} --data authn=preshared
"""


def _statements(reading: Reading) -> str:
    source = reading.sources.get(BOOTSTRAP)
    lines = source.text.splitlines() if source else []
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("--"))
