"""PS44x: every password comes from where it is kept, and the same one reaches both ends.

start.sh fills `"${name}"` in pgcat.toml from the file NAME in SECRETS_DIR; pgx reads PGPASSWORD, or the
file that PGPASSFILE names.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from itertools import chain

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import Key
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import COMPOSE, PERMIFY, PGCAT, VALUES
from pgcat_stack.permify.callers import KEYS, KEYS_VARIABLE
from pgcat_stack.printable import show, show_at
from pgcat_stack.reading.containers import Container
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import PASSWORD, PGPASS

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9_]+)\}")
_SECRETS_FOLDER = "/run/secrets"
_CERTIFICATE = "ca.crt"
_TAKEN = re.compile(r"(?<![\w)])\.(\w+)")  # in {{ .name | trim }} of an ExternalSecret's template
_SECRET_PATH = re.compile(r"/run/secrets/([A-Za-z0-9._-]*[A-Za-z0-9_-])")


def placeholder(value: object) -> str | None:
    """The name in a value that is one placeholder, as start.sh fills them."""
    match = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match else None


def _secret_file(container: Container, name: str) -> str | None:
    return container.origin(posixpath.join(container.value("SECRETS_DIR", _SECRETS_FOLDER), name))


def _judged(reading: Reading) -> bool:
    return reading.kustomization is None or reading.complete


@check(
    code="PS440",
    name="placeholder-without-secret",
    severity="error",
    needs=(COMPOSE, PGCAT, PERMIFY),
    why="start.sh fills each placeholder from the secret file of its name, and stops where the"
    " file is missing;"
    " what does not look like a placeholder to it reaches PgCat as it stands.",
    fix='Write "${name}", letters, digits and underscores, alone in double quotes, and mount a secret'
    " of that name.",
)
def placeholder_without_secret(reading: Reading) -> Iterator[Problem]:
    """Placeholders in pgcat.toml that start.sh cannot fill."""
    pgcat = reading.pgcat
    if pgcat is None or "${" not in pgcat.text:
        return
    readers = reading.running("pgcat") if _judged(reading) else []
    lines = [*pgcat.text.splitlines(), ""]
    for keys, value in chain.from_iterable(pgcat.texts):
        if "${" not in value:
            continue
        name = placeholder(value)
        place = pgcat.at(*keys)
        if name is None:
            shown, where = show_at(keys, value), ".".join(map(str, keys))
            text = f"{shown} in {where} is not a placeholder that start.sh fills"
            yield Problem(place, text, 'write "${name}", alone in the quotes')
            continue
        if f'"${{{name}}}"' not in lines[place.line - 1]:
            yield Problem(place, f"start.sh fills ${{{name}}} in double quotes only", f'write "${{{name}}}"')
        for reader in readers:
            if _secret_file(reader, name) is None:
                folder = reader.value("SECRETS_DIR", _SECRETS_FOLDER)
                text = f"{reader.text} has no secret {folder}/{name} for the placeholder ${{{name}}}"
                yield Problem(place, text, f"mount the secret as {folder}/{name}")


@check(
    code="PS441",
    name="passwords-differ",
    severity="error",
    needs=(COMPOSE, PGCAT, PERMIFY),
    why="PgCat, Permify and the migration log in with the password of one role; kept in two"
    " places, the two drift"
    " apart at the next rotation.",
    fix="Take the password from the same Secret and key, or the same file, everywhere.",
)
def passwords_differ(reading: Reading) -> Iterator[Problem]:
    """Permify, the migration and PgCat with different secrets for the database password."""
    if not _judged(reading):
        return
    clients, servers = _pool_secrets(reading)
    permify = [
        (f"{container.text}", secret, place)
        for container in reading.running("permify")
        for secret, place in _password_sources(container)
    ]
    permify += [
        (
            "Helm values",
            f"secret:{variable.secret[0]}/{variable.secret[1]}",
            reading.sources[VALUES].at(*variable.keys),
        )
        for variable in reading.helm_variables
        if variable.name == "PGPASSWORD" and variable.secret
    ]
    migration = [
        (f"{container.text}", secret, place)
        for container in reading.running("migrate")
        for secret, place in _password_sources(container)
    ]
    direct = {secret for _, secret, _ in permify} if not reading.topology.fronted else set()
    for users, expected in ((permify, clients), (migration, servers or direct)):
        for user, secret, place in users:
            if expected and secret not in expected:
                where = "PgCat" if reading.topology.fronted else "Permify"
                text = (
                    f"{user} takes the database password from {_shown(secret)}, {where}"
                    f" from {_shown(*expected)}"
                )
                yield Problem(place, text, "take it from the same place")


def _shown(*secrets: str) -> str:
    return " or ".join(sorted(secret.removeprefix("secret:") for secret in secrets))


def _pool_secrets(reading: Reading) -> tuple[set[str], set[str]]:
    """Where the passwords of the pools that Permify uses come from: of clients, and of the role."""
    used = {connection.uri.database for connection in reading.connections.permify}
    clients: set[str] = set()
    servers: set[str] = set()
    for pool in reading.topology.pools.values():
        for user in pool.users if pool.name in used else ():
            for container in reading.running("pgcat"):
                for value, found in ((user.password, clients), (user.server_password, servers)):
                    name = placeholder(value)
                    origin = _secret_file(container, name) if name else None
                    if origin:
                        found.add(_same_password(origin))
    return clients, servers


def _password_sources(container: Container) -> Iterator[tuple[str, Location]]:
    """Where a program that connects by pgx has its password from."""
    variable = container.variable("PGPASSWORD")
    if variable is not None and variable.secret:
        yield f"secret:{variable.secret[0]}/{variable.secret[1]}", container.at(*variable.keys)
    file = container.variable("PGPASSFILE")
    if file is not None and file.value and container.pod is None:
        origin = container.origin(file.value)
        if origin:
            yield _same_password(origin), container.at(*file.keys)


def _same_password(origin: str) -> str:
    """The password file is derived from the password beside it."""
    folder, name = posixpath.split(origin)
    return posixpath.join(folder, PASSWORD) if name == PGPASS else origin


@check(
    code="PS442",
    name="secret-file-missing",
    severity="error",
    needs=(COMPOSE, PGCAT, PERMIFY),
    why="A program that is told to read a password from a file fails where the file is not mounted.",
    fix="List the secret under `secrets` of the service, or mount it, at the path that is read.",
)
def secret_file_missing(reading: Reading) -> Iterator[Problem]:
    """Variables, commands and health checks that read secret files which are not mounted."""
    if not _judged(reading):
        return
    for container in reading.containers:
        said: set[str] = set()
        for keys, path in _secret_files(container):
            if path not in said and container.origin(path) is None:
                said.add(path)
                yield Problem(
                    container.at(*keys),
                    f"{container.text} reads {path}, where no secret is mounted",
                    _mounting(container, path),
                )


def _mounting(container: Container, path: str) -> str:
    name = posixpath.basename(path)
    return (
        f"mount a secret there, its path {name}"
        if container.pod
        else f"add {name} to the secrets of the service"
    )


def _secret_files(container: Container) -> Iterator[tuple[tuple[Key, ...], str]]:
    for variable in container.variables:
        reads_file = variable.name.endswith("_FILE") or variable.name == "PGPASSFILE"
        if reads_file and variable.value and variable.value.startswith("/"):
            yield variable.keys, variable.value
    for keys, text in container.texts:
        for name in _SECRET_PATH.findall(text):
            yield keys, f"{_SECRETS_FOLDER}/{name}"


@check(
    code="PS443",
    name="no-password",
    severity="error",
    needs=(COMPOSE, PGCAT, PERMIFY),
    why="The URIs carry no password, so Permify and the migration need one of PGPASSWORD and"
    " PGPASSFILE, and cannot"
    " log in without.",
    fix="Set PGPASSWORD from a Secret, or PGPASSFILE to a mounted file.",
)
def no_password(reading: Reading) -> Iterator[Problem]:
    """Permify and migrations that have no password from anywhere."""
    in_uri = {id(one.container) for one in reading.connections.permify if one.uri.password is not None}
    for container in (*reading.running("permify"), *reading.running("migrate")):
        named = container.variable("PGPASSWORD") or container.variable("PGPASSFILE")
        in_words = any(
            ":" in word.partition("://")[2].partition("@")[0] for word in container.words if "@" in word
        )
        if not (named or container.inherits or in_words or id(container) in in_uri):
            fix = "set PGPASSWORD from a Secret" if container.pod else "set PGPASSFILE to a mounted secret"
            yield Problem(container.at(), f"{container.text} has neither PGPASSWORD nor PGPASSFILE", fix)


@check(
    code="PS444",
    name="external-secret",
    severity="error",
    needs=(COMPOSE, PGCAT, PERMIFY),
    why="Pods that need a key which no ExternalSecret fetches do not start.",
    fix="Add the key to the `data` of the ExternalSecret whose target is the Secret, or a new"
    " ExternalSecret.",
)
def external_secret(reading: Reading) -> Iterator[Problem]:
    """Secrets and keys in use that the deployment's ExternalSecrets do not provide."""
    if not reading.external_secrets or not reading.complete:
        return
    provided: dict[str, set[str] | None] = {}
    for secret in reading.external_secrets:
        known = provided.get(secret.target, set())
        if secret.fetches_all or known is None:
            provided[secret.target] = None
            continue
        for text in secret.template.values():
            for taken in sorted(set(_TAKEN.findall(text.value)) - secret.fetched):
                yield Problem(
                    text.location,
                    f"the template takes .{taken}, which this ExternalSecret does not fetch",
                    f"it fetches {', '.join(sorted(secret.fetched)) or 'nothing'}",
                )
        provided[secret.target] = {*(secret.fetched if secret.merges else ()), *secret.template, *known}
    for manifest in reading.of_kind("Secret"):
        provided[manifest.name] = None
    for name, key, place in _used(reading):
        if key == _CERTIFICATE:  # of whoever runs PostgreSQL, who also makes the Secret
            continue
        if name not in provided:
            fix = f"ExternalSecrets make {', '.join(sorted(provided))}"
            yield Problem(place, f"no ExternalSecret makes the Secret {show(name)}", fix)
        elif key not in (provided[name] or {key}):
            have = ", ".join(sorted(provided[name] or ()))
            yield Problem(
                place,
                f"no ExternalSecret gives the Secret {name} the key {show(key)}",
                f"it has {have or 'none'}",
            )


