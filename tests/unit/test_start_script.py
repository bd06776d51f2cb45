"""start.sh fills pgcat.toml right for every password, and starts nothing when it cannot.

A fake `pgcat` prints the file that it is given. PATH holds nothing but the tools that the script may use, so
the list here is what it needs. Real logins with strange passwords: tests/live/test_passwords.py.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live.repeats import repeats
from rendering import render

MEGABYTE = 1_000_000
REFUSED = 78  # what PgCat itself exits with when its configuration is wrong
TOOLS = ("iconv", "rm", "tail", "tr", "wc")

# "{}" is the folder of the fake, where it leaves what it knows about its process.
FAKE_PGCAT = """\
#!{shell}
echo $$ >{folder}/pid
echo $(ulimit -Sn) $(ulimit -Hn) >{folder}/limits
{cat} /proc/$$/cmdline /proc/$$/environ >{folder}/process
exec {cat} -- "$1"
"""
# A tool that tells what it was given before it does its work.
SPY = """\
#!{shell}
{cat} /proc/$$/cmdline /proc/$$/environ >>{folder}/tools
exec {tool} "$@"
"""


@dataclass
class Start:
    """The start script, its tools and its folders."""

    shell: list[str]
    awk: str
    root: Path
    rendered: Path
    only_busybox: bool = False

    def __post_init__(self) -> None:
        self.script = self.rendered / "start.sh"
        for name in ("bin", "etc", "secrets", "run"):
            (self.root / name).mkdir()
        self.config.write_bytes((self.rendered / "pgcat.toml").read_bytes())
        self.executable("pgcat", FAKE_PGCAT.format(shell=found("sh"), cat=found("cat"), folder=self.root))
        (self.root / "bin" / "awk").symlink_to(found(self.awk))
        for name in TOOLS:
            if not self.only_busybox:
                (self.root / "bin" / name).symlink_to(found(name))
            elif name != "iconv":  # which BusyBox lacks
                (self.root / "bin" / name).symlink_to(found("busybox"))

    @property
    def config(self) -> Path:
        return self.root / "etc" / "pgcat.toml"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def filled(self) -> Path:
        return self.root / "run" / "pgcat.toml"

    @property
    def executed(self) -> bool:
        return (self.root / "pid").exists()

    @property
    def limits(self) -> list[str]:
        """The soft and the hard limit of open files that PgCat was started with."""
        return (self.root / "limits").read_text().split()

    def executable(self, name: str, text: str) -> None:
        file = self.root / "bin" / name
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def write(self, secrets: Mapping[str, bytes]) -> None:
        for name, content in secrets.items():
            (self.secrets / name).write_bytes(content)

    def popen(self, environment: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.shell, str(self.script)],
            env={
                "PATH": str(self.root / "bin"),
                "PGCAT_CONFIG": str(self.config),
                "SECRETS_DIR": str(self.secrets),
                "PGCAT_RUN_DIR": str(self.root / "run"),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def run(self, secrets: Mapping[str, bytes] | None = None, **options: Any) -> Result:
        self.write(secrets or {})
        with self.popen(start_new_session=True, **options) as process:
            try:
                output, errors = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its tools as well
                raise
        return Result(process.returncode, output, errors.decode())


@dataclass
class Result:
    code: int
    output: bytes
    errors: str

    @property
    def toml(self) -> dict[str, Any]:
        assert (self.code, self.errors) == (0, "")
        return tomllib.loads(self.output.decode())

    @property
    def passwords(self) -> tuple[str, str, str]:
        pools = self.toml["pools"]
        return (
            self.toml["general"]["admin_password"],
            pools["permify_writer"]["users"]["0"]["password"],
            pools["permify_reader"]["users"]["0"]["password"],
        )


def found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not on PATH")
    return path


@pytest.fixture(scope="session")
def rendered() -> Iterator[Path]:
    """The folder pgcat/ of a rendered deployment, which others may read."""
    with tempfile.TemporaryDirectory(prefix="pgcat-stack-start-") as folder:
        Path(folder).chmod(0o755)
        yield render(Path(folder) / "deployment") / "pgcat"


@pytest.fixture(
    params=[
        pytest.param(("dash", "mawk"), id="dash-mawk"),  # as in PgCat's image
        pytest.param(("dash", "gawk"), id="dash-gawk", marks=repeats),
        pytest.param(("dash", "original-awk"), id="dash-original-awk", marks=repeats),
        pytest.param(("bash --posix", "busybox"), id="bash-busybox-awk"),
        pytest.param(("busybox sh", "busybox"), id="busybox"),
    ],
)
def start(request: pytest.FixtureRequest, rendered: Path) -> Iterator[Start]:
    shell, *options = request.param[0].split()
    awk = found(request.param[1])
    # Not tmp_path: another user reads in it.
    with tempfile.TemporaryDirectory(prefix="pgcat-stack-start-") as folder:
        Path(folder).chmod(0o755)
        yield Start([found(shell), *options], awk, Path(folder), rendered, only_busybox=shell == "busybox")


GOOD = {"database_password": b"one", "pgcat_admin_password": b"two"}

STRANGE = {
    "quotes": 'it\'s "quoted"',
    "one quote": '"',
    "only backslashes": "\\\\\\",
    "escapes": r"\n\t\u0041\"\x41\\",
    "comment": "a#b # c",
    "replacement": r"&\&\\&\1\0",
    "shell": "$HOME $(id) `id` ${PATH} $1 ; | > < * ? ~ !",
    "slashes": "/a//b/",
    "format": "%s%d%%%n",
    "its own placeholder": "${database_password}",
    "another placeholder": '"${pgcat_admin_password}"',
    "toml": '"\nport = 1'.replace("\n", " "),
    "equals": "a=b=c",
    "accents": "é à ü ß ñ",
    "characters of three bytes": "漢字 カタカナ",
    "characters of four bytes": "🐈🐘 𝒫",
    "next line and line separator": "a\u0085b\u2028c",
    "spaces around": "  a b  ",
    "one space": " ",
    "option": "-n -e --version",
    "1 kB": ('pässwörd "\\' * 100)[:1024],
    "8 kB": "x\\" * 4096,
}


@pytest.mark.parametrize("password", STRANGE.values(), ids=STRANGE)
def test_strange_password(start: Start, password: str) -> None:
    result = start.run({"database_password": password.encode(), "pgcat_admin_password": b"admin"})
    assert result.passwords == ("admin", password, password)


LARGE = {
    "a line of base64": "QUJD",
    "only what is escaped": '\\"',
    "bytes above 127": 'é漢🐈"',
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_a_secret_of_a_megabyte_takes_a_moment(start: Start, text: str) -> None:
    """Under a second on an idle machine; built character by character it took from 10 s to hours."""
    password = (text * (MEGABYTE // len(text.encode()))).encode()
    began = time.monotonic()
    result = start.run({"database_password": password, "pgcat_admin_password": b"admin"})
    seconds = time.monotonic() - began
    escaped = password.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    expected = start.config.read_bytes().replace(b"${database_password}", escaped)
    assert result.output == expected.replace(b"${pgcat_admin_password}", b"admin")
    assert seconds < 10


no_control = st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32)), "\x7f"])
nasty = st.lists(st.sampled_from([*"\\\"'#&$/%|{}`=[], é漢🐈", "${database_password}", '"""', "'''"])).map(
    "".join
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(database=(st.text(no_control) | nasty).filter(bool), admin=nasty.filter(bool), line_end=st.booleans())
def test_any_password(start: Start, database: str, admin: str, line_end: bool) -> None:
    end = b"\n" if line_end else b""
    result = start.run(
        {"database_password": database.encode() + end, "pgcat_admin_password": admin.encode() + end}
    )
    assert result.passwords == (admin, database, database)


