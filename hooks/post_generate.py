"""What Copier calls after it has rendered a deployment: runs the validator in Copier's own interpreter.

    post_generate.py ROOT

It needs only what Copier itself requires: pydantic, PyYAML and packaging. It installs nothing, needs no
network, and starts no process but git. Copier starts it in this folder, not in the deployment, so that a
module beside the user's files is never imported, whatever PYTHONPATH says.

This file must still parse on every Python that Copier runs on.
"""

from __future__ import annotations

import gc
import os
import site
import sys
from pathlib import Path

HOOKS = Path(__file__).resolve().parent
SOURCES = HOOKS.parent / "src"
OLDEST_PYTHON = (3, 11)
OLDEST_PYDANTIC = (2, 4, 2)
"""What Copier itself requires."""
GOOD_PYTHON = "3.13"
"""The version that a remedy names."""


def main(arguments: list[str]) -> int:
    """Run the hook in the folder that is named and return its exit code."""
    root = Path(arguments[0]).resolve()
    if problem := prepare(root) or packages_problem():
        return complain(problem)
    from pgcat_stack.cli import hook

    return hook(root)


def prepare(root: Path) -> str:
    """Make the package importable and quick, and nothing of the user's. Returns the problem, or ""."""
    sys.path[:] = [str(SOURCES), *trusted(sys.path, root)]
    gc.disable()  # a process this short has nothing to collect, and looking would cost a tenth of its time
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them costs time
    return python_problem()


def trusted(entries: list[str], root: Path) -> list[str]:
    """The entries of `sys.path` without those in or above the deployment, unless they are Copier's own."""
    relative = {
        os.path.abspath(entry)  # noqa: PTH100 (as Python itself makes them absolute at its start)
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if not os.path.isabs(entry)  # noqa: PTH117
    }
    bases = (sys.prefix, sys.base_prefix, site.USER_BASE if site.ENABLE_USER_SITE else None)
    copiers = [Path(base).resolve() for base in bases if base]
    kept = []
    for entry in entries:
        path = Path(entry).resolve()
        inside = root in (path, *path.parents)
        above = path in root.parents
        is_copiers = any(prefix in path.parents for prefix in copiers)
        if entry and entry not in relative and path != HOOKS and not above and (is_copiers or not inside):
            kept.append(entry)
    return kept


def python_problem() -> str:
    """Whether Copier's Python is too old, and what to do."""
    if sys.version_info >= OLDEST_PYTHON:
        return ""
    version = ".".join(str(part) for part in sys.version_info[:3])
    return (
        f"Copier runs on Python {version}, and checking the deployment needs 3.11 or newer:"
        f" run `{newer_python()}`, or skip the hooks with --skip-tasks"
    )


def packages_problem() -> str:
    """Whether a package that Copier itself requires is missing, too old or broken, and what to do."""
    try:
        import packaging  # noqa: F401
        import pydantic
        import yaml  # noqa: F401

        version = pydantic.VERSION
    except Exception as error:  # a broken package may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        problem = f"a package that Copier requires cannot be imported ({reason[:200]})"
    else:
        if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_PYDANTIC[:2]:
            return ""
        problem = f"pydantic {version} is installed, and Copier requires 2.4.2 or newer"
    return (
        f"the deployment was not checked: {problem}: run `{reinstall()}`, or skip the hooks with --skip-tasks"
    )


def installed_by() -> str:
    """What installed the Copier that runs this: `uv tool`, `uvx`, `pipx`, `pipx run` or `pip`."""
    prefix = Path(sys.prefix)
    if (prefix / "uv-receipt.toml").exists():
        return "uv tool"
    if (prefix / "pipx_metadata.json").exists():
        return "pipx" if prefix.parent.name == "venvs" else "pipx run"
    if any(parent.name.startswith(("archive-v", "environments-v")) for parent in prefix.resolve().parents):
        return "uvx"
    return "pip"


def newer_python() -> str:
    """The command that runs Copier with a Python that is new enough."""
    return {
        "uv tool": f"uv tool install --python {GOOD_PYTHON} copier",
        "pipx": f"pipx reinstall --python {GOOD_PYTHON} {Path(sys.prefix).name}",
        "pipx run": f"pipx run --python {GOOD_PYTHON} copier ...",
    }.get(installed_by(), f"uvx --python {GOOD_PYTHON} copier ...")


def reinstall() -> str:
    """The command that installs anew what Copier requires."""
    return {
        "uv tool": "uv tool upgrade --reinstall copier",
        "uvx": "uvx --reinstall copier ...",
        "pipx": f"pipx reinstall {Path(sys.prefix).name}",
        "pipx run": "pipx run --no-cache copier ...",
    }.get(
        installed_by(),
        f"'{sys.executable}' -m pip install --force-reinstall 'pydantic>=2.4.2' pyyaml packaging",
    )


def complain(message: str) -> int:
    """Print one line, whatever names of files hold, and return the exit code of a failure."""
    from pgcat_stack.printable import LONGEST_LINE, printable

    if sys.stderr is not None:
        sys.stderr.write(printable("pgcat-stack: " + message, LONGEST_LINE) + "\n")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
