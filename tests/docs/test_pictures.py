"""docs/pictures.py, docs/toy.py: each method has a picture of where it really went."""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from math import dist
from pathlib import Path
from typing import Any

import pytest

from docs import pictures, toy
from docs.plane import START, Picture
from tests.browser import measured
from unlearning.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
FOUND: Mapping[str, Any] = json.loads((ROOT / pictures.PATHS).read_text(encoding="utf-8"))
DRAWN = {name: picture.svg() for name, picture in pictures.pictures(FOUND)}


def test_every_method_has_a_picture_that_its_page_shows_under_its_name() -> None:
    assert set(DRAWN) == {*METHODS, "training"}
    page = (ROOT / "docs" / "forgetting.md").read_text(encoding="utf-8")
    shown = re.findall(r"^### (\S+)\n\n!\[[^]]+\]\(forgetting/(\S+)\.svg\)", page, re.MULTILINE)
    assert sorted(shown) == sorted((name, name) for name in METHODS)


def test_what_a_page_promises_of_a_method_is_what_the_method_promises() -> None:
    page = (ROOT / "docs" / "forgetting.md").read_text(encoding="utf-8")
    words = {"exact": "Exact", "certified": "Certified", "approximate": "Approximate", "none": "No guarantee"}
    for name, text in re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE):
        promised = re.split(r"\W", METHODS[name].guarantee)[0]
        assert re.search(rf"^\*{words[promised]}\b", text, re.MULTILINE), name


def test_the_pictures_are_not_stale_and_a_changed_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert pictures.main(["--check"]) == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / pictures.FOLDER).mkdir(parents=True)
    (tmp_path / pictures.PATHS).write_text(json.dumps(FOUND), encoding="utf-8")
    assert pictures.main([]) == 0
    assert pictures.main(["--check"]) == 0
    (tmp_path / "docs/forgetting/fisher.svg").write_text("<svg/>", encoding="utf-8")
    assert pictures.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/forgetting/fisher.svg: stale; run make generate\n"


def test_a_point_lies_where_its_weights_say() -> None:
    """The plane from 0 to 2 and from 0 to 1 fills what the edges leave of 380 and 250."""
    picture = Picture([(2.0, 1.0)], "two points")
    (left, low), (right, top) = picture.at(START), picture.at((2.0, 1.0))
    assert (left, low) == (48, 250 - 48)
    assert (right, top) == (380 - 84, 48)
    assert picture.at((1.0, 0.5)) == ((left + right) / 2, (low + top) / 2)


def test_the_paths_say_what_the_page_says_of_them() -> None:
    """Each sentence of docs/forgetting.md about a direction, in weights (shared, client 3's)."""
    trained, path = FOUND["train"][-1], FOUND["methods"]
    aim = path["retrain"][-1]
    assert trained[1] > 1 > abs(aim[1])
    subtracted, helped = path["subtract"][-1], path["fast-fedul"][-1]
    assert subtracted == FOUND["taken"][-1]
    assert subtracted[0] < aim[0] - 0.2  # Too far left, and too low
    assert subtracted[1] < helped[1] < aim[1] + 0.1
    for name in ("distill", "fast-distill"):
        assert dist(path[name][-1], aim) < dist(subtracted, aim) / 3
    assert dist(path["federaser"][-1], aim) > 0.2
    assert aim[1] < path["l1-sparse"][-1][1] < path["finetune"][-1][1] < trained[1]
    assert path["negate"][0] == [-weight for weight in trained]
    assert path["negate"][-1][0] > 0.9
    assert path["negate"][-1][1] < -0.5
    assert all(after[1] < before[1] for before, after in pairwise([trained, *path["ascent"]]))
    for name in ("neggrad", "scrub"):
        assert dist(path[name][-1], aim) < 0.2
    lengths = [dist(*pair) for pair in pairwise(path["neggrad"])]
    assert lengths == sorted(lengths)  # The steps become larger
    shorter = [dist(*pair) for pair in pairwise(path["bad-teacher"])]
    assert shorter == sorted(shorter, reverse=True)
    for name in ("random-labels", "bad-teacher"):
        assert path[name][-1][0] < trained[0] / 2  # What all share falls as well
    for name in ("salun", "ssd"):
        assert {point[0] for point in path[name]} == {trained[0]}  # Straight down
    assert path["salun"][-1][1] < aim[1] - 0.3
    assert path["ssd"][-1][1] == pytest.approx(aim[1], abs=0.4)
    assert path["reprune pruned"][-1][1] == 0 == path["retrain pruned"][0][0]
    everybody, rest = FOUND["consensus"]
    answers = FOUND["answers"]
    assert everybody == pytest.approx(
        [sum(each) / 4 for each in zip(*answers.values(), strict=True)], abs=2e-3
    )
    others = [answers[i] for i in answers if i != toy.LEAVING]
    assert rest == pytest.approx([sum(each) / 3 for each in zip(*others, strict=True)], abs=2e-3)


@pytest.mark.check
def test_running_the_methods_again_gives_the_paths_that_are_drawn() -> None:
    again = toy.rounded(toy.measured())
    assert again.keys() == FOUND.keys()
    for key in ("train", "taken", "cautious", "draws"):
        assert [dist(a, b) < 5e-3 for a, b in zip(again[key], FOUND[key], strict=True)] == [True] * len(
            FOUND[key]
        )
    for name, path in FOUND["methods"].items():
        assert max(dist(a, b) for a, b in zip(again["methods"][name], path, strict=True)) < 5e-3, name


@pytest.mark.check
@pytest.mark.parametrize("dark", [False, True])
def test_every_picture_can_be_read_on_a_phone(tmp_path: Path, dark: bool) -> None:
    style = "<style>body { margin: 0 } svg { max-width: 100%; height: auto }</style>"
    page = tmp_path / "page.html"
    page.write_text(
        f"<!doctype html><meta charset='utf-8'>{style}{''.join(DRAWN.values())}", encoding="utf-8"
    )
    found = measured(page, 390, dark=dark)
    assert [found[what] for what in ("small", "cut", "wide", "overlapping")] == [[]] * 4
