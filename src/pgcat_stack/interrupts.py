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


class leaving_at_once:
    """Within it Ctrl-C ends the process, in a program that is not ours: Copier's hook."""

    def __enter__(self) -> None:
        try:
            self._leaves = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
            if self._leaves:
                _signal.signal(_signal.SIGINT, leave)
        except ValueError:  # not in the main thread, which alone gets signals
            self._leaves = False

    def __exit__(self, *_: object) -> None:
        if self._leaves:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _terminate(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


class Raised:
    """Within it Ctrl-C is a `KeyboardInterrupt`, and SIGTERM ends the process, once all is cleaned up."""

    def __enter__(self) -> None:
        self._leaves = _signal.getsignal(_signal.SIGINT) is leave
        if self._leaves:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        self._dies = self._leaves and _signal.getsignal(_signal.SIGTERM) == _signal.SIG_DFL
        if self._dies:
            _signal.signal(_signal.SIGTERM, _terminate)

    def __exit__(self, *_: object) -> None:
        if self._leaves:
            _signal.signal(_signal.SIGINT, leave)
        if self._dies:
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
