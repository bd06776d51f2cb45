"""Passwords: from the environment, from secret files, from the cluster's Secrets. Never printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgcat_stack.doctor.expected import Facts
from pgcat_stack.doctor.side_by_side import Failed
from pgcat_stack.paths import SECRETS_FOLDER
from pgcat_stack.permify.callers import KEYS
from pgcat_stack.secrets import _BEARER, SecretsError, read_keys, read_password, secret_names

DATABASE, ADMIN, TOKEN = "DATABASE_PASSWORD", "PGCAT_ADMIN_PASSWORD", "PERMIFY_TOKEN"
FILES = {DATABASE: "database_password", ADMIN: "pgcat_admin_password"}

_REMEDY = f"set {TOKEN} or {TOKEN}_FILE to a key"

FromCluster = Callable[[str, str], str]
"""The value of a Secret's key. Raises `Failed`."""


@dataclass(frozen=True, slots=True)
class Password:
    """A password, or why there is none."""

    value: str | None = field(repr=False)
    missing: str = ""
    """What to set; empty where there is a value."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the doctor logs in with."""

    database: Password
    admin: Password
    token: str = field(default="", repr=False)
    """What Permify is sent: a key of its callers, or a token; empty where none was found."""
    no_token: str = ""
    """Why none was found, and what to do."""


def read_credentials(
    facts: Facts, environment: Mapping[str, str], cluster: FromCluster | None
) -> Credentials:
    """The passwords: NAME or NAME_FILE in the environment first, then the deployment's own secrets."""

    def password(name: str, variable: str = "") -> Password:
        if environment.get(name):
            return Password(environment[name])
        if environment.get(f"{name}_FILE"):
            return _from_file(Path(environment[f"{name}_FILE"]), f"{name}_FILE")
        file = FILES[name]
        if file in secret_names(facts.deployment):
            return _from_file(facts.deployment.root / SECRETS_FOLDER / file, "")
        secret = facts.secret_of(file, variable)
        if cluster is None or secret is None:
            return Password(None, f"set {name} or {name}_FILE")
        try:
            return Password(cluster(*secret))
        except Failed as failed:
            return Password(None, f"{failed.trouble.text}: set {name} or {name}_FILE")

    database, admin = password(DATABASE, "PGPASSWORD"), password(ADMIN)
    return Credentials(database, admin, *_token(facts, environment, cluster))


def _token(facts: Facts, environment: Mapping[str, str], cluster: FromCluster | None) -> tuple[str, str]:
    """The first key of Permify's callers, or why there is none that can be sent."""
    token, missing, source = _found_token(facts, environment, cluster)
    if missing or _BEARER.fullmatch(token):
        return token, missing
    remedies = {TOKEN: "set it to a key", f"{TOKEN}_FILE": "write a key into the file that it names"}
    remedy = remedies.get(source, f"correct it, or {_REMEDY}")
    return "", f"{source} holds no bearer token (letters, digits and ._~+/-, then =): {remedy}"


def _found_token(
    facts: Facts, environment: Mapping[str, str], cluster: FromCluster | None
) -> tuple[str, str, str]:
    """What stands for a key, as it is; or why there is nothing; and where it was looked for."""
    if environment.get(TOKEN):
        return environment[TOKEN], "", TOKEN
    if environment.get(f"{TOKEN}_FILE"):
        found = _from_file(Path(environment[f"{TOKEN}_FILE"]), f"{TOKEN}_FILE")
        return found.value or "", found.missing, f"{TOKEN}_FILE"
    if KEYS in secret_names(facts.deployment):
        source = f"{SECRETS_FOLDER}/{KEYS}"
        try:
            return read_keys(facts.deployment.root / SECRETS_FOLDER / KEYS)[0], "", source
        except SecretsError as error:
            return "", str(error), source
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            return "", f"{source} cannot be read, {reason}: {_REMEDY}", source
    secret = facts.keys_secret
    if cluster is None or secret is None:
        return "", _REMEDY, ""
    source = f"{secret[1]} of Secret {secret[0]}"
    try:
        return cluster(*secret).split(",")[0], "", source
    except Failed as failed:
        return "", f"{failed.trouble.text}: {_REMEDY}", source


def _from_file(file: Path, variable: str) -> Password:
    place = f"{variable} names {file}, which" if variable else f"{SECRETS_FOLDER}/{file.name}"
    try:
        return Password(read_password(file, anywhere=bool(variable)))
    except SecretsError as error:
        return Password(None, str(error))
    except FileNotFoundError:
        name = next((name for name, own in FILES.items() if own == file.name), "")
        remedy = f": set {name}, or copy the file here" if name and not variable else ""
        return Password(None, f"{place} is missing{remedy}")
    except OSError as error:
        return Password(None, f"{place} cannot be read: {os.strerror(error.errno or 0).lower()}")
