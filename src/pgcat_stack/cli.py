"""The command `pgcat-stack`, and what the hook runs once its dependencies are there.

Imports stand inside functions: starting up must not cost more than judging a deployment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from pgcat_stack.interrupts import INTERRUPTED, Raised, leaving_at_once

if TYPE_CHECKING:
    from pgcat_stack.findings import Finding
    from pgcat_stack.reading.reading import Reading

OK, ERRORS, UNREADABLE = 0, 1, 2
BROKEN_PIPE = 141


class OutputError(Exception):
    """The report cannot be written to standard output."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: those of the process) and return its exit code."""

    def run() -> int:
        options = _parser().parse_args(arguments)
        return int(options.run(options))

    return guarded(run)


def hook(root: Path) -> int:
    """What runs after generation: make missing docker secrets, then validate and print the report as text.

    After an update, where Copier sets STAGE, what it changed in the budget comes first.

    Returns 0 without errors, 1 with errors, 2 where `root` is no deployment or nothing can be printed.
    """
    with leaving_at_once():
        return guarded(lambda: _hook(root))


def guarded(run: Callable[[], int]) -> int:
    """Run `run` so that what is no mistake of ours ends in one line at most, never in a traceback.

    That is a closed pipe, another standard output that takes nothing, Ctrl-C and an unreadable deployment.
    """
    from pgcat_stack.reading.deployment import DeploymentError

    try:
        try:
            return run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # what argparse prints, too: at its end Python complains of a closed pipe
    except DeploymentError as error:
        _complain(str(error))
        return UNREADABLE
    except BrokenPipeError:
        _discard(sys.stdout)
        return BROKEN_PIPE
    except OutputError as error:
        _complain(str(error))
        return UNREADABLE
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Its complaints have no control characters of what was typed."""

    def error(self, message: str) -> NoReturn:
        from pgcat_stack.printable import printable

        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    from pgcat_stack import __version__

    parser = _Parser(
        prog="pgcat-stack",
        description="Judge a rendered deployment of PgCat and Permify by its files, and what runs by them.",
    )
    parser.add_argument("--version", action="version", version=f"pgcat-stack {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    validate = commands.add_parser(
        "validate", help="check every file; exit 0 without errors, 1 with errors, 2 if it cannot be read"
    )
    validate.add_argument("directory", metavar="DIR", type=Path)
    validate.add_argument("--format", choices=("text", "json"), default="text")
    validate.add_argument("--strict", action="store_true", help="warnings count as errors")
    validate.set_defaults(run=_validate)

    plan = commands.add_parser(
        "plan",
        help="show the connection budget; exit 0 if it holds, 1 if it does not, 2 if it cannot be read",
    )
    plan.add_argument("directory", metavar="DIR", type=Path)
    plan.add_argument("--format", choices=("text", "json"), default="text")
    plan.set_defaults(run=_plan)

    _add_doctor(commands)

    secrets = commands.add_parser("secrets", help="make the docker secrets that are missing")
    secrets.add_argument("directory", metavar="DIR", type=Path)
    secrets.set_defaults(run=_secrets)

    adopt = commands.add_parser(
        "adopt", help="answers for `copier copy --data-file` from a pgcat.toml and a Permify configuration"
    )
    adopt.add_argument("files", metavar="FILE", type=Path, nargs="+")
    adopt.add_argument("--topology", choices=("docker", "standalone", "sidecar"), default="standalone")
    adopt.set_defaults(run=_adopt)
    return parser


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="ask the running deployment; exit 0 without errors, 1 with errors, 2 if nothing can be asked",
        description="Ask PostgreSQL, PgCat and Permify, and compare what they say with the files. It only"
        " reads, unless --write-check is given. Passwords come from secrets/, from DATABASE_PASSWORD and"
        " PGCAT_ADMIN_PASSWORD (or …_FILE), or from the cluster's Secrets by kubectl.",
    )
    doctor.add_argument("directory", metavar="DIR", type=Path)
    doctor.add_argument("--format", choices=("text", "json"), default="text")
    doctor.add_argument("--strict", action="store_true", help="warnings count as errors")
    doctor.add_argument(
        "--reach",
        metavar="NAME[:PORT]=HOST:PORT",
        type=_mapping,
        action="append",
        default=[],
        help="where a name of the deployment (pgcat, permify, a database) is reached from here; repeatable",
    )
    doctor.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="longest wait for one answer (default: 5)",
    )
    doctor.add_argument(
        "--write-check",
        action="store_true",
        help="also write into a tenant of its own through Permify, check, and remove it",
    )
    doctor.add_argument("--context", default="", help="kubectl's context (default: the current one)")
    doctor.add_argument("-n", "--namespace", default="", help="Kubernetes namespace (default: of the files)")
    doctor.add_argument("--no-kubectl", action="store_true", help="do not run kubectl")
    doctor.add_argument("--no-docker", action="store_true", help="do not run docker")
    doctor.set_defaults(run=_doctor)


def _mapping(text: str) -> object:
    from pgcat_stack.doctor.routes import parse_mapping

    try:
        return parse_mapping(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text}: not a number of seconds from 0.1 to 600")
    return seconds


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _doctor(options: argparse.Namespace) -> int:
    import shutil
    import signal

    from pgcat_stack.doctor.display import progress, report
    from pgcat_stack.doctor.routes import Options
    from pgcat_stack.doctor.session import examine
    from pgcat_stack.doctor.verdict import verdict
    from pgcat_stack.reading.reading import Reading
    from pgcat_stack.report.findings import json_report

    deployment = Reading.load(options.directory)
    how = Options(
        timeout_seconds=options.timeout,
        mappings=tuple(options.reach),
        docker=not options.no_docker,
        kubectl=not options.no_kubectl,
        context=options.context,
        namespace=options.namespace,
        write_check=options.write_check,
    )
    for ending in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(ending, _end)  # so that port-forwards and a written tenant do not stay behind
    if sys.stderr is not None and sys.stderr.isatty():
        import rich.status  # noqa: F401 (what `progress` needs, before an interruption is an exception)
    with Raised(), progress() as show:
        diagnosis = examine(deployment, how, progress=show)
    case = diagnosis.case
    judged = verdict(case, wrote=options.write_check)
    findings, notes = judged.findings, (*diagnosis.notes, *judged.notes)
    width = None
    if sys.stdout is not None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    if options.format == "json":
        _print(json_report(findings).splitlines())
        for note in notes:
            _complain(f"note: {note}")
    else:
        _print(report(findings, notes, case, width=width))
    if not case.anybody:
        _complain("nothing of this deployment could be asked")
        return UNREADABLE
    return _exit_code(findings, strict=options.strict)


def _validate(options: argparse.Namespace) -> int:
    from pgcat_stack.checks import kubernetes_schema
    from pgcat_stack.reading.reading import Reading

    kubernetes_schema.enable()  # where the optional extra is there; never in the hook, which it would slow
    return _report(Reading.load(options.directory), options.format, strict=options.strict)


def _plan(options: argparse.Namespace) -> int:
    import shutil

    from pgcat_stack.budget import plan
    from pgcat_stack.paths import BUDGET
    from pgcat_stack.reading.deployment import DeploymentError
    from pgcat_stack.reading.reading import Reading
    from pgcat_stack.report.plan import plan_json, plan_text

    deployment = Reading.load(options.directory)
    if deployment.budget is None or not deployment.budget.parsed:
        problem = "is missing" if deployment.budget is None else "cannot be read"
        raise DeploymentError(
            f"{options.directory / BUDGET} {problem}: it says how many connections there are"
        )
    budget = plan(deployment)
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns
    _print(
        plan_json(budget).splitlines()
        if options.format == "json"
        else plan_text(budget, terminal=terminal, width=width)
    )
    return OK if budget.holds else ERRORS


def _adopt(options: argparse.Namespace) -> int:
    from pgcat_stack.adopt import adopt, adoption_yaml

    _print(adoption_yaml(adopt(options.files, options.topology)))
    return OK


def _report(deployment: Reading, style: str, *, strict: bool) -> int:
    from pgcat_stack.checks import run_checks
    from pgcat_stack.report.findings import json_report, text_report

    findings = run_checks(deployment)
    lines = json_report(findings).splitlines() if style == "json" else None
    _print(lines or text_report(findings, len(deployment.sources)))
    return _exit_code(findings, strict=strict)


def _exit_code(findings: Sequence[Finding], *, strict: bool) -> int:
    failed = bool(findings) if strict else any(finding.severity == "error" for finding in findings)
    return ERRORS if failed else OK


def _secrets(options: argparse.Namespace) -> int:
    from pgcat_stack.paths import COMPOSE, KUSTOMIZATION
    from pgcat_stack.reading.reading import Reading
    from pgcat_stack.secrets import kubernetes_commands, secret_names

    deployment = Reading.load(options.directory)
    for source in filter(None, map(deployment.sources.get, (COMPOSE, KUSTOMIZATION))):
        if source.broken:  # which secrets there are is not known
            problem = source.problems[0]
            _complain(f"{source.path}:{problem.line}: {problem.message}")
            return ERRORS
    if secret_names(deployment):
        return _make_secrets(deployment, quiet=False)
    commands = kubernetes_commands(deployment)
    if commands:
        _print(["Kubernetes keeps the secrets. Put each value into the file that is named here, then run:"])
        _print(f"  {command}" for command in commands)
    else:
        _print(["Nothing to make: this deployment has no docker secrets."])
    return OK


def _make_secrets(deployment: Reading, *, quiet: bool) -> int:
    from pgcat_stack.secrets import SecretsError, make_secrets, reminders

    try:
        with Raised():
            made = make_secrets(deployment)
    except SecretsError as error:
        _complain(str(error))
        return ERRORS
    new = [one.path for one in made if not one.source]
    lines = [f"made {', '.join(new)}"] if new else []
    lines += [f"made {one.path} from {one.source}" for one in made if one.source]
    if not quiet:
        lines += [f"note: {reminder}" for reminder in reminders(deployment, made)]
        lines = lines or ["Nothing to make: every docker secret is there."]
    if lines:
        _print(lines)
    return OK


def _hook(root: Path) -> int:
    from pgcat_stack.reading.reading import Reading

    deployment = Reading.load(root)
    secrets_code = _make_secrets(deployment, quiet=True)
    if os.environ.get("STAGE") == "after":
        from pgcat_stack.report.update import ANSWERS, update_report

        with Raised():  # a copy of the last commit is cleaned up
            report = update_report(root, deployment, os.environ.get("PGCAT_STACK_ANSWERS_FILE", ANSWERS))
        _print(report.splitlines())
    return max(secrets_code, _report(deployment, "text", strict=False))


def _print(lines: Iterable[str]) -> None:
    """Write lines to standard output, each of them printable, whatever it holds.

    Only a `Line` is written as it is. Characters that the terminal's encoding lacks are escaped.
    """
    from pgcat_stack.printable import LONGEST_LINE, Line, printable

    text = "".join(f"{line if isinstance(line, Line) else printable(line, LONGEST_LINE)}\n" for line in lines)
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"standard output: {error.strerror or error}") from None


def _complain(message: str) -> None:
    from pgcat_stack.printable import printable

    if sys.stderr is not None:
        try:
            sys.stderr.write(f"pgcat-stack: {printable(message)}\n")
            sys.stderr.flush()
        except OSError:
            _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """What the stream still holds, or gets from now on, goes nowhere: Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
