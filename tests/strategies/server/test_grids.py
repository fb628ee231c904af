"""Grids around Flower's, over one whose replies are whole at once, later, or never."""

import threading
import time
from collections.abc import Callable, Iterable

import httpx
import pytest
from flwr.app import Message, RecordDict

from strategies.core import wire
from strategies.server.cohort import Cohort
from strategies.server.grids import SteadyGrid
from tests.strategies.fakes import Answer, FakeGrid, adds, node_answer

PATIENCE = 0.02


class Broken(FakeGrid):
    """As Flower's: hands out all replies that are there, once each is whole; some never are."""

    def __init__(self, answers: dict[int, Answer], unfinished: Iterable[int] = ()) -> None:
        super().__init__(answers)
        self.unfinished = set(unfinished)
        self.finish = threading.Event()
        self.calls: list[list[str]] = []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Wait for the rest of a reply that has broken off, and keep all others that long."""
        ids = list(message_ids)
        self.calls.append(ids)
        found = [self._replies.pop(i) for i in ids if i in self._replies]
        if any(m.metadata.src_node_id in self.unfinished for m in found):
            assert self.finish.wait(30)
        return found


def federation(count: int, unfinished: Iterable[int] = ()) -> Broken:
    return Broken({n: node_answer(f"c{n}", 1, adds(1.0)) for n in range(1, count + 1)}, unfinished)


def ask(grid: SteadyGrid, nodes: Iterable[int]) -> list[str]:
    messages = [Message(RecordDict(), node, wire.DESCRIBE) for node in nodes]
    return list(grid.push_messages(messages))


def pulled(grid: SteadyGrid, ids: list[str], until: Callable[[list[Message]], bool]) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + 900
    while not until(found):
        assert time.monotonic() < deadline
        found += grid.pull_messages(ids)
    return found


def test_a_reply_that_breaks_off_holds_up_no_other() -> None:
    """Of three, the first is never whole: the others are handed out, and it is, once it is whole."""
    behind = federation(3, unfinished=[1])
    grid = SteadyGrid(behind, PATIENCE)
    ids = ask(grid, [1, 2, 3])
    others = pulled(grid, ids, lambda found: len(found) == 2)
    assert [m.metadata.src_node_id for m in others] == [2, 3]
    assert grid.pull_messages(ids) == []
    behind.finish.set()
    (last,) = pulled(grid, ids, lambda found: len(found) == 1)
    assert last.metadata.src_node_id == 1


def test_the_grid_behind_it_would_have_held_them_up() -> None:
    behind = federation(3, unfinished=[1])
    ids = ask(SteadyGrid(behind), [1, 2, 3])
    thread = threading.Thread(target=behind.pull_messages, args=(ids,), daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    behind.finish.set()


def test_each_call_fetches_one_reply_and_all_get_their_turn() -> None:
    """Of 100 nodes of which only the last answers, nobody is looked at twice before all were once."""
    nodes: dict[int, Answer] = {n: (lambda message: None) for n in range(1, 100)}
    behind = Broken(nodes | {100: node_answer("last", 1, adds(1.0))})
    grid = SteadyGrid(behind, PATIENCE)
    ids = ask(grid, range(1, 101))
    (reply,) = pulled(grid, ids, lambda found: len(found) == 1)
    assert reply.metadata.src_node_id == 100
    assert all(len(call) == 1 for call in behind.calls)
    looked = [call[0] for call in behind.calls]
    assert len(set(looked[:100])) == 100


def test_what_nobody_waits_for_is_thrown_away() -> None:
    """A reply that becomes whole after its message was given up is not kept, and another is heard."""
    behind = federation(2, unfinished=[1])
    grid = SteadyGrid(behind, PATIENCE)
    ids = ask(grid, [1, 2])
    assert grid.pull_messages(ids[:1]) == []
    grid.cancel(ids[:1])
    behind.finish.set()
    pulled(grid, ids[1:], lambda found: len(found) == 1)
    deadline = time.monotonic() + 900
    while grid._under_way:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not grid._arrived
    assert not grid._abandoned
    assert not grid._looked


def test_many_broken_replies_are_not_fetched_all_at_once() -> None:
    """Of forty that break off, sixteen at most are waited for at a time."""
    behind = federation(40, unfinished=range(1, 41))
    grid = SteadyGrid(behind, 0.001)
    ids = ask(grid, range(1, 41))
    for _ in range(30):
        assert grid.pull_messages(ids) == []
    assert len(behind.calls) == 16
    behind.finish.set()
    assert len(pulled(grid, ids, lambda found: len(found) == 40)) == 40


def test_an_error_of_the_grid_behind_it_is_raised() -> None:
    """By the next look, for whoever asks: the server is gone, and the run must end with that."""

    class Gone(Broken):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            raise ConnectionError("the SuperLink is gone")

    grid = SteadyGrid(Gone({1: node_answer("a", 1, adds(1.0))}), PATIENCE)
    ids = ask(grid, [1])
    with pytest.raises(ConnectionError, match="the SuperLink is gone"):
        pulled(grid, ids, bool)


@pytest.mark.parametrize("error", [ValueError("no JSON"), AttributeError("'NoneType'"), RecursionError()])
def test_a_reply_that_flower_cannot_read_is_its_sender_s_fault(error: Exception) -> None:
    """Flower decodes a reply before anybody can look at it; what it stumbles over must not end the run."""

    class Stumbling(Broken):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            found = super().pull_messages(message_ids)
            if any(message.metadata.src_node_id == 2 for message in found) and self.stumbles:
                raise error
            return found

        stumbles = False

    behind = Stumbling(federation(3).answers)
    cohort = Cohort(SteadyGrid(behind, PATIENCE), timeout=900.0, poll_seconds=0.001)
    cohort.connect(3)
    behind.stumbles = True
    heard = sorted(reply.client_id for reply in cohort.ask(wire.EVALUATE, RecordDict(), scope="round 1"))
    assert heard == ["c1", "c3"]
    (fault,) = cohort.faults
    assert fault.client_id == "c2"
    assert f"the reply cannot be read: {type(error).__name__}" in fault.reason


class Busy(FakeGrid):
    """Answers every call twice with an error of HTTP before it does what it is asked."""

    status = 500
    refusals = 0

    def refuse(self) -> None:
        """Raise, twice of three times."""
        self.refusals += 1
        if self.refusals % 3:
            response = httpx.Response(self.status, request=httpx.Request("POST", "https://superlink"))
            response.raise_for_status()

    def get_node_ids(self) -> Iterable[int]:
        self.refuse()
        return super().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.refuse()
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.refuse()
        return super().pull_messages(message_ids)


def test_a_server_that_has_an_error_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database is locked for a moment: nothing is lost, and no message is sent twice."""
    monkeypatch.setattr("strategies.server.grids._RETRY_PAUSE", 0.0)
    busy = Busy({n: node_answer(f"c{n}", 1, adds(1.0)) for n in (1, 2)})
    cohort = Cohort(SteadyGrid(busy), timeout=900.0, poll_seconds=0.001)
    cohort.connect(2)
    assert list(cohort.clients) == ["c1", "c2"]
    assert cohort.faults == []
    assert len(busy.sent) == 2


