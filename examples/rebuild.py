"""Renders every example from its `answers.yml`.

    ./dev python examples/rebuild.py            all of them
    ./dev python examples/rebuild.py sidecar    only these

An example is what `copier copy` makes of the working tree, tagged with the version of pyproject.toml and
found at `gh:org/pgcat-stack`: so its `.copier-answers.yml` says what a user's says, on every machine and at
every commit. Hooks do not run; an example has no secrets.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
REPOSITORY = EXAMPLES.parent
sys.path[:0] = [str(REPOSITORY / part) for part in ("src", "tests")]

from versions import URL, Home  # noqa: E402


def names() -> list[str]:
    """The examples there are, by their answers."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/answers.yml"))


def rebuild(target: Path, only: Iterable[str] = ()) -> None:
    """Render examples into `target/NAME/deploy`, replacing what is there: all of them, or `only` some.

    Raises `RuntimeError` with what Copier said where it refuses the answers.
    """
    with tempfile.TemporaryDirectory(prefix="pgcat-stack-examples-") as folder:
        home = Home(Path(folder)).prepare()
        version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
        home.release(version)
        for name in only or names():
            rendered = home.folder / name
            run = home.copier(
                *("copy", "--defaults", "--skip-tasks", "--quiet", f"--vcs-ref={version}"),
                f"--data-file={EXAMPLES / name / 'answers.yml'}",
                *(URL, str(rendered)),
            )
            if run.returncode != 0:
                raise RuntimeError(f"examples/{name}/answers.yml: {run.stderr.strip().splitlines()[-1]}")
            deploy = target / name / "deploy"
            shutil.rmtree(deploy, ignore_errors=True)
            shutil.copytree(rendered, deploy)


def main() -> int:
    """Rebuild the examples that the command line names; exit 1 where one is refused."""
    parser = argparse.ArgumentParser(prog="rebuild.py", description="Render the examples from their answers.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of {', '.join(names())}; default: all")
    options = parser.parse_args()
    for name in options.names:
        if name not in names():
            parser.error(f"{name} is no example; there are {', '.join(names())}")
    try:
        rebuild(EXAMPLES, options.names)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
