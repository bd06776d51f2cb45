"""PS80x: images that mean the same tomorrow."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgcat_stack.checks import check
from pgcat_stack.findings import Problem
from pgcat_stack.printable import show
from pgcat_stack.reading.containers import Program
from pgcat_stack.reading.images import Image
from pgcat_stack.reading.reading import Reading

_MOVING = frozenset({"", "latest", "main", "master", "edge", "nightly", "dev", "develop", "stable"})
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
    images = [container.image for container in reading.own_containers]
    for image in (*images, reading.chart_image):
        if image is not None and not image.pinned and image.tag in _MOVING:
            what = f"the tag {image.tag} moves" if image.tag else "no tag means latest, which moves"
            released = image.tag != "main" or image.name != "pgcat"
            note = "" if released else ", here the unreleased 1.3.0 line"
            yield Problem(image.location, f"{show(image.text)}: {what}{note}", "name a version or a digest")


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
    serving = list(_images_of(reading, "permify"))
    if not serving and reading.chart_image:
        serving = [reading.chart_image]
    for image in _images_of(reading, "migrate"):
        if serving and all(image.text != other.text for other in serving):
            # Where several containers share an image, the last one is named.
            other = [one for one in serving if one.text == serving[0].text][-1]
            where = f"{other.location.path}:{other.location.line}"
            text = f"the migration runs {show(image.text)}, Permify {show(other.text)} ({where})"
            newer = _is_newer(image, other)
            fix = f"image: {image.text}, in {where}" if newer else f"image: {other.text}"
            yield Problem(image.location, text, fix)


def _is_newer(image: Image, other: Image) -> bool:
    """Whether both are releases of one repository, and the first is the newer one."""
    one, two = (_TAGGED.fullmatch(each.tagged) for each in (image, other))
    if one is None or two is None or one["name"] != two["name"]:
        return False
    releases = [[int(part) for part in tag["release"].split(".")] for tag in (one, two)]
    return releases[0] > releases[1]


def _images_of(reading: Reading, program: Program) -> Iterator[Image]:
    """The images that run a program; those that only the environment knows are left out."""
    return (container.image for container in reading.running(program) if container.image)
