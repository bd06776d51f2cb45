"""PS7xx: passwords that stand in files, where version control, images, `docker inspect` and logs keep them.

No message shows a password. References are fine: `"${name}"` in pgcat.toml, secretKeyRef, `${VAR}` of
Compose, *_FILE variables.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator
from typing import Any

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import Key, as_mapping, dig, strings
from pgcat_stack.files.sources import Source
from pgcat_stack.files.variables import interpolated
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import COMPOSE, PERMIFY, SECRETS_FOLDER, VALUES
from pgcat_stack.reading.kustomizations import Generator
from pgcat_stack.reading.reading import Reading
from pgcat_stack.secrets import environment_lines

GITIGNORE = ".gitignore"
_TEMPLATE_KEY = "_src_path"
_TEMPLATE = re.compile(rf"^[ \t]*[\"']?{_TEMPLATE_KEY}[\"']?[ \t]*:", re.MULTILINE)
_REFERENCE = re.compile(r"\$\$?[({][^(){}]*[)}]|\$\$?[A-Za-z_]\w*|\{\{.*\}\}|<[^<>]+>")


def is_reference(value: str) -> bool:
    """Whether the whole value stands for something kept elsewhere; a default inside counts as the value."""
    value = value.strip()
    return bool(_REFERENCE.fullmatch(value)) and not re.match(r"\$\{\w+:?-[^}]", value)


def is_answers_file(source: Source) -> bool:
    """Whether Copier keeps its answers there, under any name: only they hold the template's address."""
    return _TEMPLATE_KEY in source.text and bool(_TEMPLATE.search(source.text))


@check(
    code="PS701",
    name="password-in-pgcat-toml",
    severity="error",
    why="pgcat.toml becomes a ConfigMap or a mounted file that everybody with access to the"
    " repository reads.",
    fix='Put the password into a secret and write its name: password = "${database_password}".',
)
def password_in_pgcat_toml(reading: Reading) -> Iterator[Problem]:
    """Values of keys named password that are no placeholder."""
    pgcat = reading.pgcat
    for keys, value in _named_password(pgcat.data) if pgcat else ():
        if pgcat and not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
            name = "pgcat_admin_password" if "admin" in str(keys[-1]) else "database_password"
            text = f"{'.'.join(map(str, keys))} is written out"
            yield Problem(pgcat.at(*keys), text, f'write "${{{name}}}" and keep it in a secret')


def _named_password(value: object, keys: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], object]]:
    for key, item in as_mapping(value).items():
        if isinstance(item, dict):
            yield from _named_password(item, (*keys, key))
        elif "password" in str(key).lower() and not isinstance(item, bool):
            yield (*keys, key), item


# Each part has a limit, so that a long text without an address takes no longer than it is long.
_IN_URI = re.compile(
    r"(?:postgres(?:ql)?://[^\s/@:\"'?#]{0,300}:(?=[^\s@\"']{1,2000}@)"
    r"|[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s/@:\"'?#]{0,300}:(?=[^\s@/\"']{1,2000}@))"
    r"(?P<password>[^\s@\"']{1,2000})@"
)
_DSN = re.compile(r"(?:^|\s)(?:host|dbname|user)\s*=")
_IN_WORDS = re.compile(
    r"(?:^|[\s?&\"'])(?:password|PGPASSWORD)\s*=\s*(?P<password>'[^']*'|\"[^\"]*\"|[^\s&\"']+)"
)


@check(
    code="PS702",
    name="password-in-uri",
    severity="error",
    why="A URI with a password ends up in ConfigMaps, process lists and error messages.",
    fix="Leave the password out of the URI; pgx reads PGPASSWORD, or the file that PGPASSFILE names.",
)
def password_in_uri(reading: Reading) -> Iterator[Problem]:
    """Connection strings with a password in any YAML file, and references to one in argument lists."""
    for source in reading.sources.values():
        if source.language != "yaml" or ("://" not in source.text and "assword" not in source.text.lower()):
            continue
        if is_answers_file(source):
            continue  # PS711 reports what its addresses carry
        for document, texts in enumerate(source.texts):
            for keys, text in texts:
                how = _password_in(text, keys)
                if how:
                    fix = "leave it out; pgx reads PGPASSWORD or the file that PGPASSFILE names"
                    yield Problem(source.at(*keys, document=document), how, fix)


