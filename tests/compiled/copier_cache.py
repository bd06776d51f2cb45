"""Spares Copier what is the same each time: what Jinja makes of a template, the questions as data, and what
git says of each file.

All tests and the commands that they start share one folder, also with the runs after this one. A file in it
is named by a digest of all that its code comes from.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
import os
import pickle
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent.parent / ".pytest_cache" / "compiled"


def _kept(key: bytes, form: Any, make: Callable[[], Any]) -> Any:
    """What was made of `key` before, as the module `form` writes it; else what is made of it now."""
    kept = FOLDER / hashlib.sha256(key).hexdigest()
    try:
        return form.loads(kept.read_bytes())
    except (OSError, ValueError, EOFError):
        made = make()
        FOLDER.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(f".{os.getpid()}")
        draft.write_bytes(form.dumps(made))
        draft.replace(kept)
        return made


@functools.cache
def keep_compiled() -> None:
    """From now on in this process."""
    import jinja2

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
            f"filters at run time {jinja2.__version__} {sys.version} {options} {self.undefined}"
            f" {sorted(self.filters)} {source}"
        )
        return _kept(text.encode(), marshal, lambda: plain(self, source, name, filename, raw, defer_init))

    def at_run_time(self: Any, eval_ctx: Any = None) -> Any:
        raise jinja2.nodes.Impossible

    # What a filter makes of constants, such as the real path of ".", holds in this process alone.
    jinja2.nodes.Filter.as_const = at_run_time  # type: ignore[method-assign]
    jinja2.Environment.compile = compile_once  # type: ignore[method-assign]


@functools.cache
def keep_modules() -> None:
    """From now on in this process: each copy and update has a clone of its own, with the same modules."""
    plain: Callable[..., Any] = SourceFileLoader.source_to_code

    def compile_once(self: Any, data: Any, path: Any, **options: Any) -> Any:
        if not isinstance(data, bytes):
            return plain(self, data, path, **options)
        key = f"module {sys.version} ".encode() + data
        return _kept(key, marshal, lambda: plain(self, data, path, **options))

    SourceFileLoader.source_to_code = compile_once  # type: ignore[method-assign]


@functools.cache
def spare_copier() -> None:
    """From now on in this process.

    Copier asks git for each file whether it ignores modes. On the machines of the tests git does not, and
    Copier then does nothing (`_sync_git_index_executable_bit`).
    """
    import copier._template
    from copier._main import Worker

    keep_compiled()
    if hasattr(Worker, "_sync_git_index_executable_bit"):
        Worker._sync_git_index_executable_bit = lambda *_: None  # type: ignore[method-assign]
    plain = copier._template.load_template_config

    def load_once(conf_path: Path, quiet: bool = False) -> Any:
        files = [conf_path, *sorted(conf_path.parent.glob("questions/*"))]
        key = f"questions {sys.version}".encode()
        key += b"".join(f"{file.name} ".encode() + file.read_bytes() for file in files)
        return _kept(key, pickle, lambda: plain(conf_path, quiet))

    copier._template.load_template_config = load_once
