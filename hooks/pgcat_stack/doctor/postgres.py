"""What a PostgreSQL server is asked, and its typed answer.

One statement asks nearly everything, so that it also goes through PgCat in transaction mode, which has no
prepared statements and may give the next statement another server. An ordinary role may run all of it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from pgcat_stack.doctor.asking import Failed, Kind, cut_after
from pgcat_stack.doctor.facts import Login
from pgcat_stack.doctor.platforms import Place
from pgcat_stack.doctor.trust import OLDEST_LIBPQ, Trust, certificate_trouble

APPLICATION = "pgcat-stack doctor"
ADMIN_DATABASE = "pgcat"
MOST_TENANTS = 100

_FACTS = f"""
SELECT json_build_object(
  'address', host(inet_server_addr()),
  'port', inet_server_port(),
  'version', current_setting('server_version_num')::int,
  'in_recovery', pg_is_in_recovery(),
  'max_connections', current_setting('max_connections')::int,
  'reserved_superuser', current_setting('superuser_reserved_connections')::int,
  'reserved_others', coalesce(current_setting('reserved_connections', true)::int, 0),
  -- Of a connection that begins now: one that PgCat has kept may be older than the setting.
  'plan_cache_mode', coalesce(
    (
      SELECT split_part(entry, '=', 2) FROM pg_db_role_setting, unnest(setconfig) AS entry
      WHERE entry LIKE 'plan_cache_mode=%'
        AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
        AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
      ORDER BY setrole = 0, setdatabase = 0 LIMIT 1
    ),
    (
      SELECT CASE source WHEN 'configuration file' THEN setting ELSE boot_val END
      FROM pg_settings WHERE name = 'plan_cache_mode'
    )
  ),
  'track_commit_timestamp', current_setting('track_commit_timestamp') = 'on',
  'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = session_user),
  'connection_limit', (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user),
  'groups', (
    SELECT json_agg(json_build_array(application_name, client, ssl, number)) FROM (
      SELECT application_name, coalesce(host(client_addr), 'a socket') AS client, ssl, count(*) AS number
      FROM pg_stat_activity LEFT JOIN pg_stat_ssl USING (pid)
      WHERE usename = session_user AND backend_type = 'client backend' AND application_name <> '{APPLICATION}'
      GROUP BY 1, 2, 3 ORDER BY 4 DESC
    ) AS mine
  ),
  'others', (
    SELECT json_build_array(count(*) FILTER (WHERE NOT rolsuper), count(*) FILTER (WHERE rolsuper))
    FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid
    WHERE datid IS NOT NULL AND usename <> session_user
  ),
  {{wal}},
  'tables', to_regclass('relation_tuples') IS NOT NULL AND to_regclass('schema_definitions') IS NOT NULL
    AND to_regclass('migrations') IS NOT NULL,
  'noted', to_regclass('pgcat_stack_migrations') IS NOT NULL,
  'invalid', (SELECT json_agg(indexrelid::regclass::text ORDER BY 1) FROM pg_index WHERE NOT indisvalid)
)
"""
_WAL = """
  'position', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
  'receives', (SELECT count(*) > 0 FROM pg_stat_wal_receiver),
  'replay_paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END
