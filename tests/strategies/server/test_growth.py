"""What the server does for each client costs the same however many clients there are."""

from collections.abc import Callable

import pytest
import torch

from strategies.fedavg import FedAvg
from strategies.server.aggregation import ExactSum, MetricMeans
from strategies.server.cohort import Cohort
from strategies.server.members import FederationMembers
from strategies.server.selection import ask_groups
from strategies.server.selection_methods import Known, LastKnownLoss
from strategies.server.settings import SelectionSettings
from tests.counting import CountedNumber, CountedText, check_growth, operations
from tests.strategies.fakes import FakeGrid, adds, node_answer


def test_a_quadratic_search_is_noticed() -> None:
    """Of n names, each is looked for in a list."""

    def search(size: int) -> Callable[[], object]:
        names = [CountedText(i) for i in range(size)]
        return lambda: [name for name in names if name in list(names)]

    with pytest.raises(AssertionError, match="grows"):
        check_growth(search)


def test_operations_are_counted() -> None:
    """Twice the work is about twice the operations."""
    single, double = (operations(lambda n=n: [str(i) for i in range(n)]) for n in (1000, 2000))
    assert 1.9 < double / single < 2.1


@pytest.mark.parametrize("method", ["uniform", "power-of-choice", "oort", "budgeted"])
@pytest.mark.parametrize(("speeds", "groups"), [("none", 1), ("none", 4), ("lognormal:1", 1)])
def test_selection(method: str, speeds: str, groups: int) -> None:
    """Half of the clients, some of them asked before, with over-selection and a deadline; or in groups."""
    clock = {} if speeds == "none" else {"deadline": 1.0}
    settings = SelectionSettings.model_validate(
        {"method": method, "fraction": 0.5, "over-selection": 1.2, "speeds": speeds, **clock}
    )

    def select(size: int) -> Callable[[], object]:
        sizes = {CountedText(i): CountedNumber(10 + i % 7) for i in range(size)}
        known = {i: Known(asked=1, last_round=1, loss=float(i)) for i in list(sizes)[: size // 2]}
        return lambda: ask_groups(sizes, known, settings, seed=0, server_round=2, groups=groups)

    check_growth(select)


def test_a_speed_is_drawn_once() -> None:
    """A second round with a clock draws none anew: less than half of the first one's work."""
    sizes = {f"drawn once {i}": 10 for i in range(200)}
    settings = SelectionSettings.model_validate({"fraction": 0.5, "speeds": "lognormal:1"})
    first, second = (
        operations(lambda number=number: ask_groups(sizes, {}, settings, 0, number, 1)) for number in (1, 2)
    )
    assert second < first / 2


def test_what_selection_remembers_of_clients() -> None:
    """Who was asked, what a checkpoint holds of it, and taking that up."""

    def remember(size: int) -> Callable[[], object]:
        names = [CountedText(i) for i in range(size)]

        def work() -> None:
            told, back = LastKnownLoss(FedAvg()), LastKnownLoss(FedAvg())
            told.asked(names)
            back.recall(told.memory())
            assert len(back.known) == size

        return work

    check_growth(remember)


def test_aggregation() -> None:
    """An exact sum and the means of the metrics."""

    def add(size: int) -> Callable[[], object]:
        delta = torch.ones(3)

        def work() -> None:
            total, means = ExactSum(3), MetricMeans()
            for i in range(size):
                total.add(delta, float(i + 1))
                means.add({"loss": float(i)}, float(i + 1))
            total.added_to(delta)
            means.means()

        return work

    check_growth(add)


def test_who_is_asked_again() -> None:
    """Refused nodes whose client-id another node has, as many as there are clients."""

    def ask(size: int) -> Callable[[], object]:
        members = FederationMembers()
        everybody = [CountedNumber(i) for i in range(1, 2 * size + 1)]
        for node in everybody[:size]:
            members.nodes[node] = f"c{node}"
        for node in everybody[size:]:
            members.refuse(node, "taken", owner=everybody[node - size - 1])
        return lambda: members.due(everybody)

    check_growth(ask)


def test_names_that_are_required() -> None:
    """All clients are named."""

    def require(size: int) -> Callable[[], object]:
        cohort = _connected(size)
        names = [CountedText(i) for i in cohort.clients]
        return lambda: cohort.require(names)

    check_growth(require)


def test_what_is_known_of_each_client() -> None:
    """The clients are listed once, not for each question about one of them."""
    cohort = _connected(20)
    assert cohort.clients is cohort.clients
    without = cohort.without(["c3"])
    assert "c3" not in without.clients
    assert "c3" in cohort.clients

    def look(size: int) -> Callable[[], object]:
        many = _connected(size)
        return lambda: [many.clients[f"c{i}"].num_examples for i in range(1, size + 1)]

    check_growth(look)


def test_a_client_that_comes_later_is_listed() -> None:
    """The list of clients is made anew when one is entered."""
    cohort = _connected(2)
    assert list(cohort.clients) == ["c1", "c2"]
    assert isinstance(cohort.grid, FakeGrid)
    cohort.grid.answers[3] = node_answer("c3", 3, adds(0.0))
    cohort.refresh("round 1")
    assert list(cohort.clients) == ["c1", "c2", "c3"]


def _connected(size: int) -> Cohort:
    grid = FakeGrid({i: node_answer(f"c{i}", 3, adds(0.0)) for i in range(1, size + 1)})
    cohort = Cohort(grid, poll_seconds=0.0)
    cohort.connect()
    return cohort
