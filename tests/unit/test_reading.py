"""Links, special files and paths out of the deployment: one line each, and nothing of what lies outside."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handmade import COMPOSE, PERMIFY, PGCAT
from live.repeats import drawn
from pgcat_stack import cli
from pgcat_stack.checks import run_checks
from pgcat_stack.files.folder import Folder, UnreadError
from pgcat_stack.files.sources import read_source
from pgcat_stack.reading.deployment import DeploymentError
from pgcat_stack.reading.reading import Reading

SOURCES = Path(__file__).resolve().parents[2] / "src"
WANTED = ("PS1", "PS430", "PS437", "PS450", "PS709", "PS829")
OUTSIDE = "hunter2: [unclosed\nhunter2: twice\n"
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: permify}\n"


def found(folder: Path) -> list[tuple[str, str]]:
    """Code and path of the findings of the family PS1, and of those that say that something is missing."""
    return [(one.code, one.path) for one in run_checks(Reading.load(folder)) if one.code.startswith(WANTED)]


@pytest.fixture
def kubernetes(folder: Path) -> Path:
    """The deployment with a kustomization in place of compose.yaml."""
    (folder / "compose.yaml").unlink()
    (folder / "kubernetes").mkdir()
    (folder / "kubernetes/namespace.yaml").write_text(NAMESPACE)
    (folder / "kustomization.yaml").write_text(
        "namespace: permify\nresources:\n  - kubernetes/namespace.yaml\n"
    )
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the deployment, with a file under each name that a link may stand for."""
    place = tmp_path / "outside"
    place.mkdir()
    for name in ("permify.yaml", "pgcat.toml", "x.json", "compose.yaml", "database_password", "permify.env"):
        (place / name).write_text(OUTSIDE)
    (place / "permify.env").write_text("PERMIFY_AUTHN_PRESHARED_KEYS=hunter2-hunter2-hunter2\n")
    return place


# Links out


