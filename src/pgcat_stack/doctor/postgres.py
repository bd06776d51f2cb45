"""What a PostgreSQL server is asked, and its typed answer.

One statement asks nearly everything, so that it also goes through PgCat in transaction mode, which has no
prepared statements and may give the next statement another server. An ordinary role may run all of it.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from pydantic import TypeAdapter

from pgcat_stack.doctor.expected import Login
from pgcat_stack.doctor.platforms import Place
from pgcat_stack.doctor.side_by_side import Failed, Kind, Questions, cut_after
from pgcat_stack.doctor.trust import OLDEST_LIBPQ, Trust, certificate_trouble

APPLICATION = "pgcat-stack doctor"
PERMIFY_TABLES = (
    *("attributes", "bundles", "migrations", "relation_tuples", "schema_definitions", "tenants"),
    "transactions",
)
"""What the migrations of Permify 1.7.3 leave in the database."""
ADMIN_DATABASE = "pgcat"
MOST_TENANTS = 100
MOST_ROWS = 10
MOST_WAITS = 100

_FACTS = f"""
SELECT json_build_object(
  'address', coalesce(host(inet_server_addr()), ''),
  'port', coalesce(inet_server_port(), 0),
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
      SELECT application_name, coalesce(host(client_addr), 'a socket') AS client, coalesce(ssl, false) AS ssl,
        count(*) AS number
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
  {{sessions}},
  'settings', (
    SELECT json_agg(json_build_array(
      CASE WHEN setrole <> 0 THEN session_user::text ELSE '' END,
      CASE WHEN setdatabase <> 0 THEN current_database()::text ELSE '' END,
      split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1)
    ) ORDER BY setrole = 0, setdatabase = 0, entry)
    FROM pg_db_role_setting, unnest(setconfig) AS entry
    WHERE setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
      AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  ),
  'read_only', (
    SELECT json_build_array(setting, source, coalesce(sourcefile, ''), coalesce(sourceline, 0))
    FROM pg_settings WHERE name = 'default_transaction_read_only'
  ),
  'holders', (
    SELECT json_agg(json_build_array(usename, application_name, number, rolsuper)) FROM (
      SELECT usename, application_name, rolsuper, count(*) AS number
      FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid
      WHERE datid IS NOT NULL AND application_name <> '{APPLICATION}'
      GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2 LIMIT {MOST_ROWS}
    ) AS held
  ),
  'synchronous_standbys', current_setting('synchronous_standby_names'),
  'missing', (
    SELECT json_agg(name) FROM unnest(ARRAY['{"', '".join(PERMIFY_TABLES)}']) AS name
    WHERE to_regclass(name) IS NULL
  ),
  'noted', to_regclass('pgcat_stack_migrations') IS NOT NULL,
  'invalid', (SELECT json_agg(indexrelid::regclass::text ORDER BY 1) FROM pg_index WHERE NOT indisvalid)
)
"""
_WAL = """
  'position', coalesce(
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text, ''
  ),
  'receives', (SELECT count(*) > 0 FROM pg_stat_wal_receiver),
  'replay_paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END
"""
_NO_WAL = "'position', '', 'receives', true, 'replay_paused', false"
"""Where a server has none of these functions: storage that replicates by itself, as of some clouds."""
_SESSION = """json_build_array(
        pid, coalesce(usename, ''), application_name, coalesce(host(client_addr), ''), coalesce(state, ''),
        extract(epoch FROM clock_timestamp() - xact_start),
        extract(epoch FROM clock_timestamp() - query_start),
        left(query, 2000),
        coalesce(wait_event, '')
      )"""
_SESSIONS = f"""
  -- All who wait for a lock in this database, and for whom. Everybody may see that; an ordinary role sees
  -- of others no state, no age and no statement.
  'waits', (
    SELECT json_agg(json_build_array(pid, pg_blocking_pids(pid))) FROM (
      SELECT DISTINCT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
      WHERE NOT granted AND datname = current_database() ORDER BY pid LIMIT {MOST_WAITS}
    ) AS waiting
  ),
  'sessions', (
    SELECT json_agg({_SESSION} ORDER BY xact_start) FROM pg_stat_activity
    WHERE pid IN (
      SELECT pid FROM pg_locks WHERE NOT granted
      UNION SELECT unnest(pg_blocking_pids(pid)) FROM pg_locks WHERE NOT granted
    )
  ),
  'long', (
    SELECT json_agg(one) FROM (
      SELECT {_SESSION} AS one FROM pg_stat_activity
      WHERE datname = current_database() AND backend_type = 'client backend'
        AND xact_start < clock_timestamp() - interval '1 second' AND pid <> pg_backend_pid()
      ORDER BY xact_start LIMIT {MOST_ROWS}
    ) AS old
  ),
  'prepared', (
    SELECT json_agg(json_build_array(gid, owner, extract(epoch FROM clock_timestamp() - prepared)))
    FROM pg_prepared_xacts WHERE database = current_database()
  ),
  'hidden', (
    SELECT json_agg(DISTINCT usename) FROM pg_stat_activity
    WHERE datname = current_database() AND query = '<insufficient privilege>' AND usename IS NOT NULL
  )