def _password_in(text: str, keys: tuple[Key, ...]) -> str:
    address, word = "://" in text and "@" in text, "password" in text or "PGPASSWORD" in text
    if not address and not (word and "=" in text):  # most texts
        return ""
    arguments = any(key in ("args", "command", "entrypoint") for key in keys)
    words = arguments or "://" in text or _DSN.search(text)
    for pattern in (_IN_URI, _IN_WORDS) if words else (_IN_URI,):
        for match in pattern.finditer(text):
            password = match["password"].strip("'\"")
            if not is_reference(password) and not password.startswith(("$(", "$$(")):
                return (
                    "a connection string carries a password"
                    if pattern is _IN_URI
                    else "a password is written out"
                )
            if arguments and pattern is _IN_URI:
                return "a connection string with a password reaches the argument list of the process"
    return ""


_SECRET_NAME = re.compile(
    r"PASSW(?:OR)?D|PASSPHRASE|(?:_|^)(?:SECRET|TOKEN|PRESHARED_KEYS|SECRET_ACCESS_KEY)$"
)
_NO_SECRET = re.compile(r"(?:_FILE|_PATH|_DIR|_NAME|_ENCRYPTION|_METHOD|_POLICY|_LENGTH)$")
_WORDS = frozenset({"", "true", "false", "yes", "no", "on", "off", "0", "1"})


@check(
    code="PS703",
    name="password-in-environment",
    severity="error",
    why="Values of variables stand in the file, in `docker inspect` and in `kubectl get -o yaml`.",
    fix="Take it from a Secret by secretKeyRef, or use the variable that takes a file: PGPASSFILE, *_FILE."
    " In compose.yaml, `${NAME:?}` takes it from the environment.",
)
def password_in_environment(reading: Reading) -> Iterator[Problem]:
    """Variables named like secrets with a value in the file."""
    for container in reading.containers:
        for variable in container.variables:
            # As written, since a default inside ${…} also stands in the file.
            if _is_secret(variable.name, variable.written):
                fix = "use valueFrom.secretKeyRef"
                if container.pod is None:
                    fix = f"use PGPASSFILE or a *_FILE variable, or write ${{{variable.name}:?}}"
                yield Problem(
                    container.at(*variable.keys),
                    f"{container.text} has the value of {variable.name} written out",
                    fix,
                )
    for variable in reading.helm_variables:
        if _is_secret(variable.name, variable.value):
            place = reading.sources[VALUES].at(*variable.keys)
            yield Problem(place, f"the value of {variable.name} is written out", "use valueFrom.secretKeyRef")


def _is_secret(name: str, value: object) -> bool:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return False
    named = _SECRET_NAME.search(name.upper()) and not _NO_SECRET.search(name.upper())
    text = str(value).strip()
    return bool(named) and text.lower() not in _WORDS and not is_reference(text)


@check(
    code="PS704",
    name="secret-committed",
    severity="error",
    why="The data of a Secret is base64, not encryption; in a repository it is as good as published.",
    fix="Create the Secret by hand, or let ExternalSecrets or a sealed secret make it.",
)
def secret_committed(reading: Reading) -> Iterator[Problem]:
    """Secret objects with data, and secretGenerators, anywhere in the deployment."""
    for secret in reading.secret_data:
        if not all(is_reference(value) for value in secret.values.values()):
            text = f"the Secret {secret.name} holds {', '.join(secret.values)}"
            yield Problem(secret.location, text, "create it outside the repository")
    for generator in _generators(reading, "secretGenerator"):
        for place in generator.taken_from:
            text = f"the secretGenerator {generator.written_name} takes its values from the repository"
            yield Problem(place, text, "create the Secret outside it")


