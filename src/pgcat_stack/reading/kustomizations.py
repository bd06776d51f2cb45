"""Kustomizations: what they make of the objects, and which names they give.

https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pgcat_stack.files.gaps import Gap, list_gaps, mapping_gaps
from pgcat_stack.files.plain_data import as_list, as_text, dig
from pgcat_stack.files.quantities import Text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location

TRANSFORMERS = (
    *("patches", "patchesStrategicMerge", "patchesJson6902", "replacements", "transformers"),
    *("components", "generators", "helmCharts"),
)
"""Fields by which kustomize adds or changes what is not applied before anything is judged."""


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    """A key that a generator gives its ConfigMap or Secret."""

    text: str
    location: Location


@dataclass(frozen=True, slots=True)
class Generator:
    """An entry of configMapGenerator or secretGenerator."""

    kind: str
    name: str
    """Empty where none can be read."""
    own_name_is_fixed: bool
    """Whether its own options keep kustomize from adding a hash to its name."""
    written_name: str
    """The name as it is written, of any type; `None` without one."""
    keys: tuple[GeneratedKey, ...]
    literals: tuple[Text, ...]
    """NAME=VALUE, as they are written."""
    taken_from: tuple[Location, ...]
    """Where it lists what it takes its values from: `literals`, `files`, `envs`."""
    name_location: Location
    fixed_location: Location


@dataclass(frozen=True, eq=False)
class Kustomization:
    """A kustomization.yaml."""

    source: Source
    location: Location
    empty: bool
    component: bool
    namespace: str
    has_namespace: bool
    """Whether it says anything of a namespace."""
    namespace_location: Location
    prefix: str
    suffix: str
    transforming: tuple[tuple[str, Location], ...]
    """The fields of `TRANSFORMERS` that it has, with their places."""
    fixes_names: bool
    """Whether it keeps kustomize from adding a hash to any generated name."""
    fixes_names_location: Location
    generators: tuple[Generator, ...]
    gaps: tuple[Gap, ...] = ()


def read_kustomizations(sources: Iterable[Source]) -> tuple[Kustomization, ...]:
    """What these kustomizations say."""
    return tuple(_kustomization(source) for source in sources)


def _kustomization(source: Source) -> Kustomization:
    data, fixed = source.mapping, ("generatorOptions", "disableNameSuffixHash")
    gaps = mapping_gaps(source.data, source.at) if source.parsed else []
    generators = []
    for kind in ("configMapGenerator", "secretGenerator"):
        gaps += list_gaps(data.get(kind), source.at, kind)
        for index, entry in enumerate(as_list(data.get(kind))):
            gaps += mapping_gaps(entry, source.at, kind, index)
            generators.append(_generator(source, kind, index, entry))
    return Kustomization(
        source=source,
        location=source.here(),
        empty=not data,
        component=data.get("kind") == "Component",
        namespace=as_text(data.get("namespace")),
        has_namespace="namespace" in data,
        namespace_location=source.at("namespace"),
        prefix=as_text(data.get("namePrefix")),
        suffix=as_text(data.get("nameSuffix")),
        transforming=tuple((key, source.at(key)) for key in TRANSFORMERS if data.get(key)),
        fixes_names=dig(data, *fixed) is True,
        fixes_names_location=source.at(*fixed),
        generators=tuple(generators),
        gaps=tuple(gaps),
    )


def _generator(source: Source, kind: str, index: int, entry: Any) -> Generator:
    option = ("options", "disableNameSuffixHash")
    keys = []
    for field in ("files", "literals"):
        for number, item in enumerate(as_list(dig(entry, field))):
            name, equals, _ = as_text(item).partition("=")
            if field == "files" and not equals:
                name = name.rpartition("/")[2]
            if name:
                keys.append(GeneratedKey(name, source.at(kind, index, field, number)))
    return Generator(
        kind=kind,
        name=as_text(dig(entry, "name")),
        own_name_is_fixed=dig(entry, *option) is True,
        written_name=str(dig(entry, "name")),
        keys=tuple(keys),
        literals=tuple(
            Text(str(literal), source.at(kind, index, "literals", number))
            for number, literal in enumerate(as_list(dig(entry, "literals")))
        ),
        taken_from=tuple(
            source.at(kind, index, field)
            for field in ("literals", "files", "envs")
            if as_list(dig(entry, field))
        ),
        name_location=source.at(kind, index, "name"),
        fixed_location=source.at(kind, index, *option),
    )


def files_with_objects(sources: Iterable[Source]) -> list[str]:
    """The paths of the YAML files that begin with a Kubernetes object, listed or not."""
    return [source.path for source in sources if source.language == "yaml" and source.mapping.get("kind")]