def test_a_call_that_is_refused_or_fails_for_long_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the run is over (403) or the server stays broken ends the run."""
    busy = Busy({1: node_answer("c1", 1, adds(1.0))})
    busy.status = 403
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        SteadyGrid(busy).get_node_ids()
    assert busy.refusals == 1
    busy.status = 500
    busy.refusals = 0
    monkeypatch.setattr("strategies.server.grids._RETRY_SECONDS", -1.0)
    with pytest.raises(httpx.HTTPStatusError, match="500"):
        SteadyGrid(busy).get_node_ids()
    assert busy.refusals == 1


def test_a_round_ends_in_time_whatever_breaks_off() -> None:
    """The cohort hears two of three and names the third."""
    behind = federation(3)
    cohort = Cohort(SteadyGrid(behind, PATIENCE), timeout=0.5, poll_seconds=0.001)
    cohort.connect(3)
    behind.unfinished = {2}
    heard = sorted(reply.client_id for reply in cohort.ask(wire.EVALUATE, RecordDict(), scope="round 1"))
    assert heard == ["c1", "c3"]
    assert [(f.client_id, f.reason) for f in cohort.faults] == [("c2", "no answer in 0.5 s")]
    behind.finish.set()


def descriptions(nodes: Iterable[int]) -> list[Message]:
    return [Message(RecordDict(), node, wire.DESCRIBE) for node in nodes]


def test_send_and_receive_returns_the_replies_in_the_order_of_the_messages() -> None:
    """One reply arrives per look, in another order; node 9, which is not there, gives none."""
    grid = FakeGrid({n: node_answer(f"c{n}", 1, adds(1.0)) for n in (1, 2, 3)}, shuffle=1)
    replies = grid.send_and_receive(descriptions([3, 9, 1, 2]))
    assert [reply.metadata.src_node_id for reply in replies] == [3, 1, 2]


def test_send_and_receive_cancels_what_has_not_come_in_time() -> None:
    grid = FakeGrid({1: node_answer("c1", 1, adds(1.0)), 2: lambda message: None})
    replies = grid.send_and_receive(descriptions([1, 2]), timeout=0.1)
    assert [reply.metadata.src_node_id for reply in replies] == [1]
    assert grid.cancelled == ["2"]
