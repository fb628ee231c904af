"""Groups of messages: which ones they are, and that each client in one is as if it were alone."""

from collections.abc import Iterator

import pytest
import torch
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from app.simulation import LocalGrid
from app.simulation.grid import take_identity
from app.simulation.grouping import Grouping
from app.simulation.jobs import Job, JobQueue, Parcel
from app.simulation.progress import Progress
from strategies.core import wire
from strategies.core.shared_memory import SharedMemory
from strategies.server.cohort import Cohort, Fault
from tests.app.simulation.helpers import CLIENTS, STATE, ask, model, received


@pytest.fixture
def grouped(lone: LocalGrid) -> Iterator[LocalGrid]:
    lone.grouping = Grouping(4)
    yield lone
    lone.grouping = Grouping()


def jobs(*nodes: int, kind: str = "train", size: int = 7) -> list[Job]:
    take_identity()
    content = RecordDict({"arrays": wire.record_of({"w": torch.zeros(size)})})
    messages = [Message(content, node, kind) for node in nodes]
    return [Job(message, Parcel(message)) for message in messages]


def sizes(grouping: Grouping, given: list[Job]) -> list[int]:
    return [len(group) for group in grouping.groups(given)]


def test_groups_by_hand() -> None:
    """Runs of one type of training, without a node twice, cut into pieces; all else is by itself."""
    assert sizes(Grouping(), jobs(1, 2, 3)) == [1, 1, 1]
    assert sizes(Grouping(2), jobs(1, 2, 3)) == [2, 1]
    assert sizes(Grouping(9), jobs(1, 2, 1, 3)) == [2, 2]
    assert sizes(Grouping(9), jobs(1, 2) + jobs(3, 4, kind="train.federaser")) == [2, 2]
    assert sizes(Grouping(9), jobs(1, 2, kind="query.describe")) == [1, 1]
    assert sizes(Grouping(9, most_bytes=3 * 28), jobs(1, 2, 3, 4, 5)) == [3, 2]
    assert sizes(Grouping(9, most_bytes=5), jobs(1, 2)) == [1, 1]
    assert sizes(Grouping(9, where_faster=True), jobs(*range(1, 18))) == [3] * 5 + [2]
    assert [j.node_id for group in Grouping(2).groups(jobs(5, 3, 4)) for j in group] == [5, 3, 4]


def reasons(grouping: Grouping, given: list[Job]) -> list[str]:
    grouping.groups(given)
    return [job.alone for job in given]


def test_a_training_by_itself_is_told_why() -> None:
    few = "8 clients or fewer in a round are a group each, so that all workers have work"
    assert reasons(Grouping(9, where_faster=True), jobs(*range(1, 9))) == [few] * 8
    left = "no other client was left for its group"
    assert reasons(Grouping(9, where_faster=True), jobs(*range(1, 10))) == [""] * 8 + [left]
    assert reasons(Grouping(9), jobs(1)) == ["no other client was asked with it"]
    large = "two models as large as this one are too many for a group"
    assert reasons(Grouping(9, most_bytes=28), jobs(1, 2)) == [large] * 2
    assert reasons(Grouping(9, most_bytes=56), jobs(1, 2)) == ["", ""]
    assert reasons(Grouping(9, where_faster=True), jobs(1, 2, kind="query.describe")) == ["", ""]
    assert reasons(Grouping(), jobs(1, 2)) == ["", ""]


def test_what_the_key_names() -> None:
    assert Grouping.of("off", "cpu") == Grouping()
    assert Grouping.of("16", "cuda") == Grouping(16)
    assert Grouping.of("auto", "cpu").where_faster
    assert Grouping.of("auto", "cuda").most_bytes > Grouping.of("auto", "cpu").most_bytes
    assert Grouping.of("auto", "cuda", 2**37).most_bytes == 2 * Grouping.of("auto", "cuda", 2**36).most_bytes
    assert Grouping.of("auto", "cuda", 2**36).most_bytes == 2**31  # A thirty-second part of 64 GiB