def _generators(reading: Reading, kind: str) -> Iterator[Generator]:
    for kustomization in reading.kustomization_settings:
        yield from (generator for generator in kustomization.generators if generator.kind == kind)


@check(
    code="PS705",
    name="secrets-not-ignored",
    severity="error",
    why="The next `git add .` would commit the passwords.",
    fix="Add /secrets/ to .gitignore of the deployment.",
)
def secrets_not_ignored(reading: Reading) -> Iterator[Problem]:
    """Secret files of compose.yaml that .gitignore does not cover."""
    rules = reading.sources.get(GITIGNORE, Source(GITIGNORE)).text.splitlines()
    said = False
    for place, secret, file in _secret_paths(reading):
        path = os.path.normpath(interpolated(file) or "")
        if path == "." or path.startswith(("..", "/", "~")) or _ignored(path.replace(os.sep, "/"), rules):
            continue
        inside = path.startswith(f"{SECRETS_FOLDER}{os.sep}")
        if not (inside and said):  # one line says it for the whole folder
            said = said or inside
            what = f"{SECRETS_FOLDER}/" if inside else path
            text = f"{what} is not in {GITIGNORE}, and {COMPOSE} keeps {secret} there"
            yield Problem(place, text, f"add /{what} to {GITIGNORE}")


def _secret_paths(reading: Reading) -> Iterator[tuple[Location, str, str]]:
    """Where compose.yaml names a file with a secret, which one it is, and the path as it is written."""
    for name, secret in reading.project.declared["secrets"].items():
        if secret.file is not None:
            yield secret.location, f"the secret {name}", secret.file
    for container in reading.services:
        for file in container.env_files:
            path = os.path.normpath(file.path).replace(os.sep, "/")
            source = reading.sources.get(path)
            lines = environment_lines(source.text) if source else ()
            if path.startswith(f"{SECRETS_FOLDER}/") or any(
                _is_secret(name, value) for _, name, value in lines
            ):
                yield file.location, f"secrets of {container.text}", file.path


def _ignored(path: str, rules: list[str]) -> bool:
    """Whether the rules of a .gitignore beside it ignore a file; the last rule that matches decides."""
    parts = path.split("/")
    prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    ignored = False
    for line in rules:
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        negated, rule = rule.startswith("!"), rule.removeprefix("!")
        folder_only, rule = rule.endswith("/"), rule.rstrip("/")
        anchored = "/" in rule and not rule.startswith("**/")
        pattern = rule.removeprefix("**/").lstrip("/")
        for prefix in prefixes[:-1] if folder_only else prefixes:
            candidates = [prefix] if anchored else [prefix.rpartition("/")[2]]
            if any(fnmatch.fnmatchcase(candidate, pattern) for candidate in candidates):
                ignored = not negated
    return ignored


_PERMIFY_FILES: tuple[tuple[str, tuple[Key, ...]], ...] = ((PERMIFY, ()), (VALUES, ("app",)))
_IN_TEXT = re.compile(r"(?im)^[^#\n]*\bpassword\w*[\"']?\s*[=:]\s*[\"']?(?P<password>[^\s\"'#]+)")


