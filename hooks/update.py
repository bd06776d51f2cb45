"""What Copier calls before and after an update, by its own interpreter, in the folder of the deployment.

    update.py before ANSWERS_FILE DATA    refuse to remove files that were edited; the tree is untouched then
    update.py after ANSWERS_FILE          report those that went all the same, and answers; run the validator

A file goes when its topology, or a new version, has it no more, and Copier removes it with the edits in it.
They stay in git, for Copier updates committed files only, but nobody would look for them there. Before the
update only answers from `--data` are known, DATA, as JSON; what is answered at the prompt is found out
afterwards. What was edited shows in a comparison with the old version, rendered anew.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import post_generate

TEMPLATE = Path(__file__).resolve().parent.parent
DISCARD = "PGCAT_STACK_DISCARD_EDITS"
"""The environment variable that lets edited files go."""
USUAL = {"database": "bundled", "pgcat_replicas": 2, "drain_seconds": 60, "database_tls": "require"}
"""Defaults that depend on other answers: what they mostly are."""


def main(arguments: list[str]) -> int:
    """Run one stage and return its exit code."""
    stage, answers_file, *data = arguments
    code = 0
    if not os.environ.get(DISCARD):
        try:
            code = before(answers_file, json.loads(data[0])) if stage == "before" else after(answers_file)
        except Exception as error:  # the old version cannot be had any more, or is not what it was
            reason = (str(error).splitlines() or [repr(error)])[0]
            code = post_generate.complain(
                f"cannot compare your files with the old version: {reason}; without that:"
                f" {DISCARD}=1 copier update ..."
            )
    if stage == "before":
        return code
    tell_what_was_forgotten(answers_file)
    os.environ["PGCAT_STACK_ANSWERS_FILE"] = answers_file
    return max(code, post_generate.main([]))


def before(answers_file: str, data: dict[str, Any]) -> int:
    """Refuse the update where it would remove edited files."""
    answers = Path(answers_file).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="pgcat-stack-") as folder:
        new = Path(folder, "new")
        try:
            render_new(new, answers_file, answers, data)
        except Exception:  # Copier comes to the same end in a moment, and says why
            return 0
        going = [path for path in lines(git("ls-files", "-z")) if not (new / path).exists()]
        edited = edited_files(Path(folder, "old"), answers_file, answers, going, "") if going else []
    if not edited:
        return 0
    return post_generate.complain(
        f"this update would remove files that you have edited: {', '.join(edited)}; nothing was changed."
        f" Move the edits to where you need them and commit, or let them go: {DISCARD}=1 copier update ..."
    )


def after(answers_file: str) -> int:
    """Report the edited files that the update has removed."""
    gone = lines(git("diff", "-z", "--name-only", "--no-renames", "--diff-filter=D", "--relative", "HEAD"))
    if not gone:
        return 0
    with tempfile.TemporaryDirectory(prefix="pgcat-stack-") as folder:
        answers = git("show", f"HEAD:./{answers_file}").decode()
        edited = edited_files(Path(folder, "old"), answers_file, answers, gone, "HEAD")
    if not edited:
        return 0
    return post_generate.complain(
        f"this update removed files that you had edited: {', '.join(edited)};"
        f" `git show HEAD:./{edited[0]}` prints what was there"
    )


def tell_what_was_forgotten(answers_file: str) -> None:
    """Print the stored answers that no question asks for any more: Copier drops them without a word."""
    import yaml

    try:
        before = yaml.safe_load(git("show", f"HEAD:./{answers_file}"))
        now = yaml.safe_load(Path(answers_file).read_text(encoding="utf-8"))
        lost = {
            key: before[key]
            for key, default in questions().items()
            if key in before and key not in now and before[key] not in (default, USUAL.get(key), "", 0)
        }
    except (OSError, subprocess.CalledProcessError, yaml.YAMLError, TypeError):
        return  # a conflict in it, or no commit: the validator says so
    if lost:
        print("Forgotten, for these answers leave no question for it; to come back, give it again:")
        if before.get("advanced") and not now.get("advanced"):
            lost = {"advanced": True, **lost}
        print(f"  {' '.join(f'--data {key}={text(value)}' for key, value in lost.items())}\n")


def questions() -> dict[str, Any]:
    """The keys that this version asks for, or would with other answers, and their defaults."""
    import yaml

    found: dict[str, Any] = {}
    for file in sorted((TEMPLATE / "questions").glob("*.yml")):
        asked = yaml.safe_load(file.read_text(encoding="utf-8"))
        found |= {key: each.get("default") for key, each in asked.items() if not key.startswith("_")}
    return found


def text(value: object) -> str:
    """An answer as `--data` takes it in a shell."""
    return shlex.quote(str(value).lower() if isinstance(value, bool) else str(value))


def edited_files(
    old: Path, answers_file: str, answers: str, paths: Iterable[str], revision: str
) -> list[str]:
    """Those of the paths that the old version renders otherwise than `revision` has them; "" is the index."""
    import yaml

    known = yaml.safe_load(answers)
    values = {key: value for key, value in known.items() if not key.startswith("_")}
    render(known["_src_path"], old, data=values, answers_file=answers_file, vcs_ref=known["_commit"])
    return [
        path
        for path in paths
        if (old / path).is_file() and (old / path).read_bytes() != git("show", f"{revision}:./{path}")
    ]


def render_new(new: Path, answers_file: str, answers: str, data: dict[str, Any]) -> None:
    """Render this version as the update will: stored answers, those of `--data`, defaults."""
    template = new.with_name("template")
    shutil.copytree(TEMPLATE, template, ignore=shutil.ignore_patterns(".git"))
    (new / answers_file).parent.mkdir(parents=True)
    (new / answers_file).write_text(answers, encoding="utf-8")
    render(str(template), new, data=data, answers_file=answers_file)


def render(template: str, folder: Path, **options: Any) -> None:
    """Copy as Copier's own update does. Importing Copier takes half a second: only where it is needed."""
    import warnings

    import copier

    warnings.simplefilter("ignore")  # of what Copier has warned already
    copier.run_copy(template, folder, defaults=True, overwrite=True, quiet=True, skip_tasks=True, **options)


def git(*arguments: str) -> bytes:
    """What git prints. Raises `subprocess.CalledProcessError`."""
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE).stdout


def lines(output: bytes) -> list[str]:
    """The paths in what `git … -z` prints."""
    return [os.fsdecode(path) for path in output.split(b"\0") if path]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
