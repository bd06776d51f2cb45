"""What Copier calls before and after an update, by its own interpreter.

    update.py before ROOT ANSWERS_FILE FROM DATA   refuse to remove edited files; the tree is untouched then
    update.py after ROOT ANSWERS_FILE FROM         report those that went all the same, and answers; validate

ROOT is the deployment, FROM the folder in which Copier was started, DATA the answers from `--data`, as JSON.

A file goes when its topology, or a new version, has it no more, and Copier removes it with the edits in it.
They stay in git, because Copier updates committed files only, but nobody would look for them there. Before
the update only answers from `--data` are known; what is answered at the prompt is known afterwards. A
comparison with the old version, rendered anew, shows what was edited. That takes a second or two, so first
`nothing_can_go`, `nothing_is_excluded` and the names of the files tell whether there is anything to compare.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment
    from pathspec import GitIgnoreSpec

HOOKS = Path(__file__).resolve().parent
sys.path.insert(0, str(HOOKS))  # Python does not do it where PYTHONSAFEPATH is set

import post_generate  # noqa: E402

TEMPLATE = HOOKS.parent
RENDERED = "template"
"""The folder whose files are rendered."""
DECIDING = ("copier.yml", "questions")
"""What decides, with the names of the files in `RENDERED`, which of them are rendered."""
DISCARD = "PGCAT_STACK_DISCARD_EDITS"
"""The environment variable that lets edited files go."""
OTHERWISE = ("authn", "probe")
"""What an update proposes otherwise than a first copy: it does not come back by itself."""


def main(arguments: list[str]) -> int:
    """Run one stage and return its exit code."""
    stage, folder, answers_file, started_in, *data = arguments
    root = Path(folder).resolve()
    problem = post_generate.prepare(root)
    if stage == "after":  # only the validator imports them: before an update, that time is saved
        problem = problem or post_generate.packages_problem()
    if problem:
        return post_generate.complain(problem)
    os.chdir(started_in)  # a relative path to the template means what it means to Copier
    discard = bool(os.environ.get(DISCARD))
    code = 0
    try:
        if stage == "after":
            code = after(root, answers_file, discard)
        elif not discard:
            code = before(root, answers_file, json.loads(data[0]))
    except Exception as error:  # the old version cannot be had any more, or is not what it was
        reason = (str(error).splitlines() or [repr(error)])[0]
        code = cannot_compare(reason, discard)
    if stage == "before":
        return code
    tell_what_was_forgotten(root, answers_file)
    os.environ["PGCAT_STACK_ANSWERS_FILE"] = answers_file
    from pgcat_stack.cli import hook

    return max(code, hook(root))


def before(root: Path, answers_file: str, data: dict[str, Any]) -> int:
    """Refuse the update where it would remove edited files."""
    answers = (root / answers_file).read_text(encoding="utf-8")
    if nothing_can_go(answers, data) or nothing_is_excluded(root, answers, data):
        return 0
    from pgcat_stack.files.git import git, paths

    with tempfile.TemporaryDirectory(prefix="pgcat-stack-") as folder:
        new = Path(folder, "new")
        try:
            make_new_names(new, answers_file, answers, data)
        except Exception:  # Copier comes to the same end in a moment, and says why
            return 0
        going = [path for path in paths(git(root, "ls-files", "-z")) if not (new / path).exists()]
        if (named := old_names(answers)) is not None:
            going = [path for path in going if path in named]
        edited = edited_files(root, Path(folder, "old"), answers_file, answers, going, "") if going else []
    if not edited:
        return 0
    return post_generate.complain(
        f"this update would remove files that you have edited: {', '.join(edited)}; nothing was changed."
        f" Move the edits to where you need them and commit, or let them go: {DISCARD}=1 copier update ..."
    )


def after(root: Path, answers_file: str, discard: bool) -> int:
    """Report the edited files that the update has removed. An error, unless they were let go."""
    from pgcat_stack.files.git import blob, git, paths

    gone = paths(git(root, "ls-files", "-z", "--deleted"))
    if not gone:
        return 0
    with tempfile.TemporaryDirectory(prefix="pgcat-stack-") as folder:
        answers = blob(root, f"HEAD:./{answers_file}").decode()
        edited = edited_files(root, Path(folder, "old"), answers_file, answers, gone, "HEAD")
    if not edited:
        return 0
    commit = git(root, "rev-parse", "--short", "HEAD").decode().strip()
    removed = "removed, as you asked, files" if discard else "removed files"
    code = post_generate.complain(
        f"this update {removed} that you had edited: {', '.join(edited)};"
        f" to get them back, in {shlex.quote(str(root))}:"
        f" git checkout {commit} -- {' '.join(shlex.quote(path) for path in edited)}"
    )
    return 0 if discard else code


def cannot_compare(reason: str, discard: bool) -> int:
    """Say that edited files cannot be told. That is an error, unless they may go."""
    said = f"cannot compare your files with the old version: {reason}"
    if discard:
        post_generate.complain(f"{said}; so edited files that this update removes are not listed")
        return 0
    return post_generate.complain(f"{said}; without that: {DISCARD}=1 copier update ...")


def tell_what_was_forgotten(root: Path, answers_file: str) -> None:
    """Print the stored answers that no question asks for any more: Copier drops them without a word."""
    import yaml

    from pgcat_stack.files.git import GitError, blob

    try:
        before = yaml.safe_load(blob(root, f"HEAD:./{answers_file}"))
        now = yaml.safe_load((root / answers_file).read_text(encoding="utf-8"))
        if before == now:
            return
        gone = before.keys() - now.keys()
        lost = {
            key: before[key]
            for key, usual in (defaults() if gone else {}).items()
            if key in gone and before[key] not in ("", 0) and (key in OTHERWISE or before[key] != usual)
        }
    except (OSError, GitError, yaml.YAMLError, TypeError):
        return  # a conflict in it, or no commit: the validator says so
    if lost:
        from pgcat_stack.printable import LONGEST_LINE, printable

        print("Forgotten, for these answers leave no question for it; to come back, give it again:")
        if before.get("advanced") and not now.get("advanced"):
            lost = {"advanced": True, **lost}
        options = " ".join(f"--data {key}={text(value)}" for key, value in lost.items())
        print(f"  {printable(options, LONGEST_LINE)}\n")


def questions() -> dict[str, dict[str, Any]]:
    """What this version asks for, or would with other answers, by its keys."""
    import yaml

    found: dict[str, dict[str, Any]] = {}
    for file in sorted((TEMPLATE / "questions").glob("*.yml")):
        asked = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        found |= {key: each for key, each in asked.items() if not key.startswith("_")}
    return found


def defaults() -> dict[str, Any]:
    """What this version proposes for each question, by its keys, while no other is answered."""
    table = environment().get_template("questions/table.jinja").make_module().questions  # type: ignore[attr-defined]
    return {key: rule.get("default") for key, rule in table.items()}


def text(value: object) -> str:
    """An answer as `--data` takes it in a shell."""
    return shlex.quote(str(value).lower() if isinstance(value, bool) else str(value))


# What can go


def nothing_can_go(answers: str, data: dict[str, Any]) -> bool:
    """Whether the answers and their rules are the same, and the new version has every file of the old one."""
    import yaml

    known = yaml.safe_load(answers)
    if any(key not in known or text(known[key]) != text(value) for key, value in data.items()):
        return False
    old, new = str(known["_commit"]), os.environ.get("VERSION_TO", "")
    if old == new:
        return True
    old_rules, new_rules = rules(old), rules("HEAD")
    if old_rules is None or old_rules != new_rules:
        return False
    names = names_in(old)
    return names is not None and names <= (names_in("HEAD") or set())


def nothing_is_excluded(root: Path, answers: str, data: dict[str, Any]) -> bool:
    """Whether the version stays, and also renders every file of the deployment with these answers.

    Stored answers and those given are all that counts where no question is asked that was not asked before.
    True is certain; False also means that it cannot be told this way.
    """
    import re

    import yaml

    known = yaml.safe_load(answers)
    if str(known["_commit"]) != os.environ.get("VERSION_TO", ""):
        return False
    asked = questions().values()
    conditions = " ".join(str(question.get(part, "")) for question in asked for part in ("when", "choices"))
    if any(re.search(rf"\b{re.escape(key)}\b", conditions) for key in data):
        return False
    from pgcat_stack.files.git import git, paths

    try:
        patterns = excluded(known | data)
    except Exception:  # answers that the gate refuses in a moment, or a library that is older than this
        return False
    return not any(patterns.match_file(path) for path in paths(git(root, "ls-files", "-z")))


def excluded(answers: dict[str, Any]) -> GitIgnoreSpec:
    """What matches the files that a deployment with these stored answers has not, rendered as Copier does it.

    Copier itself would first be imported, and compile every question: more than a second.
    """
    from pathspec import GitIgnoreSpec

    patterns = environment().get_template("questions/excluded.jinja").render(answers)
    return GitIgnoreSpec.from_lines(patterns.splitlines())


def environment() -> SandboxedEnvironment:
    """Jinja as Copier sets it up for this template."""
    import yaml
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    settings = yaml.safe_load((TEMPLATE / "copier.yml").read_text(encoding="utf-8").partition("\n---\n")[0])
    return SandboxedEnvironment(
        loader=FileSystemLoader(TEMPLATE),
        undefined=StrictUndefined,
        extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"],
        **{name: value for name, value in settings["_envops"].items() if name != "undefined"},
    )


def rules(commit: str) -> bytes | None:
    """What identifies the rules of a version; None where this clone does not have it."""
    from pgcat_stack.files.git import GitError, git

    try:
        return git(TEMPLATE, "rev-parse", *(f"{commit}^0:{path}" for path in DECIDING))
    except GitError:
        return None


def names_in(commit: str) -> set[str] | None:
    """The names of the files that a version may render; None where this clone does not have it."""
    from pgcat_stack.files.git import GitError, git, paths

    try:
        listed = git(TEMPLATE, "ls-tree", "-r", "-z", "--name-only", f"{commit}^0", "--", f"{RENDERED}/")
    except GitError:
        return None
    return {path.removeprefix(f"{RENDERED}/").removesuffix(".jinja") for path in paths(listed)} or None


def old_names(answers: str) -> set[str] | None:
    """The names of the files that the old version may render; None where they cannot be told."""
    import yaml

    names = names_in(str(yaml.safe_load(answers)["_commit"]))
    if names is None or any("{" in name for name in names - {"{{ _copier_conf.answers_file }}"}):
        return None
    return names


def make_new_names(new: Path, answers_file: str, answers: str, data: dict[str, Any]) -> None:
    """Let Copier make the files of this version as the update will, by name only: all are empty."""
    template = new.with_name("template")
    for part in DECIDING:
        copy = shutil.copytree if (TEMPLATE / part).is_dir() else shutil.copy
        template.mkdir(exist_ok=True)
        copy(TEMPLATE / part, template / part)
    for file in (TEMPLATE / RENDERED).rglob("*"):
        if file.is_file():
            empty = template / file.relative_to(TEMPLATE)
            empty.parent.mkdir(parents=True, exist_ok=True)
            empty.touch()
    (new / answers_file).parent.mkdir(parents=True)
    (new / answers_file).write_text(answers, encoding="utf-8")
    render(str(template), new, data=data, answers_file=answers_file)


def edited_files(
    root: Path, old: Path, answers_file: str, answers: str, paths: Iterable[str], revision: str
) -> list[str]:
    """Those of the paths that the old version renders otherwise than `revision` has them; "" is the index."""
    import yaml

    from pgcat_stack.files.git import blob

    known = yaml.safe_load(answers)
    # With `_src_path`, as Copier does it: then the template names the address of that time (`rendered_from`).
    values = {key: value for key, value in known.items() if not key.startswith("_") or key == "_src_path"}
    render(known["_src_path"], old, data=values, answers_file=answers_file, vcs_ref=known["_commit"])
    return [
        path
        for path in paths
        if (old / path).is_file() and (old / path).read_bytes() != blob(root, f"{revision}:./{path}")
    ]


def render(template: str, folder: Path, **options: Any) -> None:
    """Copy as Copier's own update does. Importing Copier takes half a second: only where it is needed."""
    import platform
    import warnings

    # What Copier imports asks for the processor, for which Python would start `uname`.
    vars(platform.uname()).setdefault("processor", "")
    import copier

    warnings.simplefilter("ignore")  # of what Copier has warned already
    copier.run_copy(template, folder, defaults=True, overwrite=True, quiet=True, skip_tasks=True, **options)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
