"""unlearning/attendance.py: which clients failed, and what that means for the result."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from strategies.server.cohort import Fault
from unlearning.attendance import Attendance


def attended(turns: dict[str, int], faults: dict[str, int], connected: str = "1234") -> Attendance:
    """Return the attendance after some turns and faults, with other ones before it began."""
    cohort: Any = SimpleNamespace(
        clients=dict.fromkeys(connected), faults=[Fault("1", "train", "before")], turns=Counter({"1": 7})
    )
    found = Attendance(cohort)
    cohort.turns.update(turns)
    for client_id, count in faults.items():
        cohort.faults += [Fault(client_id, f"round {n}", f"reason {n}") for n in range(count)]
    return found


def test_who_failed_when_and_why() -> None:
    """4 is fine, 3 failed now and then, 2 always, and 1, of the request, once."""
    found = attended({"1": 5, "2": 2, "3": 4, "4": 4}, {"1": 1, "2": 2, "3": 2})
    assert found.warnings(["1"]) == [
        "client 1, of the request, failed in 1 of 5 visits (reason 0): what only it could do to have the "
        "data forgotten may not have been done",
        "client 2 failed in 2 of 2 visits (reason 0): no answer of it is in the result",
    ]
    assert found.notes(["1"]) == ["client 3 failed in 2 of 4 visits: reason 0"]
    assert found.notes([], ["client 3 was left out"]) == ["client 1 failed in 1 of 5 visits: reason 0"]


def test_nothing_failed() -> None:
    found = attended({"1": 5}, {})
    assert found.warnings(["1"]) == found.notes(["1"]) == []


@pytest.mark.parametrize("connected", ["1", "13"])
def test_a_client_that_was_not_asked_at_all(connected: str) -> None:
    """Left out by the method, which says so itself, or with a turn that it lost."""
    warnings = attended({}, {"3": 2}, connected).warnings([])
    expected = ["client 3 failed in 2 of 2 visits (reason 0): no answer of it is in the result"]
    assert warnings == (expected if "3" in connected else [])
