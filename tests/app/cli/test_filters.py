"""app/cli/filters.py: which runs of a list are wanted."""

from datetime import UTC, datetime

import pytest

from app.cli.filters import RunFilter, since_when
from strategies.core.errors import BadInput

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
ROWS = [
    {
        "name": "a",
        "state": "finished",
        "strategy": "fedavg",
        "created": "2026-11-29T11:00:00+0000",
        "figures": {"test-accuracy": 91.0, "test-loss": None},
        "rounds": 3,
        "forgotten-clients": ["3"],
    },
    {
        "name": "b",
        "state": "pruned",
        "strategy": "fedprox",
        "created": "2026-11-20T11:00:00+0000",
        "figures": {"test-accuracy": 89.0},
        "rounds": 9,
        "epsilon": None,
    },
    {"name": "c", "state": "unfinished"},
]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, "abc"),
        ({"strategy": "fedprox"}, "b"),
        ({"state": "finished"}, "ab"),
        ({"state": "pruned"}, "b"),
        ({"state": "unfinished"}, "c"),
        ({"since": "2h"}, "a"),
        ({"since": "59m"}, ""),
        ({"since": "2w"}, "ab"),
        ({"since": "2026-11-21T00:00:00+00:00"}, "a"),
        ({"forgotten": "3"}, "a"),
        ({"forgotten": "4"}, ""),
        ({"where": "accuracy > 90"}, "a"),
        ({"where": "test-accuracy<=91"}, "ab"),
        ({"where": "rounds = 9"}, "b"),
        ({"where": "accuracy>=91", "strategy": "fedavg"}, "a"),
        ({"where": "accuracy>91"}, ""),
    ],
)
def test_rows_that_are_wanted(wanted: dict[str, str], names: str) -> None:
    assert "".join(str(row["name"]) for row in RunFilter(**wanted).chosen(ROWS, NOW)) == names


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"state": "done"}, '--state: given "done", allowed finished, pruned, unfinished'),
        ({"since": "soon"}, '--since: given "soon", allowed a date'),
        ({"where": "accuracy"}, '--where: given "accuracy", allowed FIGURE > NUMBER'),
        ({"where": "accuracy > 1.2.3"}, "allowed FIGURE > NUMBER"),
    ],
)
def test_what_cannot_be_read_is_refused(wanted: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        RunFilter(**wanted)
    assert message in str(caught.value)


def test_a_figure_that_no_run_has_is_refused() -> None:
    with pytest.raises(BadInput, match="no run has it; they have accuracy, rounds, test-accuracy"):
        RunFilter(where="f1 > 1").chosen(ROWS, NOW)
    assert RunFilter(where="f1 > 1").chosen([], NOW) == []


def test_a_time_without_a_zone_is_local() -> None:
    assert since_when("2026-11-29T10:30").tzinfo is not None
