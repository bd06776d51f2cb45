"""Docker secrets: the files under secrets/ that compose.yaml names, made when they are missing.

Compose mounts such files as they are, whoever owns them, so the folder keeps others out (0700) and the files
are readable by the non-root users in the containers (0444). What exists is never written over. A value that
another file still holds is taken from there, never replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import stat
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pgcat_stack.build.manifests import pod_containers
from pgcat_stack.files.folder import Folder, UnreadError
from pgcat_stack.files.plain_data import as_list, as_mapping, dig
from pgcat_stack.paths import COMPOSE, SECRETS_FOLDER, VALUES
from pgcat_stack.permify.callers import KEYS, KEYS_VARIABLE
from pgcat_stack.reading.reading import Reading

PASSWORD = "database_password"
PGPASS = "database.pgpass"
"""What Permify's driver reads for PGPASSFILE."""
GENERATED = frozenset({"pgcat-admin", "permify-authn"})
"""The Kubernetes Secrets whose values nobody needs to know beforehand."""

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 32
_FOLDER_MODE = 0o700
_FILE_MODE = 0o444
_MOST_BYTES = 16 * 1024 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # https://www.rfc-editor.org/rfc/rfc6750#section-2.1


class SecretsError(Exception):
    """A secret cannot be made or used. The message is one line that names the file and the remedy."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line
        """The line of the file, counted from 1."""


# How a file holds a value


@dataclass(frozen=True, slots=True)
class Format:
    """How a file holds a secret's value."""

    write: Callable[[str], str]
    """The content of a file with this value."""
    read: Callable[[str], tuple[str, ...]]
    """Every different value in a content, in order. Raises `SecretsError` without the name of the file."""


def _plain_value(text: str) -> tuple[str, ...]:
    return (text.removesuffix("\n").removesuffix("\r"),)


def pgpass_line(password: str) -> str:
    r"""A line of a password file for every server, database and user; `:` and `\` are escaped."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{escaped}\n"


_FIELD = r"((?:[^:\\]|\\[:\\])*)"
_ENTRY = re.compile(":".join([_FIELD] * 5))
_ESCAPED = re.compile(r"\\(.)")


def pgpass_passwords(text: str) -> tuple[str, ...]:
    r"""The different passwords in a password file, in order, for any server, database and user.

    What stands after a line for all of them is never read. Raises `SecretsError` for a line that Permify's
    driver and libpq do not read alike: they want five fields, and `:` and `\` in a field as `\:` and `\\`.
    Lines that start with `#`, and blank ones, hold nothing.
    https://www.postgresql.org/docs/current/libpq-pgpass.html
    """
    found: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ENTRY.fullmatch(line)
        if match is None:
            raise SecretsError(
                f"line {number} is not host:port:database:user:password, with \\: and \\\\ for : and \\"
                " in a field; correct it, or delete the file"
            )
        password = _ESCAPED.sub(r"\1", match[5])
        if password not in found:
            found.append(password)
        if match.groups()[:4] == ("*",) * 4:
            break
    if not found:
        raise SecretsError("holds no line with a password; write one, or delete the file")
    return tuple(found)


PLAIN = Format(write=lambda value: f"{value}\n", read=_plain_value)
"""The value and a line end."""
PASSWORD_FILE = Format(write=pgpass_line, read=pgpass_passwords)
"""libpq's password file."""