def test_a_group_waits_for_all_its_nodes_and_nobody_overtakes_it() -> None:
    queue, (a, b, c, d) = JobQueue(), jobs(1, 1, 2, 2)
    for group in ((a,), (b, c), (d,)):
        queue.append(group)
    assert queue.take() == (a,)
    assert queue.take() is None  # Of d, too, though node 2 is free: c came first
    queue.end(a)
    assert queue.take() == (b, c)
    queue.end(b)
    assert queue.take() is None
    queue.end(c)
    assert queue.take() == (d,)


def test_abandoned_jobs_leave_their_group() -> None:
    queue, (a, b) = JobQueue(), jobs(1, 2)
    queue.append((a, b))
    a.abandoned = True
    assert queue.take() == (b,)
    b.abandoned = True
    queue.put_back([(b,)])
    assert (queue.take(), len(queue)) == (None, 0)


def test_turns_are_seen_from_outside() -> None:
    memory = SharedMemory.create()
    mine, parents = Progress(memory), Progress(memory)
    mine.note(3)
    assert parents.read().number == 3
    mine.note(None)
    first = parents.read()
    assert first.number is None
    mine.note(0)
    second = parents.read()
    assert (second.number, second.began >= first.began) == (0, True)
    memory.close()


def test_groups_change_no_reply(grouped: LocalGrid) -> None:
    for number, reply in enumerate(ask(grouped, "train", model())):
        expected = {n: t + number for n, t in STATE.items()}
        torch.testing.assert_close(received(reply), expected, rtol=0, atol=0)
        assert reply.content.metric_records["metrics"]["num-examples"] == number + 1
    (mixed,) = ask(grouped, "train.mixed", nodes=[2])
    beside = ask(grouped, "train.mixed")
    assert all(list(reply.content) == list(mixed.content) for reply in beside)


def test_a_client_that_writes_into_the_model_harms_nobody_beside_it(grouped: LocalGrid) -> None:
    content = model()
    for reply in ask(grouped, "train.overwrite", content):
        torch.testing.assert_close(received(reply), {n: t + 1 for n, t in STATE.items()}, rtol=0, atol=0)


def test_states_and_faults_are_each_clients_own(grouped: LocalGrid) -> None:
    for visits in (1, 2):
        replies = ask(grouped, "train.count")
        assert [reply.has_error() for reply in replies] == [False, True, False, False, False, False]
        assert "boom" in str(replies[1].error.reason)
        counted = {r.content.metric_records["metrics"]["visits"] for r in replies if not r.has_error()}
        assert counted == {visits}
    assert list(grouped.client_states()) == [1, 3, 4, 5, 6]
    ask(grouped, "query.forget")


def test_who_kills_the_worker_of_a_group_is_found(grouped: LocalGrid) -> None:
    """Each client of the group is asked anew by itself."""
    replies = ask(grouped, "train.killed")
    assert [reply.has_error() for reply in replies] == [True] + [False] * (CLIENTS - 1)
    assert replies[0].error.code == ErrorCode.CLIENT_APP_CRASHED


def test_who_hangs_in_a_group_is_lost_and_nobody_else(grouped: LocalGrid) -> None:
    """Each has its own time, from its turn on: four naps in a group are longer than that."""
    cohort = Cohort(grouped, timeout=1.0)
    asked = [Message(RecordDict(), node, "train.nap") for node in grouped.get_node_ids()]
    answered = sorted(reply.client_id for reply in cohort.exchange(asked, "round 1"))
    assert answered == [f"c{i}" for i in range(1, CLIENTS)]
    assert cohort.faults == [Fault("node 1", "round 1", "no answer in 1 s")]


def test_a_group_that_nobody_waits_for_ends(grouped: LocalGrid) -> None:
    ids = grouped.push_messages([Message(RecordDict(), node, "train.nap") for node in (1, 2, 3)])
    assert grouped.pull_messages(ids) == []
    grouped.cancel(ids)
    assert len(ask(grouped, "train", model())) == CLIENTS
    assert grouped.begun(ids) == {}