"""
_NO_SESSIONS = "'waits', NULL, 'sessions', NULL, 'long', NULL, 'prepared', NULL, 'hidden', NULL"
_WHERE = "SELECT json_build_array(coalesce(host(inet_server_addr()), ''), coalesce(inet_server_port(), 0))"
ROUND_TRIPS = 5
"""So many are timed, and the fastest counts: a busy machine makes single ones slow."""
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
class Holder:
    """How many connections of a server a role has by an application."""

    user: str
    application: str
    count: int
    superuser: bool
    """No CONNECTION LIMIT binds it."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session of a server. An ordinary role sees of others neither state nor ages nor statement."""

    pid: int
    user: str
    application: str
    client: str
    state: str
    transaction_seconds: float | None
    statement_seconds: float | None
    statement: str
    """Shortened, without what stands between quotes."""
    waits_for: str = ""
    """PostgreSQL's `wait_event`: `SyncRep` is a commit that waits for a synchronous standby."""

    @property
    def visible(self) -> bool:
        """Whether the doctor's role may see what it does."""
        return bool(self.state)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the role, in the database or in all; or of all roles in it."""

    role: str
    database: str
    name: str
    value: str

    @property
    def where(self) -> str:
        """The statement that sets it, without the setting."""
        if not self.role:
            return f"ALTER DATABASE {self.database}" if self.database else "ALTER ROLE ALL"
        return f"ALTER ROLE {self.role}" + (f" IN DATABASE {self.database}" if self.database else "")


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """`default_transaction_read_only` as the server has it, and where that comes from."""

    setting: str
    source: str
    """As pg_settings has it; `default` where nothing sets it."""
    file: str
    """Empty where the role may not see it."""
    line: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared transaction: it holds its locks until somebody ends it."""

    name: str
    owner: str
    seconds: float


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
    noted: bool
    missing: tuple[str, ...] = ()
    """Which of Permify's tables are not there."""
    invalid: tuple[str, ...] = ()
    system: str = ""
    """The identifier of its cluster; empty where the role may not see it."""
    notes: frozenset[str] | None = None
    """The migrations that are noted; None where the table could not be read."""
    tenants: frozenset[tuple[str, datetime]] | None = None
    """The first of Permify's tenants; None where they could not be read."""
    settings: tuple[Setting, ...] = ()
    """Of the role and the database, the most particular first."""
    read_only: ReadOnly | None = None
    holders: tuple[Holder, ...] = ()
    """Who has the most connections, all roles included."""
    waits: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Who waits for a lock, and for which sessions; 0 is a prepared transaction."""
    sessions: tuple[Session, ...] = ()
    """Those of `waits`."""
    long: tuple[Session, ...] = ()
    """Those with the oldest transactions, as far as the role may see them."""
    prepared: tuple[Prepared, ...] = ()
    hidden: tuple[str, ...] = ()
    """The roles whose sessions in this database the role may not look into."""
    synchronous_standbys: str = ""
    """`synchronous_standby_names`: whose answer each commit waits for."""
    round_trip_ms: float | None = None
    """The fastest of some, from the doctor, by the way that it was asked."""

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
    def connected(self, database: str = "", user: str = "", *, hold: bool = False) -> Iterator[Ask]:
        """A connection that only reads. Raises `Failed` where it is refused or takes too long.

        With `hold` all questions are one transaction: PgCat has one server answer them, and gives others to
        other clients.
        """
        if psycopg.pq.version() < OLDEST_LIBPQ:
            raise Failed(
                "unasked",
                f"libpq {psycopg.pq.version() // 10000} cannot refuse to send a password in clear:"
                " install psycopg[binary], which brings 16 or newer",
            )
        options: dict[str, Any] = dict(self.trust.options)
        if not self.pooled:
            options["options"] = f"-c statement_timeout={int(self.seconds * 1000)}"
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
            # PgCat's own database knows no transactions.
            admin = self.pooled and database == ADMIN_DATABASE
            yield self._asker(connection, read_only=not admin, hold=hold)
        finally:
            with contextlib.suppress(psycopg.Error, OSError):
                if hold and not connection.closed:  # else PgCat warns of an open transaction
                    with cut_after(self.seconds, connection.fileno()):
                        connection.execute("ROLLBACK")
                connection.close()

    def _asker(self, connection: psycopg.Connection[Any], *, read_only: bool, hold: bool) -> Ask:
        """With `read_only` each statement is in a transaction that says so itself.

        A default of the session would hide where the server's own default comes from, and PgCat drops it.
        """
        held = False

        def ask(statement: str) -> list[tuple[Any, ...]]:
            nonlocal held
            silent: Callable[[], bool] = bool
            begin = "" if held or not read_only else "BEGIN READ ONLY; "
            commit = "; COMMIT" if read_only and not hold else ""
            try:
                with cut_after(self.seconds, connection.fileno()) as silent:
                    cursor = connection.execute(f"{begin}{statement}{commit}".encode())
                    held = hold and read_only
                    while cursor.description is None and cursor.nextset():
                        pass
                    return cursor.fetchall() if cursor.description else []
            except (psycopg.Error, OSError) as error:  # also where the connection has ended before
                held = False
                if silent():
                    raise Failed("mute", f"{self.place} gave no answer within {self.seconds:g} s") from None
                if read_only and not connection.closed:
                    with contextlib.suppress(psycopg.Error):
                        connection.execute("ROLLBACK")
                raise Failed("failed", first_line(error), lost=connection.closed) from None

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


def first_line(error: psycopg.Error | OSError) -> str:
    """What a server or libpq says, in its own words, without addresses and severities before it."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = primary or str(error)
    line = next((line for line in text.splitlines() if line.strip()), "no reason given").strip()
    for mark in ("FATAL:  ", "ERROR:  ", "failed: "):
        line = line.rpartition(mark)[2]
    return line[:200]


