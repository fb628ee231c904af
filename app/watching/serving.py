"""Serves the page of a run on this machine alone, to whoever asks for this very address."""

import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, final
from urllib.parse import parse_qs, urlsplit

from app.watching.page import page
from app.watching.state import Watched
from strategies.core.errors import BadInput
from strategies.runs.files import to_json

ADDRESS = "127.0.0.1"
_IDLE_SECONDS = 30.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@final
class PageServer(ThreadingHTTPServer):
    """The server of one run's page; `serve_forever` serves it.

    Parameters
    ----------
    run
        The run's folder.
    port
        On 127.0.0.1; 0 takes a free one.

    Raises
    ------
    BadInput
        If the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, run: Path, port: int = 0) -> None:
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise BadInput(
                f"--port: given {port}, which cannot be had ({error.strerror}); allowed one that is free, or "
                "0, which takes any"
            ) from None
        self.watched = Watched(run)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, str]:
        """What a browser may call this server: a name that leads here by trickery is none of it."""
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    """Every method but GET is refused by what this is built on: it knows no other."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server_version, sys_version = "lethe", ""

    def do_GET(self) -> None:  # the name that http.server calls
        """Answer with the page, or with what is new."""
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"This page has another address.\n")
            return
        asked = urlsplit(self.path)
        if asked.path == "/":
            self._page()
        elif asked.path == "/since":
            self._since(asked.query)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There is nothing here.\n")

    def log_message(self, format: str, *args: Any) -> None:  # the name that it has there
        """Write no line for each request."""

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        allowed = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        body = page(self.server.watched.since(-1, -1, 0) or {}, nonce).encode()
        said = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": allowed}
        self._answer(HTTPStatus.OK, body, said)

    def _since(self, query: str) -> None:
        fields = parse_qs(query)
        try:
            version, generation, rounds = (int(fields[key][0]) for key in ("version", "generation", "rounds"))
        except (KeyError, ValueError):
            self._answer(HTTPStatus.BAD_REQUEST, b"Expected version, generation and rounds.\n")
            return
        found = self.server.watched.since(version, generation, max(0, rounds))
        body = b"{}" if found is None else to_json(found).encode(errors="replace")
        self._answer(HTTPStatus.OK, body, {"Content-Type": "application/json"})

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "text/plain; charset=utf-8",
            **_HEADERS,
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
