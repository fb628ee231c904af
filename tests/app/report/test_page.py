"""app/report/page.py: the report is one safe, self-contained page, whatever state the run is in."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from app.report.page import write_report
from app.report.triggered import TriggeredImage, write_triggered
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import RunFolder
from tests.app.report.run_folders import (
    ATTACK,
    BEFORE,
    RETRAIN,
    VERDICT,
    add_forgetting,
    add_log,
    add_rounds,
    finish,
    judged,
    new_run,
)

SECTIONS = [
    "in-short", "facts", "forgetting", "learning", "contributions", "labels", "faults", "cost", "settings",
]  # fmt: skip
VOID = {"meta", "img", "br", "link", "use", "path", "image", "rect"}
HOSTILE = "<script>alert('$x$')</script>&\"'"


class Page(HTMLParser):
    """Reads a page: its tags with attributes, its text outside style sheets, and the rows of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data.strip()

    def section(self, name: str) -> bool:
        return any(tag == "section" and attributes.get("id") == name for tag, attributes in self.tags)


def full_run(home: Path) -> RunFolder:
    folder = new_run(home, overrides=ATTACK)
    add_rounds(folder, **{"attack-success-rate": 61.0})
    add_log(folder)
    finish(folder, faults=[{"client": "0", "scope": "round 1", "reason": "no reply within 5 s"}])
    path = add_forgetting(folder)
    pixels = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    write_triggered(path, [TriggeredImage(pixels, 2, {"before": 0, "after": 2, "retrain": 1})])
    return folder


