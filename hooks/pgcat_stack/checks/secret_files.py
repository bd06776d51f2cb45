"""PS709: the files under secrets/ hold what the programs can use. No message shows what is in them."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.deployment import Deployment
from pgcat_stack.findings import Location, Problem
from pgcat_stack.secrets import FOLDER, SecretsError, read_values, same_value, secret_names, secret_of


@check(
    code="PS709",
    name="secret-file-content",
    severity="error",
    why="An empty password file, or one of several lines, stops PgCat at its start; and Permify logs in with"
    " database.pgpass, so after a rotation of database_password alone it is refused.",
    mend="Write one line into the file, or delete it: `pgcat-stack secrets .` makes what is missing, and"
    " takes the password from the other file where that still has it.",
)
def secret_file_content(deployment: Deployment) -> Iterator[Problem]:
    """Secret files of Compose that hold no password, or another than the file with the same one."""
    folder = deployment.root / FOLDER
    for members in dict.fromkeys(same_value(secret_of(name)) for name in secret_names(deployment)):
        found: dict[str, tuple[str, ...]] = {}
        for secret in members:
            place = f"{FOLDER}/{secret.file}"
            try:
                if (folder / secret.file).is_file():
                    found[place] = read_values(folder, secret)
            except SecretsError as error:
                message, _, fix = str(error).removeprefix(f"{place}: ").partition("; ")
                yield Problem(Location(place), message, fix or "write the password anew, on one line")
            except OSError:
                continue  # PS708 speaks of the modes
        first = next(iter(found), "")
        for place, values in found.items():
            if not set(values) & set(found[first]):
                fix = "delete the one that is out of date, and run pgcat-stack secrets ."
                yield Problem(Location(place), f"does not hold the password of {first}", fix)
