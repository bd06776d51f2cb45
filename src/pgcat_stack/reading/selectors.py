"""Label selectors: which pods they select, and how messages show them.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pgcat_stack.files.gaps import At, Gap, list_gaps, mapping_gaps
from pgcat_stack.files.plain_data import as_list, as_mapping, dig
from pgcat_stack.findings import Location
from pgcat_stack.reading.pods import Pod

NAME_LABEL = "app.kubernetes.io/name"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


@dataclass(frozen=True, slots=True)
class Requirement:
    """An entry of matchExpressions. What could not be read has no operator, and no pod meets it."""

    key: str
    operator: str = ""
    values: tuple[str, ...] = ()

    def met_by(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with these labels meets it."""
        value = labels.get(self.key)
        if self.operator == "In":
            return value is not None and value in self.values
        if self.operator == "NotIn":
            return value is None or value not in self.values
        if self.operator == "Exists":
            return value is not None
        return self.operator == "DoesNotExist" and value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector. One that asks for nothing selects every pod."""

    labels: Mapping[str, Any] = field(default_factory=dict)
    """Its matchLabels as they are written: a value that is not text selects no pod."""
    requirements: tuple[Requirement, ...] = ()
    written: bool = False
    """Whether anything stands there, known or not."""
    gaps: tuple[Gap, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether it asks for anything at all."""
        return bool(self.labels or self.requirements)

    @property
    def text(self) -> str:
        """How messages show it: its labels, and the keys of other requirements."""
        labels = [labels_text(self.labels)] if self.labels else []
        return ",".join([*labels, *(requirement.key for requirement in self.requirements)])

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects pods with these labels."""
        if any(labels.get(name) != value for name, value in self.labels.items()):
            return False
        return all(requirement.met_by(labels) for requirement in self.requirements)


def read_selector(data: Any, at: At) -> Selector:
    """A selector with matchLabels and matchExpressions, which stands at `at()`."""
    labels, expressions = dig(data, "matchLabels"), dig(data, "matchExpressions")
    gaps = [
        *mapping_gaps(data, at, what="a selector"),
        *mapping_gaps(labels, at, "matchLabels"),
        *list_gaps(expressions, at, "matchExpressions"),
    ]
    for name, value in as_mapping(labels).items():
        if not isinstance(value, str):
            gaps.append(Gap(at("matchLabels", name), f"the value of the label {name} is not text"))
    requirements = []
    for index, entry in enumerate(as_list(expressions)):
        requirement = _requirement(entry)
        requirements.append(requirement)
        if not requirement.operator:
            gaps.append(
                Gap(at("matchExpressions", index), f"an entry of matchExpressions on {requirement.key}")
            )
    return Selector(as_mapping(labels), tuple(requirements), bool(as_mapping(data)), tuple(gaps))


def _requirement(entry: Any) -> Requirement:
    key, operator = dig(entry, "key"), dig(entry, "operator")
    if not isinstance(key, str) or operator not in _OPERATORS:
        return Requirement(str(key))
    values = tuple(value for value in as_list(dig(entry, "values")) if isinstance(value, str))
    return Requirement(key, operator, values)


@dataclass(frozen=True, slots=True)
class OwnSelector:
    """By which labels an object, a Deployment for example, finds the pods that it made."""

    pod: Pod
    selector: Selector
    location: Location


def read_own_selectors(pods: Iterable[Pod]) -> tuple[OwnSelector, ...]:
    """The selectors of the objects that have one; those of Jobs are made by Kubernetes."""
    found = []
    for pod in pods:
        written = pod.manifest.get("spec", "selector")
        if pod.manifest.kind not in ("Job", "CronJob", "Pod") and isinstance(written, dict):
            at = partial(pod.manifest.at, "spec", "selector")
            found.append(OwnSelector(pod, read_selector(written, at), at()))
    return tuple(found)


def labels_text(labels: Mapping[str, Any]) -> str:
    """Labels for messages: `a=b,c=d`."""
    return ",".join(f"{name}={value}" for name, value in labels.items()) or "none"
