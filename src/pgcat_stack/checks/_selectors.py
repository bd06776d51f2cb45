"""Label selectors: which pods they select, and how messages show them."""

from __future__ import annotations

from collections.abc import Mapping

from pgcat_stack.files.plain_data import as_list, as_mapping, dig

NAME_LABEL = "app.kubernetes.io/name"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def selects(selector: object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels and matchExpressions) selects pods with these labels.

    An empty selector selects all. https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
    """
    wanted = as_mapping(dig(selector, "matchLabels"))
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    return all(_expression(item, labels) for item in as_list(dig(selector, "matchExpressions")))


def _expression(item: object, labels: Mapping[str, str]) -> bool:
    key, operator, values = dig(item, "key"), dig(item, "operator"), as_list(dig(item, "values"))
    if not isinstance(key, str):
        return False
    value = labels.get(key)
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    return (value is not None) if operator == "Exists" else operator == "DoesNotExist" and value is None


def selector_text(labels: object) -> str:
    """A label mapping for messages: `a=b,c=d`."""
    return ",".join(f"{name}={value}" for name, value in as_mapping(labels).items()) or "none"