@pytest.mark.parametrize(
    ("link", "target", "code"),
    [
        ("permify/permify.yaml", "permify.yaml", "PS109"),
        ("pgcat/pgcat.toml", "pgcat.toml", "PS109"),
        ("budget.yaml", "permify.yaml", "PS109"),
        ("monitoring/x.json", "x.json", "PS109"),
        ("notes/x.json", "x.json", "PS111"),
        ("notes/x.yaml", "nothing", "PS111"),
        ("LICENSE", "permify.yaml", "PS111"),
        ("permify", "", "PS109"),
        ("pgcat", "", "PS109"),
        ("monitoring", "", "PS109"),
        ("docs", "", "PS111"),
        ("secrets", "", "PS109"),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_a_link_out_is_one_finding_and_shows_nothing(
    folder: Path,
    outside: Path,
    capsys: pytest.CaptureFixture[str],
    link: str,
    target: str,
    code: str,
    relative: bool,
) -> None:
    file = folder / link
    if file.is_dir():
        shutil.rmtree(file)
    file.unlink(missing_ok=True)
    file.parent.mkdir(exist_ok=True)
    goal = outside / target
    file.symlink_to(os.path.relpath(goal, file.parent) if relative else goal)
    assert found(folder) == [(code, link)]
    for command in (["validate"], ["validate", "--format", "json"], ["plan"], ["secrets"]):
        status = cli.main([*command, str(folder)])
        assert status != 0 or code == "PS111" or command == ["secrets"]
    assert cli.hook(folder) != 0 or code == "PS111"
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert {path.name for path in outside.iterdir()} == {
        *("permify.yaml", "pgcat.toml", "x.json", "compose.yaml", "database_password", "permify.env")
    }


def test_a_link_in_place_of_compose_or_a_kustomization(kubernetes: Path, outside: Path) -> None:
    (kubernetes / "kustomization.yaml").unlink()
    (kubernetes / "kustomization.yaml").symlink_to(outside / "permify.yaml")
    assert ("PS109", "kustomization.yaml") in found(kubernetes)
    (kubernetes / "kustomization.yaml").unlink()
    (kubernetes / "compose.yaml").symlink_to(outside / "compose.yaml")
    assert ("PS109", "compose.yaml") in found(kubernetes)


def test_a_folder_of_manifests_that_leads_out_is_one_finding(kubernetes: Path, outside: Path) -> None:
    (kubernetes / "kubernetes").rename(outside / "kubernetes")
    (kubernetes / "kubernetes").symlink_to(outside / "kubernetes")
    assert found(kubernetes) == [("PS109", "kubernetes")]


@pytest.mark.parametrize("name", ["database_password", "permify.env"])
def test_a_secret_that_leads_out_is_neither_read_nor_written(
    folder: Path, outside: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    compose = COMPOSE.replace("environment:", "env_file: secrets/permify.env\n    environment:")
    (folder / "compose.yaml").write_text(compose)
    (folder / "secrets").mkdir(mode=0o700)
    (folder / "secrets" / name).symlink_to(outside / name)
    before = (outside / name).read_bytes()
    codes = [one for one in found(folder) if one[1].startswith("secrets/")]
    assert codes == [({"permify.env": "PS829"}.get(name, "PS709"), f"secrets/{name}")]
    assert cli.main(["secrets", str(folder)]) == 1
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err and captured.err.count("\n") == 1
    assert (outside / name).read_bytes() == before


@pytest.mark.parametrize("name", ["pgcat.toml", "permify.yaml"])
def test_adopt_follows_no_link_out_of_the_folder(
    folder: Path, outside: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (folder / name).symlink_to(outside / name)
    assert cli.main(["adopt", str(folder / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "leads out of its folder" in captured.err and "hunter2" not in captured.err
    (outside / "pgcat.toml").write_text(PGCAT)
    assert cli.main(["adopt", str(outside / "pgcat.toml")]) == 0


# Links inside


def test_the_deployment_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert found(tmp_path / "link") == []
    assert Reading.load(tmp_path / "link").pgcat is not None


@pytest.mark.parametrize(
    "target",
    ["../real/permify.yaml", "{folder}/real/permify.yaml", "../chain", "../../deployment/real/permify.yaml"],
)
def test_a_link_inside_is_followed(folder: Path, target: str) -> None:
    (folder / "real").mkdir()
    (folder / "chain").symlink_to("real/permify.yaml")
    (folder / "permify/permify.yaml").rename(folder / "real/permify.yaml")
    (folder / "permify/permify.yaml").symlink_to(target.format(folder=folder))
    assert found(folder) == []
    deployment = Reading.load(folder)
    assert deployment.permify and deployment.permify.text == PERMIFY


def test_a_link_to_a_folder_inside_is_followed(kubernetes: Path) -> None:
    (kubernetes / "kubernetes").rename(kubernetes / "manifests")
    (kubernetes / "kubernetes").symlink_to("manifests")
    assert found(kubernetes) == []
    assert [manifest.kind for manifest in Reading.load(kubernetes).manifests] == ["Namespace"]


def test_links_that_lead_back_end(folder: Path) -> None:
    (folder / "here").symlink_to(".")
    (folder / "permify/up").symlink_to("..")
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    (folder / "a/b").symlink_to("../b")
    (folder / "b/a").symlink_to("../a")
    (folder / "one.yaml").symlink_to("two.yaml")
    (folder / "two.yaml").symlink_to("one.yaml")
    assert found(folder) == [("PS101", "one.yaml"), ("PS101", "two.yaml")]


def test_folders_that_links_multiply_end_in_one_line(folder: Path) -> None:
    for number in range(30):
        (folder / f"f{number}").mkdir()
        for name in "ab":
            (folder / f"f{number}" / name).symlink_to(f"../f{number + 1}")
    with pytest.raises(DeploymentError, match="more than 5000 files"):
        Reading.load(folder)


def test_a_link_to_nothing(folder: Path) -> None:
    (folder / "x.yaml").symlink_to("nothing.yaml")
    (problem,) = Reading.load(folder).sources["x.yaml"].problems
    assert problem.message == "a link to nothing"


@pytest.mark.parametrize(
    "name", ["budget.yaml", "compose.yaml", "pgcat/pgcat.toml", "permify/permify.yaml", ".copier-answers.yml"]
)
@pytest.mark.parametrize(
    "content", ["hunter2secret", "KEYS=hunter2secret", "a: hunter2secret", '["hunter2secret']
)
@pytest.mark.parametrize("place", ["secrets", ".git"])
def test_a_known_name_that_links_to_a_secret_quotes_nothing(
    folder: Path, name: str, content: str, place: str
) -> None:
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "hidden").write_text(content + "\n")
    file = folder / name
    file.unlink(missing_ok=True)
    file.symlink_to(folder / place / "hidden")
    found = run_checks(Reading.load(folder))
    assert "hunter2" not in str(found)
    assert name.startswith(".copier") or any(finding.path == name for finding in found)


def test_links_to_secrets_and_git_are_not_read(folder: Path) -> None:
    for name in ("secrets", ".git"):
        (folder / name).mkdir()
        (folder / name / "x.yaml").write_text(OUTSIDE)
        (folder / f"{name.strip('.')}-link").symlink_to(name)
        (folder / f"{name.strip('.')}-file.yaml").symlink_to(f"{name}/x.yaml")
    assert found(folder) == []


def test_secrets_as_kubernetes_lays_them_out_are_kept(folder: Path) -> None:
    data = folder / "secrets/..2026"
    data.mkdir(parents=True)
    (data / "admin_password").write_text("a-long-password\n")
    (folder / "secrets/..data").symlink_to("..2026")
    (folder / "secrets/admin_password").symlink_to("..data/admin_password")
    assert cli.main(["secrets", str(folder)]) == 0
    assert (data / "admin_password").read_text() == "a-long-password\n"
    assert [one for one in found(folder) if one[0] in ("PS709", "PS109")] == []


def test_what_a_part_of_the_path_leads_to_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "in/below").mkdir(parents=True)
    (tmp_path / "x").write_text("hunter2")
    (tmp_path / "in/up").symlink_to("..")
    (tmp_path / "in/around").symlink_to("../in/below")
    (tmp_path / "in/below/x").write_text("fine")
    with Folder(tmp_path / "in") as folder:
        for path in ("up/x", "../x", "below/../../x", "around/../up/x"):
            with pytest.raises(UnreadError):
                folder.read(path)
        assert folder.read("around/x") == b"fine"
        assert folder.read("around/../below/x") == b"fine"


def test_a_folder_that_becomes_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the opening."""
    (tmp_path / "in/below").mkdir(parents=True)
    (tmp_path / "in/below/x").write_text("fine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_text("hunter2")
    with Folder(tmp_path / "in") as folder:
        monkeypatch.setattr(folder, "resolved", lambda path: "below/x")  # what it was a moment ago
        shutil.rmtree(tmp_path / "in/below")
        (tmp_path / "in/below").symlink_to("../out")
        with pytest.raises(UnreadError):
            folder.read("below/x")


# What is no file


def named_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except OSError:
        pytest.skip("no device can be made here")


SPECIAL: list[Callable[[Path], object]] = [Path.mkdir, os.mkfifo, named_socket, sparse, device]


@pytest.mark.parametrize("special", SPECIAL, ids=["folder", "fifo", "socket", "sparse", "device"])
@pytest.mark.parametrize(
    "name",
    ["permify/permify.yaml", "pgcat/pgcat.toml", "compose.yaml", "budget.yaml", "monitoring/rules.yaml"],
)
def test_what_is_no_file_is_one_finding(
    folder: Path, capsys: pytest.CaptureFixture[str], special: Callable[[Path], object], name: str
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    special(folder / name)
    if special is Path.mkdir and name.startswith("monitoring"):
        return  # a folder where none is a fault
    assert [one for one in found(folder) if one[0] != "PS450"] == [("PS101", name)]
    assert cli.main(["validate", str(folder)]) == 1
    assert cli.main(["plan", str(folder)]) != 0
    captured = capsys.readouterr()
    assert "itself failed" not in captured.out and "Traceback" not in captured.err


@pytest.mark.parametrize("special", SPECIAL, ids=["folder", "fifo", "socket", "sparse", "device"])
def test_what_is_no_file_in_place_of_a_secret_or_an_adopted_file(
    folder: Path, capsys: pytest.CaptureFixture[str], special: Callable[[Path], object]
) -> None:
    (folder / "secrets").mkdir(mode=0o700)
    special(folder / "secrets/admin_password")
    special(folder / "special.toml")
    assert ("PS709", "secrets/admin_password") in found(folder)
    assert cli.main(["secrets", str(folder)]) == 1
    assert cli.main(["adopt", str(folder / "special.toml")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 2 and captured.err.count("pgcat-stack: ") == 2


def test_the_message_names_the_limit(folder: Path) -> None:
    sparse(folder / "x.yaml")
    (problem,) = Reading.load(folder).sources["x.yaml"].problems
    assert problem.message == "larger than 4 MiB, so it was not read"


def test_a_file_that_grows_while_it_is_read_is_cut(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100)
    with Folder(tmp_path) as folder, pytest.raises(UnreadError, match="larger than"):
        folder.read("x", 99)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_files_of_proc_are_not_waited_for() -> None:
    for path in ("kmsg", "self/mem", "self/pagemap", "self/clear_refs", "self/fd/0"):
        source = read_source(Path("/proc"), path)
        assert source.problems or len(source.text) < 5_000_000, path


# Rights


UNPRIVILEGED = """\
import os, sys
import importlib, pkgutil
from pathlib import Path
import pgcat_stack
from pgcat_stack import checks, cli
from pgcat_stack.reading.deployment import Deployment
for module in pkgutil.walk_packages(pgcat_stack.__path__, "pgcat_stack."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
checks.run_checks(Deployment.load(Path(sys.argv.pop(1))))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(cli.main(sys.argv[1:]))
"""


def unprivileged(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command by a user whom rights bind: root becomes another one, once Python has loaded all."""
    return subprocess.run(
        [sys.executable, "-B", "-c", UNPRIVILEGED, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        timeout=60,
    )


@pytest.fixture
def seen(folder: Path) -> Iterator[Path]:
    """The deployment, where another user may look: pytest closes the folders above its own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shutil.copytree(folder, Path(name, "readable"))
        yield shutil.copytree(folder, Path(name, "deployment"))


@pytest.mark.parametrize(
    "name", ["permify", "permify/permify.yaml", "pgcat", "pgcat/pgcat.toml", "compose.yaml"]
)
def test_what_may_not_be_read_is_one_finding(seen: Path, name: str) -> None:
    (seen / name).chmod(0)
    try:
        done = unprivileged(str(seen.with_name("readable")), "validate", str(seen), "--format", "json")
    finally:
        (seen / name).chmod(0o755)
    assert done.returncode == 1 and done.stderr == ""
    judged = [one for one in json.loads(done.stdout) if one["code"].startswith(WANTED)]
    assert [(one["code"], one["path"]) for one in judged] == [("PS101", name)]
    assert "ermission denied" in judged[0]["message"] and "itself failed" not in done.stdout


@pytest.mark.parametrize("mode", drawn([0, 0o444, 0o111], {0o444, 0o111}))
def test_a_deployment_that_may_not_be_read(seen: Path, mode: int) -> None:
    seen.chmod(mode)
    try:
        for command in ("validate", "plan", "secrets", "doctor"):
            done = unprivileged(str(seen.with_name("readable")), command, str(seen))
            assert done.returncode in (1, 2) and "Traceback" not in done.stderr, (command, done)
            assert len((done.stdout + done.stderr).splitlines()) <= 8, (command, done)
    finally:
        seen.chmod(0o755)


# Names


@pytest.mark.parametrize(
    "name", [b"not-\xff-utf8.yaml", b"two\nlines.yaml", b"\x1b[31mred.yaml", b"\xe2\x80\xae.yaml"]
)
def test_odd_names_are_printed_on_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], name: bytes
) -> None:
    file = os.fsencode(folder) + b"/" + name
    Path(os.fsdecode(file)).write_text("a: [\n<<<<<<< HEAD\n")
    assert cli.main(["validate", str(folder)]) == 1
    assert cli.main(["validate", "--format", "json", str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.isascii() and all(line.isprintable() for line in out.split("\n")) and "PS105" in out


# What is named outside


@pytest.fixture
def monorepo(kubernetes: Path, tmp_path: Path) -> Path:
    """An overlay two folders down in a git repository, and a base beside it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "base/kustomization.yaml").write_text("resources:\n  - role.yaml\n")
    (tmp_path / "base/role.yaml").write_text(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: other}\n"
    )
    (kubernetes / "kustomization.yaml").write_text(
        "namespace: permify\nresources:\n  - kubernetes/namespace.yaml\n  - ../base\n"
    )
    return kubernetes


def test_what_is_named_inside_the_repository_is_read(monorepo: Path) -> None:
    deployment = Reading.load(monorepo)
    assert [(one.kind, one.namespace) for one in deployment.manifests] == [
        ("Namespace", "permify"),
        ("ServiceAccount", "permify"),
    ]
    assert found(monorepo) == []


def test_what_is_wrong_there_is_found(monorepo: Path) -> None:
    (monorepo.parent / "base/role.yaml").write_text("a: [\n")
    assert found(monorepo) == [("PS103", "../base/role.yaml")]
    (monorepo.parent / "base/role.yaml").unlink()
    assert found(monorepo) == [("PS430", "../base/kustomization.yaml")]


def test_without_a_repository_the_deployment_ends_at_its_folder(monorepo: Path) -> None:
    (monorepo.parent / ".git").rmdir()
    (monorepo.parent / "base/role.yaml").write_text(OUTSIDE)
    finding = next(one for one in run_checks(Reading.load(monorepo)) if one.code == "PS110")
    assert (finding.path, finding.line, finding.severity) == ("kustomization.yaml", 4, "warning")
    assert "in no git repository" in finding.message and finding.fix == "keep both in one git repository"
    assert found(monorepo) == [("PS110", "kustomization.yaml")]


def test_a_path_out_of_the_repository_is_not_read(monorepo: Path) -> None:
    (monorepo.parent / ".git").rename(monorepo / ".git")
    finding = next(one for one in run_checks(Reading.load(monorepo)) if one.code == "PS110")
    assert "lies outside the git repository" in finding.message


def test_a_link_there_that_leads_out_of_the_repository_is_not_read(monorepo: Path, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    place.mkdir()
    for name in (".git", "base", "deployment"):
        (tmp_path / name).rename(place / name)
    (tmp_path / "secret.yaml").write_text(OUTSIDE)
    (place / "base/role.yaml").unlink()
    (place / "base/role.yaml").symlink_to(tmp_path / "secret.yaml")
    assert found(place / "deployment") == [("PS109", "../base/role.yaml")]
    (place / "base/role.yaml").unlink()
    (place / "deployment/role.yaml").write_text(NAMESPACE)
    (place / "base/role.yaml").symlink_to("../deployment/role.yaml")  # the repository ends there, not before
    assert found(place / "deployment") == []


@pytest.mark.parametrize("inside", [".git", "base/secrets"])
def test_a_link_there_to_secrets_and_git_is_not_read(monorepo: Path, inside: str) -> None:
    place = monorepo.parent / inside
    place.mkdir(exist_ok=True)
    (place / "x.yaml").write_text(OUTSIDE)
    role = monorepo.parent / "base/role.yaml"
    role.unlink()
    role.symlink_to(place / "x.yaml")
    assert found(monorepo) == [("PS109", "../base/role.yaml")]
    assert "hunter2" not in Reading.load(monorepo).sources["../base/role.yaml"].text


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("include: [../shared/more.yaml]\n", ["PS103"]),
        ("include: [{path: ../shared/more.yaml}]\n", ["PS103"]),
        ("configs: {c: {file: ../shared/more.yaml}}\n", ["PS103"]),
        ("configs: {c: {file: ../shared/nothing.yaml}}\n", ["PS450"]),
        ("configs: {c: {file: ../../more.yaml}}\n", ["PS110"]),
        ("volumes: {v: {}}\n", []),
    ],
)
def test_what_compose_names(folder: Path, tmp_path: Path, text: str, codes: list[str]) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/more.yaml").write_text("services: [\n")
    (folder / "compose.yaml").write_text(COMPOSE + text)
    assert [code for code, _ in found(folder)] == codes


@pytest.mark.parametrize(
    ("volume", "codes"),
    [
        ("../shared:/a", []),
        ("../shared/more.yaml:/a", []),
        ("../nothing:/a", ["PS450"]),
        ("../../data:/a", ["PS110"]),
        ("./nothing:/a", ["PS450"]),
        ("/srv/data:/a", []),
        ("data:/a", []),
    ],
)
def test_what_compose_mounts(folder: Path, tmp_path: Path, volume: str, codes: list[str]) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/more.yaml").write_text("not read: [\n")
    compose = COMPOSE.replace(
        "    image: ghcr.io/postgresml", f"    volumes: ['{volume}']\n    image: ghcr.io/postgresml"
    )
    (folder / "compose.yaml").write_text(compose + "volumes: {data: {}}\n")
    assert [code for code, _ in found(folder)] == codes
