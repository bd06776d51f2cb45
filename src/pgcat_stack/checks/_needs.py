"""Which files a check judges by, so that it keeps silent where one of them cannot be read.

A file that does not parse is one fault, and the family PS1xx reports it. What is missing is reported by the
checks of what names it. Everything else that could be said would follow from the hole.
"""

from __future__ import annotations

from functools import lru_cache

from pgcat_stack.build.kustomize import listed_files
from pgcat_stack.paths import BUDGET, COMPOSE, KUSTOMIZATION, PERMIFY, PGCAT, VALUES
from pgcat_stack.reading.reading import Reading

_WORKLOADS = (COMPOSE, KUSTOMIZATION)
_ALL = (*_WORKLOADS, PGCAT, PERMIFY)
_NEEDS: dict[str, tuple[str, ...]] = {
    "PS219": (COMPOSE, PGCAT),
    "PS220": (COMPOSE, PGCAT),
    "PS319": (PERMIFY,),
    "PS320": (PERMIFY,),
    "PS321": (PERMIFY,),
    "PS322": (PERMIFY,),
    "PS323": (PERMIFY,),
    "PS324": (PERMIFY,),
    "PS40": _ALL,
    "PS41": _ALL,
    "PS423": (PGCAT, PERMIFY),
    "PS426": (PGCAT, PERMIFY),
    "PS47": (PGCAT, PERMIFY),
    "PS44": (COMPOSE, PGCAT, PERMIFY),
    "PS50": _ALL,
    "PS51": _ALL,
    "PS504": (),
    "PS505": (),
    "PS513": (COMPOSE, BUDGET),
    "PS517": (BUDGET,),
    "PS518": (BUDGET,),
    "PS601": (PGCAT, PERMIFY),
    "PS606": (PGCAT, PERMIFY),
    "PS608": (PERMIFY,),
    "PS825": (COMPOSE, PGCAT, PERMIFY),
}
"""By the beginning of a code; the longest one counts."""


def silent(code: str, reading: Reading) -> bool:
    """Whether a file that the check of this code judges by cannot be read."""
    known = [beginning for beginning in _NEEDS if code.startswith(beginning)]
    needs = _NEEDS[max(known, key=len)] if known else ()
    return bool(needs) and not _unreadable(reading).isdisjoint(needs)


@lru_cache(maxsize=4)
def _unreadable(reading: Reading) -> frozenset[str]:
    """The files that do not parse, or are missing although a program of the deployment reads them."""
    paths = (COMPOSE, KUSTOMIZATION, PGCAT, PERMIFY, BUDGET, VALUES)
    found = {path for path in paths if path in reading.sources and reading.sources[path].broken}
    if VALUES in found:  # Permify's settings where its chart deploys it
        found.add(PERMIFY)
    if reading.pgcat is None and reading.running("pgcat"):
        found.add(PGCAT)
    if reading.permify is None and any(
        not any(variable.name.startswith("PERMIFY_DATABASE_") for variable in container.variables)
        for container in reading.running("permify")
    ):
        found.add(PERMIFY)
    if not _readable_manifests(reading):
        found.add(KUSTOMIZATION)
    return frozenset(found)


def _readable_manifests(reading: Reading) -> bool:
    for source in reading.kustomizations:
        for entry in listed_files(source):
            if entry.keys[0] != "resources" or reading.remote(entry):
                continue
            known = reading.sources.get(entry.target)
            if not reading.exists(entry.target) or (known is not None and known.broken):
                return False
    return True
