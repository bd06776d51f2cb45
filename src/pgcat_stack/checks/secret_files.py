"""PS709 and PS829: files under secrets/ hold what the programs can use. No message shows what is in them."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import SECRETS_FOLDER
from pgcat_stack.permify.callers import KEYS
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import (
    SecretsError,
    is_there,
    read_keys,
    read_values,
    same_value,
    secret_names,
    secret_of,
)


@check(
    code="PS709",
    name="secret-file-content",
    severity="error",
    why="An empty password file, or one of several lines, stops PgCat at its start; and Permify logs in with"
    " database.pgpass, so after a rotation of database_password alone it is refused.",
    fix="Write one line into the file, or delete it: `pgcat-stack secrets .` makes what is missing, and"
    " takes the password from the other file where that still has it.",
)
def secret_file_content(reading: Reading) -> Iterator[Problem]:
    """Secret files of Compose that hold no password, or another than the file with the same one."""
    folder = reading.root / SECRETS_FOLDER
    if SECRETS_FOLDER in reading.sources:
        return  # a link out of the deployment: PS109 speaks
    names = [name for name in secret_names(reading) if name != KEYS]  # of which PS829 speaks
    for members in dict.fromkeys(same_value(secret_of(name)) for name in names):
        found: dict[str, tuple[str, ...]] = {}
        for secret in members:
            place = f"{SECRETS_FOLDER}/{secret.file}"
            try:
                if is_there(folder / secret.file):
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


LEAST_KEY = 16
"""Characters of a key that nobody guesses: those that are made here have 32."""


@check(
    code="PS829",
    name="permify-keys-file",
    severity="error",
    why="Permify takes its keys as they stand between two commas: an empty one lets a caller in that sends"
    " none, one with a blank lets nobody in, a short one can be guessed. Any other variable in this file"
    " beats permify.yaml, where nobody looks for it; and the commands that rotate the keys want one line.",
    fix="Write one line PERMIFY_AUTHN_PRESHARED_KEYS=KEY into the file, several keys with commas only, and"
    " nothing else, no quotes and no comment; or delete it: `pgcat-stack secrets .` makes what is missing.",
)
def permify_keys_file(reading: Reading) -> Iterator[Problem]:
    """An environment file that is not one line of keys, or whose keys Permify or its callers cannot use."""
    file, place = reading.root / SECRETS_FOLDER / KEYS, Location(f"{SECRETS_FOLDER}/{KEYS}")
    if KEYS not in secret_names(reading) or SECRETS_FOLDER in reading.sources:
        return
    try:
        if not is_there(file):
            return  # it is made where it is missing
        keys = read_keys(file)
    except SecretsError as error:
        message, _, fix = str(error).removeprefix(f"{SECRETS_FOLDER}/{KEYS}: ").partition("; ")
        yield Problem(Location(place.path, error.line), message, fix)
        return
    except OSError:
        return  # PS708 speaks of the modes
    if any(len(key) < LEAST_KEY for key in keys):
        text = f"has a key of fewer than {LEAST_KEY} characters, which can be guessed"
        yield Problem(place, text, "write a longer one, such as openssl rand -hex 16 prints")