def ask_facts(ask: Ask, *, direct: bool, questions: Questions | None = None, name: str = "") -> ServerFacts:
    """Everything of `ServerFacts`; what is Permify's own only where the statements reach one server."""
    questions = questions or Questions()
    ways = [(_WAL, _SESSIONS), (_NO_WAL, _SESSIONS), (_WAL, _NO_SESSIONS), (_NO_WAL, _NO_SESSIONS)]
    for wal, sessions in ways:
        try:
            answer = _only(ask(_FACTS.format(wal=wal, sessions=sessions)))
            break
        except Failed as failed:
            if failed.trouble.kind != "failed" or (wal, sessions) == ways[-1]:
                raise
            refused = failed.trouble.text
    if sessions == _NO_SESSIONS:
        questions.unseen.append(f"the sessions of {name} were not seen: {refused}")
    others = answer["others"]
    facts = {key: answer[key] for key in _PLAIN}
    for key, kind in _ROWS.items():
        names = kind.__dataclass_fields__
        facts[key] = [dict(zip(names, row, strict=True)) for row in answer[key] or ()]
    for session in [*facts["sessions"], *facts["long"]]:
        session["statement"] = shortened(session["statement"])
    only_read = answer["read_only"]
    facts["read_only"] = (
        dict(zip(ReadOnly.__dataclass_fields__, only_read, strict=True)) if only_read else None
    )
    facts |= {"others_ordinary": others[0], "others_superuser": others[1]}
    facts |= {key: answer[key] or () for key in ("missing", "invalid", "waits", "hidden")}
    if direct:
        facts |= _more(ask, answer, questions, name)
    return _SERVER_FACTS.validate_python(facts)


