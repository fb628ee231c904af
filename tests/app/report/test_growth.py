"""A report of many clients takes as long per client as one of few: operations are counted."""

from collections.abc import Callable

import numpy as np

from app.report.heat_map import HeatMap
from app.report.reading import Contributions
from tests.counting import CountedText, check_growth


def test_each_clients_part_of_the_updates() -> None:
    """Its rounds, its sum, and the sum of all are asked for each client."""

    def prepare(size: int) -> Callable[[], object]:
        clients = tuple(CountedText(i) for i in range(size))
        lengths = {(i, t): float(t) for i in clients for t in (1, 2)}
        found = Contributions(clients, (1, 2), lengths, True)
        return lambda: [(found.total(i), found.num_rounds(i), found.whole) for i in clients]

    check_growth(prepare)
    found = Contributions(("a", "b"), (1, 2), {("a", 1): 0.5, ("b", 1): 1.0, ("a", 2): 0.25}, True)
    assert [(found.total(i), found.num_rounds(i)) for i in ("a", "b", "c")] == [(0.75, 2), (1.0, 1), (0, 0)]
    assert found.whole == 1.75


def test_the_sums_of_a_heat_map_are_taken_once() -> None:
    """Every row asks for them."""
    found = HeatMap("t", np.array([[1.0, np.nan], [2.0, 3.0]]), ["a", "b"], ["1", "2"], "x", "y", str)
    assert found.sums.tolist() == [1.0, 5.0]
    assert found.sums is found.sums