def test_everything_but_placeholders_stays_as_it_is(start: Start) -> None:
    result = start.run({"database_password": b'a"b\\c\n', "pgcat_admin_password": b"&"})
    expected = start.config.read_bytes()
    expected = expected.replace(b'"${database_password}"', rb'"a\"b\\c"').replace(
        b'"${pgcat_admin_password}"', b'"&"'
    )
    assert expected.count(rb'"a\"b\\c"') == 2
    assert result.output == expected


@pytest.mark.parametrize(
    "line",
    [
        '# password = "${database_password}"',
        'port = 1 # "${missing}"',
        'port = "a#b" # not "${missing}"',
        'port = \'a" #\' # "${missing}"',
        r'port = "a\" # ${missing}"',
        'port = "before ${missing}"',
        'port = "${missing} after"',
        'port = "${not a name}"',
        'port = "${../etc}"',
        "port = '${missing}'",
        "port = ${missing}",
        "\t# é 漢 \\ \" ' &",
    ],
)
def test_what_is_no_placeholder_is_left_alone(start: Start, line: str) -> None:
    start.config.write_text(f'{line}\npassword = "${{database_password}}"\n')
    result = start.run({"database_password": b"secret"})
    assert (result.errors, result.output.decode()) == ("", f'{line}\npassword = "secret"\n')