def _used(reading: Reading) -> Iterator[tuple[str, str, Location]]:
    """Each Secret and key that a container or a mount names, once for each place."""
    seen: set[tuple[Location, str, str]] = set()
    for container in reading.containers:
        for name, key, keys in _secret_keys(container):
            place = container.at(*keys)
            if (place, name, key) not in seen:
                seen.add((place, name, key))
                yield name, key, place
    for variable in reading.helm_variables:
        if variable.secret:
            yield (*variable.secret, reading.sources[VALUES].at(*variable.keys))


def _secret_keys(container: Container) -> Iterator[tuple[str, str, tuple[Key, ...]]]:
    """Each Secret and key that a container names, with the place in it."""
    for variable in container.variables:
        if variable.secret:
            yield (*variable.secret, variable.keys)
    for mount in container.mounts:
        kind, _, rest = mount.origin.partition(":")
        name, _, key = rest.partition("/")
        if kind == "secret" and key:
            yield name, key, mount.keys


@check(
    code="PS445",
    name="keys-are-a-password",
    severity="error",
    needs=(COMPOSE, PGCAT, PERMIFY),
    why="Every caller of Permify has its key. Taken from the Secret of a password, callers also have that"
    " password, and a rotation of the one breaks the other.",
    fix="Give the keys a Secret and a key of their own: `permify-authn`, `keys`.",
)
def keys_are_a_password(reading: Reading) -> Iterator[Problem]:
    """Keys of Permify's callers that come from where a password does."""
    passwords = {
        (name, key)
        for container in reading.containers
        for name, key, keys in _secret_keys(container)
        if not _is_keys(container, keys)
    }
    passwords |= {
        each.secret for each in reading.helm_variables if each.secret and each.name != KEYS_VARIABLE
    }
    for place, _, secret in _keys_variables(reading):
        if secret and secret in passwords:
            text = f"the keys of Permify's callers are {_shown('/'.join(secret))}, which is a password"
            yield Problem(place, text, "take them from the Secret permify-authn, key keys")


