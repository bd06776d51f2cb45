"""How the other end of a connection proves who it is before it gets a login.

The doctor is at least as strict as the deployment's own clients:

- It logs in by SCRAM everywhere, because SCRAM never sends the password.
- It logs in by MD5 to PgCat, which knows nothing else, and to servers whose certificate and name are
  verified. A stranger could use the answer to log in to PgCat.
- It never sends a password in clear.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pgcat_stack.doctor.expected import Encryption, Facts
from pgcat_stack.doctor.side_by_side import Failed
from pgcat_stack.files.folder import Folder, UnreadError

DATABASE_CA, PGCAT_CA = "DATABASE_CA_FILE", "PGCAT_CA_FILE"
VERIFYING = ("verify-ca", "verify-full")
OLDEST_LIBPQ = 160000
"""The first that refuses what `require_auth` does not name."""

PUBLIC_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""The public roots in one file, where Go, and so Permify, looks for them: crypto/x509/root_linux.go."""

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)

FromCluster = Callable[[str, str, str], str]
"""The value of a key: kind (`secret` or `configmap`), name, key. Raises `Failed`."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a connection asks of the other end."""

    mode: str
    """An sslmode of libpq."""
    ca: Path | None = None
    """The certificates that the other end's is verified by; None where none is."""
    host: str = ""
    """The name that the certificate must be for; empty for that of the address."""
    pooled: bool = False

    @property
    def options(self) -> dict[str, str]:
        """Options of libpq."""
        proven = self.mode == "verify-full"
        options = {
            "sslmode": self.mode,
            # `none` is a server that lets everybody in: it gets no password either.
            "require_auth": "scram-sha-256,md5,none" if self.pooled or proven else "scram-sha-256,none",
        }
        if self.ca is not None:
            options["sslrootcert"] = str(self.ca)
        return options


class Certificates(contextlib.AbstractContextManager["Certificates"]):
    """Finds the CA for a connection. One from the cluster is a file for as long as the context lasts."""

    def __init__(self, facts: Facts, environment: Mapping[str, str], cluster: FromCluster | None) -> None:
        self._facts, self._environment, self._cluster = facts, environment, cluster
        self._files: dict[str, Path] = {}
        self._asking = threading.Lock()

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.unlink(missing_ok=True)

    def trust(self, encryption: Encryption, *, pooled: bool) -> Trust:
        """What to ask of the other end. Raises `Failed`, kind `no-ca`, where the CA is not here."""
        if encryption.mode not in VERIFYING:
            return Trust(encryption.mode, host=encryption.host, pooled=pooled)
        variable = PGCAT_CA if pooled else DATABASE_CA
        ca = self._file(encryption.root_certificate, variable)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
        except OSError as error:
            unreadable = f"cannot be read ({_words(error)})"
            reason = "holds no certificate" if isinstance(error, ssl.SSLError) else unreadable
            raise Failed("no-ca", f"{ca} {reason}: set {variable}") from None
        return Trust(encryption.mode, ca, encryption.host, pooled)

    def _file(self, root: str, variable: str) -> Path:
        if self._environment.get(variable):
            return Path(self._environment[variable])
        if root in ("", "system"):
            return self._public(variable)
        reasons = []
        for origin in self._origins(root):
            kind, colon, rest = origin.partition(":")
            if not colon:
                return self._own(origin, variable)
            name, _, key = rest.partition("/")
            if self._cluster is None:
                reasons.append(f"{kind} {name} of the cluster was not read")
                continue
            try:
                with self._asking:  # once, for all connections
                    if origin not in self._files:
                        self._files[origin] = _written(self._cluster(kind, name, key))
                return self._files[origin]
            except Failed as failed:
                reasons.append(failed.trouble.text)
            except OSError as error:
                reasons.append(f"{kind} {name} cannot be written to a file ({_words(error)})")
        if Path(root).is_file():
            return Path(root)
        raise Failed("no-ca", f"{'; '.join(reasons) or f'{root} is not on this machine'}: set {variable}")

    def _own(self, path: str, variable: str) -> Path:
        """A file of the deployment, which no link out of it takes the place of."""
        root = self._facts.deployment.root
        try:
            with Folder(root) as folder:
                folder.read(path)
        except UnreadError as unread:
            raise Failed("no-ca", f"{root / path}: {unread}: set {variable}") from None
        return root / path

    def _origins(self, path: str) -> list[str]:
        found = (container.origin(path) for container in self._facts.deployment.containers)
        return list(dict.fromkeys(origin for origin in found if origin))

    def _public(self, variable: str) -> Path:
        for name in (ssl.get_default_verify_paths().cafile, *PUBLIC_ROOTS):
            if name and Path(name).is_file():
                return Path(name)
        raise Failed("no-ca", f"this machine has no file with the public roots: set {variable}")


def _written(text: str) -> Path:
    """A file that only we can write: libpq takes certificates from files alone."""
    descriptor, name = tempfile.mkstemp(prefix="pgcat-stack-", suffix=".crt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    return Path(name)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def certificate_trouble(trust: Trust, address: str, port: int, host: str, seconds: float) -> str:
    """Why the certificate of a server is refused, in OpenSSL's words; empty where another look finds nothing.

    libpq says only that it was.
    """
    if trust.ca is None:
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = trust.mode == "verify-full"
    try:
        context.load_verify_locations(trust.ca)
        with socket.create_connection((address, port), seconds) as plain:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) == b"S":
                context.wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message).rstrip(".")
    except (OSError, ValueError):
        pass
    return ""
