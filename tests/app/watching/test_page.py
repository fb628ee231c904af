"""app/watching/page.py: the page in a real browser, at any width, and while a run is at work."""

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from app.watching.page import page
from app.watching.serving import PageServer
from app.watching.state import Watched
from strategies.runs.folder import RunFolder
from strategies.runs.journal import Journal
from tests.app.report.run_folders import add_rounds, finish, new_run
from tests.browser import FLAGS, measured

EVIL = "<img src=x onerror=document.title='owned'>"
LONG = "hospital-of-a-very-long-name-" * 2 + "x"


def busy(home: Path) -> tuple[RunFolder, Journal]:
    """Return a run at work with all that a page can show; one client's id and reason are an attacker's."""
    folder = new_run(home, "study-of-a-rather-long-name-2026", ["run.rounds=40"])
    journal = Journal.begin(folder.path, "train", folder.name)
    journal.add("phase", title="train", total=40)
    asked = ["0", "1", LONG, EVIL]
    for number in range(1, 31):
        faults = [{"client": EVIL, "scope": f"round {number}", "reason": EVIL}] if number % 2 == 0 else []
        line = {"round": number, "test-accuracy": 3.0 * number, "test-loss": 2.5 / number, "seconds": 1.25}
        folder.append_metrics(
            {
                **line,
                "bytes-up": 10**8,
                "bytes-down": 10**9,
                "selected": asked,
                "accepted": asked[:3],
                "faults": faults,
            }
        )
        journal.add("step", message=f"round {number}", values={})
    journal.add("answered", scope="round 31", done=3, total=4)
    journal.add("note", text=f"client {EVIL} is late; the path is /a/very/long/{'path/' * 30}")
    forgetting = Journal.begin(folder.path, "forget", f"client-{LONG}-distill")
    forgetting.add("phase", title=f"distill client-{LONG}", total=10)
    for number in range(1, 4):
        forgetting.add(
            "step", message=f"{number} of 10", values={"distill-loss": 0.25, "test-accuracy": 81.0}
        )
    forgetting.close()
    return folder, journal


def shown(url: str) -> str:
    """Return the document as the browser has it after some seconds of its time."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "chromium is not installed; `make check` installs Debian's package of that name"
    command = [chromium, *FLAGS, "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def texts(document: str) -> str:
    return re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(script|style).*?</\1>", "", document))


def test_the_state_cannot_end_its_script(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    journal = Journal.begin(folder.path, "train", "</script><script>evil()</script>")
    html = page(Watched(folder.path).since(-1, -1, 0) or {})
    journal.close()
    assert "evil()</script>" not in html
    (state,) = re.findall(r'(?s)id="now"[^>]*>(.*?)</script>', html)
    assert json.loads(state)["training"]["name"] == "</script><script>evil()</script>"


@pytest.mark.check
@pytest.mark.parametrize(
    ("width", "dark"), [(1400, False), (1400, True), (800, False), (390, False), (390, True)]
)
def test_nothing_is_cut_and_all_can_be_read(width: int, dark: bool, tmp_path: Path) -> None:
    folder, journal = busy(tmp_path)
    path = tmp_path / "page.html"
    path.write_text(page(Watched(folder.path).since(-1, -1, 0) or {}), encoding="utf-8")
    journal.close()
    found = measured(path, width, dark=dark)
    assert found["texts"] > 500
    assert {key: found[key] for key in ("small", "cut", "wide", "overlapping")} == {
        "small": [],
        "cut": [],
        "wide": [],
        "overlapping": [],
    }


@pytest.mark.check
def test_a_browser_shows_what_an_attacker_says_as_text(tmp_path: Path) -> None:
    folder, journal = busy(tmp_path)
    with PageServer(folder.path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        document = shown(server.url)
        server.shutdown()
    journal.close()
    assert "<title>30/40 study" in document
    assert "<img" not in document
    assert document.count("&lt;img src=x") >= 3
    said = " ".join(texts(document).split())
    assert "round 30 of 40; fedavg; about" in said
    assert "round 31: 3 of 4 clients answered" in said
    assert "90.0 accuracy, %" in said
    assert "3.0 GB from clients" in said
    assert "at work" in said


@pytest.mark.check
def test_a_browser_marks_the_kept_round(tmp_path: Path) -> None:
    folder = new_run(tmp_path, "study", ["run.rounds=20"])
    add_rounds(folder, 5)
    judged = {"keep": "best", "by": "validation-loss", "round": 2, "trained": 5, "best": 2, "value": 0.5}
    finish(folder, judged={**judged, "validation-examples": 90}, rounds=20)
    path = tmp_path / "page.html"
    path.write_text(page(Watched(folder.path).since(-1, -1, 0) or {}), encoding="utf-8")
    document = shown(path.as_uri())
    said = " ".join(texts(document).split())
    assert "Round 2 of 5 is kept, the best by validation-loss" in said
    assert "Training ended after round 5 of 20: validation-loss was best in round 2" in said
    assert document.count('class="kept" x1=') == 2
    assert "2 kept" in said


@pytest.mark.check
def test_a_browser_follows_a_run_at_work(tmp_path: Path) -> None:
    """The round is added after the page was asked for, so the page's own question brings it."""
    folder = new_run(tmp_path)
    add_rounds(folder, 1)
    journal = Journal.begin(folder.path, "train", folder.name)
    with PageServer(folder.path) as server:
        asked = threading.Event()
        watched = server.watched
        since = watched.since

        def told(version: int, generation: int, rounds: int) -> object:
            found = since(version, generation, rounds)
            if version == -1 and not asked.is_set():
                asked.set()
                folder.append_metrics({"round": 2, "test-accuracy": 77.7, "test-loss": 0.5})
            return found

        watched.since = told  # type: ignore[method-assign, assignment]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        document = shown(server.url)
        server.shutdown()
    journal.close()
    assert "<title>2/2 study" in document
    assert "77.7" in texts(document)
