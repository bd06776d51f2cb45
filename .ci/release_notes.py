#!/usr/bin/env python3
"""Prints the changelog's section of a version: `python3 .ci/release_notes.py 1.0.0`.

Ends with 1 and one line where that version is not prepared: pyproject.toml, the command, the lock file and
the changelog must all have it, and the changelog a date.
"""

import os
import re
import sys
import tomllib
from pathlib import Path

REPOSITORY = os.environ.get("GITHUB_REPOSITORY", "org/pgcat-stack")
ROOT = Path(__file__).resolve().parent.parent


def notes(version: str, root: Path = ROOT) -> str:
    """The section without its heading, with whole links.

    Raises `ValueError` where something does not have this version.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    command = re.search(r'__version__ = "(.*)"', (root / "src/pgcat_stack/__init__.py").read_text())
    packages = tomllib.loads((root / "uv.lock").read_text())["package"]
    locked = next(package["version"] for package in packages if package["name"] == "pgcat-stack")
    places = {
        "pyproject.toml": project,
        "src/pgcat_stack/__init__.py": command[1] if command else "",
        "uv.lock": locked,
    }
    for place, found in places.items():
        if found != version:
            raise ValueError(f"{place} has the version {found}, the tag is {version}")
    changelog = (root / "CHANGELOG.md").read_text()
    date, _, section = changelog.partition(f"\n## {version} – ")[2].partition("\n")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        raise ValueError(f"CHANGELOG.md has no line '## {version} – YYYY-MM-DD'")
    # GitHub shows the notes on a page of its own, where a relative link leads nowhere.
    absolute = re.sub(
        r"\]\((?![a-z]+:)",
        f"](https://github.com/{REPOSITORY}/blob/{version}/",
        section.partition("\n## ")[0],
    )
    return absolute.strip() + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("release_notes: name one version, as in `python3 .ci/release_notes.py 1.0.0`")
    try:
        sys.stdout.write(notes(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"release_notes: {error}")
