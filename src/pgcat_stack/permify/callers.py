"""Where the keys of Permify's callers are."""

from __future__ import annotations

from pathlib import PurePosixPath

from pgcat_stack.paths import SECRETS_FOLDER

KEYS = "permify.env"
"""The environment file with the keys of Permify's callers, which Permify reads from its environment alone."""
KEYS_VARIABLE = "PERMIFY_AUTHN_PRESHARED_KEYS"


def is_keys_file(path: str) -> bool:
    """Whether a path of compose.yaml is the environment file with the keys of Permify's callers."""
    return PurePosixPath(path).parts == (SECRETS_FOLDER, KEYS)
