"""The line of PgCat whose configuration applies."""

from __future__ import annotations

import re
from typing import Literal

PgcatVersion = Literal["1.2", "1.3"]

_OLD_TAG = re.compile(r"v?(?:0|1\.[0-2])(?:\.|-|\Z)")


def pgcat_version(image: str) -> PgcatVersion:
    """The line of PgCat that an image reference stands for.

    Tags up to v1.2.x mean 1.2; so does an empty reference, which is the tag that the template ships.
    Everything else (`main`, `latest`, a commit hash, a digest without a tag, v1.3 and later) is built from
    the line that calls itself 1.3.
    """
    if not image:
        return "1.2"
    name = image.split("@", 1)[0].rsplit("/", 1)[-1]
    _, _, tag = name.partition(":")
    return "1.2" if _OLD_TAG.match(tag) else "1.3"
