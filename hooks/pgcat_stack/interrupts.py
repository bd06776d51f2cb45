"""Ctrl-C ends the command with exit code 130 and without a word, also while it still imports.

An exception would come out of whatever Python does at that moment: in an import it ends in a traceback, in a
callback of the interpreter it is printed and forgotten. So Ctrl-C ends the process at once, except where
something must be cleaned up.

This is the first that the command runs, so it imports only what Python has loaded already.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # the part of `signal` that is built in
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130


def leave(*_: object) -> NoReturn:
    """End the process at once."""
    os._exit(INTERRUPTED)


def leave_at_once() -> None:
    """From now on Ctrl-C ends the process, unless it is ignored, as in a script's background job."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, leave)


def leave_soon() -> None:
    """From now on Ctrl-C does nothing: the process has its exit code and only has to end."""
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)


class Raised:
    """Within it Ctrl-C is a `KeyboardInterrupt`, so that what was begun is cleaned up."""

    def __enter__(self) -> None:
        self._leaves = _signal.getsignal(_signal.SIGINT) is leave
        if self._leaves:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        if self._leaves:
            _signal.signal(_signal.SIGINT, leave)
