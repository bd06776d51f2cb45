"""PS80x: images that mean the same tomorrow."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.files.plain_data import dig
from pgcat_stack.files.variables import interpolated
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import VALUES
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Program, image_name
from pgcat_stack.reading.reading import Reading

_MOVING = frozenset({"", "latest", "main", "master", "edge", "nightly", "dev", "develop", "stable"})
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_TAGGED = re.compile(r"(?P<name>.+):v?(?P<release>\d{1,9}(?:\.\d{1,9})*)")


@check(
    code="PS801",
    name="mutable-image",
    severity="warning",
    why="The next pull may bring another program, on one node and not on the others, and a"
    " rollback brings nothing back."
    " PgCat's `main` is the unreleased 1.3.0 line.",
    fix="Name a version, or better a digest: image:v1.2.0@sha256:….",
)
def mutable_image(reading: Reading) -> Iterator[Problem]:
    """Images without a tag, or with one that moves, unless a digest pins them."""
    for place, image in _images(reading):
        if _DIGEST.search(image):
            continue
        tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
        if tag in _MOVING:
            what = f"the tag {tag} moves" if tag else "no tag means latest, which moves"
            note = (
                ", here the unreleased 1.3.0 line" if tag == "main" and image_name(image) == "pgcat" else ""
            )
            yield Problem(place, f"{show(image)}: {what}{note}", "name a version or a digest")


def _images(reading: Reading) -> Iterator[tuple[Location, str]]:
    for container in reading.own_containers:
        image = container.data.get("image")
        image = image if container.pod or not isinstance(image, str) else interpolated(image)
        if isinstance(image, str) and image:
            yield container.at("image"), image
    values = reading.sources.get(VALUES)
    if values is not None and isinstance(dig(values.data, "image", "repository"), str):
        tag = dig(values.data, "image", "tag")
        suffix = "" if tag is None or tag == "" else f":{tag}"
        yield values.at("image", "tag"), f"{dig(values.data, 'image', 'repository')}{suffix}"


@check(
    code="PS802",
    name="migration-image",
    severity="warning",
    why="Each version of Permify brings its own migrations: a migration of another version leaves tables that"
    " Permify does not know, or knows differently.",
    fix="Give both the same image, the newer of the two: after an update the older one is mostly an edit of"
    " yours, which the update kept.",
)
def migration_image(reading: Reading) -> Iterator[Problem]:
    """Migrations with another image than Permify's."""
    serving = {image: f"{place.path}:{place.line}" for place, image in _images_of(reading, "permify")}
    values = reading.sources.get(VALUES)
    if not serving and values is not None:
        serving = {image: f"{VALUES}:{at.line}" for at, image in _images(reading) if at.path == VALUES}
    for place, image in _images_of(reading, "migrate"):
        if serving and image not in serving:
            other, where = next(iter(serving.items()))
            text = f"the migration runs {show(image)}, Permify {show(other)} ({where})"
            newer = _is_newer(image, other)
            yield Problem(place, text, f"image: {image}, in {where}" if newer else f"image: {other}")


def _is_newer(image: str, other: str) -> bool:
    """Whether both are releases of one repository, and the first is the newer one."""
    one, two = (_TAGGED.fullmatch(each.partition("@")[0]) for each in (image, other))
    if one is None or two is None or one["name"] != two["name"]:
        return False
    releases = [[int(part) for part in tag["release"].split(".")] for tag in (one, two)]
    return releases[0] > releases[1]


def _images_of(reading: Reading, program: Program) -> Iterator[tuple[Location, str]]:
    """The images that run a program; those that only the environment knows are left out."""
    for container in reading.running(program):
        image = container.data.get("image")
        image = image if container.pod or not isinstance(image, str) else interpolated(image)
        if isinstance(image, str) and image:
            yield container.at("image"), image
