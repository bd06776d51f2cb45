"""Measures, and writes what it measured into the documentation.

    ./dev python bench/bench.py                     every part, about half an hour; prints Markdown
    ./dev python bench/bench.py permify pods        only these
    ./dev python bench/bench.py --runs 1 permify    a short look
    ./dev python bench/bench.py --write             every part, into the pages

A page says where a part belongs: between `<!-- bench: NAME -->` and `<!-- end -->`. A part whose programs are
missing is left out, and its figures in the page stay as they were.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / part) for part in ("src", "tests")]

import pytest  # noqa: E402

from live.support import allow_open_files  # noqa: E402


@dataclass(frozen=True)
class Part:
    """`module.NAME(folder, runs)` returns Markdown; it may use the empty folder."""

    module: str
    runs: int
    """How often each figure is measured, unless the command says otherwise."""
    by_name_only: bool = False
    """It takes more than an hour, so only a command that names it runs it."""


PARTS = {
    "machine": Part("machine", runs=1),
    "copy": Part("copying", runs=7),
    "update": Part("copying", runs=7),
    "validate": Part("copying", runs=7),
    "thousand": Part("copying", runs=1),
    "permify": Part("permify", runs=3),
    "tuning": Part("tuning", runs=7),
    "statements": Part("statements", runs=3),
    "migrations": Part("statements", runs=2),
    "pgbench": Part("pgbench", runs=3),
    "pods": Part("pods", runs=1),
    "resources": Part("resources", runs=3),
    "limits": Part("limits", runs=3),
    "drain": Part("drain", runs=1),
    "rollouts": Part("rollouts", runs=3),
    "faults": Part("faults", runs=3),
    "timeouts": Part("faults", runs=3),
    "writer_timeout": Part("faults", runs=3),
    "failover": Part("failover", runs=3),
    "compose": Part("compose", runs=3),
    "or_schema": Part("or_schema", runs=3),
    "quiet": Part("quiet", runs=1, by_name_only=True),
}


def pages_with(name: str) -> list[Path]:
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    return [page for page in pages if f"<!-- bench: {name} -->" in page.read_text()]


def with_figures(text: str, name: str, figures: str) -> str:
    """The page with what stands between the markers of the part replaced."""
    marker = re.escape(f"<!-- bench: {name} -->")
    pattern = rf"({marker}).*?(<!-- end -->)"
    text, replaced = re.subn(
        pattern, lambda found: f"{found[1]}\n\n{figures.strip()}\n\n{found[2]}", text, flags=re.DOTALL
    )
    assert replaced == 1, f"`<!-- bench: {name} -->` … `<!-- end -->` stands {replaced} times in the page"
    return text


def measure(name: str, runs: int | None) -> str | None:
    """The part's Markdown; None when a program is missing."""
    part = PARTS[name]
    folder = Path(tempfile.mkdtemp(prefix="pgcat-stack-bench-"))
    begun = time.monotonic()
    try:
        figures = str(getattr(importlib.import_module(part.module), name)(folder, runs or part.runs))
    except pytest.skip.Exception as missing:
        print(f"{name}: left out: {missing}\n", file=sys.stderr)
        return None
    finally:
        shutil.rmtree(folder)
    print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", nargs="*", help=f"all but quiet, if none is named: {', '.join(PARTS)}")
    parser.add_argument("--runs", type=int, help="how often each figure is measured")
    parser.add_argument("--write", action="store_true", help="write the figures into the pages")
    arguments = parser.parse_args()
    if unknown := set(arguments.part) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    parts = arguments.part or [name for name, part in PARTS.items() if not part.by_name_only]
    if arguments.write:
        if homeless := [name for name in parts if not pages_with(name)]:
            parser.error(f"no page has a marker for: {', '.join(homeless)}")
        parts = list(dict.fromkeys(["machine", *parts]))
    allow_open_files()
    broken = []
    for name in parts:
        try:
            figures = measure(name, arguments.runs)
        except Exception:  # the other parts are worth their time
            traceback.print_exc()
            broken.append(name)
            continue
        if figures is None:
            continue
        print(f"<!-- bench: {name} -->\n\n{figures.strip()}\n\n<!-- end -->\n", flush=True)
        if arguments.write:
            for page in pages_with(name):
                page.write_text(with_figures(page.read_text(), name, figures))
    if broken:
        sys.exit(f"bench: no figures of {', '.join(broken)}")


if __name__ == "__main__":
    main()
