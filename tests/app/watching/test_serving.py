"""app/watching/serving.py: the page is served here, to whoever asks for this address, and only looked at."""

import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from app.watching.serving import PageServer
from strategies.core.errors import BadInput
from tests.app.report.run_folders import add_rounds, new_run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    folder = new_run(tmp_path, "study")
    add_rounds(folder, 2)
    with PageServer(folder.path) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(
    server: PageServer, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_the_page_and_what_is_new(server: PageServer) -> None:
    status, headers, page = ask(server)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"<h1>study</h1>" in page
    status, headers, body = ask(server, "/since?version=-1&generation=-1&rounds=0")
    found: dict[str, Any] = json.loads(body)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert [line["round"] for line in found["rounds"]] == [1, 2]
    again = f"/since?version={found['version']}&generation={found['generation']}&rounds=2"
    assert ask(server, again)[2] == b"{}"


def test_no_other_site_can_read_or_frame_it(server: PageServer) -> None:
    _, headers, page = ask(server)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert page.count(f'nonce="{nonce}"'.encode()) == 3
    assert headers["X-Frame-Options"] == "DENY"
    assert "Access-Control-Allow-Origin" not in headers
    assert b"http://" not in page.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in page
    assert ask(server)[1]["Content-Security-Policy"] != policy


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_name_that_leads_here_by_trickery_gets_nothing(server: PageServer, host: str) -> None:
    for path in ("/", "/since?version=-1&generation=-1&rounds=0"):
        status, _, body = ask(server, path, Host=host.format(port=server.server_port))
        assert status == 421
        assert b"study" not in body
    assert ask(server, "/", Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "NONSENSE"])
def test_other_methods_are_refused(server: PageServer, method: str) -> None:
    assert ask(server, "/", method)[0] == 501


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../config.toml", 404),
        ("/config.toml", 404),
        ("/since", 400),
        ("/since?version=x&generation=0&rounds=0", 400),
    ],
)
def test_nothing_else_is_there(server: PageServer, path: str, status: int) -> None:
    assert ask(server, path)[0] == status


def test_a_negative_number_of_rounds_is_none(server: PageServer) -> None:
    found = json.loads(ask(server, "/since?version=-1&generation=0&rounds=-5")[2])
    assert [line["round"] for line in found["rounds"]] == [1, 2]


def test_a_connection_that_says_nothing_holds_up_nobody(server: PageServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)):
        assert ask(server)[0] == 200


def test_it_is_not_reached_from_elsewhere(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken(server: PageServer, tmp_path: Path) -> None:
    port = server.server_port
    with pytest.raises(
        BadInput, match=rf"^--port: given {port}, which cannot be had \(Address already in use\)"
    ):
        PageServer(tmp_path, port)
