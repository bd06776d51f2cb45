"""Keeps what Jinja makes of a template: that is most of what Copier does, and the same each time.

All tests and the commands that they start share one folder, also with the runs after this one. A file in it
is named by a digest of all that its code comes from.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent.parent / ".pytest_cache" / "compiled"


@functools.cache
def keep_compiled() -> None:
    """From now on in this process."""
    import jinja2

    FOLDER.mkdir(parents=True, exist_ok=True)
    plain: Callable[..., Any] = jinja2.Environment.compile

    def compile_once(
        self: Any,
        source: Any,
        name: str | None = None,
        filename: str | None = None,
        raw: bool = False,
        defer_init: bool = False,
    ) -> Any:
        if raw or not isinstance(source, str):
            return plain(self, source, name, filename, raw, defer_init)
        options = (name, defer_init, self.trim_blocks, self.lstrip_blocks, self.keep_trailing_newline)
        text = (
            f"{jinja2.__version__} {sys.version} {options} {self.undefined} {sorted(self.filters)} {source}"
        )
        kept = FOLDER / hashlib.sha256(text.encode()).hexdigest()
        try:
            return marshal.loads(kept.read_bytes())
        except (OSError, ValueError, EOFError):
            # What Jinja computes beforehand, such as the real path of ".", holds in this process alone.
            optimized, self.optimized = self.optimized, False
            try:
                code = plain(self, source, name, filename, raw, defer_init)
            finally:
                self.optimized = optimized
            draft = kept.with_suffix(f".{os.getpid()}")
            draft.write_bytes(marshal.dumps(code))
            draft.replace(kept)
            return code

    jinja2.Environment.compile = compile_once  # type: ignore[method-assign]