"""
_NO_WAL = "'position', '', 'receives', true, 'replay_paused', false"
"""Where a server has none of these functions: storage that replicates by itself, as of some clouds."""
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_TENANTS = f"SELECT id, created_at::timestamp FROM tenants ORDER BY id LIMIT {MOST_TENANTS}"
_NOTES = "SELECT migration FROM pgcat_stack_migrations"

_KINDS: dict[str, Kind] = {
    "28P01": "login",
    "28000": "login",
    "3D000": "database",
    "42501": "login",
    "53300": "limit",
}
# libpq gives no SQLSTATE for what a server refuses during the login.
_TEXTS: tuple[tuple[str, Kind], ...] = (
    ("too many connections", "limit"),
    ("remaining connection slots", "limit"),
    ("too many clients", "limit"),
    ("password authentication failed", "login"),
    ("is not permitted to log in", "login"),
    ("pg_hba.conf", "login"),
    ("permission denied for database", "login"),
    ('role "', "login"),
    ('database "', "database"),
)


_UNPROVEN: tuple[tuple[str, Kind, str], ...] = (
    ("does not match host name", "untrusted", ""),
    ("does not support SSL", "untrusted", "it refuses TLS"),
    ("requested a cleartext password", "untrusted", "it asks for the password in clear"),
    ("requested a hashed password", "md5", "it asks for a login by MD5"),
    ("server requested", "untrusted", ""),
    ("did not complete authentication", "untrusted", "it ends the login before it has proven itself"),
    ("server signature", "untrusted", "it does not know the password of the role"),
)
"""What libpq says where the other end does not prove who it is, and in which words this is told."""


@dataclass(frozen=True, slots=True)
class Group:
    """Connections of the role on a server that look alike."""

    application: str
    client: str
    encrypted: bool
    count: int


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself. Positions are of its write-ahead log, as text."""

    address: str
    port: int
    version: int
    in_recovery: bool
    max_connections: int
    reserved_superuser: int
    reserved_others: int
    """`reserved_connections`, which PostgreSQL 16 brought; 0 before."""
    plan_cache_mode: str
    track_commit_timestamp: bool
    superuser: bool
    connection_limit: int
    groups: tuple[Group, ...]
    others_ordinary: int
    others_superuser: int
    position: str
    receives: bool
    replay_paused: bool
    tables: bool
    noted: bool
    invalid: tuple[str, ...] = ()
    system: str = ""
    """The identifier of its cluster; empty where the role may not see it."""
    notes: frozenset[str] | None = None
    """The migrations that are noted; None where the table could not be read."""
    tenants: frozenset[tuple[str, datetime]] | None = None
    """The first of Permify's tenants; None where they could not be read."""

    @property
    def reserved(self) -> int:
        """The connections that an ordinary role never gets."""
        return self.reserved_superuser + self.reserved_others

    @property
    def identity(self) -> tuple[str, int]:
        """Tells servers apart however they were reached."""
        return self.address, self.port

    @property
    def connections(self) -> int:
        """How many the role has, the doctor's own left out."""
        return sum(group.count for group in self.groups)

    @property
    def version_text(self) -> str:
        """As people write it: 15.8."""
        return f"{self.version // 10000}.{self.version % 10000}"


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a replica was behind what the primary had when it was asked."""

    seconds: float
    bytes: int
    caught_up: bool
    """Whether it got there while it was watched."""


@dataclass(frozen=True, slots=True)
class Connector:
    """Opens connections to one place; a password never shows in its text."""

    place: Place
    address: str
    trust: Trust
    login: Login
    password: str = field(repr=False)
    seconds: float

    @property
    def host(self) -> str:
        """The name that its certificate must be for."""
        return self.trust.host or self.place.host

    @property
    def pooled(self) -> bool:
        """Whether PgCat is there, not PostgreSQL."""
        return self.trust.pooled

    @contextlib.contextmanager
    def connected(self, database: str = "", user: str = "") -> Iterator[Ask]:
        """A connection that only reads. Raises `Failed` where it is refused or takes too long."""
        if psycopg.pq.version() < OLDEST_LIBPQ:
            raise Failed(
                "unasked",
                f"libpq {psycopg.pq.version() // 10000} cannot refuse to send a password in clear:"
                " install psycopg[binary], which brings 16 or newer",
            )
        options: dict[str, Any] = dict(self.trust.options)
        if not self.pooled:
            statement_ms = int(self.seconds * 1000)
            options["options"] = f"-c default_transaction_read_only=on -c statement_timeout={statement_ms}"
        try:
            connection = psycopg.connect(
                host=self.host,
                hostaddr=self.address,
                port=self.place.port,
                dbname=database or self.login.database,
                user=user or self.login.user,
                password=self.password,
                # PgCat hands a client's name on to a server connection that others use afterwards.
                application_name="pgcat" if self.pooled else APPLICATION,
                connect_timeout=self._whole_seconds,
                gssencmode="disable",
                autocommit=True,
                prepare_threshold=None,
                **options,
            )
        except psycopg.Error as error:
            raise self._refused(error) from None
        try:
            yield self._asker(connection, read_only=self.pooled and database != ADMIN_DATABASE)
        finally:
            connection.close()

    def _asker(self, connection: psycopg.Connection[Any], *, read_only: bool) -> Ask:
        """With `read_only` each statement is a transaction that says so itself: PgCat drops the option."""

        def ask(statement: str) -> list[tuple[Any, ...]]:
            sent = f"BEGIN READ ONLY; {statement}; COMMIT" if read_only else statement
            with cut_after(self.seconds, connection.fileno()) as cut:
                try:
                    cursor = connection.execute(sent.encode())
                    while cursor.description is None and cursor.nextset():
                        pass
                    return cursor.fetchall() if cursor.description else []
                except psycopg.Error as error:
                    if cut():
                        raise Failed(
                            "mute", f"{self.place} gave no answer within {self.seconds:g} s"
                        ) from None
                    if read_only:
                        with contextlib.suppress(psycopg.Error):
                            connection.execute("ROLLBACK")
                    raise Failed("failed", first_line(error)) from None

        return ask

    def _refused(self, error: psycopg.Error) -> Failed:
        text = first_line(error)
        if isinstance(error, psycopg.errors.ConnectionTimeout) or "timeout expired" in text:
            return Failed(
                "mute", f"{self.place} takes connections and did not answer within {self._whole_seconds} s"
            )
        if "certificate verify failed" in text:
            why = certificate_trouble(self.trust, self.address, self.place.port, self.host, self.seconds)
            return Failed("untrusted", f"its certificate is refused{f': {why}' if why else ''}")
        for part, kind, said in _UNPROVEN:
            if part in text:
                return Failed(kind, said or text)
        known: Kind = next((kind for part, kind in _TEXTS if part in text), "refused")
        return Failed(_KINDS.get(error.sqlstate or "", known), text)

    @property
    def _whole_seconds(self) -> int:
        """The time for a login: libpq takes whole seconds, and at least two."""
        return max(2, math.ceil(self.seconds))


Ask = Callable[[str], list[tuple[Any, ...]]]


def first_line(error: psycopg.Error) -> str:
    """What a server or libpq says, in its own words, without addresses and severities before it."""
    text = error.diag.message_primary or str(error)
    line = next((line for line in text.splitlines() if line.strip()), "no reason given").strip()
    for mark in ("FATAL:  ", "ERROR:  ", "failed: "):
        line = line.rpartition(mark)[2]
    return line[:200]


def ask_facts(ask: Ask, *, direct: bool) -> ServerFacts:
    """Everything of `ServerFacts`; what is Permify's own only where the statements reach one server."""
    try:
        ((answer,),) = ask(_FACTS.format(wal=_WAL))
    except Failed as failed:
        if failed.trouble.kind != "failed":
            raise
        ((answer,),) = ask(_FACTS.format(wal=_NO_WAL))
    others = answer["others"]
    facts = ServerFacts(
        **{key: answer[key] for key in _PLAIN},
        groups=tuple(Group(*group) for group in answer["groups"] or ()),
        others_ordinary=others[0],
        others_superuser=others[1],
        invalid=tuple(answer["invalid"] or ()),
        **({} if not direct else _more(ask, answer)),
    )
    return facts


