"""Real programs on loopback: a PostgreSQL cluster, processes that always end, addresses, HTTP."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import http.client
import json
import os
import pwd
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import pytest

LOOPBACK = "127.0.0.1"
LOOPBACK6 = "::1"
Address = tuple[str, int]


# Programs


def program(name: str) -> str:
    """Where a program is, by NAME_BIN or PATH; the test is skipped without it."""
    path = shutil.which(os.environ.get(f"{name.upper()}_BIN", name))
    if path is None:
        pytest.skip(f"{name} is not on PATH")
    return path


def postgres_program(name: str) -> str:
    """PostgreSQL's servers and tools; Debian keeps them off PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    path = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    if path is None:
        pytest.skip(f"PostgreSQL's {name} is neither under /usr/lib/postgresql nor on PATH")
    return path


def clean_environment(**more: str) -> dict[str, str]:
    """What a container has: nothing of the environment of the tests (PG*, PERMIFY_*) but PATH."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **more}


_FIRST_PORT, _LAST_PORT = 12000, 32000
_taken: set[int] = set()
_drawing = threading.Lock()


def _ports_of_this_worker() -> range:
    """Those that no other worker of pytest-xdist draws: a server may be away for a while and come back."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    each = (_LAST_PORT - _FIRST_PORT) // workers
    return range(_FIRST_PORT + worker * each, _FIRST_PORT + (worker + 1) * each)


def free_port() -> int:
    """A port that nobody listens on, never given twice; PgCat's exporter takes none above 32767."""
    with _drawing:
        left = [port for port in _ports_of_this_worker() if port not in _taken]
        random.SystemRandom().shuffle(left)
        for port in left:
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("", port))
                _taken.add(port)
                return port
    raise NotReady("no port is left")


def listens(port: int, host: str = LOOPBACK) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


# Processes


CONTAINER_OPEN_FILES = 1024
"""The soft limit that a container starts with; its hard limit is high, 524288 by containerd's default."""


def allow_open_files() -> None:
    """As many as the machine allows, for the tests and their load: a thousand pods are 2,000 connections.

    A `Process` gets what a container gets, see `open_files`.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files(hard: int | None = None, soft: int = CONTAINER_OPEN_FILES) -> tuple[int, int]:
    """Limits as a container has them: the machine's hard one, or a lower one, and a soft one below it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = min(most, hard or most)
    return min(soft, hard), hard


def _set_up(limits: tuple[int, int]) -> None:
    """In the child: its limits of open files, and its end with that of the tests."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGINT)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class Process:
    """A running program that writes to a log file, with the limits of open files that a container has."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        limits: tuple[int, int] | None = None,
        **options: Any,
    ):
        self.name = Path(command[0]).name
        self.log = log
        options.setdefault("cwd", log.parent)  # not ours, which rendering in another thread changes
        self._again = command, log, environment, limits, options
        with log.open("ab") as stream:
            self.popen = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=functools.partial(_set_up, limits or open_files()),
                **options,
            )

    @property
    def ended(self) -> bool:
        return self.popen.poll() is not None

    def again(self) -> Process:
        """The same program with the same command, log and environment, started once more."""
        command, log, environment, limits, options = self._again
        return Process(command, log, environment, limits, **options)

    def stop(self, how: signal.Signals = signal.SIGINT, within: float = 15) -> tuple[int, float]:
        """Send the signal; returns the exit code and the seconds that it took. Kills what is still there."""
        begun = time.monotonic()
        if not self.ended:
            self.popen.send_signal(how)
            self.wait(within)
        return self.popen.returncode, time.monotonic() - begun

    def wait(self, within: float) -> int:
        """Returns the exit code. Kills what is still there then."""
        try:
            return self.popen.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.popen.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)

    def wait_until(self, ready: Callable[[], bool], seconds: float = 30) -> None:
        """Return once `ready`; fail, showing the log, when the process ends or the time is up before."""
        deadline = time.monotonic() + seconds
        while not ready():
            reason = "ended" if self.ended else "is not ready" if time.monotonic() > deadline else ""
            if reason:
                raise NotReady(f"{self.name} {reason}:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)


class NotReady(Exception):
    """A program ended or did not come up in time; the message ends with its log."""


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    limits: tuple[int, int] | None = None,
    **options: Any,
) -> Iterator[Process]:
    process = Process(command, log, environment, limits, **options)
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        process.stop()


