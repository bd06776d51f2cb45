"""What Copier calls after it has rendered a deployment: finds the validator's dependencies and runs it.

Copier runs this file with its own interpreter in the folder of the deployment. That interpreter has pydantic
and PyYAML but not yamllint, so:

1. Where everything can be imported, the validator runs right here.
2. Otherwise it runs in a virtual environment below the user's cache folder. uv makes it where uv is there,
   in well under a second; else venv and pip. `uv run` could do without an environment of ours, but takes
   0.2 s at every call even when all is cached; the environment's own Python takes 0.02 s.
3. Where neither works (no network and nothing cached, for one), a single line says what to install.

Copier clones a template anew for every copy, into a folder without compiled code. So the package, too, runs
from the cache folder, where Python keeps what it has compiled.

Only the standard library is used here, and nothing that an older Python could not parse. What is needed only
to make something is imported where it is made.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HOOKS = Path(__file__).resolve().parent
REQUIREMENTS = HOOKS / "requirements.txt"
PACKAGE = HOOKS / "pgcat_stack"
MODULES = {"pydantic": "pydantic", "yaml": "pyyaml", "yamllint": "yamllint"}
"""What the validator imports, and what to install for it."""
OLDEST_PYTHON = (3, 11)
INSIDE = "--inside-environment"
INCOMPLETE = 97
"""The exit code by which an environment of ours says that it lacks a dependency."""
STALE_SECONDS = 3600
"""Drafts older than this were left by an interrupted run."""


def main(arguments: list[str]) -> int:
    """Run the hook in the current folder and return its exit code."""
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(str(part) for part in sys.version_info[:3])
        return complain(f"checking the deployment needs Python 3.11 or newer and Copier runs on {version}")
    if not missing_modules():
        return validate()
    if INSIDE in arguments:
        return INCOMPLETE
    import subprocess

    for _ in range(2):
        environment = cached_environment()
        if environment is None:
            break
        code = subprocess.call([str(interpreter(environment)), "-I", str(Path(__file__).resolve()), INSIDE])
        if code != INCOMPLETE:
            return code if code >= 0 else 128 - code
        remove(environment)
    packages = " ".join(missing_modules())
    return complain(
        f"the deployment was not checked, because {packages} is not installed and could not be fetched: run"
        f" '{sys.executable} -m pip install {packages}', or install uv, or use copier's --skip-tasks"
    )


def missing_modules() -> list[str]:
    """Packages that this interpreter lacks."""
    return [package for module, package in MODULES.items() if importlib.util.find_spec(module) is None]


def validate() -> int:
    """Run the validator in this process."""
    import gc

    gc.disable()  # a process this short has nothing to collect, and looking would cost a tenth of its time
    sys.path.insert(0, str(cached_package()))
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them costs time
    from pgcat_stack.cli import hook

    return hook(Path.cwd())


def complain(message: str) -> int:
    """Print one line and return the exit code of a failure."""
    sys.stderr.write("pgcat-stack: " + message + "\n")
    return 1


# The cache folder


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not base.is_absolute():
        base = Path.home() / ".cache"
    return base / "pgcat-stack"


def make_once(name: str, make: Callable[[Path], bool]) -> Path | None:
    """The folder `name` below the cache folder, made by `make(draft)` when it is missing.

    The draft gets its name only when it is complete, so that an interruption or a second run at the same
    time leaves nothing half-made. Returns None where it cannot be made.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    import tempfile

    draft = None
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_stale_drafts(folder.parent)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder.parent))
        if not make(draft):
            return None
        try:
            draft.rename(folder)
        except OSError:  # another run was faster
            return folder if folder.is_dir() else None
        return folder
    except OSError:
        return None
    finally:
        if draft is not None:
            remove(draft)


def remove_stale_drafts(folder: Path) -> None:
    """Remove what runs that were killed have left."""
    import time

    for draft in folder.glob("draft-*"):
        if draft.stat().st_mtime < time.time() - STALE_SECONDS:
            remove(draft)


def remove(folder: Path) -> None:
    """Remove a folder of ours, as far as possible."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


# The package


def cached_package() -> Path:
    """The folder to import the package from: its copy in the cache, or else where it stands."""
    sources = sorted(PACKAGE.rglob("*.py"))
    digest = hashlib.sha256()
    for source in sources:
        digest.update(str(source.relative_to(HOOKS)).encode() + b"\0" + source.read_bytes() + b"\0")

    def copy(draft: Path) -> bool:
        for source in sources:
            target = draft / source.relative_to(HOOKS)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        return True

    try:
        return make_once(f"package-{digest.hexdigest()[:16]}", copy) or HOOKS
    except RuntimeError:  # no home folder
        return HOOKS


# The environment


def cached_environment() -> Path | None:
    """A virtual environment with the dependencies, made when it is missing; None where it cannot be made."""
    try:
        folder = cache_folder() / environment_name()
        if folder.is_dir() and not interpreter(folder).exists():  # its Python has been uninstalled
            remove(folder)
        return make_once(environment_name(), make_environment)
    except (OSError, RuntimeError):
        return None


def environment_name() -> str:
    """One environment for each set of requirements and each Python."""
    identity = REQUIREMENTS.read_bytes() + sys.version.encode() + sys.base_prefix.encode()
    return f"environment-{hashlib.sha256(identity).hexdigest()[:16]}"


def interpreter(environment: Path) -> Path:
    """The Python of a virtual environment."""
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def make_environment(folder: Path) -> bool:
    """Make the environment in an empty folder, by uv or by venv and pip. Returns whether it is complete."""
    return make_with_uv(folder) or make_with_pip(folder)


def make_with_uv(folder: Path) -> bool:
    """With uv: from its cache alone, then from the package index."""
    import shutil

    uv = shutil.which("uv")
    if uv is None:
        return False
    if not quietly([uv, "venv", "--no-project", "--allow-existing", "--python", sys.executable, str(folder)]):
        return False
    install = [uv, "pip", "install", "--python", str(interpreter(folder)), "--requirement", str(REQUIREMENTS)]
    return quietly([*install, "--offline"]) or quietly(install)


def make_with_pip(folder: Path) -> bool:
    """With the standard library's venv and the pip that it brings."""
    pip = [str(interpreter(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--retries", "1", "--timeout", "10", "--requirement", str(REQUIREMENTS)]
    return quietly([sys.executable, "-m", "venv", "--clear", str(folder)]) and quietly(pip)


def quietly(command: list[str]) -> bool:
    """Run a command without showing what it says. Returns whether it succeeded."""
    import subprocess

    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment
        )
    except OSError:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
