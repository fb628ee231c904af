"""Clients over a grid: who they are, and what they fail to."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.models.mask import unpack
from strategies.server.cohort import Cohort, Fault
from tests.strategies.fakes import (
    Answer,
    FakeGrid,
    adds,
    flat_record,
    node_answer,
    raises,
    spoiled,
    two_clients,
)


def connected(grid: FakeGrid, timeout: float = 0.2) -> Cohort:
    """Return a connected cohort that does not wait long."""
    cohort = Cohort(grid, timeout, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    return cohort


def question() -> RecordDict:
    """Return a train message's content."""
    return RecordDict({wire.ARRAYS: flat_record([0.0]), wire.CONFIG: ConfigRecord({})})


def claims(name: str, answer: Answer, kind: str = wire.TRAIN) -> Answer:
    """Return a client that claims a client-id in answers of one kind."""
    return spoiled(answer, lambda content: content[wire.CONFIG].__setitem__(wire.CLIENT_ID, name), kind)


def test_clients_are_bound_and_sorted() -> None:
    """By client-id, whatever the order of nodes."""
    nodes = {
        7: node_answer("10", 4, adds(0)),
        3: node_answer("hospital", 5, adds(0)),
        5: node_answer("9", 6, adds(0)),
    }
    clients = connected(FakeGrid(nodes)).clients
    assert list(clients) == ["9", "10", "hospital"]
    assert (clients["9"].node_id, clients["9"].num_examples, clients["9"].label_counts) == (5, 6, (6, 0))


