"""Running docker and kubectl: their output within a time, their errors as one line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgcat_stack.doctor.side_by_side import Failed

_LONGEST = 200


def output_of(command: Sequence[str], folder: Path, seconds: float) -> str:
    """What a command prints. Raises `Failed`, with its last line of complaint, where it fails or is slow."""
    words = _shown(command)
    try:
        # A group of its own: what it has started ends with it.
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(
            "failed", f"{command[0]} cannot be run: {(error.strerror or str(error)).lower()}"
        ) from None
    try:
        out, complaint = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Failed("mute", f"`{words}` did not end within {seconds:g} s") from None
    finally:
        end(process)
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Failed("failed", f"`{words}` failed: {lines[-1][:_LONGEST]}")
    return out.decode(errors="replace")


def _shown(command: Sequence[str]) -> str:
    """The command without its options, for a message."""
    return " ".join([word for word in command if not word.startswith("-")][:4])


def json_of(command: Sequence[str], folder: Path, seconds: float) -> Any:
    """What a command prints as JSON. Raises `Failed` for what is none, too."""
    text = output_of(command, folder, seconds)
    try:
        return json.loads(text)
    except ValueError:
        raise Failed("failed", f"`{_shown(command)}` did not print JSON") from None


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started, if it still runs."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
