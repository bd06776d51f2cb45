"""PS709: the files under secrets/ hold what the programs can use. No message shows what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pgcat_stack.checks import check
from pgcat_stack.deployment import Deployment
from pgcat_stack.findings import Location, Problem
from pgcat_stack.secrets import (
    FOLDER,
    PASSWORD,
    PGPASS,
    SecretsError,
    pgpass_line,
    read_password,
    secret_names,
)


@check(
    code="PS709",
    name="secret-file-content",
    severity="error",
    why="An empty password file, or one of several lines, stops PgCat at its start; and Permify logs in with"
    " database.pgpass, so after a rotation of database_password alone it is refused.",
    mend="Write one line into the file, or delete it; `pgcat-stack secrets .` makes what is missing.",
)
def secret_file_content(deployment: Deployment) -> Iterator[Problem]:
    """Secret files of Compose that hold no password, or another than the one they derive from."""
    folder = deployment.root / FOLDER
    passwords: dict[str, str] = {}
    names = secret_names(deployment)
    for name in dict.fromkeys([*(name for name in names if name != PGPASS), *([PASSWORD] if names else [])]):
        try:
            if (folder / name).is_file():
                passwords[name] = read_password(folder / name)
        except SecretsError as error:
            message, _, fix = str(error).removeprefix(f"{FOLDER}/{name}: ").partition("; ")
            yield Problem(
                Location(f"{FOLDER}/{name}"), message, fix or "write the password anew, on one line"
            )
        except OSError:
            continue  # PS708 speaks of the modes
    if PGPASS in names and PASSWORD in passwords and not _holds(folder / PGPASS, passwords[PASSWORD]):
        text = f"does not hold the password of {FOLDER}/{PASSWORD}"
        fix = f"delete {FOLDER}/{PGPASS}, and run pgcat-stack secrets ."
        yield Problem(Location(f"{FOLDER}/{PGPASS}"), text, fix)


def _holds(file: Path, password: str) -> bool:
    """Whether a line of a password file gives this password; true where the file cannot be read."""
    ending = pgpass_line(password).removeprefix("*:*:*:*").removesuffix("\n").encode()
    try:
        lines = file.read_bytes().splitlines() if file.is_file() else [ending]
    except OSError:
        return True
    return any(line.endswith(ending) and not line.startswith(b"#") for line in lines)
