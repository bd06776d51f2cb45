"""PS413 to PS416: who talks to whom by TLS agrees on it, and has the certificates that it checks or shows."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from pgcat_stack.build.manifests import Manifest
from pgcat_stack.checks import STACK, check
from pgcat_stack.checks._uris import listed
from pgcat_stack.files.plain_data import as_list, as_text
from pgcat_stack.findings import Problem
from pgcat_stack.reading.connections import Connection
from pgcat_stack.reading.reading import Reading

_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})
_FILES = ("tls_certificate", "tls_private_key")
_OF_IMAGES = ("/etc/ssl/", "/etc/pki/", "/usr/")
"""Where images keep certificates of their own."""


@check(
    code="PS413",
    name="server-tls-differs",
    severity="error",
    needs=STACK,
    why="PgCat and the migration reach the same server. Where only one of them encrypts, either passwords and"
    " data of the other travel in clear, or the server refuses one of them.",
    fix="Set server_tls = true in pgcat.toml with sslmode=require in the migration's URI, or neither.",
)
def server_tls_differs(reading: Reading) -> Iterator[Problem]:
    """server_tls in pgcat.toml against sslmode of the migration; sslmode=prefer fits both."""
    if reading.pgcat_config is None:
        return
    server_tls = reading.pgcat_config.general.server_tls
    encrypted, place = server_tls.value, server_tls.location
    for connection in reading.connections.migrations:
        mode = connection.uri.options.get("sslmode", "")
        where = f"the migration's URI ({connection.location.path}:{connection.location.line})"
        if encrypted is False and mode in _ENCRYPTED:
            text = f"server_tls is off, {where} says sslmode={mode}"
            yield Problem(place, text, "server_tls = true, or sslmode=disable there")
        elif encrypted is True and mode == "disable":
            text = f"server_tls is on, {where} says sslmode=disable"
            yield Problem(place, text, "sslmode=require there, or server_tls = false")


@check(
    code="PS414",
    name="tls-file-not-mounted",
    severity="error",
    needs=STACK,
    why="PgCat does not start without the certificate and key that it is told to read, and Permify and psql"
    " connect to nobody without the CA that their URI names.",
    fix="Mount the Secret there; the template renders it as the volumes pgcat-tls and pgcat-ca.",
)
def tls_file_not_mounted(reading: Reading) -> Iterator[Problem]:
    """Certificates, keys and CAs at paths where nothing is mounted."""
    if reading.kustomization is not None and not reading.complete:
        return
    general = reading.pgcat_config.general if reading.pgcat_config else None
    files = (general.tls_certificate, general.tls_private_key) if general else ()
    for name, file in zip(_FILES, files, strict=False):
        path = file.value or ""
        for container in reading.running("pgcat") if _absent(path) else ():
            if container.origin(path) is None:
                text = f"{container.text} has nothing mounted at {path}, its {name}"
                yield Problem(file.location, text, "mount the Secret there")
    for connection in _connections(reading):
        path = connection.uri.options.get("sslrootcert", "")
        if _absent(path) and not _mounted(reading, connection, path):
            who = connection.container.text if connection.container else "Permify's chart"
            text = f"{who} has nothing mounted at {path}, the sslrootcert of {_what(connection)}"
            yield Problem(connection.location, text, "mount the CA there")


def _absent(path: str) -> bool:
    """Whether a file must be mounted, for all that is known."""
    return path.startswith("/") and not path.startswith(_OF_IMAGES)


def _connections(reading: Reading) -> list[Connection]:
    """The connection strings of Permify, the migration and psql."""
    return [
        *reading.connections.permify,
        *reading.connections.migrations,
        *reading.connections.psql,
    ]


def _what(connection: Connection) -> str:
    container = connection.container
    return f"the URI of {container.text}" if container and not container.program else connection.what


def _mounted(reading: Reading, connection: Connection, path: str) -> bool:
    if connection.container is not None:
        return connection.container.origin(path) is not None
    if reading.chart is None:  # Permify is deployed elsewhere
        return True
    return any(mount in (path, posixpath.dirname(path)) for mount in reading.chart.mounts)


@check(
    code="PS415",
    name="certificate-names",
    severity="error",
    needs=STACK,
    why="With sslmode=verify-full a client connects only where the certificate names the host that it calls.",
    fix="Write every name by which the Service is called into dnsNames of the Certificate.",
)
def certificate_names(reading: Reading) -> Iterator[Problem]:
    """Hosts by which clients call PgCat that cert-manager's Certificate does not name."""
    certificate = _certificate(reading)
    if certificate is None or not reading.complete:
        return
    names = {as_text(name).lower() for name in as_list(certificate.get("spec", "dnsNames"))}
    said: set[str] = set()
    for connection in _connections(reading):
        for server in connection.uri.servers if _through_pgcat(reading, connection) else ():
            verified = connection.uri.options.get("sslmode") == "verify-full"
            wildcard = f"*.{server.host.partition('.')[2]}"
            if verified and not {server.host, wildcard} & names and server.host not in said:
                said.add(server.host)
                text = f"{_what(connection)} calls {server.host}, and the Certificate names {listed(names)}"
                yield Problem(certificate.at("spec", "dnsNames"), text, f"add {server.host}")


def _certificate(reading: Reading) -> Manifest | None:
    """The Certificate whose Secret PgCat's certificate is in."""
    path = reading.pgcat_config.general.tls_certificate.value if reading.pgcat_config else None
    for container in reading.running("pgcat") if path is not None else ():
        kind, _, rest = (container.origin(path or "") or "").partition(":")
        for manifest in reading.of_kind("Certificate") if kind == "secret" else ():
            if manifest.get("spec", "secretName") == rest.partition("/")[0]:
                return manifest
    return None


def _through_pgcat(reading: Reading, connection: Connection) -> bool:
    known = reading.network.reach(connection) or {}
    return any(server.host in known for server in connection.uri.servers)


@check(
    code="PS416",
    name="client-in-clear",
    severity="warning",
    needs=STACK,
    why="PgCat cannot make a client use TLS: it takes those that do not ask for it in clear. Then passwords'"
    " hashes, questions and answers of that client cross the network readable.",
    fix="Write sslmode=verify-full and sslrootcert into the URI, or take tls_certificate out of pgcat.toml.",
)
def client_in_clear(reading: Reading) -> Iterator[Problem]:
    """Clients of a PgCat with a certificate that do not ask for TLS, or would do without."""
    if reading.pgcat_config is None or not reading.pgcat_config.general.offers_tls:
        return
    for connection in [*reading.connections.permify, *reading.connections.psql]:
        mode = connection.uri.options.get("sslmode", "prefer")
        if mode not in _ENCRYPTED and _through_pgcat(reading, connection):
            text = f"{_what(connection)} says sslmode={mode}, although PgCat has a certificate"
            yield Problem(connection.location, text, "sslmode=verify-full with sslrootcert")