def run(command: Sequence[str], environment: Mapping[str, str] | None = None, **options: Any) -> str:
    """Run to the end; fails, showing the output, unless it exits with 0."""
    done = subprocess.run(
        command,
        env=dict(environment if environment is not None else clean_environment()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        **options,
    )
    output = str(done.stdout.decode(errors="replace"))
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{output}"
    return output


# PostgreSQL


@dataclass
class Server:
    """One PostgreSQL server, with the tests as superuser through its socket."""

    role: str
    port: int
    folder: Path
    """With its socket and its log."""
    command: Sequence[str]
    as_user: Mapping[str, Any]
    host: str = LOOPBACK
    process: Process = field(init=False)

    def start(self) -> None:
        """Returns once it answers."""
        log = self.folder / f"{self.role}.log"
        self.process = Process(self.command, log, clean_environment(HOME=str(self.folder)), **self.as_user)
        self.process.wait_until(self._answers)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends all sessions; SIGQUIT is a crash, after which the next start recovers."""
        self.forget_connection()
        self.process.stop(how)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            return self.sql("SELECT 1") == [(1,)]
        return False

    @property
    def address(self) -> Address:
        return self.host, self.port

    @cached_property
    def _connection(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname="postgres", autocommit=True
        )

    def forget_connection(self) -> None:
        if connection := self.__dict__.pop("_connection", None):
            connection.close()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def log_size(self) -> int:
        return self.process.log.stat().st_size

    def log_since(self, offset: int) -> str:
        with self.process.log.open("rb") as stream:
            stream.seek(offset)
            return stream.read().decode(errors="replace")


@dataclass
class Cluster:
    primary: Server
    replica: Server
    max_connections: int

    @property
    def servers(self) -> tuple[Server, Server]:
        return self.primary, self.replica

    def clear(self, database: str, user: str) -> None:
        """Forget an earlier deployment."""
        self.primary.sql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        self.primary.sql(f'DROP ROLE IF EXISTS "{user}"')

    def catch_up(self) -> None:
        """Wait until the replica has everything that the primary has now."""
        ((position,),) = self.primary.sql("SELECT pg_current_wal_lsn()")

        def there() -> bool:
            return self.replica.sql("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", position) == [(True,)]

        self.replica.process.wait_until(there)


EVERY_STATEMENT = {
    "log_statement": "all",
    "log_line_prefix": "%u@%d ",
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_settings": "on",
}
"""Logs every statement, its plan and the planner's settings."""


@functools.cache
def certificate() -> dict[str, bytes]:
    """One for all servers: `server.key`, `server.crt` of both loopback addresses, and its signer's `ca.crt`.

    Made once, for to make a key takes a busy machine seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]

        def make(name: str, *options: str) -> None:
            run([*request, "-keyout", f"{name}.key", "-out", f"{name}.crt", *options], cwd=folder)

        make("ca", "-subj", "/CN=private CA")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
        make(
            "server",
            "-subj",
            "/CN=server",
            *signed,
            "-addext",
            f"subjectAltName=IP:{LOOPBACK},IP:{LOOPBACK6}",
        )
        return {name: Path(folder, name).read_bytes() for name in ("server.key", "server.crt", "ca.crt")}


def _as_postgres() -> dict[str, Any]:
    """Whom PostgreSQL runs as: it refuses root."""
    if os.geteuid() != 0:
        return {}
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@functools.cache
def _initialised() -> Path:
    """A data directory that each primary begins as a copy of, made once."""
    folder, as_user = Path(tempfile.mkdtemp(prefix="pgcat-stack-initdb-")), _as_postgres()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if as_user:
        os.chown(folder, as_user["user"], as_user["group"])
    command = [
        postgres_program("initdb"),
        "-D",
        str(folder / "data"),
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-sync",
    ]
    run(command, clean_environment(HOME=str(folder)), cwd=folder, **as_user)
    return folder / "data"


@contextlib.contextmanager
def postgres_cluster(
    max_connections: int, settings: Mapping[str, str], hosts: tuple[str, str] = (LOOPBACK, LOOPBACK)
) -> Iterator[Cluster]:
    """A primary and its streaming replica; they share a port where each has a host of its own."""
    binaries = {name: postgres_program(name) for name in ("postgres", "pg_basebackup")}
    as_user = _as_postgres()
    with contextlib.ExitStack() as stack:
        # Short, for a socket is in it.
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgcat-stack-pg-")))
        if as_user:
            os.chown(root, as_user["user"], as_user["group"])

        def tool(*command: str) -> None:
            run(command, clean_environment(HOME=str(root)), cwd=root, **as_user)

        tool("cp", "-a", str(_initialised()), str(root / "primary"))
        for name, content in certificate().items():
            file = root / name
            file.touch(0o600)
            file.write_bytes(content)
            if as_user:
                os.chown(file, as_user["user"], as_user["group"])
        all_settings = {
            "max_connections": str(max_connections),
            "shared_buffers": "32MB",
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": str(root / "server.crt"),
            "ssl_key_file": str(root / "server.key"),
            "hba_file": str(root / "pg_hba.conf"),
            **settings,
        }
        (root / "pg_hba.conf").write_text(
            "local all postgres trust\n"
            "host replication postgres 127.0.0.0/8 trust\n"
            "host all all 127.0.0.0/8 scram-sha-256\n"
            f"host all all {LOOPBACK6}/128 scram-sha-256\n"
        )
        (root / "pg_hba.conf").chmod(0o644)

        apart = hosts[0] != hosts[1]
        shared_port = free_port()

        def start(role: str, host: str) -> Server:
            port = shared_port if apart else free_port()
            folder = root / f"{role}-run" if apart else root
            folder.mkdir(exist_ok=True)
            if as_user:
                os.chown(folder, as_user["user"], as_user["group"])
            listen = host if apart else f"{host},{LOOPBACK6}"
            own = {"port": port, "listen_addresses": listen, "unix_socket_directories": folder}
            options = [f"-c{name}={value}" for name, value in {**own, **all_settings}.items()]
            command = [binaries["postgres"], "-D", str(root / role), *options]
            server = Server(role, port, folder, command, as_user, host)
            stack.callback(server.stop)
            server.start()
            return server

        primary = start("primary", hosts[0])
        tool(
            *(binaries["pg_basebackup"], "-h", primary.host, "-p", str(primary.port), "-U", "postgres"),
            *("-D", str(root / "replica"), "-R", "-X", "stream", "-c", "fast", "--no-sync"),
        )
        cluster = Cluster(primary, start("replica", hosts[1]), max_connections)
        cluster.catch_up()
        yield cluster


class Peaks:
    """The most client connections of a role that each server had while this was watching.

    Entering waits until it looks at every server: what follows may take less time than a connection.
    """

    def __init__(self, cluster: Cluster, user: str, every_seconds: float = 0.02):
        self._user = user
        self._every_seconds = every_seconds
        self._done = threading.Event()
        self._watching = threading.Barrier(1 + len(cluster.servers))
        self._most = dict.fromkeys((server.role for server in cluster.servers), 0)
        self._threads = [
            threading.Thread(target=self._watch, args=(server,), daemon=True) for server in cluster.servers
        ]

    def __enter__(self) -> Peaks:
        for thread in self._threads:
            thread.start()
        self._watching.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def __getitem__(self, server: Server) -> int:
        return self._most[server.role]

    def _watch(self, server: Server) -> None:
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'"
        )
        with psycopg.connect(
            host=str(server.folder), port=server.port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            self._watching.wait(30)
            while not self._done.wait(self._every_seconds):
                row = connection.execute(statement, [self._user]).fetchone()
                self._most[server.role] = max(self._most[server.role], row[0] if row else 0)


# Addresses


def joined(address: Address) -> str:
    """Host and port as URIs have them: IPv6 stands in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def readdressed(text: str, moved: Mapping[Address, Address]) -> str:
    """The text with exactly these host and port pairs replaced: `host:port` in URIs, `"host", port` in TOML.

    Each of them must be there, so that a deployment which names something else is not tested by mistake.
    """
    for (host, port), (new_host, new_port) in moved.items():
        there, here = joined((host, port)), joined((new_host, new_port))
        text, in_uris = re.subn(rf"(?<![\w.-]){re.escape(there)}(?!\d)", here, text)
        text, in_toml = re.subn(rf'"{re.escape(host)}", {port}(?!\d)', f'"{new_host}", {new_port}', text)
        assert in_uris + in_toml, f"{host}:{port} is not named in:\n{text}"
    return text


def with_port(text: str, line: str, old: int, new: int) -> str:
    """The text with the port replaced in the one line that reads like `line`, whose {} is the port."""
    text, replaced = re.subn(f"(?m)^( *){re.escape(line.format(old))}$", rf"\g<1>{line.format(new)}", text)
    assert replaced == 1, f"{line.format(old)!r} stands {replaced} times in:\n{text}"
    return text


# HTTP


KEY = "key-of-the-callers-of-live-tests"
"""What callers send, where Permify asks for it or not: one that asks for no key ignores it."""
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}

_open = threading.local()


def _request(method: str, port: int, path: str, body: bytes | None = None) -> str:
    """Over a connection that each thread keeps open: thousands of short ones would use up the ports."""
    connections: dict[int, http.client.HTTPConnection] = _open.__dict__.setdefault("connections", {})
    connection = connections.setdefault(port, http.client.HTTPConnection(LOOPBACK, port, timeout=20))
    try:
        connection.request(method, path, body, HEADERS)
        answer = connection.getresponse()
        text = answer.read().decode()
    except BaseException:
        connection.close()
        raise
    assert answer.status == 200, f"{method} {path}: {answer.status} {text}"
    return text


def get(port: int, path: str) -> str:
    return _request("GET", port, path)


def post(port: int, path: str, body: Mapping[str, Any]) -> Any:
    return json.loads(_request("POST", port, path, json.dumps(body).encode()))
