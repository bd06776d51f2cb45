"""What Permify's Helm chart makes of its values.

It turns a part of `app` into the environment of Permify, and drops what it does not know and what is false, 0
or empty (https://github.com/Permify/helm-charts, charts/permify/templates/deployment.yaml).
"""

from __future__ import annotations

from typing import Any

from pgcat_stack.files.plain_data import as_list, as_mapping, dig

CHART_APP: tuple[str, ...] = (
    *("account_id", "server", "logger", "profiler", "authn", "tracer", "meter", "service", "database"),
    "distributed",
)
CHART_DATABASE: tuple[str, ...] = (
    *("engine", "uri", "uri_secret", "writer", "reader", "auto_migrate", "max_open_connections"),
    *("max_idle_connections", "max_connection_lifetime", "max_connection_idle_time", "max_data_per_write"),
    "garbage_collection",
)
"""The keys of `app` and of `app.database` that the chart knows."""
HIDDEN = "not shown"
"""What stands for a value that comes from a Secret."""


def handed_on(values: Any) -> dict[str, Any]:
    """The sections `database` and `authn` as Permify gets them."""
    database = as_mapping(dig(values, "app", "database"))
    known = {key: value for key, value in database.items() if key in CHART_DATABASE and value}
    known.pop("uri_secret", None)
    authn = chart_authn(values)
    if "method" not in as_mapping(dig(values, "app", "authn")):
        authn["method"] = "preshared"
    return {"database": known, "authn": authn if authn.get("enabled") else {}}


def chart_authn(values: Any) -> dict[str, Any]:
    """`app.authn` as Permify would get it, were it enabled; else nothing of it is handed on."""
    authn = as_mapping(dig(values, "app", "authn"))
    preshared = as_mapping(authn.get("preshared"))
    keys = ",".join(map(str, as_list(preshared.get("keys")))) or (preshared.get("keys_secret") and HIDDEN)
    handed = {
        **authn,
        "preshared": {"keys": keys} if keys else {},
        "oidc": {key: value for key, value in as_mapping(authn.get("oidc")).items() if value},
    }
    return {key: value for key, value in handed.items() if value}