def read(folder: RunFolder) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the page of a run that has every section; to draw it takes a second."""
    folder = full_run(tmp_path_factory.mktemp("full"))
    path = write_report(folder)
    assert path == folder.path / "report.html"
    return path.read_text(encoding="utf-8")


def test_every_section_is_there(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert all(page.section(name) for name in SECTIONS)
    assert page.text.count("client 1") >= 2


def test_the_page_loads_nothing(html: str) -> None:
    """But for links, which a reader follows; those to other files are relative."""
    for tag, attributes in Page(html).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            value = attributes.get(name)
            inside = value is None or value.startswith(("data:image/png;base64,", "#"))
            assert inside or (tag == "a" and not re.match(r"/|\w+:(?!application/json;base64,)", value or ""))
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"@import|url\((?!#)|https?://(?!www\.w3\.org/2000/svg)", html)


def test_the_policy_lets_run_nothing_but_the_pages_own_script(html: str) -> None:
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)[0]
    for tag, key in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{key} &#39;sha256-{digest}&#39;" in policy
    assert policy.startswith("default-src &#39;none&#39;")
    assert "unsafe" not in policy


def test_the_figures_can_be_saved_as_json(html: str) -> None:
    (link,) = [a for tag, a in Page(html).tags if tag == "a" and "download" in a]
    document = json.loads(base64.b64decode(str(link["href"]).partition(",")[2]))
    assert link["download"] == "study.json"
    assert document["rounds"][1]["test-accuracy"] == 50.0
    assert document["summary"]["traffic"]["bytes-up"] == 31_000_000
    assert document["forgettings"][0]["audit"]["disparity"] == 0.625


def test_half_a_character_in_a_file_of_the_run_is_no_trouble(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    finish(folder, faults=[{"client": "0", "scope": "round 1", "reason": "half: X"}])
    path = folder.path / "summary.json"
    path.write_text(path.read_text(encoding="utf-8").replace("half: X", "half: \\ud800"), encoding="utf-8")
    page = read(folder)
    assert ["0", "1", "round 1: half: ?"] in page.rows
    (link,) = [a for tag, a in page.tags if tag == "a" and "download" in a]
    document = json.loads(base64.b64decode(str(link["href"]).partition(",")[2]))
    assert document["summary"]["faults"][0]["reason"] == "half: \ud800"


def test_links_lead_to_the_files_of_the_run_and_to_its_parent(tmp_path: Path) -> None:
    parent = full_run(tmp_path)
    write_report(parent)
    folder = new_run(tmp_path, "child", overrides=ATTACK)
    origin = {"how": "weights", "run": "study", "id": parent.run_id, "path": str(parent.path)}
    origin |= {"forgetting": "", "sha256": "0" * 64, "rounds": 2, "forgotten": []}
    write_json(folder.path / "origin.json", origin)
    finish(folder)
    path = add_forgetting(folder)
    write_json(path / "certificate.json", {})
    links = [str(attributes["href"]) for tag, attributes in read(folder).tags if tag == "a"]
    assert "summary.json" in links
    assert "../study/report.html" in links
    assert "forget/client-1-distill/certificate.json" in links
    assert "model.safetensors" not in links  # there is none
    relative = [link for link in links if not link.startswith(("#", "data:"))]
    assert all((folder.path / link).exists() for link in relative)


def test_every_section_is_in_the_contents(html: str) -> None:
    page = Page(html)
    links = [str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"]
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert [link for link in links if link in sections] == sections[1:]


def test_a_kept_round_is_said_first_and_marked_in_the_curve(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    add_rounds(folder, 3)
    judged = {"keep": "best", "by": "validation-loss", "round": 2, "trained": 3, "best": 2, "value": 0.5}
    finish(folder, judged={**judged, "validation-examples": 90})
    page = read(folder)
    assert "round 2 kept, of 3 trained" in page.text
    assert "The dashed line marks the round whose model is kept, 2." in page.text
    assert page.text.count("kept: round 2, the best") == 6  # both panels, at three widths


def test_clients_are_in_one_table(html: str) -> None:
    """Norms 3 and 4, in two rounds of two: 42.9 % and 57.1 %."""
    rows = Page(html).rows
    assert ["client", "examples", "rounds", "share of all updates, %", "faults", "remark"] in rows
    assert ["0", "10", "2", "42.9", "1", ""] in rows
    assert ["1", "11", "2", "57.1", "–", "attacker, forgotten"] in rows


def test_accuracies_of_clients_stand_before_after_and_retrained(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    path = add_forgetting(folder)
    audit = read_json(path / "audit.json")
    audit["after"]["client_accuracy"] = {"0": 97.0}
    write_json(path / "audit.json", audit)
    assert ["0", "99.0", "97.0", "99.0", "−2.0"] in read(folder).rows


def test_every_picture_has_a_text_alternative(html: str) -> None:
    page = Page(html)
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 12  # comparison, learning, contributions, labels: at three widths
    assert all(attributes["aria-label"] and attributes["role"] == "img" for attributes in pictures)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [attributes["alt"] for attributes in images] == ["triggered test image 1, true class 2"]


def test_ids_are_unique(html: str) -> None:
    ids = [attributes["id"] for _, attributes in Page(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_table_of_a_forgetting(html: str) -> None:
    rows = Page(html).rows
    assert ["model", "TA, %", "RA, %", "UA, %", "MIA, %", "ASR, %", "seconds"] in rows
    assert ["before", "97.0", "99.0", "1.0", "3.0", "61.0", "2.0"] in rows
    assert ["after", "95.0", "99.0", "7.5", "3.0", "1.0", "0.50"] in rows
    assert ["retrained", "96.0", "99.0", "6.0", "3.0", "0.5", "2.0"] in rows
    assert ["gap to retrained", "−1.0", "0.0", "+1.5", "0.0", "+0.5", "0.25 ×"] in rows
    assert ["membership attacker's own accuracy, % (50: it only guesses)", "57.2", "57.2", "57.2"] in rows
    assert ["forgotten examples measured", "1,200", "1,200", "1,200"] in rows
    assert ["novel figure", "0.125", "0.125", "0.125"] in rows
    assert [
        "parameter distance to retrained (0: equal to it, 1: as far as before)",
        "–",
        "0.750",
        "–",
    ] in rows
    assert not [row for row in rows if row and ("retained data, nats" in row[0] or "disparity" in row[0])]


def test_notes_and_explanations(html: str) -> None:
    text = Page(html).text
    assert "A note of the method." in text
    assert "The backdoor did not take: no conclusion." in text
    assert "One run with one seed (0): differences of a point or so may be chance." in text
    assert "100 − accuracy on the forgotten data." in text
    assert "on average it is 0.6 points from a model retrained without the data" in text
    assert "and the backdoor works on 1.0 % of the images (retrained: 0.5 %)." in text


def test_the_verdict_and_what_the_disparity_is_read_against(tmp_path: Path) -> None:
    folder = full_run(tmp_path)
    judged(folder.forget_folder("client-1-distill"))
    page = read(folder)
    assert f"Verdict: {VERDICT['text'][0].upper()}{VERDICT['text'][1:]}." in page.text
    assert "disparity (doing nothing: 0.2, a second retraining: 0.1)" in page.text
    assert "on average it is" not in page.text
    assert any("3.0 ± 1.2" in row for row in page.rows)


def test_triggered_images(html: str) -> None:
    page = Page(html)
    assert ["before", "0 ⚑"] in page.rows
    assert ["after", "2 ✓"] in page.rows
    assert ["retrained", "1"] in page.rows
    assert "Of 1 image the attack succeeds on 1 before, 0 after and 0 retrained." in page.text


def test_clients_are_marked_and_ranked(html: str) -> None:
    """Sums of 3 and 4: client 1 has 4/7 = 57.1 % of the whole."""
    text = Page(html).text
    assert "client 1 (attacker, forgotten) is number 1 with 57.1 % of the sum" in text
    assert "1 attacker, forgotten ▸" in text.replace("  ", " ")


def test_faults_bytes_and_settings(html: str) -> None:
    page = Page(html)
    assert ["0", "1", "round 1: no reply within 5 s"] in page.rows
    assert ["training", "1.2", "31.0 MB", "2.0 kB", "4", "4.1 kB"] in page.rows
    assert "forgetting client 1 by distill" in [row[0] for row in page.rows]
    assert "local-epochs = 2" in page.text


def test_a_hostile_name_is_only_text(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    add_rounds(folder)
    add_log(folder, [HOSTILE, "1"])
    fault = {"client": HOSTILE, "scope": HOSTILE, "reason": HOSTILE}
    finish(folder, [HOSTILE, "1"], faults=[fault], notes=[HOSTILE])
    request = {"kind": "client", "clients": [HOSTILE], "classes": [], "samples": {}}
    path = add_forgetting(folder, request={**request, "clients": ["1"]})
    hostile = {"request": request, "method": HOSTILE, "notes": [HOSTILE]}
    write_json(path / "result.json", read_json(path / "result.json") | hostile)
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert html.count("<script") == 1
    assert page.open == []
    assert HOSTILE in page.text
    assert page.text.count(HOSTILE) >= 6


@pytest.mark.parametrize("state", ["new", "two rounds", "no evaluation", "no log"])
def test_a_run_in_any_state_has_a_report(tmp_path: Path, state: str) -> None:
    folder = new_run(tmp_path, overrides=["log.enabled=false"] if state == "no log" else [])
    if state == "no evaluation":
        folder.append_metrics({"round": 1, "seconds": 0.5})
    elif state != "new":
        add_rounds(folder)
    page = read(folder)
    assert all(page.section(name) for name in SECTIONS)
    assert "This run is not finished" in page.text
    assert "Nothing has been forgotten in this run yet." in page.text
    assert "Not known: the run has no update log with a complete round." in page.text


def test_a_forgetting_that_was_not_audited_says_so(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    finish(folder)
    add_forgetting(folder, audited=False)
    page = read(folder)
    assert "This forgetting was not audited: nothing is known of how complete it is." in page.text
    assert "How to read the columns" not in page.text


def test_figures_that_were_not_measured_are_dashes(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    path = add_forgetting(folder)
    nothing = dict.fromkeys(BEFORE)
    models = dict.fromkeys(("before", "after", "retrain"), nothing)
    write_json(path / "audit.json", {**models, "gaps": {}, "disparity": None, "notes": []})
    page = read(folder)
    assert ["after", *["–"] * 6] in page.rows
    assert ["gap to retrained", *["–"] * 6] in page.rows
    assert "could not measure its distance" in page.text


def test_methods_of_one_request_are_listed_and_retraining_is_not_repeated(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    for method in ("distill", "retrain", "subtract"):
        add_forgetting(folder, method)
    page = read(folder)
    assert [row[1] for row in page.rows if row and row[0] == "client 1"] == ["distill", "subtract", "retrain"]
    assert sum(row[0] == "retrained" for row in page.rows if row) == 2
    assert sum(tag == "article" for tag, _ in page.tags) == 2


def test_a_forgetting_that_went_on_from_another_says_so_and_what_failed(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    add_forgetting(folder, "subtract")
    path = add_forgetting(folder)
    more = {"after": "client-0-subtract", "warnings": ["client 1 failed"]}
    write_json(path / "result.json", {**read_json(path / "result.json"), **more})
    page = read(folder)
    assert "client 1, after client-0-subtract" in [row[0] for row in page.rows if row]
    assert "Warning: client 1 failed." in page.text


def test_a_lone_retraining_is_shown(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    path = add_forgetting(folder, "retrain")
    same = {"before": BEFORE, "after": RETRAIN, "retrain": RETRAIN, "gaps": {}, "disparity": 0.0, "notes": []}
    write_json(path / "audit.json", same)
    rows = read(folder).rows
    assert [row[0] for row in rows if row and row[0] in ("before", "after", "retrained")] == [
        "before",
        "retrained",
    ]


def test_many_clients_and_classes(tmp_path: Path) -> None:
    clients = [str(i) for i in range(200)]
    folder = new_run(tmp_path, overrides=["attack.kind=backdoor", "attack.clients=150"])
    add_rounds(folder, 60)
    add_log(folder, clients)
    counts = {c: {"num-examples": 100, "label-counts": [1] * 100} for c in clients}
    faults = [{"client": c, "scope": "round 1", "reason": "late"} for c in clients]
    finish(folder, clients=counts, faults=faults)
    page = read(folder)
    assert "150 attacker ▸" in page.text.replace("  ", " ")
    assert "Not shown: 160 clients more, with 160 faults." in page.text
    assert len(write_report(folder).read_bytes()) < 1_000_000


def test_the_parser_notices_damage() -> None:
    with pytest.raises(AssertionError):
        Page("<p><b></p></b>")
    assert Page("<table><tr><td>a</td><td>b</td></tr></table>").rows == [["a", "b"]]