@pytest.mark.parametrize(
    ("line", "filled"),
    [
        ('p = "${database_password}" # "${database_password}"', 'p = "secret" # "${database_password}"'),
        (
            '{u = "a#b", p = "${database_password}", q="${pgcat_admin_password}"}',
            '{u = "a#b", p = "secret", q="admin"}',
        ),
        ('{u = \'a"#b\', p = "${database_password}"}', '{u = \'a"#b\', p = "secret"}'),
        (r'{u = "a\"#\\", p = "${database_password}"}', r'{u = "a\"#\\", p = "secret"}'),
        ('  "${database_password}",', '  "secret",'),
    ],
)
def test_a_placeholder_anywhere_on_a_line_is_filled(start: Start, line: str, filled: str) -> None:
    start.config.write_text(line + "\n")
    result = start.run({"database_password": b"secret", "pgcat_admin_password": b"admin"})
    assert (result.errors, result.output.decode()) == ("", filled + "\n")


BAD = {
    "missing": (None, "missing"),
    "empty": (b"", "empty"),
    "only a line end": (b"\n", "empty"),
    "only a Windows line end": (b"\r\n", "empty"),
    "two lines": (b"S3CRET\nline", "not one line"),
    "two line ends": (b"S3CRET\n\n", "not one line"),
    "a leading line end": (b"\nS3CRET", "not one line"),
    "a Windows line end": (b"S3CRET\r\n", "not one line"),
    "a carriage return": (b"S3CRET\r", "not one line"),
    "a tab": (b"S3\tCRET", "not one line"),
    "NUL": (b"S3\0CRET", "not one line"),
    "NUL at its end": (b"S3CRET\0", "not one line"),
    "escape": (b"S3\x1b[31mCRET", "not one line"),
    "delete": (b"S3\x7fCRET", "not one line"),
    "Latin-1": ("S3CRÉT".encode("latin-1"), "not UTF-8"),
}


def assert_refused(start: Start, result: Result, *words: str) -> None:
    """One line that holds these words and no secret; nothing was executed or left behind."""
    assert result.code == REFUSED
    assert result.output == b""
    lines = result.errors.splitlines()
    assert len(lines) == 1 and lines[0].startswith("start.sh: "), result.errors
    assert all(word in lines[0] for word in words), lines
    assert "S3" not in lines[0] and "CRET" not in lines[0]
    assert not start.executed
    assert not start.filled.exists()


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(("content", "word"), BAD.values(), ids=BAD)
def test_bad_secret_is_refused(start: Start, name: str, content: bytes | None, word: str) -> None:
    if word == "not UTF-8" and start.only_busybox:
        pytest.skip("no iconv beside BusyBox: PgCat itself refuses such a file")
    start.write({**GOOD, **({} if content is None else {name: content})})
    if content is None:
        (start.secrets / name).unlink()
    start.filled.write_text('password = "of an earlier start"')
    assert_refused(start, start.run(), str(start.secrets / name), word)


