"""Works on copies of a federation: each as if it were alone, their messages together."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from flwr.app import Message
from flwr.serverapp import Grid

from app.simulation import LocalGrid
from app.simulation.copies import on_copies
from app.simulation.grouping import Grouping
from app.simulation.launch import partition_configs
from strategies.core.errors import LetheError
from strategies.server.cohort import Cohort
from strategies.server.grids import QueueingGrid, StartedGrid, StatefulGrid
from tests.app.simulation.helpers import APP, ask, messages

CLIENTS, COPIES = 2, 3


@pytest.fixture(scope="module")
def copied() -> Iterator[LocalGrid]:
    """Three copies of two clients, with one worker."""
    nodes = partition_configs(CLIENTS) * COPIES
    with LocalGrid(APP, {"name": "test"}, node_configs=nodes, workers=1) as started:
        yield started


def visits(replies: list[Message]) -> list[int]:
    return [int(reply.content.metric_records["metrics"]["visits"]) for reply in replies]


def counting(rounds: int, grid: Grid) -> list[list[int]]:
    return [visits(ask(grid, "query.count")) for _ in range(rounds)]  # type: ignore[arg-type]


def test_each_copy_has_its_own_clients_with_states_of_their_own(copied: LocalGrid) -> None:
    """Of different lengths, and each sees nodes 1 and 2; what clients kept before is forgotten."""
    for _ in range(2):
        found = on_copies(copied, CLIENTS, [partial(counting, rounds) for rounds in (3, 1, 2)])
        assert found == [[[1, 1], [2, 2], [3, 3]], [[1, 1]], [[1, 1], [2, 2]]]


def test_a_copy_s_client_is_told_what_the_client_is_told_and_answers_from_its_node(copied: LocalGrid) -> None:
    def work(grid: Grid) -> list[tuple[int, object]]:
        replies = ask(grid, "query.context")  # type: ignore[arg-type]
        told = [reply.content.config_records["config"]["partition-id"] for reply in replies]
        return [(reply.metadata.src_node_id, own) for reply, own in zip(replies, told, strict=True)]

    assert on_copies(copied, CLIENTS, [work] * COPIES) == [[(1, 0), (2, 1)]] * COPIES


def test_states_are_read_and_restored_by_copy(copied: LocalGrid) -> None:
    def work(number: int, grid: Grid) -> tuple[set[int], list[int]]:
        assert isinstance(grid, StatefulGrid)
        assert isinstance(grid, QueueingGrid)
        assert isinstance(grid, StartedGrid)
        counting(number, grid)
        kept = grid.client_states()
        counting(1, grid)
        grid.restore_client_states(kept)
        return set(kept), counting(1, grid)[0]

    found = on_copies(copied, CLIENTS, [partial(work, number) for number in range(COPIES)])
    assert found == [(set(), [1, 1]), ({1, 2}, [2, 2]), ({1, 2}, [3, 3])]


def test_messages_of_all_copies_that_wait_are_handed_on_together(
    copied: LocalGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds of two messages each; the second copy has one round more, alone with its clients."""
    grouped: list[int] = []
    groups = Grouping.groups

    def counted(self: Grouping, jobs: list[object]) -> object:
        grouped.append(len(jobs))
        return groups(self, jobs)  # type: ignore[arg-type]

    monkeypatch.setattr(Grouping, "groups", counted)
    monkeypatch.setattr(copied, "grouping", Grouping(4))
    on_copies(copied, CLIENTS, [partial(counting, rounds) for rounds in (2, 3, 2)])
    assert [each for each in grouped if each] == [6, 6, 2]


def test_a_node_that_the_copy_has_not_is_not_another_copy_s(copied: LocalGrid) -> None:
    def work(grid: Grid) -> list[bool]:
        return [reply.has_error() for reply in ask(grid, "query.count", nodes=[1, 3])]  # type: ignore[arg-type]

    assert on_copies(copied, CLIENTS, [work] * 2) == [[False, True]] * 2


def test_the_first_failure_is_raised_and_the_others_end_where_they_are(copied: LocalGrid) -> None:
    ended: list[str] = []

    def failing(grid: Grid) -> list[list[int]]:
        counting(1, grid)
        raise LetheError("no more")

    def cleaning_up(grid: Grid) -> list[list[int]]:
        try:
            return counting(100, grid)
        finally:
            ended.append("cleaned up")

    works: list[Callable[[Grid], list[list[int]]]] = [cleaning_up, failing, cleaning_up]
    with pytest.raises(LetheError, match="no more"):
        on_copies(copied, CLIENTS, works)
    assert ended == ["cleaned up"] * 2
    assert on_copies(copied, CLIENTS, [partial(counting, 1)]) == [[[1, 1]]]


def test_a_client_whose_time_is_up_holds_up_neither_its_copy_nor_the_others(
    copied: LocalGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client 0 of the first copy hangs; its message is given up after a second."""
    monkeypatch.setattr("app.simulation.copies._LOOK_SECONDS", 0.2)

    def hanging(grid: Grid) -> list[str]:
        cohort = Cohort(grid, timeout=1.0)
        cohort.connect(CLIENTS)
        return [reply.client_id for reply in cohort.exchange(messages(grid, "query.sleep"), "s")]  # type: ignore[arg-type]

    def quick(grid: Grid) -> list[str]:
        return [str(n) for n in visits(ask(grid, "query.count"))]  # type: ignore[arg-type]

    assert on_copies(copied, CLIENTS, [hanging, quick])[1] == ["1", "1"]