def test_a_node_that_does_not_answer_at_first_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was still starting when the run began; the run waits for it as long as it waits for nodes."""
    monkeypatch.setattr("strategies.server.cohort._CLOCK_SECONDS", 0.0)
    answer, asked = node_answer("a", 1, adds(0)), []

    def slow(message: Message) -> Message | None:
        asked.append(message)
        return answer(message) if len(asked) == 3 else None

    cohort = Cohort(FakeGrid({1: slow}), timeout=0.02, poll_seconds=0.001)
    cohort.connect(wait_seconds=20)
    assert list(cohort.clients) == ["a"]
    assert [fault.reason for fault in cohort.faults] == ["no answer in 0.02 s"]


def test_two_nodes_with_one_client_id() -> None:
    """The first node, by number, keeps it; the other is refused and named."""
    grid = FakeGrid({1: node_answer("a", 1, adds(0)), 2: node_answer("a", 2, adds(0))})
    cohort = connected(grid)
    assert cohort.clients["a"].node_id == 1
    assert cohort.faults == [Fault("a", "connect", "node 2 claims a client-id that node 1 uses")]


def test_a_reply_that_claims_anothers_client_id_is_rejected() -> None:
    """The liar is named by its own id; the one it claims to be is heard."""
    nodes = two_clients()
    cohort = connected(FakeGrid(nodes | {2: claims("a", nodes[2])}))
    answered = [reply.client_id for reply in cohort.ask(wire.TRAIN, question(), scope="round 1")]
    assert answered == ["a"]
    assert cohort.faults == [Fault("b", "round 1", "claims client-id 'a', which is not its own")]


def test_a_reply_without_client_id_is_rejected() -> None:
    """Nobody knows whose it is."""
    nodes = two_clients()
    anonymous = spoiled(nodes[2], lambda content: content.__delitem__(wire.CONFIG))
    cohort = connected(FakeGrid(nodes | {2: anonymous}))
    assert [r.client_id for r in cohort.ask(wire.TRAIN, question())] == ["a"]
    assert "claims client-id 'None'" in cohort.faults[0].reason


def test_silence_errors_and_gone_nodes_are_faults() -> None:
    """Three clients fail in three ways, the fourth is heard, and the grid is told to stop waiting."""
    nodes = two_clients(c=node_answer("c", 2, adds(0)), d=node_answer("d", 2, adds(0)))
    grid = FakeGrid(dict(nodes))
    cohort = connected(grid)
    grid.answers[2] = raises
    grid.answers[3] = lambda message: None
    del grid.answers[4]
    assert [r.client_id for r in cohort.ask(wire.TRAIN, question(), scope="round 1")] == ["a"]
    reasons = {f.client_id: f.reason for f in cohort.faults}
    assert reasons == {
        "b": "error: ValueError: no data",
        "c": "no answer in 0.2 s",
        "d": "the message was not accepted: the node is gone",
    }
    assert len(grid.cancelled) == 1


def test_a_node_without_examples_is_refused_with_its_reason() -> None:
    """It is not a client, and the summary says why."""

    def empty(message: Message) -> Message:
        return wire.reply_to(
            message, "b", {wire.NUM_EXAMPLES: 0}, config={wire.DETAIL: "no such file: scans.npz"}
        )

    cohort = connected(FakeGrid(two_clients() | {2: empty}))
    assert list(cohort.clients) == ["a"]
    assert cohort.faults == [Fault("b", "connect", "no such file: scans.npz")]


def test_a_node_that_is_refused_always_has_a_reason() -> None:
    """Also where it says that there is none."""

    def empty(message: Message) -> Message:
        return wire.reply_to(message, "b", {wire.NUM_EXAMPLES: 0}, config={wire.DETAIL: ""})

    cohort = connected(FakeGrid(two_clients() | {2: empty}))
    assert cohort.faults == [Fault("b", "connect", "it has no examples")]


def test_a_client_of_fewer_examples_than_one_of_its_classes_is_refused() -> None:
    def describe(content: RecordDict) -> None:
        content.metric_records[wire.METRICS][wire.LABEL_COUNTS] = [0, 9]

    nodes = two_clients()
    cohort = connected(FakeGrid(nodes | {2: spoiled(nodes[2], describe, wire.DESCRIBE)}))
    assert list(cohort.clients) == ["a"]
    (fault,) = cohort.faults
    assert fault.reason.startswith("it says that it has ")
    assert fault.reason.endswith(" examples, and 9 of one class")


def test_what_a_node_says_of_itself_is_one_line_without_control_characters() -> None:
    def empty(message: Message) -> Message:
        detail = "gone\x1b[2J\x07" + "x" * 5000 + "\nsecond"
        return wire.reply_to(message, "b", {wire.NUM_EXAMPLES: 0}, config={wire.DETAIL: detail})

    (fault,) = connected(FakeGrid(two_clients() | {2: empty})).faults
    assert fault.reason.startswith("gone?[2J?xxx")
    assert len(fault.reason) == 1000


def test_a_client_that_reconnects_is_admitted_once_its_old_node_is_gone() -> None:
    """While that is listed nobody is asked again; the claim is a fault once."""
    grid = FakeGrid(two_clients())
    cohort = connected(grid)
    grid.answers[5] = grid.answers[1]
    cohort.refresh("round 1")
    asked = len(grid.sent)
    for number in range(2, 40):
        cohort.refresh(f"round {number}")
    assert len(grid.sent) == asked
    assert cohort.faults == [Fault("a", "round 1", "node 5 claims a client-id that node 1 uses")]
    del grid.answers[1]
    cohort.refresh("round 40")
    assert cohort.clients["a"].node_id == 5
    assert len(cohort.faults) == 1


def test_a_false_claim_is_refused_as_long_as_the_owner_is_there() -> None:
    """Also when the liar comes and goes."""
    grid = FakeGrid(two_clients())
    cohort = connected(grid)
    liar = node_answer("a", 9, adds(0))
    for number in range(1, 9):
        grid.answers = two_clients() | ({7: liar} if number % 2 else {})
        cohort.refresh(f"round {number}")
        assert cohort.clients["a"].node_id == 1


def test_a_client_whose_data_were_missing_is_asked_again_ever_more_rarely() -> None:
    """After 1, 2, 4, 8, 16, 16, … looks; it is admitted at the next of them once its data are there."""
    there: list[int] = []

    def late(message: Message) -> Message:
        metrics = {wire.NUM_EXAMPLES: 5 if there else 0}
        return wire.reply_to(message, "late", metrics, config={wire.DETAIL: "no such file: scans.npz"})

    grid = FakeGrid(two_clients() | {3: late})
    cohort = connected(grid)
    looks = []
    for number in range(1, 64):
        before = len(grid.sent)
        cohort.refresh(f"round {number}")
        looks += [number] * (len(grid.sent) - before)
    assert looks == [1, 3, 7, 15, 31, 47, 63]
    assert cohort.faults == [Fault("late", "connect", "no such file: scans.npz")]
    there.append(1)
    for number in range(64, 80):
        cohort.refresh(f"round {number}")
    assert cohort.clients["late"].num_examples == 5


def test_a_refused_node_that_does_not_answer_holds_up_nothing() -> None:
    """It is asked again, but not waited for: no look takes the time-out."""
    asked: list[Message] = []

    def hangs(message: Message) -> Message | None:
        asked.append(message)
        return wire.reply_to(message, "b", {wire.NUM_EXAMPLES: 0}) if len(asked) == 1 else None

    grid = FakeGrid(two_clients() | {2: hangs})
    cohort = Cohort(grid, timeout=1000.0, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    for number in range(1, 9):
        cohort.refresh(f"round {number}")
    assert len(asked) == 2  # The question stands


def test_a_partition_of_a_simulation_that_has_no_data_is_not_asked_again() -> None:
    def empty(message: Message) -> Message:
        return wire.reply_to(message, "2", {wire.NUM_EXAMPLES: 0}, config={wire.NUM_PARTITIONS: 2})

    grid = FakeGrid(two_clients() | {2: empty})
    cohort = connected(grid)
    asked = len(grid.sent)
    for number in range(1, 9):
        cohort.refresh(f"round {number}")
    assert len(grid.sent) == asked


def test_a_node_that_joins_later_is_asked() -> None:
    """`refresh` asks only the new one."""
    grid = FakeGrid(two_clients())
    cohort = connected(grid)
    grid.answers[9] = node_answer("z", 8, adds(0))
    before = len(grid.sent)
    cohort.refresh("round 2")
    assert list(cohort.clients) == ["a", "b", "z"]
    assert len(grid.sent) - before == 1


def test_a_client_that_comes_back_on_another_node_is_bound_anew() -> None:
    """Its old node is gone, so nobody else can be meant."""
    grid = FakeGrid(two_clients())
    cohort = connected(grid)
    grid.answers[5] = grid.answers.pop(1)
    cohort.refresh("round 2")
    assert cohort.clients["a"].node_id == 5
    assert cohort.faults == []


def test_replies_come_as_they_arrive() -> None:
    """In any order, one at a time: the consumer sees the first before the second was pulled."""
    grid = FakeGrid(two_clients(), shuffle=1)
    cohort = connected(grid)
    replies = cohort.ask(wire.TRAIN, question())
    next(replies)
    assert len(grid._replies) == 1
    assert len(list(replies)) == 1


def test_traffic_is_counted_both_ways() -> None:
    """One float32 down to each of two clients, one up from each, plus small records."""
    cohort = connected(FakeGrid(two_clients()))
    before = cohort.traffic.copy()
    list(cohort.ask(wire.TRAIN, question()))
    moved = cohort.traffic.since(before)
    assert moved.visits == 2
    assert moved.bytes_down == 2 * wire.records_bytes(question())
    assert moved.bytes_up >= 2 * 4


def test_a_view_leaves_clients_out_and_shares_the_rest() -> None:
    """Faults and traffic are those of the whole federation."""
    cohort = connected(FakeGrid(two_clients()))
    view = cohort.without(["a"])
    assert list(view.clients) == ["b"]
    assert list(cohort.clients) == ["a", "b"]
    view.add_fault("b", "x", "y")
    assert cohort.faults[-1] == Fault("b", "x", "y")


def test_settings_go_with_every_message() -> None:
    """What clients must know of the model is added to the config record and replaces nothing."""
    grid = FakeGrid(two_clients())
    cohort = connected(grid)
    cohort.client_config[wire.NUM_GROUPS] = 7
    content = question()
    content[wire.CONFIG]["x"] = 1
    list(cohort.ask(wire.TRAIN, content))
    assert dict(grid.sent[-1].content.config_records[wire.CONFIG]) == {"x": 1, wire.NUM_GROUPS: 7}


def test_a_mask_and_a_seed_go_with_every_message_of_a_view() -> None:
    """And of the views made of it; the cohort itself says nothing of them."""
    grid = FakeGrid(two_clients())
    cohort = connected(grid)
    mask = torch.tensor([True, False, True])
    view = cohort.masked(mask).seeded(7).without(["a"])
    assert view.mask is mask
    list(view.ask(wire.TRAIN, question()))
    config = grid.sent[-1].content.config_records[wire.CONFIG]
    assert isinstance(config[wire.MASK], bytes)
    assert unpack(config[wire.MASK], 3).equal(mask)
    assert config[wire.SEED] == 7
    assert cohort.mask is None
    assert not {wire.MASK, wire.SEED} & set(cohort.message_config)
    assert cohort.masked(None) is cohort


def test_unknown_client() -> None:
    """The known ones are listed."""
    with pytest.raises(BadInput, match="unknown client 'q'; known clients: a, b"):
        connected(FakeGrid(two_clients())).require(["a", "q"])


def test_too_few_clients() -> None:
    """It says how many there are, and why one is missing."""
    cohort = Cohort(FakeGrid(two_clients() | {2: raises}), 0.1, poll_seconds=0.001)
    with pytest.raises(
        LetheError, match=r"1 usable clients after [0-9.]+ s, needed 2 \(client node 2: error"
    ):
        cohort.connect(min_clients=2, wait_seconds=0.05)


class BlockingGrid(FakeGrid):
    """Has a first look for replies to a question take longer than anybody waits, as Flower's may."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand on nothing at first: one client's answer is incomplete, and the others are not there yet."""
        self.looks += 1
        if self.looks == 1:
            time.sleep(0.05)
            return []
        return super().pull_messages(message_ids)

    looks: int = 1


def test_who_answered_while_a_look_took_too_long_is_heard() -> None:
    """Flower waits minutes for the rest of a reply whose sender died; the other replies are there by then."""
    grid = BlockingGrid(two_clients())
    cohort = connected(grid)
    cohort.timeout, grid.looks = 0.02, 0
    assert [r.client_id for r in cohort.ask(wire.TRAIN, question())] == ["a", "b"]
    assert cohort.faults == []


def test_a_node_that_never_says_who_it_is_holds_up_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second refresh does not wait; the answer counts when it comes, with the question asked again."""
    monkeypatch.setattr("strategies.server.cohort._CLOCK_SECONDS", 0.2)
    grid = FakeGrid(two_clients() | {3: lambda message: None})
    cohort = Cohort(grid, timeout=0.2, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    began, looks = len(grid.sent), grid.looks
    cohort.refresh("round 2")
    assert grid.looks == looks + 1  # It does not wait
    assert len(grid.sent) == began  # The first question still holds
    assert [f.reason for f in cohort.faults] == ["no answer in 0.2 s"]
    time.sleep(0.4)
    cohort.refresh("round 3")
    assert [m.metadata.dst_node_id for m in grid.sent[began:]] == [3]
    assert list(cohort.clients) == ["a", "b"]
    grid.answers[3] = node_answer("c", 1, adds(0))
    time.sleep(0.4)
    cohort.refresh("round 4")
    cohort.refresh("round 5")
    assert list(cohort.clients) == ["a", "b", "c"]
    assert len(cohort.faults) == 1


@dataclass
class QueueGrid(FakeGrid):
    """One worker, which takes a message when the one before it is answered or given up, and a clock."""

    now: float = 0.0
    seconds: Mapping[int, float] = field(default_factory=dict)
    queue: list[Message] = field(default_factory=list)
    took: dict[str, float] = field(default_factory=dict)

    def begun(self, message_ids: Iterable[str]) -> dict[str, float]:
        """Return when the message at work was taken."""
        return {i: t for i, t in self._at_work().items() if i in set(message_ids)}

    def _at_work(self) -> dict[str, float]:
        self.queue = [m for m in self.queue if m.metadata.message_id not in self.cancelled]
        ids = [message.metadata.message_id for message in self.queue[:1]]
        return {i: self.took.setdefault(i, self.now) for i in ids}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Put messages in the queue."""
        listed = list(messages)
        self.queue += listed
        return list(super().push_messages(listed))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand on the reply to the message at work once its node has had its seconds."""
        for message_id, took in self._at_work().items():
            if self.now - took >= self.seconds.get(self.queue[0].metadata.dst_node_id, 0.0):
                del self.queue[0]
                return super().pull_messages([message_id])
        return []


def queued(seconds: Mapping[int, float], monkeypatch: pytest.MonkeyPatch) -> tuple[Cohort, QueueGrid]:
    """Return clients that take so many seconds, of which each has 10, by a clock that only sleep moves."""
    nodes = {number: node_answer(f"c{number}", 1, adds(0)) for number in (1, 2, 3, 4, 5)}
    grid = QueueGrid(nodes)
    cohort = Cohort(grid, timeout=10.0, poll_seconds=1.0)

    def sleep(pause: float) -> None:
        grid.now += pause

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: grid.now)
    cohort.connect(5)
    grid.seconds = seconds
    return cohort, grid


