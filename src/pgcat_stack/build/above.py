"""What a kustomization or compose.yaml names above the deployment, inside the same git repository.

An overlay lists `../../base`, a Compose file includes `../shared.yaml`. Both are part of what runs, so they
are read. Outside the repository a path may lead to any file of the machine: nothing there is read, and the
check PS110 says so. Where there is no repository, the deployment ends at its own folder.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from pgcat_stack.build.compose import named_by_compose
from pgcat_stack.build.kustomize import climbs, listed_files
from pgcat_stack.files.folder import Folder, repository_of
from pgcat_stack.files.sources import Source, source_in, unread_above, unread_source
from pgcat_stack.paths import COMPOSE, KUSTOMIZATION, SECRETS_FOLDER

_NOT_READ = frozenset({".git", SECRETS_FOLDER})


def present(root: Path, reach: int, path: str) -> bool:
    """Whether something stands at a path below a folder or in its repository, or could not be looked at."""
    root = Path(os.path.realpath(root))
    repository = root.parents[reach - 1] if reach else root
    relative = posixpath.normpath(posixpath.join(root.relative_to(repository).as_posix(), path))
    try:
        with Folder(repository) as folder:
            return folder.is_there(relative) is not False
    except OSError:
        return False


def read_named(folder: Folder, sources: dict[str, Source]) -> int:
    """Add to the sources what they name above the folder, or in a folder that could not be read.

    Returns how many folders above the deployment are in its repository.
    """
    repository = repository_of(Path(folder.path))
    if repository is None:
        repository = Path(folder.path)
    place = Path(folder.path).relative_to(repository).as_posix()
    with Folder(repository, "the repository") as around:
        reader = _Reader(around, "" if place == "." else place, sources)
        reader.run()
    return reader.reach


class _Reader:
    def __init__(self, around: Folder, place: str, sources: dict[str, Source]) -> None:
        self.around, self.place, self.sources = around, place, sources
        self.reach = len(place.split("/")) if place else 0

    def run(self) -> None:
        compose = self.sources.get(COMPOSE)
        for named in named_by_compose(compose) if compose else ():
            self._add(named.path, read=named.judged)
        pending, seen = [KUSTOMIZATION], set()
        while pending:
            path = pending.pop()
            source = self.sources.get(path)
            if source is None or source.path in seen:
                continue
            seen.add(source.path)
            for entry in () if source.unread else listed_files(source):
                if entry.elsewhere:
                    continue
                self._add(entry.target)
                if entry.keys[0] in ("resources", "components") and entry.target not in self.sources:
                    inner = posixpath.normpath(posixpath.join(entry.target, KUSTOMIZATION))
                    self._add(inner)
                    pending.append(inner)

    def _add(self, path: str, *, read: bool = True) -> None:
        if path in self.sources:
            return
        if above := unread_above(self.sources, path):
            self.sources[path] = above
        elif read and 0 < climbs(path) <= self.reach:
            relative = posixpath.normpath(posixpath.join(self.place, path))
            inside = posixpath.relpath(relative, self.place or ".")
            if inside in self.sources:  # up, and down again
                self.sources[path] = self.sources[inside]
            elif _NOT_READ.isdisjoint(relative.split("/")) and self.around.is_there(relative) is not False:
                real = self.around.resolved(relative)
                if real is not None and not _NOT_READ.isdisjoint(real.split("/")):
                    self.sources[path] = unread_source(path, "link", "a link into .git or secrets/: not read")
                elif real is None or not os.path.isdir(os.path.join(self.around.path, real)):  # noqa: PTH112, PTH118
                    self.sources[path] = source_in(self.around, relative, path)
