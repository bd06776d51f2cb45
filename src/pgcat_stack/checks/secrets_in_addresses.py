"""PS711, PS712: tokens in addresses of repositories, above all in the one of the template.

Copier stores the address that it was given in the answers file, which is committed. No message shows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from pgcat_stack.checks import check
from pgcat_stack.checks.secrets_in_clear import is_answers_file, is_reference
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location, Problem
from pgcat_stack.reading.reading import Reading

_ADDRESS = re.compile(
    r"\b(?P<scheme>(?:git\+)?(?:https?|ssh|git))://(?:(?P<login>[^\s/?#\"']*)@)?(?P<rest>[^\s\"'<>]*)", re.I
)
_PARAMETER = re.compile(
    r"[?&;](?:\w*token|api_?key|password|passwd|secret|sig)=(?P<value>[^&;#\s]+)", re.IGNORECASE
)
_TOKEN = re.compile(
    r"(?:gh[oprsu]_|github_pat_|gl(?:pat|dt|rt|cbt|ptt|ft|soat|oas)-|ATBB|ATCTT).+"
    r"|(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9]{32,}"
    r"|(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[\w-]{20,}"
)
_REMEDY = (
    "let a git credential helper keep it, write the address without it, remove it from the history of git"
    " as well, and revoke it"
)


@check(
    code="PS711",
    name="token-in-address",
    severity="error",
    why="Copier stores the template's address as it was typed, and the file is committed: the token is in the"
    " repository, in its history and in each clone.",
    fix="Revoke the token: what was pushed is known. Write the address without it into the answers file, and"
    " remove the old one from the history (`git filter-repo --replace-text`). Give git the new token by a"
    " credential helper (`git config credential.helper`); in CI by `gh auth setup-git`, or by"
    " `git config --global url.<address with the token>.insteadOf <address>` in the job. Delete Copier's"
    " cache (`~/.cache/copier`) as well: it keeps the address that was used first.",
)
def token_in_address(reading: Reading) -> Iterator[Problem]:
    """A password, a token or a parameter such as private_token in an answers file, YAML or JSON."""
    for location, certain, whose in _logins(reading):
        if certain:
            yield Problem(location, f"{whose} carries a token or a password", _REMEDY)


@check(
    code="PS712",
    name="name-in-template-address",
    severity="warning",
    why="A token also works alone in front of the @. The validator cannot tell it from the name of a user.",
    fix="Remove it from the address. Give git the name of a user by"
    " `git config credential.https://HOST.username NAME`. If it was a token, do what PS711 says.",
)
def name_in_template_address(reading: Reading) -> Iterator[Problem]:
    """A name alone in an address of an answers file, except git and Azure DevOps' organization."""
    for location, certain, whose in _logins(reading):
        if not certain:
            text = f"{whose} has a name before the @, which may be a token"
            yield Problem(location, text, f"leave a user's name out; if it is a token, {_REMEDY}")


def _logins(reading: Reading) -> Iterator[tuple[Location, bool, str]]:
    """Where an address carries something, whether that is surely a secret, and whose address it is."""
    for source in (*reading.sources.values(), *reading.answers):
        is_answers = source in reading.answers or is_answers_file(source)
        if "://" not in source.text or not (is_answers or source.language in ("yaml", "json")):
            continue
        for number, line in enumerate(source.text.splitlines(), 1):
            carries = "://" in line and any(sign in line for sign in "@?&;")
            for address in _ADDRESS.finditer(line) if carries else ():
                certain = _is_secret(address, source, is_answers)
                if certain or (is_answers and _names_somebody(address)):
                    whose = "the template's address" if "_src_path" in line else "an address"
                    yield source.here(number), certain, whose


def _is_secret(address: re.Match[str], source: Source, is_answers: bool) -> bool:
    parameter = _PARAMETER.search(address["rest"])
    if parameter and not is_reference(unquote(parameter["value"])):
        return True
    name, separator, password = _login(address)
    if password and not is_reference(password):
        return is_answers or source.language != "yaml"  # PS702 reports the others
    if separator and not password:  # as in curl --user TOKEN:
        return bool(name) and not is_reference(name)
    return _names_somebody(address) and bool(_TOKEN.fullmatch(name))


def _names_somebody(address: re.Match[str]) -> bool:
    """Whether there is a name before the @, neither a placeholder nor one that everybody has."""
    name, _, password = _login(address)
    by_key = address["scheme"].lower().endswith("ssh")
    if not name or password or name == "git" or by_key or is_reference(name):
        return False
    organization = address["rest"].split("/")[1:2]
    return [name] != organization  # Azure DevOps clones from https://ORG@dev.azure.com/ORG/…


def _login(address: re.Match[str]) -> tuple[str, str, str]:
    name, separator, password = (address["login"] or "").partition(":")
    return unquote(name), separator, unquote(password)
