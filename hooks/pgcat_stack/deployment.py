"""A rendered deployment, read from its folder alone.

`Deployment.load` reads every text file once. Checks then ask for the files they know by name, or walk
`sources`. What is judged is what will run; the answers are only compared with what budget.yaml says of them.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pgcat_stack.files import Folder
from pgcat_stack.manifests import Manifest, pod_containers
from pgcat_stack.models import PgcatVersion, pgcat_version
from pgcat_stack.plain_data import as_list, as_mapping, as_text, dig
from pgcat_stack.sources import Source, source_in, unread_source

if TYPE_CHECKING:
    from pgcat_stack.models.permify import PermifyReading
    from pgcat_stack.models.pgcat import PgcatReading

COMPOSE = "compose.yaml"
KUSTOMIZATION = "kustomization.yaml"
PGCAT = "pgcat/pgcat.toml"
PERMIFY = "permify/permify.yaml"
BUDGET = "budget.yaml"
VALUES = "permify/values.yaml"
BOOTSTRAP = "postgres/bootstrap.sql"

SECRETS = "secrets"

_KNOWN_FILES = (COMPOSE, KUSTOMIZATION, PGCAT, PERMIFY, BUDGET)
_SKIPPED_FOLDERS = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", SECRETS, ".terraform"}
)
_NEVER_READ = frozenset({".git", SECRETS})
_SKIPPED_FILES = frozenset({".DS_Store"})
_ANSWERS = re.compile(r"\.copier-answers.*\.ya?ml")
_MOST_FILES = 5000
_MOST_CHARACTERS = 256 * 1024 * 1024


class DeploymentError(Exception):
    """The folder cannot be judged at all. The message is one line for the user."""


@dataclass(frozen=True, eq=False)
class Deployment:
    """The files of a deployment. `root` is only for messages to people; checks read `sources`."""

    root: Path
    sources: Mapping[str, Source] = field(repr=False)
    answers: tuple[Source, ...] = field(default=(), repr=False)
    """Copier's answers files. Nothing is judged by them, only whether they and the files belong together."""
    reach: int = 0
    """How many folders above the deployment are in its git repository: `../` may lead there."""

    @classmethod
    def load(cls, root: Path) -> Deployment:
        """Read the folder `root`.

        Raises `DeploymentError` where there is no such folder, it cannot be listed, or nothing in it looks
        like a deployment.
        """
        try:
            with Folder(root) as folder:
                return cls._read(root, folder)
        except FileNotFoundError:
            raise DeploymentError(f"{root}: there is no such folder") from None
        except NotADirectoryError:
            raise DeploymentError(f"{root}: not a folder") from None
        except OSError as error:
            raise DeploymentError(f"{root}: cannot be read: {error.strerror or error}") from None

    @classmethod
    def _read(cls, root: Path, folder: Folder) -> Deployment:
        names = [path.name for path in Path(folder.path).iterdir()]
        if all(folder.is_there(name) is False for name in (COMPOSE, KUSTOMIZATION, PERMIFY)):
            raise DeploymentError(
                f"{root}: not a rendered deployment: neither {COMPOSE} nor {KUSTOMIZATION} nor {PERMIFY}"
            )
        paths, sources = _listing(root, folder)
        read = 0
        for path in paths:
            sources[path] = unread_above(sources, path) or source_in(folder, path)
            read += len(sources[path].text)
            if read > _MOST_CHARACTERS:
                size = _MOST_CHARACTERS // 1024 // 1024
                raise DeploymentError(f"{root}: not a rendered deployment: more than {size} MiB of text")
        for path in _KNOWN_FILES:
            if path not in sources and (above := unread_above(sources, path)):
                sources[path] = above
        reach = 0
        if any(".." in sources[path].text for path in (COMPOSE, KUSTOMIZATION) if path in sources) or any(
            source.unread for source in sources.values()
        ):
            from pgcat_stack.named import read_named

            reach = read_named(folder, sources)
        return cls(
            root,
            dict(sorted(sources.items())),
            tuple(source_in(folder, path) for path in sorted(names) if _ANSWERS.fullmatch(path)),
            reach,
        )

    @property
    def compose(self) -> Source | None:
        """compose.yaml, where the deployment runs on docker."""
        return self.sources.get(COMPOSE)

    @property
    def kustomization(self) -> Source | None:
        """kustomization.yaml, where the deployment runs on Kubernetes."""
        return self.sources.get(KUSTOMIZATION)

    @property
    def pgcat(self) -> Source | None:
        """pgcat/pgcat.toml; None where Permify connects directly."""
        return self.sources.get(PGCAT)

    @property
    def permify(self) -> Source | None:
        """permify/permify.yaml."""
        return self.sources.get(PERMIFY)

    @property
    def budget(self) -> Source | None:
        """budget.yaml: the capacity of each PostgreSQL server."""
        return self.sources.get(BUDGET)

    @cached_property
    def manifests(self) -> tuple[Manifest, ...]:
        """The Kubernetes objects that kustomization.yaml lists, in its order."""
        if self.kustomization is None:
            return ()
        return tuple(_manifests(self.sources, KUSTOMIZATION, "", frozenset()))

    def of_kind(self, *kinds: str) -> list[Manifest]:
        """The Kubernetes objects of these kinds."""
        return [manifest for manifest in self.manifests if manifest.kind in kinds]

    @cached_property
    def pgcat_image(self) -> str | None:
        """The image that runs PgCat: of the Compose service or the pod's container named `pgcat`."""
        image = dig(self.compose.data, "services", "pgcat", "image") if self.compose else None
        if isinstance(image, str):
            return image
        for manifest in self.manifests:
            for _, container in pod_containers(manifest.data):
                if container.get("name") == "pgcat" and isinstance(container.get("image"), str):
                    return str(container["image"])
        return None

    @property
    def pgcat_version(self) -> PgcatVersion:
        """The line of PgCat whose configuration applies: of the image, or 1.2 where no image is named."""
        return pgcat_version(self.pgcat_image or "")

    @cached_property
    def pgcat_reading(self) -> PgcatReading | None:
        """pgcat.toml as PgCat of this version takes it; None without the file or where it does not parse."""
        if self.pgcat is None or not self.pgcat.documents:
            return None
        from pgcat_stack.models.pgcat import read_pgcat

        return read_pgcat(self.pgcat.data, self.pgcat_version)

    @cached_property
    def permify_reading(self) -> PermifyReading | None:
        """permify.yaml as Permify takes it; None without the file or where it does not parse."""
        if self.permify is None or not self.permify.parsed:
            return None
        from pgcat_stack.models.permify import read_permify

        return read_permify(self.permify.data)