def test_folder_for_a_secret_is_refused(start: Start) -> None:
    start.write({"pgcat_admin_password": b"admin"})
    (start.secrets / "database_password").mkdir()
    assert_refused(start, start.run(), "secrets/database_password", "missing")


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user, for whom a file is unreadable"
)
@pytest.mark.parametrize("name", ["secrets/database_password", "etc/pgcat.toml"])
def test_unreadable_file_is_refused(start: Start, name: str) -> None:
    start.write(GOOD)
    (start.root / name).chmod(0o600)
    try:
        assert_refused(start, start.run(user=65534, group=65534, extra_groups=[]), name, "unreadable")
    finally:
        (start.root / name).chmod(0o644)


def test_unreadable_file_is_refused_to_its_owner(start: Start) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    start.write(GOOD)
    (start.secrets / "database_password").chmod(0)
    assert_refused(start, start.run(), "secrets/database_password", "unreadable")


def test_missing_configuration_is_refused(start: Start) -> None:
    start.config.unlink()
    assert_refused(start, start.run(GOOD), str(start.config), "missing")


def test_missing_run_folder_is_refused(start: Start) -> None:
    (start.root / "run").rmdir()
    assert_refused(start, start.run(GOOD), str(start.filled), "cannot be written")


def test_full_disk_is_refused(start: Start) -> None:
    """Played by awk, for the script takes away what is at the place of the filled file."""
    if start.awk == found("busybox"):
        pytest.skip("BusyBox awk does not notice a full disk")
    full_disk = 'case "$*" in *task=fill*) exec >/dev/full ;; esac'
    start.executable("awk", f'#!{found("sh")}\n{full_disk}\nexec {start.awk} "$@"\n')
    assert_refused(start, start.run(GOOD), str(start.filled), "cannot be written")


def test_configuration_is_never_written_over(start: Start) -> None:
    before = start.config.read_bytes()
    result = start.run(GOOD, environment={"PGCAT_RUN_DIR": str(start.config.parent)})
    assert_refused(start, result, str(start.config), "PGCAT_RUN_DIR")
    assert start.config.read_bytes() == before


def test_secrets_that_nothing_names_are_not_read(start: Start) -> None:
    result = start.run({**GOOD, "replication_password": b"\0"})
    assert result.passwords == ("two", "one", "one")


def test_filled_file_is_for_its_owner_alone(start: Start) -> None:
    start.filled.write_text("of an earlier start, by somebody else")
    start.filled.chmod(0o666)
    assert start.run(GOOD).code == 0
    assert start.filled.stat().st_mode & 0o777 == 0o600
    assert b"one" in start.filled.read_bytes()


def test_links_to_secrets_are_followed(start: Start) -> None:
    """Kubernetes mounts a secret as a link into a folder that it swaps."""
    start.write({"pgcat_admin_password": b"admin"})
    (start.secrets / "..data").mkdir()
    (start.secrets / "..data" / "database_password").write_text("linked")
    (start.secrets / "database_password").symlink_to("..data/database_password")
    assert start.run().passwords == ("admin", "linked", "linked")


def test_paths_may_hold_blanks(start: Start) -> None:
    folder = start.root / "a = b's \\n folder"
    folder.mkdir()
    start.write(GOOD)
    for name in ("etc", "secrets", "run"):
        (start.root / name).rename(folder / name)
    result = start.run(
        environment={
            "PGCAT_CONFIG": str(folder / "etc" / "pgcat.toml"),
            "SECRETS_DIR": str(folder / "secrets"),
            "PGCAT_RUN_DIR": str(folder / "run"),
        }
    )
    assert result.passwords == ("two", "one", "one")


