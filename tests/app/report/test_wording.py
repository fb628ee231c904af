"""app/report/wording.py: numbers and requests in words."""

import pytest
from hypothesis import given, strategies as st

from app.report import wording
from app.report.wording import COLUMNS


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0"), (0.04, "0.0"), (-0.04, "0.0"), (0.05, "+0.1"), (-2.0, "−2.0"), (None, "–")],
)
def test_gap(value: float | None, text: str) -> None:
    assert wording.gap(value) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_size(num_bytes: float, text: str) -> None:
    assert wording.size(num_bytes) == text


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"kind": "client", "clients": ["3"]}, "client 3"),
        ({"kind": "client", "clients": ["3", "5"]}, "clients 3 and 5"),
        ({"kind": "class", "clients": [], "classes": [7]}, "class 7"),
        ({"kind": "class", "clients": [], "classes": [0, 7]}, "classes 0 and 7"),
        (
            {"kind": "sample", "samples": {"3": [5], "4": [1, 2]}},
            "1 example of client 3 and 2 examples of client 4",
        ),
    ],
)
def test_subject(request_: dict[str, object], text: str) -> None:
    assert wording.subject(request_) == text


def test_columns_are_those_of_the_definitions() -> None:
    assert [column.short for column in COLUMNS] == ["TA", "RA", "UA", "MIA", "ASR", "seconds"]


def test_nothing_is_listed() -> None:
    assert wording.listed([]) == ""


@given(st.text())
def test_printable_is_one_printable_line(text: str) -> None:
    shown = wording.printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)


@given(st.from_regex(r"[ -~äß€]*", fullmatch=True))
def test_printable_text_stays(text: str) -> None:
    assert wording.printable(text) == text