def _listing(root: Path, folder: Folder) -> tuple[list[str], dict[str, Source]]:
    """Relative paths of the files below a folder; and what cannot be listed.

    Known names are there even where they are no files. A link to a folder is followed as long as it stays
    inside and does not lead back to a folder around it.
    """
    found: set[str] = {name for name in _KNOWN_FILES if os.path.lexists(Path(folder.path, name))}
    unread: dict[str, Source] = {}
    pending: list[tuple[str, str, tuple[str, ...]]] = [("", "", ())]  # by name, without links, links taken at
    count = 0
    while pending:
        name, real, taken = pending.pop()
        try:
            entries = list(os.scandir(os.path.join(folder.path, real)))  # noqa: PTH118 (the fast one)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            unread[name] = unread_source(name, "unreadable", f"a folder that cannot be listed: {reason}")
            continue
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        count += len(entries)
        if count > _MOST_FILES:
            raise DeploymentError(f"{root}: not a rendered deployment: more than {_MOST_FILES} files")
        for entry in entries:
            path, inner = posixpath.join(name, entry.name), posixpath.join(real, entry.name)
            if entry.is_symlink():
                target = folder.resolved(inner)
                if target is not None and os.path.isdir(os.path.join(folder.path, target)):  # noqa: PTH112, PTH118
                    skipped = _SKIPPED_FOLDERS.intersection((entry.name, *target.split("/")))
                    behind = (*taken, real)
                    around = target == "." or any(f"{one}/".startswith(f"{target}/") for one in behind)
                    if not skipped and not around:
                        pending.append((path, target, behind))
                elif target is not None and _NEVER_READ.intersection(target.split("/")):
                    continue
                elif entry.name not in _SKIPPED_FOLDERS or path == SECRETS:
                    found.update(_wanted(path, entry.name))
            elif not entry.is_dir(follow_symlinks=False):
                found.update(_wanted(path, entry.name))
            elif entry.name not in _SKIPPED_FOLDERS:
                pending.append((path, inner, taken))
    return sorted(found), unread


def _wanted(path: str, name: str) -> tuple[str, ...]:
    return () if name in _SKIPPED_FILES or _ANSWERS.fullmatch(name) else (path,)


def unread_above(sources: Mapping[str, Source], path: str) -> Source | None:
    """The folder above a path that was not read: a link out of the deployment, or one without rights."""
    while path := posixpath.dirname(path):
        source = sources.get(path)
        if source is not None and source.unread:
            return source
    return None


def _manifests(
    sources: Mapping[str, Source], path: str, outer_namespace: str, seen: frozenset[str]
) -> Iterator[Manifest]:
    from pgcat_stack.transforms import transformed

    yield from transformed(_listed(sources, path, outer_namespace, seen), sources[path])


def _listed(
    sources: Mapping[str, Source], path: str, outer_namespace: str, seen: frozenset[str]
) -> Iterator[Manifest]:
    kustomization = sources[path].mapping
    if kustomization.get("kind") == "Component":
        yield from _completing(sources, path, outer_namespace)
    own = kustomization.get("namespace")
    namespace = outer_namespace or (own if isinstance(own, str) else "")
    folder = posixpath.dirname(path)
    for resource in as_list(kustomization.get("resources")):
        if not isinstance(resource, str):
            continue
        target = posixpath.normpath(posixpath.join(folder, resource))
        inner = posixpath.normpath(posixpath.join(target, KUSTOMIZATION))
        if target in sources:
            yield from _objects(sources[target], namespace)
        elif inner in sources and inner not in seen:
            yield from _manifests(sources, inner, namespace, seen | {path, inner})


def _completing(sources: Mapping[str, Source], path: str, namespace: str) -> Iterator[Manifest]:
    """The patches of a component: what they say of an object that somebody else has."""
    for patch in as_list(sources[path].mapping.get("patches")):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), as_text(dig(patch, "path"))))
        if target in sources:
            yield from _objects(sources[target], namespace, partial=True)


def _objects(source: Source, namespace: str, *, partial: bool = False) -> Iterator[Manifest]:
    for document, data in enumerate(source.documents):
        if not isinstance(data, dict):
            continue
        metadata = as_mapping(data.get("metadata"))
        own = metadata.get("namespace")
        yield Manifest(
            kind=as_text(data.get("kind")),
            name=as_text(metadata.get("name")),
            namespace=namespace or as_text(own),
            api_version=as_text(data.get("apiVersion")),
            data=data,
            source=source,
            document=document,
            partial=partial,
        )
