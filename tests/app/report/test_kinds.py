"""What the report of each kind of run says first, and what it explains."""

import re
from html import unescape
from pathlib import Path

import pytest

from tests.app.report.kinds import compared, diagnosed, personalised, private, pruned


def words(page: Path) -> str:
    """Return a page's text, without its pictures."""
    text = re.sub(
        r"<(style|svg|script)\b.*?</\1>|<[^>]+>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    return re.sub(r"\s+", " ", unescape(text))


def test_a_private_run_names_its_epsilon_first(tmp_path: Path) -> None:
    """The most that a client has spent: the last of twelve has 0.5 + 11/8."""
    text = words(private(tmp_path))
    head = text.partition(" Nothing has been forgotten ")[0]
    assert head.count("ε = 1.88 at δ = 1e-05 per example: two data sets differ in one example") == 2


def test_a_personalised_run_names_the_personal_accuracy_first(tmp_path: Path) -> None:
    head = words(personalised(tmp_path)).partition(" Nothing has been forgotten ")[0]
    assert "a client's version classifies 84.8 % correctly, the model that all share 35.0 %." in head
    assert head.index("Accuracy after personalisation") < head.index("Test accuracy")


def test_a_pruned_run_names_its_parent_and_how_much_was_pruned(tmp_path: Path) -> None:
    text = words(pruned(tmp_path))
    assert "2 of 2 rounds completed; 95 % of the weights (omp) of run outer pruned." in text
    assert "Pruned 95 % of the weights (omp) of run outer" in text


def test_a_comparison_explains_its_columns(tmp_path: Path) -> None:
    text = words(compared(tmp_path))
    for words_of in (
        "UA Unlearning accuracy. 100 −",
        "MIA Membership inference.",
        "RA Retain",
        "TA Test acc",
    ):
        assert words_of in text


def test_it_shows_gaps_on_one_scale(tmp_path: Path) -> None:
    """Gaps go to −9 for before; the panel of the disparity, from 0, is half as wide as those of gaps."""
    svg = re.findall(r"<svg .*?</svg>", compared(tmp_path).read_text(encoding="utf-8"), re.DOTALL)[2]
    numbers = re.findall(r'<text x="([\d.]+)"[^>]*>(−20|0|20)</text>', svg)
    places = [float(x) for x, _ in numbers]
    assert [text for _, text in numbers] == ["0", "20", *5 * ["−20", "0", "20"]]
    assert places[1] - places[0] == pytest.approx(places[4] - places[3], abs=0.05)
    assert "subtract, TA: −1.0 (95 %: −2.2 to +0.2) points" in svg  # 4.303 · 0.5 / √3 = 1.24


def test_a_diagnosis_has_units_and_thresholds(tmp_path: Path) -> None:
    page = diagnosed(tmp_path).read_text(encoding="utf-8")
    for unit in ("bits", "examples", "seconds", "lengths of the mean change"):
        assert f", {unit}</text>" in page
    assert page.count("3 times the median</text>") == 6
    assert "The dashed line: 0.4 bits, high, where it is the mean over the clients." in unescape(page)