def ask_round_trips(ask: Ask, times: int = ROUND_TRIPS) -> dict[tuple[str, int], float]:
    """The fastest round trip in milliseconds to each server that answers, by its identity."""
    found: dict[tuple[str, int], float] = {}
    for _ in range(times):
        begun = time.monotonic()
        address, port = _only(ask(_WHERE))
        ms = (time.monotonic() - begun) * 1000
        found[address, port] = min(ms, found.get((address, port), ms))
    return found


def with_round_trip(facts: ServerFacts, found: dict[tuple[str, int], float]) -> ServerFacts:
    """The facts with the time that was measured to this server, if any was."""
    return replace(facts, round_trip_ms=found.get(facts.identity))


def shortened(statement: str, longest: int = 80) -> str:
    """A statement for a message: one line, without what stands between quotes, which may be secret."""
    text = re.sub(r"\$(\w*)\$.*?(\$\1\$|$)", "$$…$$", statement, flags=re.DOTALL)
    text = re.sub(r"'(?:[^']|'')*('|$)", "'…'", text)
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _only(rows: list[tuple[Any, ...]]) -> Any:
    ((value,),) = rows
    return value


_PLAIN = (
    *("address", "port", "version", "in_recovery", "max_connections", "plan_cache_mode"),
    *("reserved_superuser", "reserved_others"),
    *("track_commit_timestamp", "superuser", "connection_limit", "position", "receives", "replay_paused"),
    *("noted", "synchronous_standbys"),
)
_ROWS: dict[str, Any] = {
    "groups": Group,
    "settings": Setting,
    "holders": Holder,
    "sessions": Session,
    "long": Session,
    "prepared": Prepared,
}
"""What comes as rows whose columns are the fields, in their order."""
_SERVER_FACTS = TypeAdapter(ServerFacts)
_TENANT_ROWS = TypeAdapter(frozenset[tuple[str, datetime]])
_LAG_ROW = TypeAdapter(tuple[str, int, float, float | None])


def _more(ask: Ask, answer: dict[str, Any], questions: Questions, name: str) -> dict[str, Any]:
    more: dict[str, Any] = {}
    more["system"] = questions.part(
        f"the identifier of the cluster of {name}", lambda: str(_only(ask(_SYSTEM))), ""
    )
    if answer["noted"]:
        more["notes"] = questions.part(
            f"which migrations {name} has noted", lambda: frozenset(str(row[0]) for row in ask(_NOTES)), None
        )
    if not answer["missing"]:
        more["tenants"] = questions.part(f"the list of tenants of {name}", lambda: _tenants(ask), None)
    return more


def _tenants(ask: Ask) -> frozenset[tuple[str, datetime]]:
    return _TENANT_ROWS.validate_python({(row[0], row[1].replace(tzinfo=UTC)) for row in ask(_TENANTS)})


def ask_lag(ask: Ask, position: str, identity: tuple[str, int], watch_seconds: float) -> Lag:
    """Watch a replica until it has replayed `position`, for at most so many seconds.

    Raises `Failed` where only other servers answer.
    """
    statement = (
        "SELECT json_build_array(coalesce(host(inet_server_addr()), ''), coalesce(inet_server_port(), 0),"
        f" greatest(pg_wal_lsn_diff('{position}', pg_last_wal_replay_lsn()), 0),"
        " extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()))"
    )
    begun = time.monotonic()
    seen = False
    lag = Lag(0.0, 0, False)
    while True:
        address, port, bytes_behind, age = _LAG_ROW.validate_python(_only(ask(statement)))
        if (address, port) == identity:
            seen, behind, age_seconds = True, int(bytes_behind), age or 0.0
            if behind <= 0:
                return Lag(time.monotonic() - begun, 0, True)
            lag = Lag(max(age_seconds, time.monotonic() - begun), behind, False)
        if time.monotonic() - begun > watch_seconds:
            if not seen:
                raise Failed("unasked", "PgCat gave other servers")
            return lag
        time.sleep(0.05)
