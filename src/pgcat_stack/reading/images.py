"""Images: the parts of their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pgcat_stack.files.plain_data import dig
from pgcat_stack.files.sources import Source
from pgcat_stack.findings import Location

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Image:
    """An image as it is named: `ghcr.io/x/pgcat:v1`, perhaps with a digest. The name is never empty."""

    text: str
    location: Location

    @property
    def name(self) -> str:
        """The last part of its name, without tag and digest: `pgcat`."""
        return self._last.partition(":")[0]

    @property
    def tag(self) -> str:
        """Empty where there is none."""
        return self._last.partition(":")[2]

    @property
    def tagged(self) -> str:
        """The whole name with the tag, without a digest."""
        return self.text.partition("@")[0]

    @property
    def pinned(self) -> bool:
        """Whether a digest says which one it is."""
        return bool(_DIGEST.search(self.text))

    @property
    def _last(self) -> str:
        return self.tagged.rpartition("/")[2]


def read_image(value: Any, location: Location) -> Image | None:
    """The image that is written; None where there is none, or something else than text."""
    return Image(value, location) if isinstance(value, str) and value else None


def read_chart_image(values: Source | None) -> Image | None:
    """The image in the values of Permify's chart; None without a repository."""
    repository = dig(values.data, "image", "repository") if values else None
    if values is None or not isinstance(repository, str):
        return None
    tag = dig(values.data, "image", "tag")
    suffix = "" if tag is None or tag == "" else f":{tag}"
    return Image(f"{repository}{suffix}", values.at("image", "tag"))