@check(
    code="PS446",
    name="keys-twice",
    severity="error",
    needs=(COMPOSE, PGCAT, PERMIFY),
    why="Where the keys of Permify's callers are given twice, one of them counts and the other does nothing:"
    " a rotation of it lets nobody in. Kubernetes also merges such a list wrongly.",
    fix="Keep one: `secrets/permify.env` in Compose, the Secret `permify-authn` on Kubernetes.",
)
def keys_twice(reading: Reading) -> Iterator[Problem]:
    """Variables for the keys that stand twice, or beside the environment file with them."""
    seen: set[str] = set()
    for place, where, _ in _keys_variables(reading):
        if where in seen:
            yield Problem(place, f"{KEYS_VARIABLE} stands twice in {where}", "keep one")
        seen.add(where)
    for container in reading.services:
        variable = container.variable(KEYS_VARIABLE)
        in_file = any(file.has_keys for file in container.env_files)
        if variable is not None and in_file and variable.keys[0] != "env_file":
            text = f"{KEYS_VARIABLE} under environment beats the one in secrets/{KEYS}"
            yield Problem(
                container.at(*variable.keys), text, f"remove it, and keep the keys in secrets/{KEYS}"
            )


def _keys_variables(reading: Reading) -> Iterator[tuple[Location, str, tuple[str, str] | None]]:
    for container in reading.containers:
        for variable in container.variables:
            if variable.name == KEYS_VARIABLE:
                yield container.at(*variable.keys), container.text, variable.secret
    for variable in reading.helm_variables:
        if variable.name == KEYS_VARIABLE:
            yield reading.sources[VALUES].at(*variable.keys), "extraEnvVars", variable.secret


def _is_keys(container: Container, keys: tuple[Key, ...]) -> bool:
    return any(variable.keys == keys and variable.name == KEYS_VARIABLE for variable in container.variables)