@check(
    code="PS706",
    name="password-in-config-map",
    severity="error",
    why="ConfigMaps are for everybody who may look around in the namespace, and kustomize makes"
    " them from these files.",
    fix="Keep it in a Secret; Permify's settings also come from variables, such as"
    " PERMIFY_AUTHN_PRESHARED_KEYS.",
)
def password_in_config_map(reading: Reading) -> Iterator[Problem]:
    """Secrets in ConfigMaps, in literals of their generators and in permify.yaml."""
    for manifest in reading.of_kind("ConfigMap"):
        for key, value in as_mapping(manifest.get("data")).items():
            if isinstance(value, str) and (_is_secret(str(key), value) or _written_out(value)):
                text = f"the ConfigMap {manifest.name} has a password in {key}"
                yield Problem(manifest.at("data", key), text, "move it to a Secret")
    for generator in _generators(reading, "configMapGenerator"):
        for literal in generator.literals:
            name, _, value = literal.value.partition("=")
            if _is_secret(name, value):
                text = f"{name} is written out for a ConfigMap"
                yield Problem(literal.location, text, "move it to a Secret")
    for path, base in _PERMIFY_FILES:
        source = reading.sources.get(path, Source(path))
        for keys, value in _permify_secrets(dig(source.data, *base)):
            if not is_reference(value):
                place = source.at(*base, *keys)
                text = f"{'.'.join(map(str, (*base, *keys)))} is written out"
                yield Problem(place, text, "give it to Permify by a variable from a secret")


def _written_out(text: str) -> bool:
    return any(not is_reference(match["password"]) for match in _IN_TEXT.finditer(text))


def _permify_secrets(data: Any) -> Iterator[tuple[tuple[Key, ...], str]]:
    yield from strings(dig(data, "authn", "preshared", "keys"), ("authn", "preshared", "keys"))
    for keys, value in _named_password(data):
        if isinstance(value, str) and value:
            yield keys, value


_IN_SQL = re.compile(r"\bPASSWORD\s+E?'[^']", re.IGNORECASE)


@check(
    code="PS707",
    name="password-in-sql",
    severity="error",
    why="The file is committed, and PostgreSQL may log the statement.",
    fix="Give it to psql as a variable: PASSWORD :'password'.",
)
def password_in_sql(reading: Reading) -> Iterator[Problem]:
    """Passwords written out in the scripts under postgres/."""
    for path, source in reading.sources.items():
        if path.endswith((".sql", ".sh")) and "PASSWORD" in source.text.upper():
            for number, line in enumerate(source.text.splitlines(), 1):
                if _IN_SQL.search(line.partition("--")[0]):
                    yield Problem(
                        source.here(number), "a password is written out", "use PASSWORD :'password'"
                    )


@check(
    code="PS708",
    name="secret-file-modes",
    severity="warning",
    why="The folder keeps others on the machine out; the files must be readable by the users in"
    " the containers,"
    " because Compose mounts them as they are, and writable by nobody.",
    fix="chmod 0700 secrets, and chmod 0444 on the files in it.",
)
def secret_file_modes(reading: Reading) -> Iterator[Problem]:
    """secrets/ open to others, files that the containers cannot read or others can write."""
    folder = reading.root / SECRETS_FOLDER
    if reading.compose is None or os.name != "posix":
        return
    try:
        here = folder.is_dir() and not folder.is_symlink()
        mode = stat.S_IMODE(folder.stat().st_mode) if here else 0o700
        files = [(file, file.lstat().st_mode) for file in (sorted(folder.iterdir()) if here else [])]
        modes = [(file, stat.S_IMODE(file_mode)) for file, file_mode in files if stat.S_ISREG(file_mode)]
    except OSError:
        return  # another user's: nothing can be said
    if mode & 0o077:
        yield Problem(
            Source(SECRETS_FOLDER).here(),
            f"the folder has the mode {mode:04o}",
            f"chmod 0700 {SECRETS_FOLDER}",
        )
    for file, file_mode in modes:
        path = f"{SECRETS_FOLDER}/{file.name}"
        if file.name.startswith("."):
            continue
        if not file_mode & 0o004:
            text = f"mode {file_mode:04o}: the users in the containers cannot read it"
            yield Problem(Source(path).here(), text, f"chmod 0444 {path}")
        elif file_mode & 0o022:
            text = f"mode {file_mode:04o}: others can change it"
            yield Problem(Source(path).here(), text, f"chmod 0444 {path}")
