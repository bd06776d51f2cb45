"""Strangers in the place of PostgreSQL, PgCat and Permify, and certificates to show."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from live.support import LOOPBACK, program, run

Asks = Literal["clear", "md5", "scram", "nothing"]
AUTHENTICATION = {"clear": struct.pack("!i", 3), "md5": struct.pack("!i4s", 5, b"salt")}
AUTHENTICATION |= {"scram": struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0", "nothing": struct.pack("!i", 0)}
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclass(frozen=True)
class Authority:
    """A CA that signs certificates for a name."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._request("ca", "-x509", "-days", "2", "-subj", f"/CN={self.folder.name}")

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def _request(self, name: str, *options: str) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        end = "crt" if "-x509" in options else "csr"
        command = [program("openssl"), "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.{end}"]
        run([*command, *options], cwd=self.folder)

    def issue(self, name: str, *, expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key of a server that is called so."""
        self._request("server", "-subj", f"/CN={name}")
        (self.folder / "index.txt").write_text("")
        (self.folder / "ca.conf").write_text(
            "[ca]\ndefault_ca = here\n[here]\ndatabase = index.txt\nnew_certs_dir = .\nrand_serial = yes\n"
            "default_md = sha256\npolicy = any\nx509_extensions = server\n[any]\ncommonName = supplied\n"
            f"[server]\nbasicConstraints = critical,CA:FALSE\nsubjectAltName = DNS:{name}\n"
        )
        dates = ("20200101000000Z", "20200201000000Z" if expired else "20991231000000Z")
        command = [program("openssl"), "ca", "-batch", "-config", "ca.conf", "-notext", "-in", "server.csr"]
        command += ["-cert", "ca.crt", "-keyfile", "ca.key", "-out", "server.crt"]
        run([*command, "-startdate", dates[0], "-enddate", dates[1]], cwd=self.folder)
        return self.folder / "server.crt", self.folder / "server.key"


@dataclass
class Impostor:
    """Speaks PostgreSQL's protocol up to the login, and remembers all that it was sent after the start-up."""

    asks: Asks
    certificate: tuple[Path, Path] | None = None
    """Without one it refuses TLS."""
    got: bytearray = field(default_factory=bytearray)
    logins: int = 0

    @contextlib.contextmanager
    def up(self) -> Iterator[int]:
        """Yields its port."""
        with socket.create_server((LOOPBACK, 0)) as server:
            thread = threading.Thread(target=self._serve, args=(server,), daemon=True)
            thread.start()
            yield server.getsockname()[1]
            server.shutdown(socket.SHUT_RDWR)  # else it goes on waiting, and takes clients of the next one
            thread.join()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), client:
            client.settimeout(10)
            start = client.recv(8, socket.MSG_WAITALL)
            if start == SSL_REQUEST:
                client.sendall(b"S" if self.certificate else b"N")
                if self.certificate:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(*self.certificate)
                    client = context.wrap_socket(client, server_side=True)
                start = client.recv(8)
            (length,) = struct.unpack("!i", start[:4])
            client.recv(length - len(start))
            self.logins += 1
            asked = AUTHENTICATION[self.asks]
            client.sendall(b"R" + struct.pack("!i", 4 + len(asked)) + asked)
            while data := client.recv(65536):
                self.got += data


@dataclass
class HttpImpostor:
    """Answers in the place of Permify, redirects to elsewhere, and remembers what it was sent."""

    elsewhere: str = ""
    got: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization of each request."""

    @contextlib.contextmanager
    def up(self) -> Iterator[int]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.got.append((self.path, self.headers.get("Authorization", "")))
                serving = self.path == "/healthz"
                self.send_response(200 if serving or not outer.elsewhere else 302)
                if not serving:
                    self.send_header("Location", outer.elsewhere)
                self.end_headers()
                self.wfile.write(b'{"status":"SERVING"}' if serving else b"{}")

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_port
            server.shutdown()
