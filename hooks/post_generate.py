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

What is cached may be damaged. The package's copy is compared with its source, and where the validator fails
in a cached environment or package, these are thrown away and it runs once more without trust in them. Where
the cache folder cannot be written, a temporary folder serves for this run.

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
MODULES = {"pydantic": "pydantic", "yaml": "pyyaml", "yamllint": "yamllint"}
"""What the validator imports, and what to install for it."""
OLDEST_PYTHON = (3, 11)
INSIDE = "--inside-environment"
LAST = "--last-attempt"
UNUSABLE = 97
"""The exit code for an environment or a copy of the package which is incomplete or damaged."""
CRASHES = (-11, -10, -7)
"""Segmentation fault and bus error: what a truncated library may end in."""
STALE_SECONDS = 3600
"""Drafts older than this were left by an interrupted run."""


def main(arguments: list[str]) -> int:
    """Run the hook in the current folder and return its exit code."""
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(str(part) for part in sys.version_info[:3])
        return complain(f"checking the deployment needs Python 3.11 or newer and Copier runs on {version}")
    if not missing_modules():
        code = validate(last=LAST in arguments)
        return code if code != UNUSABLE or INSIDE in arguments else run(sys.executable, LAST)
    return UNUSABLE if INSIDE in arguments else validate_in_environment()


def missing_modules() -> list[str]:
    """Packages that this interpreter lacks."""
    return [package for module, package in MODULES.items() if importlib.util.find_spec(module) is None]


def validate(last: bool) -> int:
    """Run the validator in this process. Unless this is the last attempt, its own failure is UNUSABLE."""
    import gc

    gc.disable()  # a process this short has nothing to collect, and looking would cost a tenth of its time
    package = HOOKS if last else cached_package()
    sys.path.insert(0, str(package))
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them costs time
    try:
        from pgcat_stack.cli import hook

        return hook(Path.cwd())
    except Exception:
        if last:
            raise
        if package != HOOKS:
            remove(package)
        return UNUSABLE


def validate_in_environment() -> int:
    """Run the validator in the cached environment, in a new one if that is damaged, or in a temporary one."""
    import tempfile

    try:
        for options in ([INSIDE], [INSIDE, LAST]):
            environment = cached_environment()
            if environment is None:
                return complain_of_modules("installing failed (no network?)")
            code = run(interpreter(environment), "-I", *options)
            if code != UNUSABLE:
                return code
            remove(environment)
    except (OSError, RuntimeError):  # the cache folder cannot be written, or there is no home folder
        try:
            with tempfile.TemporaryDirectory(prefix="pgcat-stack-") as folder:
                if make_environment(Path(folder), "--no-cache"):  # uv's cache may be next to ours
                    code = run(interpreter(Path(folder)), "-I", INSIDE, LAST)
                    if code != UNUSABLE:
                        return code
        except OSError:
            return complain_of_modules("neither the cache folder nor a temporary folder can be written")
    return complain_of_modules("installing failed (no network?)")


def run(python: Path | str, *options: str) -> int:
    """Run this file with another interpreter, or anew with this one. Options of Python stand before ours."""
    import subprocess

    own = [option for option in options if option in (INSIDE, LAST)]
    others = [option for option in options if option not in own]
    try:
        code = subprocess.call([str(python), *others, str(Path(__file__).resolve()), *own])
    except OSError:
        return UNUSABLE
    if code in CRASHES and LAST not in options:
        return UNUSABLE
    return code if code >= 0 else 128 - code


def complain_of_modules(cause: str) -> int:
    """Say in one line what is missing and how to install it next to this Copier."""
    packages = missing_modules()
    return complain(
        f"the deployment was not checked, for {' '.join(packages)} is missing and {cause}:"
        f" {remedy(packages)}, or use copier's --skip-tasks"
    )


