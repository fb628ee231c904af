"""app/cli/watching.py: lethe watch."""

import json
import os
import socket
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

from app.watching.serving import PageServer
from tests.app.cli.conftest import Command
from tests.app.report.run_folders import new_run


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have Ctrl-C end every page at once; return the addresses that a browser opens."""

    def interrupted(_: PageServer) -> None:
        raise KeyboardInterrupt

    addresses: list[str] = []
    monkeypatch.setattr(PageServer, "serve_forever", interrupted)
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    return addresses


def test_says_where_the_page_is(lethe: Command, tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    ended = lethe("watch", "study", "--no-open")
    assert ended.status == 0
    assert ended.out.startswith("watching study: http://127.0.0.1:")
    document = json.loads(lethe("watch", str(folder.path), "--no-open", "--json").out)
    assert (document["run"], document["path"]) == ("study", str(folder.path))


def test_without_a_name_it_is_the_latest(lethe: Command, tmp_path: Path) -> None:
    for name, time in (("a", 200), ("b", 300), ("c", 100)):
        os.utime(new_run(tmp_path, name).path / "run.json", (time, time))
    assert lethe("watch", "--no-open").out.startswith("watching b: ")


def test_opens_the_browser(lethe: Command, tmp_path: Path, opened: list[str]) -> None:
    new_run(tmp_path)
    out = lethe("watch", "study").out
    assert opened == [out.split()[2]]


def test_bad_input_is_one_line(lethe: Command, tmp_path: Path) -> None:
    ended = lethe("watch", "--no-open")
    assert (ended.status, ended.err) == (
        2,
        f"lethe: no runs in {tmp_path}; lethe train or lethe demo makes one\n",
    )
    (tmp_path / "begun").mkdir()
    ended = lethe("watch", "begun", "--no-open")
    assert ended.status == 2
    assert "is not the folder of a run, or the run has not begun yet" in ended.err
    assert lethe("watch", "gone", "--no-open").status == 2
    new_run(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = lethe("watch", "study", "--no-open", "--port", port)
    assert ended.status == 2
    assert ended.err.startswith(f"lethe: --port: given {port}, which cannot be had")
    assert len(ended.err.splitlines()) == 1
    assert lethe("watch", "study", "--port", "70000").status == 2


def test_it_does_not_wait_for_torch() -> None:
    """Torch takes seconds, and memory that the run may need."""
    code = "import sys, app.cli.watching, app.watching.serving; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
