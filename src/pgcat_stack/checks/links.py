"""PS109 to PS111: links out of the deployment, and what it names outside its repository. Neither is read."""

from __future__ import annotations

from collections.abc import Iterator

from pgcat_stack.build.compose import named_by_compose
from pgcat_stack.build.kustomize import climbs, listed_files
from pgcat_stack.checks import check
from pgcat_stack.files.folder import repository_of
from pgcat_stack.findings import Location, Problem
from pgcat_stack.paths import SECRETS_FOLDER
from pgcat_stack.printable import show
from pgcat_stack.reading.reading import Reading


def _links(reading: Reading, *, needed: bool) -> Iterator[Problem]:
    made = reading.made_of
    links = {path: one for path, one in reading.sources.items() if one.unread}
    # The source of a folder also stands for what is named in it.
    wanted = {one.path for path, one in links.items() if path in made or f"{path}/" in _FOLDERS}
    for source in links.values():
        for problem in source.problems:
            if problem.kind == "link" and (source.path in wanted) == needed:
                yield Problem(source.here(), problem.message, "replace it by what it leads to")


_FOLDERS = frozenset({"kubernetes/", "pgcat/", "permify/", "postgres/", "monitoring/", f"{SECRETS_FOLDER}/"})


@check(
    code="PS109",
    name="link-out",
    severity="error",
    why="A link that leads out of the deployment has another target on each machine, and none in a container."
    " kustomize refuses it, and the validator follows none, because it would read and quote any file of the"
    " machine.",
    fix="Replace the link by what it leads to. Links inside the deployment are followed.",
)
def link_out(reading: Reading) -> Iterator[Problem]:
    """Links out of the deployment in place of the files and folders that it is made of."""
    yield from _links(reading, needed=True)


@check(
    code="PS110",
    name="outside-the-repository",
    severity="warning",
    why="A kustomization or Compose file may name `../` files of the same git repository, and the validator"
    " reads them. A path that leaves the repository may lead to any file of the machine, so it is not read,"
    " and what it adds to the deployment is not judged.",
    fix="Move the file into the repository. Where there is none, keep the deployment and the file in one git"
    " repository.",
)
def outside_the_repository(reading: Reading) -> Iterator[Problem]:
    """Paths of kustomizations and compose.yaml that lead out of the git repository."""
    found: list[tuple[Location, str]] = []
    for source in reading.kustomizations:
        for entry in listed_files(source):
            if not entry.elsewhere and climbs(entry.target) > reading.reach:
                found.append((source.at(*entry.keys), entry.text))
    compose = reading.compose
    for named in named_by_compose(compose) if compose else ():
        if compose and climbs(named.path) > reading.reach:
            found.append((compose.at(*named.keys), named.path))
    if not found:
        return
    where, fix = "the git repository", "move it into the repository"
    if repository_of(reading.root) is None:
        where, fix = "the deployment, which is in no git repository", "keep both in one git repository"
    for place, text in found:
        yield Problem(place, f"{show(text)} lies outside {where}: it is not judged", fix)


@check(
    code="PS111",
    name="other-link-out",
    severity="warning",
    why="A link that leads out of the deployment is not followed. Nothing that runs needs this one, so only"
    " what it leads to is not judged: an unresolved conflict in it, for example.",
    fix="Replace the link by what it leads to, or leave it.",
)
def other_link_out(reading: Reading) -> Iterator[Problem]:
    """Links out of the deployment that none of its programs reads."""
    yield from _links(reading, needed=False)
