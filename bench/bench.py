"""What the hooks and the validator cost.

    ./dev python bench/bench.py            all three, some two minutes
    ./dev python bench/bench.py copy       only one of copy, validate, thousand

Each figure is measured several times in one run: minimum, median, maximum; ratios pair by pair.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / part) for part in ("hooks", "tests")]

from rendering import REPOSITORY, TEMPLATE_PARTS, combinations, render  # noqa: E402

RUNS = 7
SETS = 1000
CORES = 2


def _spread(name: str, values: Sequence[float], unit: str) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:<46} {low:8.2f} {middle:8.2f} {high:8.2f}  {unit}")


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def copy(folder: Path) -> None:
    """`copier copy` of a tagged git repository with the hooks, against the same without them, in turn."""
    template = folder / "template"
    template.mkdir()
    for part in TEMPLATE_PARTS:
        source = REPOSITORY / part
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, template / part)
    for arguments in (
        ["init", "--quiet"],
        ["add", "--all"],
        [
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@example.com",
            "commit",
            "--quiet",
            "--message=bench",
        ],
        ["tag", "1.0.0"],
    ):
        subprocess.run(["git", *arguments], cwd=template, check=True)

    deploy = folder / "deploy"

    def command(tasks: str) -> Callable[[], object]:
        def run() -> None:
            shutil.rmtree(deploy, ignore_errors=True)
            subprocess.run(
                [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", tasks]
                + ["--data", "topology=standalone", "--data", "primary_host=db", str(template), str(deploy)],
                check=True,
                capture_output=True,
            )

        return run

    command("--trust")()  # the first one fills the caches
    pairs = [(_seconds(command("--trust")), _seconds(command("--skip-tasks"))) for _ in range(RUNS)]
    _spread("copy with hooks", [hooks for hooks, _ in pairs], "s")
    _spread("copy without", [bare for _, bare in pairs], "s")
    _spread("with hooks ÷ without", [hooks / bare for hooks, bare in pairs], "")


def validate(folder: Path) -> None:
    """Reading and judging one clean deployment in a running interpreter."""
    from pgcat_stack.checks import run_checks, syntax
    from pgcat_stack.deployment import Deployment

    deploy = render(folder / "validate", topology="standalone", primary_host="db", replica_hosts="r1,r2")

    def run() -> None:
        assert run_checks(Deployment.load(deploy)) == []

    def fresh() -> float:
        syntax._style_faults.cache_clear()  # as in a process of its own
        return _seconds(run) * 1000

    fresh()
    _spread("validate a clean deployment, own time", [fresh() for _ in range(RUNS)], "ms")


_every_combination = functools.cache(functools.partial(combinations, True))


def _render_and_validate(job: tuple[int, str]) -> None:
    from pgcat_stack.checks import run_checks
    from pgcat_stack.deployment import Deployment

    number, folder = job
    every = _every_combination()
    answers = every[number * (len(every) // SETS)]
    deploy = render(Path(folder) / str(number), answers)
    assert not run_checks(Deployment.load(deploy)), answers
    shutil.rmtree(deploy)


def thousand(folder: Path) -> None:
    """1,000 different answer sets rendered and validated, in two processes."""
    jobs = [(number, str(folder)) for number in range(SETS)]

    def run() -> None:
        with multiprocessing.get_context("spawn").Pool(CORES) as pool:
            for _ in pool.imap_unordered(_render_and_validate, jobs, chunksize=20):
                pass

    _spread(f"{SETS} answer sets, {CORES} processes", [_seconds(run)], "s")


def main() -> None:
    parts = {"copy": copy, "validate": validate, "thousand": thousand}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", nargs="?", choices=parts, help="all of them, if none is named")
    part = parser.parse_args().part
    folder = Path(tempfile.mkdtemp(prefix="pgcat-stack-bench-"))
    try:
        print(f"{'':<46} {'minimum':>8} {'median':>8} {'maximum':>8}")
        for run in [parts[part]] if part else parts.values():
            run(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