_PLAIN = (
    *("address", "port", "version", "in_recovery", "max_connections", "plan_cache_mode"),
    *("reserved_superuser", "reserved_others"),
    *("track_commit_timestamp", "superuser", "connection_limit", "position", "receives", "replay_paused"),
    *("tables", "noted"),
)


def _more(ask: Ask, answer: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {}
    with contextlib.suppress(Failed):
        more["system"] = ask(_SYSTEM)[0][0]
    if answer["noted"]:
        with contextlib.suppress(Failed):
            more["notes"] = frozenset(row[0] for row in ask(_NOTES))
    if answer["tables"]:
        with contextlib.suppress(Failed):
            more["tenants"] = frozenset((row[0], row[1].replace(tzinfo=UTC)) for row in ask(_TENANTS))
    return more


def ask_lag(ask: Ask, position: str, identity: tuple[str, int], watch_seconds: float) -> Lag:
    """Watch a replica until it has replayed `position`, for at most so many seconds.

    Raises `Failed` where only other servers answer.
    """
    statement = (
        "SELECT json_build_array(host(inet_server_addr()), inet_server_port(),"
        f" greatest(pg_wal_lsn_diff('{position}', pg_last_wal_replay_lsn()), 0),"
        " extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()))"
    )
    begun = time.monotonic()
    seen = False
    lag = Lag(0.0, 0, False)
    while True:
        ((answer,),) = ask(statement)
        if (answer[0], answer[1]) == identity:
            seen, behind, age_seconds = True, int(answer[2]), float(answer[3] or 0.0)
            if behind <= 0:
                return Lag(time.monotonic() - begun, 0, True)
            lag = Lag(max(age_seconds, time.monotonic() - begun), behind, False)
        if time.monotonic() - begun > watch_seconds:
            if not seen:
                raise Failed("unasked", "PgCat gave other servers")
            return lag
        time.sleep(0.05)
