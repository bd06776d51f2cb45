"""The command `pgcat-stack`, and what the hook runs once its dependencies are there.

Imports stand inside functions: starting up must not cost more than judging a deployment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from pgcat_stack.deployment import Deployment

OK, ERRORS, UNREADABLE = 0, 1, 2
INTERRUPTED, BROKEN_PIPE = 130, 141


class OutputError(Exception):
    """The report cannot be written to standard output."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: those of the process) and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    return guarded(lambda: options.run(options))


def hook(root: Path) -> int:
    """What runs after generation: make missing docker secrets, then validate and print the report as text.

    After an update, where Copier sets STAGE, what it changed in the budget comes first.

    Returns 0 without errors, 1 with errors, 2 where `root` is no deployment or nothing can be printed.
    """
    return guarded(lambda: _hook(root))


def guarded(run: Callable[[], int]) -> int:
    """Run `run` so that what is no mistake of ours ends in one line at most, never in a traceback.

    That is a closed pipe, another standard output that takes nothing, Ctrl-C and an unreadable deployment.
    """
    from pgcat_stack.deployment import DeploymentError

    try:
        return run()
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


def _parser() -> argparse.ArgumentParser:
    from pgcat_stack import __version__

    parser = argparse.ArgumentParser(
        prog="pgcat-stack", description="Judge a rendered deployment of PgCat and Permify by its files."
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


def _validate(options: argparse.Namespace) -> int:
    from pgcat_stack.checks import kubernetes_schema
    from pgcat_stack.deployment import Deployment

    kubernetes_schema.enable()  # where the optional extra is there; never in the hook, which it would slow
    return _report(Deployment.load(options.directory), options.format, strict=options.strict)


def _plan(options: argparse.Namespace) -> int:
    import shutil

    from pgcat_stack.budget import plan
    from pgcat_stack.deployment import BUDGET, Deployment, DeploymentError
    from pgcat_stack.plan_report import plan_json, plan_text

    deployment = Deployment.load(options.directory)
    if deployment.budget is None or not deployment.budget.parsed:
        problem = "is missing" if deployment.budget is None else "cannot be read"
        raise DeploymentError(
            f"{options.directory / BUDGET} {problem}: it says how many connections there are"
        )
    budget = plan(deployment)
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns
    _print(
        plan_json(budget) if options.format == "json" else plan_text(budget, terminal=terminal, width=width)
    )
    return OK if budget.holds else ERRORS


def _adopt(options: argparse.Namespace) -> int:
    from pgcat_stack.adopt import adopt, adoption_yaml

    _print(adoption_yaml(adopt(options.files, options.topology)))
    return OK


def _report(deployment: Deployment, style: str, *, strict: bool) -> int:
    from pgcat_stack.checks import run_checks
    from pgcat_stack.report import json_report, text_report

    findings = run_checks(deployment)
    _print(json_report(findings) if style == "json" else text_report(findings, len(deployment.sources)))
    failed = bool(findings) if strict else any(finding.severity == "error" for finding in findings)
    return ERRORS if failed else OK


def _secrets(options: argparse.Namespace) -> int:
    from pgcat_stack.deployment import Deployment
    from pgcat_stack.secrets import kubernetes_commands, secret_names

    deployment = Deployment.load(options.directory)
    if secret_names(deployment):
        return _make_secrets(deployment, quiet=False)
    commands = kubernetes_commands(deployment)
    if commands:
        _print("Kubernetes keeps the secrets. Put each value into the file that is named here, then run:\n")
        _print("".join(f"  {command}\n" for command in commands))
    else:
        _print("Nothing to make: this deployment has no docker secrets.\n")
    return OK


def _make_secrets(deployment: Deployment, *, quiet: bool) -> int:
    from pgcat_stack.secrets import SecretsError, make_secrets

    try:
        made = make_secrets(deployment)
    except SecretsError as error:
        _complain(str(error))
        return ERRORS
    if made:
        _print(f"made {', '.join(made)}\n")
    elif not quiet:
        _print("Nothing to make: every docker secret is there.\n")
    return OK


def _hook(root: Path) -> int:
    from pgcat_stack.deployment import Deployment

    deployment = Deployment.load(root)
    secrets_code = _make_secrets(deployment, quiet=True)
    if os.environ.get("STAGE") == "after":
        from pgcat_stack.budget_change import budget_change

        _print(budget_change(root, deployment))
    return max(secrets_code, _report(deployment, "text", strict=False))


def _print(text: str) -> None:
    """Write to standard output; characters that the terminal's encoding lacks are escaped."""
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
    from pgcat_stack.report import one_line

    if sys.stderr is not None:
        try:
            sys.stderr.write(f"pgcat-stack: {one_line(message)}\n")
            sys.stderr.flush()
        except OSError:
            _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """What the stream still holds, or gets from now on, goes nowhere: Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
