"""What the files say of the template: its address, its version, and the answers that they are of."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from pgcat_stack.checks.rendered import answers_digest
from pgcat_stack.files.sources import read_source
from rendering import KUBERNETES, environment, render

YAML_TRAPS = (
    "",
    "yes",
    "no",
    "null",
    "~",
    "1e3",
    "0E0",
    "0x10",
    "017",
    "2026-01-31",
    "1:30",
    "a\nb\n",
    "\n",
    " x ",
)
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.sampled_from([*YAML_TRAPS]),
    st.sampled_from(
        ["'", '"', "\\", "\u2028", "\x85", "\t", "*a", "&a", "!a", "|", "=", "<<", "? a", "@a", "%"]
    ),
    st.lists(st.one_of(texts, st.integers(), st.booleans()), max_size=3),
)
stored = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True), values, max_size=6)


def module(answers: dict[str, Any], **conf: Any) -> Any:
    """questions/template.jinja with these answers in scope, as the files import it."""
    context = {
        "_copier_answers": answers,
        "_copier_conf": {"data": {}, "answers_file": PurePath(".copier-answers.yml"), **conf},
    }
    return environment().get_template("questions/template.jinja").make_module(context), context


@settings(max_examples=300, deadline=None)
@given(stored)
def test_template_and_check_digest_the_same_answers(answers: dict[str, Any]) -> None:
    answers = {"_commit": "1.2.3", "_src_path": "gh:org/x", **answers}
    answers.pop("rendered_from", None)
    template, context = module(answers)
    name = "template/{{ _copier_conf.answers_file }}.jinja"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "answers.yml").write_text(environment().get_template(name).render(context))
        source = read_source(Path(folder), "answers.yml")
    assert source.parsed, source.problems
    assert answers_digest(source) == template.answers_digest()


@pytest.mark.parametrize(
    "answers",
    [{}, {"topology": "standalone", **KUBERNETES, "advanced": True, "pgcat_image": "", "drain_seconds": 90}],
)
def test_a_deployment_carries_the_digest_of_what_is_stored(answers: dict[str, Any], tmp_path: Path) -> None:
    deploy = render(tmp_path / "deploy", answers)
    budget = yaml.safe_load((deploy / "budget.yaml").read_text())
    digest = answers_digest(read_source(deploy, ".copier-answers.yml"))
    assert digest and budget["rendered"] == {"answers_file": ".copier-answers.yml", "answers": digest}


ADDRESSES = {
    # as typed: as git and pip take it, and as a page for people
    "gh:org/x": ("https://github.com/org/x", "https://github.com/org/x"),
    "gh:/org/x.git": ("https://github.com/org/x.git", "https://github.com/org/x"),
    "gl:org/sub/x": ("https://gitlab.com/org/sub/x", "https://gitlab.com/org/sub/x"),
    "https://github.com/org/x": ("https://github.com/org/x", "https://github.com/org/x"),
    "https://github.com/org/x/": ("https://github.com/org/x", "https://github.com/org/x"),
    "git+https://git.example.com/x.git": ("https://git.example.com/x.git", "https://git.example.com/x"),
    "https://git.example.com:8443/x.git": (
        "https://git.example.com:8443/x.git",
        "https://git.example.com:8443/x",
    ),
    "https://user@git.example.com/x.git": ("https://git.example.com/x.git", "https://git.example.com/x"),
    "https://oauth2:s3cret@git.example.com/x.git": (
        "https://git.example.com/x.git",
        "https://git.example.com/x",
    ),
    "https://s3cret@github.com/org/x.git": ("https://github.com/org/x.git", "https://github.com/org/x"),
    "git@github.com:org/x": ("ssh://git@github.com/org/x", "https://github.com/org/x"),
    "git@github.com:org/x.git": ("ssh://git@github.com/org/x.git", "https://github.com/org/x"),
    "git+git@github.com:org/x": ("ssh://git@github.com/org/x", "https://github.com/org/x"),
    "git@git.example.com:org/x.git": ("ssh://git@git.example.com/org/x.git", ""),
    "git@git.example.com:/srv/x.git": ("ssh://git@git.example.com/srv/x.git", ""),
    "git@[fd00::1]:org/x.git": ("ssh://git@[fd00::1]/org/x.git", ""),
    "build:x.git": ("ssh://build/x.git", ""),
    "ssh://git@git.example.com:2222/x.git": ("ssh://git@git.example.com:2222/x.git", ""),
    "ssh://git:s3cret@git.example.com/x.git": ("ssh://git@git.example.com/x.git", ""),
    "git+ssh://git@git.example.com/x.git": ("ssh://git@git.example.com/x.git", ""),
    "git://git.example.com/x.git": ("git://git.example.com/x.git", ""),
    "file:///srv/x.git": ("file:///srv/x.git", ""),
    "git+file:///srv/x.git": ("file:///srv/x.git", ""),
    "/srv/a@b/x": ("file:///srv/a@b/x", ""),
    # nothing that another place or a shell could take
    "../x": ("", ""),
    "~/x": ("", ""),
    "x": ("", ""),
    "/srv/x.bundle": ("", ""),
    "/srv/with blank/x": ("", ""),
    "/srv/it's/x": ("", ""),
    'https://git.example.com/$(id)"x.git': ("", ""),
    "https://git.example.com/x.git#egg=y": ("https://git.example.com/x.git", "https://git.example.com/x"),
    "https://git.example.com/x.git?private_token=s3cret": (
        "https://git.example.com/x.git",
        "https://git.example.com/x",
    ),
    "HTTPS://me:s3cret@git.example.com/x.git": ("HTTPS://git.example.com/x.git", "HTTPS://git.example.com/x"),
    "https://git.example.com/x;y.git": ("", ""),
    "https://git.example.com/x.git\n": ("", ""),
    "ssh://-oProxyCommand=id/x.git": ("", ""),
    "": ("", ""),
}


@pytest.mark.parametrize("typed", ADDRESSES)
def test_an_address_is_one_that_git_and_pip_take(typed: str, tmp_path: Path) -> None:
    template, _ = module({"_src_path": typed, "_commit": "1.2.0"})
    assert (template.address, template.page) == ADDRESSES[typed]
    assert "s3cret" not in template.address + template.page
    if not template.address:
        return
    requirement = Requirement(f"pgcat-stack @ git+{template.address}@1.2.0")
    assert requirement.url == f"git+{template.address}@1.2.0" and requirement.marker is None
    parts = urlsplit(template.address)
    assert parts.scheme in ("https", "ssh", "git", "file")
    assert not parts.query and not parts.fragment
    # git reads it as a URL: what it is told to find in its place is found there.
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "there")], check=True)
    replaced = f"url.file://{tmp_path}/there.insteadOf={template.address}"
    listed = ["git", "-c", replaced, "ls-remote", template.address]
    assert subprocess.run(listed, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("typed", "docs"),
    {
        "gh:org/x": "https://github.com/org/x/blob/main/docs",
        "gl:org/x": "https://gitlab.com/org/x/-/blob/main/docs",
        "https://gitlab.example.com/x": "https://gitlab.example.com/x/-/blob/main/docs",
        "https://codeberg.org/org/x": "https://codeberg.org/org/x/src/branch/main/docs",
        "https://bitbucket.org/org/x": "https://bitbucket.org/org/x/src/main/docs",
        "git@git.example.com:org/x": "",
    }.items(),
)
def test_links_lead_to_where_the_forge_shows_files(typed: str, docs: str) -> None:
    assert module({"_src_path": typed})[0].docs == docs