def test_pgcat_takes_over_the_process(start: Start) -> None:
    """So that the container runtime's signal reaches it."""
    start.write(GOOD)
    with start.popen() as process:
        process.communicate(timeout=30)
    assert int((start.root / "pid").read_text()) == process.pid


def limited(soft: int, hard: int) -> dict[str, Any]:
    """Options of a start with these limits of open files."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))}


@pytest.mark.parametrize(("soft", "hard"), [(1024, 4097), (1024, 4096), (256, 10000), (4096, 4096)])
def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one(start: Start, soft: int, hard: int) -> None:
    assert start.run(GOOD, **limited(soft, hard)).passwords == ("two", "one", "one")
    assert start.limits == [str(hard), str(hard)]


@pytest.mark.parametrize(("soft", "hard"), [(1024, 1024), (64, 1024), (256, 256), (64, 4095)])
def test_a_low_hard_limit_is_said(start: Start, soft: int, hard: int) -> None:
    result = start.run(GOOD, **limited(soft, hard))
    assert result.code == 0 and start.limits == [str(hard), str(hard)]
    (line,) = result.errors.splitlines()
    assert line.startswith(f"start.sh: only {hard} files may be open") and "hard limit" in line


@pytest.mark.parametrize("hard", [255, 64, 20])
def test_a_hard_limit_too_low_for_the_pools_is_refused(start: Start, hard: int) -> None:
    """PgCat would accept nobody, and fill the log with it."""
    start.filled.write_text('password = "of an earlier start"')
    assert_refused(start, start.run(GOOD, **limited(hard, hard)), f"only {hard} files", "hard limit")


ULIMIT = """\
ulimit() {{
    case "$*" in
        -Hn) echo {hard} ;;
        -Sn) echo "$soft" ;;
        "-n 65536") {fallback} ;;
        *) echo "ulimit: error setting limit (Operation not permitted)" >&2; return 2 ;;
    esac
}}
soft={soft}
"""


@pytest.mark.parametrize(
    ("hard", "soft", "fallback", "expected"),
    [
        ("1073741816", "1024", "soft=65536", ""),  # the hard limit is above fs.nr_open
        ("unlimited", "1024", "soft=65536", ""),
        ("unlimited", "unlimited", "return 2", ""),
        ("524288", "1024", "return 2", "only 1024 files may be open"),  # setrlimit is forbidden
    ],
)
def test_a_hard_limit_that_the_kernel_refuses(
    start: Start, hard: str, soft: str, fallback: str, expected: str
) -> None:
    """Played by a function, since no test may set such limits."""
    script = start.root / "start.sh"
    played = ULIMIT.format(hard=hard, soft=soft, fallback=fallback)
    script.write_text(played + (start.rendered / "start.sh").read_text())
    start.script = script
    result = start.run(GOOD)
    assert result.code == 0 and start.executed
    assert expected in result.errors and len(result.errors.splitlines()) == bool(expected)


def test_no_secret_in_arguments_or_environment(start: Start) -> None:
    for name in ("awk", *TOOLS):
        file = start.root / "bin" / name
        if file.exists():
            tool = f"{file.readlink()} {name}" if file.readlink().name == "busybox" else str(file.readlink())
            start.executable(
                name, SPY.format(shell=found("sh"), cat=found("cat"), folder=start.root, tool=tool)
            )
    assert start.run({**GOOD, "database_password": b"S3CRET"}).passwords == ("two", "S3CRET", "S3CRET")
    process = (start.root / "process").read_bytes()
    tools = (start.root / "tools").read_bytes()
    assert b"pgcat" in process and b"task=fill" in tools  # the spies saw something
    assert b"S3CRET" not in process + tools
