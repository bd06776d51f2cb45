"""The JSON Schemas of Kubernetes' API that the package kubernetes-validate carries.

The package's own `validate` reads all definitions of a version, nearly 2 MB, anew for each object. Here a
version is read once, and the schema of a kind once for each version.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError
    from referencing import Registry

_PACKAGE = "kubernetes_validate"
_FOLDER = re.compile(r"v(\d+\.\d+)\.\d+-local-strict")
_GROUP = re.compile(r"([^./]*)(?:\.[^/]*)?/")
"""The first word of an API group names the file: `rbac-v1` for `rbac.authorization.k8s.io/v1`."""


class UnknownKindError(Exception):
    """A version of Kubernetes has no such kind."""


@cache
def versions() -> Mapping[str, Path]:
    """Folder of the schemas by version of Kubernetes (`1.30`), the oldest first; none without the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    found = {}
    for place in spec.submodule_search_locations or () if spec is not None else ():
        for folder in Path(place, "kubernetes-json-schema").iterdir():
            if match := _FOLDER.fullmatch(folder.name):
                found[match[1]] = folder
    return dict(sorted(found.items(), key=lambda item: [int(number) for number in item[0].split(".")]))


def first_fault(data: Mapping[str, Any], version: str) -> ValidationError | None:
    """What the API server of this version would refuse in an object that has `kind` and `apiVersion`.

    Both must be well-formed names, for a file is found by them. Raises `UnknownKindError`.
    """
    from jsonschema.exceptions import best_match

    return best_match(_validator(version, data["kind"], data["apiVersion"]).iter_errors(data))


@cache
def _validator(version: str, kind: str, api_version: str) -> Draft202012Validator:
    from jsonschema.validators import Draft202012Validator
    from referencing import Resource

    group_and_version = _GROUP.sub(r"\1-", api_version, count=1)
    name = f"{kind.lower()}-{group_and_version}.json"
    try:
        schema = json.loads(versions()[version].joinpath(name).read_bytes())
    except FileNotFoundError:
        raise UnknownKindError from None
    registry = Resource.from_contents(schema) @ _definitions(version)
    return Draft202012Validator(schema, registry=registry)


@cache
def _definitions(version: str) -> Registry[Any]:
    from referencing import Registry, Resource

    contents = json.loads(versions()[version].joinpath("_definitions.json").read_bytes())
    return Resource.from_contents(contents) @ Registry()
