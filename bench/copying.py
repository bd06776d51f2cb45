"""What the hooks and the validator cost."""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from figures import spread, table

from live.updating import TAG, Template
from rendering import combinations, render

SETS = 1000
CORES = 2


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _without_yamllint(folder: Path) -> dict[str, str]:
    """The variables with which Python has no yamllint, as in an environment of Copier's own."""
    hiding = folder / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text('import sys\n\nsys.modules["yamllint"] = None\n')
    return {"PYTHONPATH": str(hiding)}


def copy(folder: Path, runs: int) -> str:
    """`copier copy` of a tagged git repository with the hooks, against the same without them, in turn."""
    template = Template(folder).repository
    deploy = folder / "deploy"
    environment = {**os.environ, **_without_yamllint(folder)}

    def command(tasks: str) -> Callable[[], object]:
        def run() -> None:
            shutil.rmtree(deploy, ignore_errors=True)
            subprocess.run(
                [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", tasks]
                + ["--data", "topology=standalone", "--data", "primary_host=db", str(template), str(deploy)],
                check=True,
                capture_output=True,
                env=environment,
            )

        return run

    command("--trust")()  # the first one fills the caches
    pairs = [(_seconds(command("--trust")), _seconds(command("--skip-tasks"))) for _ in range(runs)]
    return table(
        ["minimum / median / maximum", "seconds"],
        [
            ("`copier copy` with hooks", spread([hooks for hooks, _ in pairs])),
            ("the same with `--skip-tasks`", spread([bare for _, bare in pairs])),
            ("with hooks ÷ without, pair by pair", spread([hooks / bare for hooks, bare in pairs])),
        ],
    )


def update(folder: Path, runs: int) -> str:
    """`copier update` with another answer, with hooks and without; and one that changes nothing."""
    (folder / "with").mkdir()
    (folder / "without").mkdir()
    hooked, bare = Template(folder / "with"), Template(folder / "without")
    questions = bare.repository / "questions/rendering.yml"
    text, replaced = re.subn(r"^_migrations:\n(?: .*\n)+", "", questions.read_text(), flags=re.MULTILINE)
    assert replaced == 1
    questions.write_text(text)
    bare.commit(bare.repository)
    bare.git(bare.repository, "tag", "--force", TAG)
    answers = ["topology=standalone", "primary_host=db"]
    hiding = _without_yamllint(folder)
    deployments = {each: each.copy(each.home / "deploy", answers) for each in (hooked, bare)}

    def command(template: Template, *changed: str) -> float:
        deploy = deployments[template]
        template.git(deploy, "reset", "--quiet", "--hard")
        call = [sys.executable, "-m", "copier", "update", "--quiet", "--trust", "--defaults"]
        call += ["--vcs-ref=:current:", *changed, str(deploy)]
        environment = {**template.environment, **hiding}
        seconds = _seconds(lambda: subprocess.run(call, check=True, capture_output=True, env=environment))
        assert bool(template.git(deploy, "status", "--porcelain")) == bool(changed)
        return seconds

    more = "--data=pgcat_replicas=3"
    command(hooked, more)  # the first one fills the caches
    rounds = [
        (command(hooked, more), command(bare, more), command(hooked), command(bare)) for _ in range(runs)
    ]
    return table(
        ["minimum / median / maximum", "seconds"],
        [
            ("`copier update` to another answer, with hooks", spread([each[0] for each in rounds])),
            ("the same without hooks", spread([each[1] for each in rounds])),
            ("with hooks ÷ without, round by round", spread([each[0] / each[1] for each in rounds])),
            ("`copier update` that changes nothing, with hooks", spread([each[2] for each in rounds])),
            ("the same without hooks", spread([each[3] for each in rounds])),
            ("with hooks ÷ without, round by round", spread([each[2] / each[3] for each in rounds])),
        ],
    )


def validate(folder: Path, runs: int) -> str:
    """Reading and judging one clean deployment in a running interpreter."""
    from pgcat_stack.checks import run_checks, syntax
    from pgcat_stack.reading.reading import Reading

    deploy = render(folder / "validate", topology="standalone", primary_host="db", replica_hosts="r1,r2")

    def run() -> None:
        assert run_checks(Reading.load(deploy)) == []

    def fresh() -> float:
        syntax._style_faults.cache_clear()  # as in a process of its own
        return _seconds(run) * 1000

    fresh()
    return table(
        ["minimum / median / maximum", "milliseconds"],
        [
            (
                "reading and judging a clean deployment, start of Python aside",
                spread([fresh() for _ in range(runs)], 0),
            )
        ],
    )


_every_combination = functools.cache(functools.partial(combinations, True))


def _render_and_validate(job: tuple[int, str]) -> None:
    from pgcat_stack.checks import run_checks
    from pgcat_stack.reading.reading import Reading

    number, folder = job
    every = _every_combination()
    answers = every[number * (len(every) // SETS)]
    deploy = render(Path(folder) / str(number), answers)
    assert not run_checks(Reading.load(deploy)), answers
    shutil.rmtree(deploy)


def thousand(folder: Path, runs: int) -> str:
    """1,000 different answer sets rendered and validated, in two processes."""
    jobs = [(number, str(folder)) for number in range(SETS)]

    def run() -> None:
        with multiprocessing.get_context("spawn").Pool(CORES) as pool:
            for _ in pool.imap_unordered(_render_and_validate, jobs, chunksize=20):
                pass

    seconds = [_seconds(run) for _ in range(runs)]
    return table(
        ["minimum / median / maximum", "seconds"],
        [(f"{SETS:,} answer sets rendered and validated, {CORES} processes", spread(seconds, 0))],
    )
