"""Files below a folder, read without leaving it.

A deployment comes from a repository that others write to. Its links are followed as far as they stay inside.
What is no regular file, or larger than any configuration, is not opened. So nothing that lies outside gets
into a message, and nothing hangs.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Literal

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Larger files are not read: nothing that a deployment is made of comes near."""
_IS_POSIX = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_THROUGH = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_READ = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO that takes the place of a file does not hold us up
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)

Why = Literal["missing", "link", "large", "unreadable"]


class UnreadError(Exception):
    """A file was not read. The message says why, as the end of a line; `why` tells the kinds apart."""

    def __init__(self, why: Why, message: str, error: OSError | None = None) -> None:
        super().__init__(message)
        self.why: Why = why
        self.error = error
        """What the system said, where it was asked."""


class _LinkError(Exception):
    """A part of the path is a link."""


class Folder(AbstractContextManager["Folder"]):
    """A folder whose files are read without leaving it. Use it as a context, or call `close`.

    The folder itself may be reached through a link: the user named it. Raises `OSError` where it is none.
    """

    def __init__(self, path: Path, what: str = "the deployment") -> None:
        self.path = os.path.realpath(path)
        self._link_out = f"a link that leads out of {what}, so it was not read"
        self._descriptor = os.open(self.path, _THROUGH) if _IS_POSIX else -1

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def resolved(self, path: str) -> str | None:
        """Where a path below the folder leads, relative to the folder; None where a link leads out of it."""
        real = os.path.realpath(os.path.join(self.path, path))  # noqa: PTH118 (called for every link)
        if real == self.path:
            return "."
        start = self.path if self.path.endswith(os.sep) else self.path + os.sep
        return real.removeprefix(start).replace(os.sep, "/") if real.startswith(start) else None

    def read(self, path: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """The content of a regular file of at most `limit` bytes. Raises `UnreadError` where it is none."""
        try:
            with self._opened(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as stream:
                if os.fstat(descriptor).st_size > limit:
                    raise UnreadError("large", _too_large(limit))
                # It may have grown, and files of /proc tell no size, or have nothing to say yet.
                content = stream.read(limit + 1) or b""
        except ValueError:  # a name that no file system takes
            raise UnreadError("missing", "cannot be read: no such file") from None
        except OSError as error:
            why: Why = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
            reason = (error.strerror or str(error)).lower()
            raise UnreadError(why, f"cannot be read: {reason}", error) from None
        if len(content) > limit:
            raise UnreadError("large", _too_large(limit))
        return content

    def is_there(self, path: str) -> bool | None:
        """Whether something stands at the path; None where a link leads out, or it cannot be looked at."""
        try:
            real = self.resolved(path)
            if real is None:
                return None
            os.stat(os.path.join(self.path, real), follow_symlinks=False)  # noqa: PTH116, PTH118
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError):
            return None
        return True

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """A descriptor of a regular file."""
        if not _IS_POSIX:
            descriptor = self._open_resolved(path)
        else:
            try:
                descriptor = self._open_beneath(path)
            except _LinkError:
                real = self.resolved(path)
                if real is None:
                    raise UnreadError("link", self._link_out) from None
                try:
                    descriptor = self._open_beneath(real)
                except _LinkError:  # a loop, or it has changed meanwhile
                    raise UnreadError("unreadable", "a link that leads to itself") from None
                except FileNotFoundError:
                    raise UnreadError("unreadable", "a link to nothing") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_beneath(self, path: str) -> int:
        """Open a file by its path, each part of which must be no link: so it cannot lie elsewhere.

        Raises `_LinkError` where one is.
        """
        *folders, name = posixpath.normpath(path).split("/")
        if ".." in (*folders, name) or path.startswith("/"):
            raise UnreadError("link", self._link_out)
        here = self._descriptor
        try:
            for folder in folders:
                try:
                    below = os.open(folder, _THROUGH | os.O_NOFOLLOW, dir_fd=here)
                except OSError:
                    with suppress(FileNotFoundError):
                        if stat.S_ISLNK(os.stat(folder, dir_fd=here, follow_symlinks=False).st_mode):
                            raise _LinkError from None
                    raise
                if here != self._descriptor:
                    os.close(here)
                here = below
            _check_kind(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode)  # before it is opened
            descriptor = os.open(name, _READ, dir_fd=here)
        finally:
            if here != self._descriptor:
                os.close(here)
        return _checked(descriptor)

    def _open_resolved(self, path: str) -> int:
        """The same where the system opens no file relative to a folder."""
        real = self.resolved(path)
        if real is None:
            raise UnreadError("link", self._link_out)
        file = Path(self.path, real)
        _check_kind(file.lstat().st_mode)
        return _checked(os.open(file, _READ))


def _checked(descriptor: int) -> int:
    try:
        _check_kind(os.fstat(descriptor).st_mode)
    except UnreadError:
        os.close(descriptor)
        raise
    return descriptor


def _check_kind(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise _LinkError
    if stat.S_ISDIR(mode):
        raise UnreadError("unreadable", "a folder where a file is expected")
    if not stat.S_ISREG(mode):
        raise UnreadError("unreadable", "not a regular file")


def _too_large(limit: int) -> str:
    return f"larger than {limit // 1024 // 1024} MiB, so it was not read"


def repository_of(folder: Path) -> Path | None:
    """The working tree of git that a folder lies in, without links; None where it is in none."""
    real = Path(os.path.realpath(folder))
    for parent in (real, *real.parents):
        if os.path.lexists(parent / ".git"):
            return parent
    return None