def test_on_a_queue_nobody_is_late_for_being_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times 9 s are 45; each has 10."""
    cohort, grid = queued(dict.fromkeys(range(1, 6), 9.0), monkeypatch)
    answered = [reply.client_id for reply in cohort.ask(wire.TRAIN, question())]
    assert answered == ["c1", "c2", "c3", "c4", "c5"]
    assert cohort.faults == []
    assert grid.now >= 45


def test_on_a_queue_who_hangs_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second takes for ever: it is given up, and the three behind it are served."""
    cohort, grid = queued({1: 3.0, 2: math.inf, 3: 9.0, 4: 3.0, 5: 3.0}, monkeypatch)
    answered = [reply.client_id for reply in cohort.ask(wire.TRAIN, question(), scope="round 1")]
    assert answered == ["c1", "c3", "c4", "c5"]
    assert cohort.faults == [Fault("c2", "round 1", "no answer in 10 s")]
    assert len(grid.cancelled) == 1


def test_on_a_queue_messages_do_not_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, grid = queued({}, monkeypatch)
    list(cohort.ask(wire.TRAIN, question()))
    assert all(message.metadata.ttl > 10_000 for message in grid.sent)


def test_an_answer_that_comes_late_counts() -> None:
    """It comes after the time it was waited for, but before the question is asked again."""
    questions: list[Message] = []
    grid = FakeGrid(two_clients() | {3: questions.append})
    cohort = Cohort(grid, timeout=0.2, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    (question,) = questions
    answer = node_answer("c", 1, adds(0))(question)
    assert answer is not None
    grid._replies[question.metadata.message_id] = answer
    cohort.refresh("round 1")
    assert list(cohort.clients) == ["a", "b", "c"]
    assert len(questions) == 1


def test_no_message_outlives_the_wait_for_its_answer() -> None:
    """A node that hung for an hour must not work through an hour of rounds that are over."""
    grid = FakeGrid(two_clients())
    cohort = connected(grid, timeout=0.2)
    list(cohort.ask(wire.TRAIN, question()))
    assert {message.metadata.ttl for message in grid.sent} == {10.2}


def test_a_client_id_is_kept_for_its_node_over_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Node 2 had it and is there, but slow: node 9, which claims it first, is refused, and 2 is heard."""
    monkeypatch.setattr("strategies.server.cohort._CLOCK_SECONDS", 0.0)
    answers: dict[int, Answer] = {9: node_answer("b", 1, adds(0)), 2: lambda message: None}
    grid = FakeGrid(answers)
    cohort = Cohort(grid, timeout=0.05, poll_seconds=0.001)
    cohort.recall({"b": 2})
    cohort.connect(0, wait_seconds=0.0)
    assert cohort.clients == {}
    assert [f.reason for f in cohort.faults if f.client_id == "b"] == [
        "node 9 claims a client-id that node 2 uses"
    ]
    grid.answers[2] = node_answer("b", 3, adds(0))
    time.sleep(0.06)
    cohort.refresh("round 1")
    cohort.refresh("round 1")
    assert cohort.nodes == {"b": 2}


def test_a_client_id_is_free_when_its_former_node_is_gone() -> None:
    cohort = Cohort(FakeGrid({9: node_answer("b", 1, adds(0))}), timeout=0.2, poll_seconds=0.001)
    cohort.recall({"b": 2})
    cohort.connect()
    assert cohort.nodes == {"b": 9}


def test_looks_become_rarer_the_longer_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the wait, from 0.02 s to half a second: 30,000 looks would keep a server busy."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    pauses: list[float] = []
    cohort = Cohort(grid := FakeGrid(two_clients()), timeout=600.0)
    cohort.connect()
    grid.answers = {1: lambda message: None, 2: lambda message: None}
    monkeypatch.setattr("strategies.server.cohort.time.sleep", sleep)
    monkeypatch.setattr("strategies.server.cohort.time.monotonic", lambda: now)
    assert list(cohort.ask(wire.TRAIN, question())) == []
    assert pauses[:100] == [0.02] * 100
    assert pauses == sorted(pauses)
    assert pauses[-1] == 0.5
    assert len(pauses) < 2000
    pauses.clear()
    Cohort(FakeGrid({1: lambda message: None}), timeout=600.0).refresh("round 1")
    assert pauses[-1] == 0.5
    assert len(pauses) < 2000
