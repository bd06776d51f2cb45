r"""What Kubernetes and Compose accept as a name, label or key: their rules, no stricter and no looser.

Each function returns what is wrong, as the end of a sentence, or an empty text. The docstrings name rules of
https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/validation/validation.go
Lengths count bytes, as Go does. Go's `$` matches at the very end only, so `"a\n"` is no name.
"""

from __future__ import annotations

import re

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PORT_NAME = re.compile(r"[-a-z0-9]+")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_COMPOSE_NAME = re.compile(r"[a-zA-Z0-9._-]+")
_COMPOSE_PROJECT = re.compile(r"[a-z0-9][-a-z0-9_]*")

_LOWER = "lowercase letters, digits and -, with a letter or digit at both ends"


def _longer(value: str, most: int) -> str:
    length = len(value.encode("utf-8", "surrogatepass"))
    return f"has {length} characters, and {most} are allowed" if length > most else ""


def dns_label(value: str) -> str:
    """IsDNS1123Label: names of namespaces, containers, volumes and ports of Services."""
    if _DNS_LABEL.fullmatch(value):
        return _longer(value, 63)
    return f"must be {_LOWER}"


def dns_subdomain(value: str, most: int = 253) -> str:
    """IsDNS1123Subdomain: names of most objects."""
    if _DNS_SUBDOMAIN.fullmatch(value):
        return _longer(value, most)
    return f"must be {_LOWER}; dots may part them"


def dns_1035_label(value: str) -> str:
    """IsDNS1035Label: names of Services, until RelaxedServiceNameValidation."""
    if _DNS_1035_LABEL.fullmatch(value):
        return _longer(value, 63)
    return f"must be {_LOWER}, and a letter first"


def path_segment(value: str) -> str:
    """IsValidPathSegmentName of pkg/api/validation/path: names of roles and their bindings."""
    if value in (".", ".."):
        return "must not be . or .."
    return "must not contain / or %" if "/" in value or "%" in value else ""


def qualified_name(value: str) -> str:
    """IsQualifiedName: keys of labels. A prefix is a domain, before the only slash."""
    prefix, slash, name = value.rpartition("/")
    if slash and (wrong := dns_subdomain(prefix)):
        return f"the part before / {wrong}"
    if not _QUALIFIED.fullmatch(name):
        return "must be letters, digits, -, _ and ., with a letter or digit at both ends"
    return _longer(name, 63)


def annotation_key(value: str) -> str:
    """ValidateAnnotations of pkg/api/validation: a qualified name in which case does not matter."""
    return qualified_name(value.replace("\u0130", "i").lower())  # Go lowers this letter to one character


def label_value(value: str) -> str:
    """IsValidLabelValue: like the name of a key, or empty."""
    if "/" in value:
        return "must not contain /"
    return qualified_name(value) if value else ""


def port_name(value: str) -> str:
    """IsValidPortName: names of ports of containers."""
    if len(value) > 15:
        return _longer(value, 15) or "is too long"
    if not _PORT_NAME.fullmatch(value) or value.startswith("-") or value.endswith("-") or "--" in value:
        return "must be lowercase letters, digits and single -, with a letter or digit at both ends"
    return "" if re.search(r"[a-z]", value) else "must have a letter"


def variable_name(value: str) -> str:
    """IsRelaxedEnvVarName: names of environment variables, since Kubernetes 1.32."""
    if value and all(" " <= char <= "~" and char != "=" for char in value):
        return ""
    return "must be printable ASCII characters without ="


def strict_variable_name(value: str) -> str:
    """IsEnvVarName: the same before Kubernetes 1.32."""
    if not _VARIABLE.fullmatch(value):
        return "must be letters, digits, _, - and ., and no digit first"
    return "must not be . or start with .." if value == "." or value.startswith("..") else ""


def config_key(value: str) -> str:
    """IsConfigMapKey: keys of ConfigMaps and Secrets."""
    if not _CONFIG_KEY.fullmatch(value):
        return "must be letters, digits, -, _ and ."
    if value == "." or value.startswith(".."):
        return "must not be . or start with .."
    return _longer(value, 253)


def compose_name(value: str) -> str:
    """Names of services, networks, volumes, configs and secrets: `^[a-zA-Z0-9._-]+$`.

    https://github.com/compose-spec/compose-go/blob/main/schema/compose-spec.json
    """
    return "" if _COMPOSE_NAME.fullmatch(value) else "must be letters, digits, ., _ and -"


def compose_project(value: str) -> str:
    """The name of a project: NormalizeProjectName of compose-go."""
    return (
        ""
        if _COMPOSE_PROJECT.fullmatch(value)
        else "must be lowercase letters, digits, - and _, with a letter or digit first"
    )