def environment_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, name and value of each variable in an environment file, without the quotes around the value."""
    for number, line in enumerate(text.split("\n"), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            yield number, name.strip(), value[1:-1] if quoted else value


_ONE_LINE = f"write one line {KEYS_VARIABLE}=KEY, several keys with commas only"


def _keys_of(text: str) -> tuple[str, ...]:
    """The keys of Permify's callers, as the one value that the file has.

    The file is this line alone, as the runbook's commands change it: Compose would also take quotes, comments
    and other variables. Permify takes what stands between two commas as it is, a blank included.
    """
    if not text.strip():
        raise SecretsError(f"is empty; {_ONE_LINE}, or delete it to have one made")
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if wrong := _wrong_with(line, number):
            raise SecretsError(f"{wrong}; {_ONE_LINE}", number)
    return (lines[0].partition("=")[2],)


def _wrong_with(line: str, number: int) -> str:
    """What is wrong with a line of the file of keys; empty where nothing is. No value is shown."""
    name, _, value = line.partition("=")
    if line.endswith("\r"):
        return f"has a carriage return in line {number}"
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in line):
        return f"has a control character in line {number}"
    if name != KEYS_VARIABLE and "=" in line and _VARIABLE.fullmatch(name):
        return f"sets another variable in line {number}"  # unnamed: a key may end in =
    if name != KEYS_VARIABLE or "=" not in line:
        return f"has a line {number} that does not start with {KEYS_VARIABLE}="
    if number > 1:
        return f"sets {KEYS_VARIABLE} again in line {number}"
    if value[:1] in ("'", '"'):
        return "has quotes around the keys"
    if not all(value.split(",")):
        return "has an empty key"
    if not all(_BEARER.fullmatch(key) for key in value.split(",")):
        return "has a key that no caller can send: letters, digits and -._~+/ are allowed"
    return ""


KEYS_FILE = Format(write=lambda value: f"{KEYS_VARIABLE}={value}\n", read=_keys_of)
"""An environment file of one line."""


# Which secrets there are


@dataclass(frozen=True, slots=True)
class Secret:
    """A file under secrets/. Files with the same `value` hold the same value, each in its own format."""

    file: str
    value: str
    used_by: str
    format: Format = PLAIN
    remembered: str = ""
    """Who else keeps the value, and what to do where a new one is made; empty where only files keep it."""


def _in_the_volume(role: str) -> str:
    return (
        "if the volume primary-data exists, PostgreSQL in it keeps the old one: put the old file back, or set"
        f" this one by \\password {role} in `docker compose exec postgres-primary psql -U postgres`"
    )


SECRETS = (
    Secret(
        PASSWORD,
        "database",
        used_by="PgCat, and bootstrap.sql for the role",
        remembered="if the role has a password already, put the old file back, or run postgres/bootstrap.sql"
        " with this one",
    ),
    Secret(PGPASS, "database", used_by="Permify and the migration", format=PASSWORD_FILE),
    Secret(KEYS, "permify_keys", used_by="Permify, for its callers", format=KEYS_FILE),
    Secret("pgcat_admin_password", "pgcat_admin", used_by="PgCat's admin database"),
    Secret(
        "postgres_password",
        "postgres",
        used_by="the bundled PostgreSQL",
        remembered=_in_the_volume("postgres"),
    ),
    Secret(
        "replication_password",
        "replication",
        used_by="the bundled replica",
        remembered=_in_the_volume("replicator"),
    ),
)
"""The secrets of the template. The first file of a value is made whenever another one of it is needed."""


def secret_of(file: str) -> Secret:
    """The secret of a file; what the table does not know is a value of its own, on one line."""
    return next((secret for secret in SECRETS if secret.file == file), Secret(file, file, used_by=""))


def same_value(secret: Secret) -> tuple[Secret, ...]:
    """The secrets with the same value, in the order of the table, this one among them."""
    return tuple(other for other in SECRETS if other.value == secret.value) or (secret,)


@dataclass(frozen=True, slots=True)
class Made:
    """A file that was made."""

    secret: Secret
    source: str = ""
    """The file that the value was taken from; empty for a new value."""

    @property
    def path(self) -> str:
        """Relative to the deployment."""
        return f"{SECRETS_FOLDER}/{self.secret.file}"


def make_secrets(deployment: Reading) -> list[Made]:
    """Make the secrets of a docker deployment that are missing.

    Returns the files that were made; nothing where compose.yaml names no file under secrets/. Nothing is
    written unless all that exist can be read and agree. Raises `SecretsError` where a file cannot be made or
    read, holds what no program could use as a password, is a link that leaves the folder, or disagrees
    with another file of the same value.
    """
    names = secret_names(deployment)
    if not names:
        return []
    folder = deployment.root / SECRETS_FOLDER
    try:
        _make_folder(folder)
        return _make_files(folder, names)
    except OSError as error:
        place = folder / os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else folder
        with contextlib.suppress(ValueError):
            place = place.relative_to(deployment.root)
        raise SecretsError(f"{place}: {(error.strerror or str(error)).lower()}") from None


def reminders(deployment: Reading, made: Iterable[Made]) -> list[str]:
    """What to do about new values that a program may remember otherwise, one line each."""
    bundled = secret_of("postgres_password").file in secret_names(deployment)
    return [
        f"{one.path} is new: {one.secret.remembered}"
        for one in made
        # The bundled PostgreSQL gets the role's password at every start, by bootstrap.sql.
        if one.secret.remembered and not one.source and not (bundled and one.secret.file == PASSWORD)
    ]


def secret_names(deployment: Reading) -> list[str]:
    """Names of the files under secrets/ which compose.yaml names, in its order, each once."""
    names: list[str] = []
    for secret in deployment.project.declared["secrets"].values():
        parts = PurePosixPath(secret.file or "").parts
        if len(parts) == 2 and parts[0] == SECRETS_FOLDER and parts[1] != ".." and parts[1] not in names:
            names.append(parts[1])
    if any(file.has_keys for service in deployment.services for file in service.env_files):
        names += [KEYS] * (KEYS not in names)
    return names


def kubernetes_commands(deployment: Reading) -> list[str]:
    """The commands that make the Secrets which the pods of a Kubernetes deployment read, one per Secret.

    Values come through pipes, so that no password stands in an argument list, and without line ends, which
    would become a part of the password. Each comes from a file of its own, named like Secret and key. Secrets
    that an ExternalSecret of the deployment makes are left out.
    """
    wanted: dict[tuple[str | None, str], list[str]] = {}
    for manifest in deployment.manifests:
        for name, key in _secret_keys(manifest.data):
            keys = wanted.setdefault((manifest.namespace, name), [])
            if key not in keys:
                keys.append(key)
    values = deployment.sources.get(VALUES)
    for variable in as_list(dig(values.data, "extraEnvVars")) if values else []:
        namespace = next(
            (manifest.namespace for manifest in deployment.manifests if manifest.namespace), None
        )
        for name, key in _secret_reference(variable):
            keys = wanted.setdefault((namespace, name), [])
            if key not in keys:
                keys.append(key)
    made = {
        (manifest.namespace, manifest.get("spec", "target", "name") or manifest.name)
        for manifest in deployment.of_kind("ExternalSecret")
    }
    made |= {(manifest.namespace, manifest.name) for manifest in deployment.of_kind("Secret")}
    commands = []
    for (namespace, name), keys in wanted.items():
        if (namespace, name) not in made:
            commands.append(_kubernetes_command(namespace, name, keys))
    return commands


def _kubernetes_command(namespace: str | None, name: str, keys: list[str]) -> str:
    scope = f"-n {shlex.quote(namespace)} " if namespace else ""
    create = f"kubectl {scope}create secret generic {shlex.quote(name)}"
    values = [f"tr -d '\\n' <{shlex.quote(f'{name}.{key}')}" for key in keys]
    if len(keys) > 1:  # there is one standard input only
        pairs = zip(keys, values, strict=True)
        return " ".join([create, *(f"--from-file={shlex.quote(key)}=<({value})" for key, value in pairs)])
    value = "openssl rand -hex 16 | tr -d '\\n'" if name in GENERATED else values[0]
    return f"{value} | {create} --from-file={shlex.quote(keys[0])}=/dev/stdin"


def _secret_keys(manifest: dict[str, object]) -> Iterable[tuple[str, str]]:
    """Each (Secret, key) that the pods of a workload name in environment variables and volumes."""
    pod_path: tuple[str | int, ...] = ()
    for path, container in pod_containers(manifest):
        pod_path = path[:-2]
        for variable in as_list(container.get("env")):
            yield from _secret_reference(variable)
    for volume in as_list(dig(manifest, *pod_path, "volumes")) if pod_path else []:
        sources = [(dig(volume, "secret"), "secretName")]
        sources += [
            (dig(source, "secret"), "name") for source in as_list(dig(volume, "projected", "sources"))
        ]
        for source, field in sources:
            name = dig(source, field)
            for item in as_list(dig(source, "items")):
                if isinstance(name, str) and isinstance(dig(item, "key"), str):
                    yield name, dig(item, "key")


def _secret_reference(variable: object) -> Iterator[tuple[str, str]]:
    reference = as_mapping(dig(variable, "valueFrom", "secretKeyRef"))
    if isinstance(reference.get("name"), str) and isinstance(reference.get("key"), str):
        yield reference["name"], reference["key"]


def read_keys(file: Path) -> list[str]:
    """The keys of Permify's callers in an environment file, in their order.

    Raises `SecretsError`, with the line, where the file is not exactly one line
    `PERMIFY_AUTHN_PRESHARED_KEYS=KEY[,KEY]`, or a key is empty or no bearer token.
    """
    (value,) = _read(file, KEYS_FILE)
    return value.split(",")


def environment_file(file: Path) -> dict[str, str]:
    """The variables in an environment file; the last of a name counts. Raises `SecretsError`."""
    try:
        text = _content(file).decode("utf-8")
    except UnicodeDecodeError:
        raise SecretsError(f"{file.parent.name}/{file.name}: not UTF-8 text; write it anew") from None
    return {name: value for _, name, value in environment_lines(text)}


def read_password(file: Path, *, anywhere: bool = False) -> str:
    """The password in a file, without the line end that editors put at its end.

    The file is one of secrets/, and no link out of the deployment is followed; or, where the user names it,
    it may be `anywhere`.

    Raises `SecretsError` where it is empty, not UTF-8, starts or ends with blanks, or holds control
    characters: none of these would reach PostgreSQL the same way through every program of the stack.
    """
    (value,) = _read(file, PLAIN, anywhere=anywhere)
    return value


def read_values(folder: Path, secret: Secret) -> tuple[str, ...]:
    """The different values in a file of secrets/, mostly one. Raises as `read_password` does."""
    return _read(folder / secret.file, secret.format)


def is_there(file: Path) -> bool:
    """Whether a file of secrets/ is there, be it one that cannot be used."""
    try:
        with Folder(file.parent.parent) as folder:
            return folder.is_there(f"{file.parent.name}/{file.name}") is not False
    except OSError:
        return False


def _content(file: Path) -> bytes:
    """What a file of secrets/ holds. Raises `SecretsError` and `OSError`."""
    where = f"{file.parent.name}/{file.name}"
    with Folder(file.parent.parent) as folder:
        try:
            return folder.read(where, _MOST_BYTES)
        except UnreadError as unread:
            if unread.error is not None:
                raise unread.error from None
            if unread.why == "large":
                raise SecretsError(f"{where}: larger than any password; write the password anew") from None
            fix = "replace it by a file" if unread.why == "link" else "write the password anew"
            raise SecretsError(f"{where}: {unread}; {fix}") from None


def _content_anywhere(file: Path) -> bytes:
    with file.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise SecretsError(f"{file.parent.name}/{file.name}: larger than any password")
    return content


def _read(file: Path, form: Format, *, anywhere: bool = False) -> tuple[str, ...]:
    where = f"{file.parent.name}/{file.name}"
    content = _content_anywhere(file) if anywhere else _content(file)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretsError(f"{where}: not UTF-8 text; write it anew") from None
    try:
        values = form.read(text)
    except SecretsError as error:
        raise SecretsError(f"{where}: {error}", error.line) from None
    for value in values:
        if not value:
            raise SecretsError(f"{where}: empty; write the password into it, or delete it to have one made")
        if any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
            raise SecretsError(
                f"{where}: holds a line end or another control character; a password is one line"
            )
        if value != value.strip():
            raise SecretsError(f"{where}: starts or ends with a blank; remove it")
    return values


def _make_folder(folder: Path) -> None:
    if folder.is_symlink():
        raise SecretsError(f"{SECRETS_FOLDER}: a symbolic link; make it a folder of the deployment")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(_FOLDER_MODE)
    if not folder.is_dir():
        raise SecretsError(f"{SECRETS_FOLDER}: not a folder; move it away")
    if stat.S_IMODE(folder.stat().st_mode) != _FOLDER_MODE:
        folder.chmod(_FOLDER_MODE)


def _make_files(folder: Path, names: list[str]) -> list[Made]:
    """First read what is there, then write: a mistake in one file leaves all others as they are."""
    wanted: dict[str, tuple[list[Secret], str, str]] = {}
    for name in names:
        secret = secret_of(name)
        members = same_value(secret)
        if secret.value not in wanted:
            value, source = _existing(folder, members)
            needed = [one for one in members if one.file in names or one == members[0]]
            wanted[secret.value] = (needed, value, source)
    made: list[Made] = []
    for needed, value, source in wanted.values():
        for secret in needed:
            new = value or (_new_password() if secret == needed[0] else "")
            if not _exists(folder / secret.file) and _create(folder / secret.file, secret.format.write(new)):
                made.append(Made(secret, source))
            if not value:  # another run at the same time may have been the first
                (value,) = read_values(folder, secret)
        _existing(folder, tuple(needed))
    return made


def _existing(folder: Path, members: tuple[Secret, ...]) -> tuple[str, str]:
    """The value in the files of these secrets, and which file has it; both empty where none of them exists.

    Raises `SecretsError` where two of them disagree.
    """
    found = {secret.file: read_values(folder, secret) for secret in members if _exists(folder / secret.file)}
    common: set[str] = set.intersection(*map(set, found.values())) if found else set()
    if found and not common:
        first, *_, last = found
        raise SecretsError(
            f"{SECRETS_FOLDER}/{last}: holds another password than {SECRETS_FOLDER}/{first};"
            " delete the one that is out of date, and run this again"
        )
    if len(common) > 1:
        names = " and ".join(f"{SECRETS_FOLDER}/{name}" for name in found)
        raise SecretsError(
            f"{names}: holds {len(common)} different passwords;"
            f" write the right one into {SECRETS_FOLDER}/{members[0].file}"
        )
    return (common.pop(), f"{SECRETS_FOLDER}/{next(iter(found))}") if found else ("", "")


def _new_password() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def _exists(file: Path) -> bool:
    """Whether the secret is there already. Raises `SecretsError` for what is no file of this folder."""
    where = f"{file.parent.name}/{file.name}"
    try:
        file.lstat()
    except ValueError:  # a NUL, or half a character
        raise SecretsError(f"{where}: no name that a file can have; correct it in {COMPOSE}") from None
    except OSError:
        pass
    if file.is_symlink():
        target = Path(os.path.realpath(file))
        if not target.is_relative_to(os.path.realpath(file.parent)):
            raise SecretsError(
                f"{where}: a symbolic link that leads out of {SECRETS_FOLDER}/; replace it by a file"
            )
        if not target.exists():
            raise SecretsError(f"{where}: a symbolic link to nothing; remove it")
    if not os.path.lexists(file):
        return False
    if not file.is_file():
        raise SecretsError(f"{where}: not a file; remove it")
    return True


def _create(file: Path, content: str) -> bool:
    """Write the file, whole or not at all, unless it appears meanwhile. Returns whether this made it."""
    if os.open not in os.supports_dir_fd:
        return _create_at(None, str(file.parent), file.name, content)
    # Should secrets/ be a link by now, this fails; should it become one, this still writes where it was.
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _create_at(folder, "", file.name, content)
    finally:
        os.close(folder)


def _create_at(folder: int | None, prefix: str, name: str, content: str) -> bool:
    """The same in an open folder, or where the system has none, in one with this path."""
    draft = os.path.join(prefix, f".{name}.{os.getpid()}.{secrets.token_hex(4)}")  # noqa: PTH118
    file = os.path.join(prefix, name)  # noqa: PTH118
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(draft, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(draft, _FILE_MODE, dir_fd=folder)
        try:
            os.link(draft, file, src_dir_fd=folder, dst_dir_fd=folder)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            with contextlib.suppress(FileNotFoundError):
                os.stat(file, dir_fd=folder, follow_symlinks=False)
                return False
            os.replace(draft, file, src_dir_fd=folder, dst_dir_fd=folder)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