def remedy(packages: list[str]) -> str:
    """The command that installs packages for Copier, by the tool that installed Copier."""
    import shutil
    import sysconfig

    prefix = Path(sys.prefix)
    if (prefix / "uv-receipt.toml").exists():
        return f"run `uv tool install copier --with {','.join(packages)}`"
    if (prefix / "pipx_metadata.json").exists():
        # `pipx run` calls its folder by a digest, and nothing can be injected there
        first = "" if prefix.name == "copier" else "pipx install copier && "
        return f"run `{first}pipx inject copier {' '.join(packages)}`"
    managed = (
        sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()
    )
    if importlib.util.find_spec("pip") and not managed:
        return f"run `'{sys.executable}' -m pip install {' '.join(packages)}`"
    first = "" if shutil.which("uv") else "install uv and "
    return f"{first}run `uvx --with {','.join(packages)} copier ...`"


def complain(message: str) -> int:
    """Print one line and return the exit code of a failure."""
    if sys.stderr is not None:
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


def make_once(name: str, make: Callable[[Path], bool], intact: Callable[[Path], bool]) -> Path | None:
    """The folder `name` below the cache folder, made by `make(draft)` when it is missing or not `intact`.

    The draft gets its name only when it is complete, so that an interruption or a second run at the same
    time leaves nothing half-made. Returns None where `make` fails. Raises `OSError` or `RuntimeError` where
    there is no cache folder that can be written.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        if intact(folder):
            return folder
        remove(folder)
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
        except OSError:  # another run was faster, or what is damaged cannot be removed
            if not (folder.is_dir() and intact(folder)):
                raise
        return folder
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
    sources = modules(HOOKS)
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name] + b"\0")

    def copy(draft: Path) -> bool:
        for name, source in sources.items():
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source)
        return True

    def intact(folder: Path) -> bool:
        try:
            return modules(folder) == sources
        except OSError:
            return False

    try:
        return make_once(f"package-{digest.hexdigest()[:16]}", copy, intact) or HOOKS
    except (OSError, RuntimeError):  # no cache folder that can be written, or no home folder
        return HOOKS


def modules(root: Path) -> dict[str, bytes]:
    """The package's modules below a folder. Without rglob, which would take twice the time."""
    found = {}
    start = len(str(root)) + 1
    for folder, _, names in os.walk(str(root / "pgcat_stack")):
        for name in names:
            if name.endswith(".py"):
                path = Path(folder, name)
                found[str(path)[start:]] = path.read_bytes()
    return found


# The environment


def cached_environment() -> Path | None:
    """A virtual environment with the dependencies, made when it is missing; None where it cannot be made.

    It is made anew when its Python has been uninstalled. Raises what `make_once` raises.
    """
    return make_once(environment_name(), make_environment, lambda folder: interpreter(folder).exists())


def environment_name() -> str:
    """One environment for each set of requirements and each Python."""
    identity = REQUIREMENTS.read_bytes() + sys.version.encode() + sys.base_prefix.encode()
    return f"environment-{hashlib.sha256(identity).hexdigest()[:16]}"


def interpreter(environment: Path) -> Path:
    """The Python of a virtual environment."""
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def make_environment(folder: Path, *fallback: str) -> bool:
    """Make the environment in an empty folder, by uv or by venv and pip. Returns whether it is complete.

    Where uv fails, it gets a second chance with the options `fallback`, if any.
    """
    return make_with_uv(folder) or bool(fallback and make_with_uv(folder, *fallback)) or make_with_pip(folder)


def make_with_uv(folder: Path, *options: str) -> bool:
    """With uv: from its cache alone, then from the package index."""
    import shutil

    uv = shutil.which("uv")
    if uv is None:
        return False
    make = [uv, "venv", "--no-project", "--allow-existing", "--python", sys.executable, str(folder), *options]
    if not quietly(make):
        return False
    install = [uv, "pip", "install", "--python", str(interpreter(folder)), "--requirement", str(REQUIREMENTS)]
    install += options
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
