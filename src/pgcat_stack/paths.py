"""Where the files of a rendered deployment stand, relative to its folder."""

from __future__ import annotations

COMPOSE = "compose.yaml"
KUSTOMIZATION = "kustomization.yaml"
PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
BUDGET = "budget.yaml"
VALUES = "permify/values.yaml"
BOOTSTRAP = "postgres/bootstrap.sql"

SECRETS_FOLDER = "secrets"
