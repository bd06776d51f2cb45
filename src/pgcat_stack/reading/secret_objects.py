"""Objects that hold or make Secrets: those in the repository, and the ExternalSecrets.

https://external-secrets.io/latest/api/externalsecret/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.files.gaps import Gap
from pgcat_stack.files.plain_data import as_list, as_mapping, as_text, dig
from pgcat_stack.files.quantities import Text
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location
from pgcat_stack.reading.types import BY_KIND, type_gaps


@dataclass(frozen=True, slots=True)
class SecretData:
    """`data` or `stringData` of a Secret that stands in a file, unless SOPS encrypts it."""

    name: str
    """As it is written; `None` without one."""
    values: Mapping[str, str]
    location: Location


@dataclass(frozen=True, eq=False)
class ExternalSecret:
    """An ExternalSecret and the Secret that it makes."""

    manifest: Manifest
    target: str
    fetched: frozenset[str]
    """The keys that it fetches one by one."""
    fetches_all: bool
    """Whether it also fetches keys that no file names."""
    template: Mapping[str, Text]
    """What it makes of them, by key of the Secret; empty text where that is none."""
    merges: bool
    """Whether the Secret also has the keys as they are fetched, beside those of the template."""

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What of it could not be read."""
        return type_gaps(self.manifest.data, BY_KIND["ExternalSecret"], self.manifest.at)


def read_secret_data(sources: Iterable[Source]) -> Iterator[SecretData]:
    """What Secrets hold in any YAML file, applied or not."""
    for source in sources:
        if source.language != "yaml" or "Secret" not in source.text:
            continue
        for document, data in enumerate(source.documents):
            if dig(data, "kind") != "Secret" or "sops" in as_mapping(data):
                continue
            for field in ("data", "stringData"):
                values = {str(key): str(value) for key, value in as_mapping(dig(data, field)).items()}
                place = source.at(field, document=document)
                yield SecretData(str(dig(data, "metadata", "name")), values, place)


def read_external_secrets(manifests: Iterable[Manifest]) -> tuple[ExternalSecret, ...]:
    """The ExternalSecrets among the objects of a deployment."""
    return tuple(_external_secret(one) for one in manifests if one.kind == "ExternalSecret")


def _external_secret(manifest: Manifest) -> ExternalSecret:
    at = ("spec", "target", "template", "data")
    template = as_mapping(manifest.get(*at))
    return ExternalSecret(
        manifest=manifest,
        target=str(manifest.get("spec", "target", "name") or manifest.name),
        fetched=frozenset(str(dig(entry, "secretKey")) for entry in as_list(manifest.get("spec", "data"))),
        fetches_all=bool(manifest.get("spec", "dataFrom")),
        template={key: Text(as_text(text), manifest.at(*at, key)) for key, text in template.items()},
        merges=not template or manifest.get("spec", "target", "template", "mergePolicy") == "Merge",
    )
