from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOT_FOR_THE_HOOK = {"psycopg", "rich"}


def locked() -> dict[str, dict[str, Any]]:
    return {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}


def needed() -> dict[str, str]:
    """Locked runtime dependencies and what they need, without those that only the command uses."""
    packages = locked()
    found: dict[str, str] = {}
    queue = [
        item["name"]
        for item in packages["pgcat-stack"]["dependencies"]
        if item["name"] not in NOT_FOR_THE_HOOK
    ]
    while queue:
        name = queue.pop()
        if name not in found:
            found[name] = packages[name]["version"]
            queue += [item["name"] for item in packages[name].get("dependencies", [])]
    return found


def required() -> dict[str, str]:
    lines = (ROOT / "hooks/requirements.txt").read_text().splitlines()
    pins = [re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)", line) for line in lines if not line.startswith("#")]
    assert all(pins), "every line is an exact version"
    return {pin[1]: pin[2] for pin in pins if pin}


def test_requirements_are_what_the_lock_has() -> None:
    assert required() == needed()


def test_requirements_say_how_they_are_made() -> None:
    assert "uv export" in (ROOT / "hooks/requirements.txt").read_text().splitlines()[1]
