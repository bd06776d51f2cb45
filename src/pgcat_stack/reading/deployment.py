"""A rendered deployment, read from its folder alone.

`Deployment.load` reads every text file once. Checks then ask for the files they know by name, or walk
`sources`. What is judged is what will run; the answers are only compared with what budget.yaml says of them.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pgcat_stack.build import kustomize
from pgcat_stack.build.above import read_named
from pgcat_stack.build.manifests import Manifest, pod_containers
from pgcat_stack.build.objects import objects
from pgcat_stack.files.folder import Folder
from pgcat_stack.files.plain_data import dig
from pgcat_stack.files.sources import Source, source_in, unread_above, unread_source
from pgcat_stack.paths import BUDGET, COMPOSE, KUSTOMIZATION, PERMIFY, PGCAT, SECRETS_FOLDER
from pgcat_stack.pgcat.version import PgcatVersion, pgcat_version
from pgcat_stack.reading.capacities import Capacities, read_capacities

if TYPE_CHECKING:
    from pgcat_stack.permify.settings import PermifyReading

_KNOWN_FILES = (COMPOSE, KUSTOMIZATION, PGCAT, PERMIFY, BUDGET)
_SKIPPED_FOLDERS = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", SECRETS_FOLDER, ".terraform"}
)
_NEVER_READ = frozenset({".git", SECRETS_FOLDER})
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
    def load(cls, root: Path) -> Self:
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
    def _read(cls, root: Path, folder: Folder) -> Self:
        names = [path.name for path in Path(folder.path).iterdir()]
        if all(folder.is_there(name) is False for name in (COMPOSE, KUSTOMIZATION, PERMIFY)):
            raise DeploymentError(
                f"{root}: not a rendered deployment: neither {COMPOSE} nor {KUSTOMIZATION} nor {PERMIFY}"
            )
        paths, sources = _listing(root, folder)
        read = 0
        for path in paths:
            sources[path] = unread_above(sources, path) or _source(folder, path)
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
            reach = read_named(folder, sources)
        return cls(
            root,
            dict(sorted(sources.items())),
            tuple(_source(folder, path) for path in sorted(names) if _ANSWERS.fullmatch(path)),
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
    def kustomizations(self) -> list[Source]:
        """kustomization.yaml and those that it leads to."""
        return kustomize.kustomizations(self.sources)

    @cached_property
    def made_of(self) -> frozenset[str]:
        """The files that the deployment is made of, as far as anything in it reads them."""
        return kustomize.made_of(self.sources)

    @cached_property
    def complete(self) -> bool:
        """Whether every object of the deployment is known, as far as kustomizations list them."""
        return kustomize.complete(self.sources, self.reach)

    @cached_property
    def added_labels(self) -> dict[str, str]:
        """The labels that kustomization.yaml adds to pods."""
        return kustomize.added_labels(self.kustomization) if self.kustomization else {}

    @cached_property
    def generated_files(self) -> dict[str, dict[str, str]]:
        """ConfigMaps by name, with the file that each of their keys is made of."""
        return kustomize.generated_files(self.sources, self.of_kind("ConfigMap"))

    def remote(self, entry: kustomize.Listed) -> bool:
        """Whether a file lies outside the deployment's git repository, where it cannot be judged."""
        return kustomize.remote(entry, self.reach)

    def exists(self, target: str) -> bool:
        """Whether a file or folder of the deployment has this path."""
        return kustomize.exists(self.sources, target)

    @cached_property
    def manifests(self) -> tuple[Manifest, ...]:
        """The Kubernetes objects that kustomization.yaml lists, in its order."""
        if self.kustomization is None:
            return ()
        return tuple(objects(self.sources))

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

    @cached_property
    def capacities(self) -> Capacities | None:
        """What budget.yaml says; None without the file."""
        return read_capacities(self.budget)

    @property
    def pgcat_version(self) -> PgcatVersion:
        """The line of PgCat whose configuration applies: of the image, or 1.2 where no image is named."""
        return pgcat_version(self.pgcat_image or "")

    @cached_property
    def permify_reading(self) -> PermifyReading | None:
        """permify.yaml as Permify takes it; None without the file or where it does not parse."""
        if self.permify is None or not self.permify.parsed:
            return None
        from pgcat_stack.permify.settings import read_permify

        return read_permify(self.permify.data)


def _source(folder: Folder, path: str) -> Source:
    """A file of the deployment. A link into .git or secrets/ is not read: messages quote what they read."""
    real = folder.resolved(path)
    if real is not None and _NEVER_READ.intersection(real.split("/")):
        return unread_source(path, "link", "a link into .git or secrets/: not read")
    return source_in(folder, path)


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
                elif entry.name not in _SKIPPED_FOLDERS or path == SECRETS_FOLDER:
                    found.update(_wanted(path, entry.name))
            elif not entry.is_dir(follow_symlinks=False):
                found.update(_wanted(path, entry.name))
            elif entry.name not in _SKIPPED_FOLDERS:
                pending.append((path, inner, taken))
    return sorted(found), unread


def _wanted(path: str, name: str) -> tuple[str, ...]:
    return () if name in _SKIPPED_FILES or _ANSWERS.fullmatch(name) else (path,)
