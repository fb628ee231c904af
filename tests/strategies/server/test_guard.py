"""What the guard lets through."""

import math
from collections.abc import Callable

import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp.client_app import ClientAppException

from strategies.core import layout as layouts, wire
from strategies.server.guard import (
    CheckedReply,
    Reference,
    Rejected,
    check_reply,
    checked,
    error_line,
    first_line,
)
from tests.strategies.fakes import FakeGrid, adds, flat_record, node_answer, raises

REFERENCE = Reference.of(flat_record([1.0, 2.0]))


def reply(spoil: Callable[[RecordDict], None] | None = None) -> Message:
    """Return node 1's reply to the model (1, 2): it adds 3 to each entry, with 5 examples."""
    FakeGrid({})
    content = RecordDict({wire.ARRAYS: flat_record([1.0, 2.0])})
    answer = node_answer("a", 5, adds(3.0))(Message(content, 1, wire.TRAIN))
    assert answer is not None
    if spoil is not None:
        spoil(answer.content)
    return answer


def test_a_good_reply_worked_by_hand() -> None:
    """(4, 5) − (1, 2) = (3, 3), norm √18, weight 5; the metrics keep what is not the weight."""
    update = check_reply(reply(), REFERENCE)
    assert update.delta.tolist() == [3.0, 3.0]
    assert update.norm == pytest.approx(math.sqrt(18))
    assert (update.client_id, update.node_id, update.num_examples) == ("a", 1, 5)
    assert update.metrics == {wire.TRAIN_LOSS: 5.0}


def with_arrays(record: ArrayRecord) -> Callable[[RecordDict], None]:
    """Return a change of the arrays."""
    return lambda content: content.__setitem__(wire.ARRAYS, record)


def with_examples(value: float | list[int]) -> Callable[[RecordDict], None]:
    """Return a change of the number of examples."""
    return lambda content: content[wire.METRICS].__setitem__(wire.NUM_EXAMPLES, value)


def named(**arrays: torch.Tensor) -> ArrayRecord:
    """Return a record that serialises its arrays."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in arrays.items()})


BAD: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "nan": (with_arrays(flat_record([math.nan, 0.0])), "NaN in the parameters"),
    "inf": (with_arrays(flat_record([math.inf, 0.0])), "Inf in the parameters"),
    "both infinities": (with_arrays(flat_record([math.inf, -math.inf])), "Inf in the parameters"),
    "diverged": (with_arrays(flat_record([5000.0, 0.0])), "beyond ±1024: the client diverged"),
    "shape": (with_arrays(named(w=torch.zeros(3))), r"wrong shape: w is \(3,\), expected \(2,\)"),
    "name": (with_arrays(named(v=torch.zeros(2))), r"wrong keys: missing \['w'\], unexpected \['v'\]"),
    "extra entry": (with_arrays(named(w=torch.zeros(2), v=torch.zeros(1))), r"unexpected \['v'\]"),
    "extra record": (lambda c: c.__setitem__("more", flat_record([1.0])), r"got \['arrays', 'more'\]"),
    "no arrays": (lambda c: c.__delitem__(wire.ARRAYS), r"got \[\]"),
    "no metrics": (lambda c: c.__delitem__(wire.METRICS), "expected one metric record"),
    "two metric records": (
        lambda c: c.__setitem__("more", MetricRecord({"a": 1})),
        "expected one metric record",
    ),
    "no examples": (lambda c: c[wire.METRICS].__delitem__(wire.NUM_EXAMPLES), "num-examples is missing"),
    "zero examples": (with_examples(0), "num-examples is 0, expected a positive whole number"),
    "negative examples": (with_examples(-4), "num-examples is -4"),
    "half an example": (with_examples(2.5), "num-examples is 2.5"),
    "infinite examples": (with_examples(math.inf), "num-examples is inf"),
    "list of examples": (with_examples([1, 2]), "num-examples is a list"),
    "more than described": (with_examples(50), "num-examples is 50, at most 5 by what the client described"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_replies_are_rejected(case: str) -> None:
    """Each with its reason."""
    spoil, reason = BAD[case]
    with pytest.raises(Rejected, match=reason):
        check_reply(reply(spoil), REFERENCE, max_examples=5)


def test_a_change_of_a_pruned_weight_is_rejected() -> None:
    """The client adds 3 to each entry; where the second is pruned, it has ignored its mask."""
    arrays = flat_record([1.0, 2.0])
    everything, first = torch.tensor([True, True]), torch.tensor([True, False])
    assert check_reply(reply(), Reference.of(arrays, everything)).delta.tolist() == [3.0, 3.0]
    with pytest.raises(Rejected, match="pruned weights were changed"):
        check_reply(reply(), Reference.of(arrays, first))


def test_an_array_that_is_not_numpy_is_rejected() -> None:
    """Damaged bytes do not reach the average."""
    record = ArrayRecord({"w": Array("float32", (2,), "numpy.ndarray", b"damaged")})
    with pytest.raises(Rejected):
        check_reply(reply(with_arrays(record)), REFERENCE)


def test_an_error_is_rejected_with_its_first_line() -> None:
    """No traceback in the summary."""
    FakeGrid({})
    error = raises(Message(RecordDict(), 1, wire.TRAIN))
    with pytest.raises(Rejected, match=r"^error: ValueError: no data$"):
        check_reply(error, REFERENCE)


def test_a_large_but_finite_norm_passes() -> None:
    """Entries of 1000 are within the bound; their norm is computed without overflow."""
    reference = Reference.of(flat_record([0.0] * 100))
    update = check_reply(reply(with_arrays(flat_record([1000.0] * 100))), reference)
    assert update.norm == pytest.approx(1000.0 * 10)


def test_the_rest_goes_on() -> None:
    """A bad reply between two good ones: both pass, in their order, and the bad one is told."""
    rejected: list[str] = []
    replies = [reply(), reply(BAD["nan"][0]), reply()]
    passed = list(checked(replies, REFERENCE, lambda message, reason: rejected.append(reason)))
    assert len(passed) == 2
    assert rejected == ["NaN in the parameters"]
    assert all(isinstance(p, CheckedReply) and p.content is not None for p in passed)


def test_a_checked_reply_is_not_checked_again() -> None:
    """The update is made once, so a later layer sees the same one."""
    first = next(checked([reply()], REFERENCE, lambda message, reason: None))
    assert next(checked([first], REFERENCE, lambda message, reason: None)) is first


def test_first_line() -> None:
    """Of a text that says something."""
    assert first_line("\n  out of memory\nTraceback") == "out of memory"
    assert first_line(None) == "no reason given"
    assert len(first_line("x" * 900)) == 200


def test_an_error_of_flowers_simulation_is_told_in_the_clients_words() -> None:
    """Ray's traceback stands before them; the reason is put together by flwr's own exception."""
    said = ClientAppException("/keys/ckks.key: there is no such key\nhint")
    traceback = f'ray::ClientAppActor.run() (pid=1)\n  File "ray_actor.py", line 65\nflwr.X: {said}\n'
    assert error_line(f"<class 'ray.X'>:<'{traceback}'>") == "error: /keys/ckks.key: there is no such key"
    single = ClientAppException("no data")
    assert error_line(f"<class 'ray.X'>:<'Traceback\n{single}'>") == "error: no data"
    assert error_line("ValueError: no data") == "error: ValueError: no data"
    assert error_line(None) == "error: no reason given"


def unshared(values: list[float], layout: wire.Layout) -> tuple[Message, torch.Tensor]:
    """Return a reply whose vector nobody else has, and that vector."""
    flat = torch.tensor(values)
    record = wire.FlatRecord(flat, layout, unshared=True)
    return reply(with_arrays(record)), flat


def test_a_large_model_becomes_the_update_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """(4, 6) − (1, 2) = (3, 4), without a second vector; a model that will be looked at stays."""
    monkeypatch.setattr(layouts, "LARGE_BYTES", 4)
    message, flat = unshared([4.0, 6.0], REFERENCE.layout)
    kept = check_reply(message, REFERENCE)
    assert (kept.delta.tolist(), flat.tolist()) == ([3.0, 4.0], [4.0, 6.0])
    update = check_reply(message, REFERENCE, keep_model=False)
    assert update.delta.data_ptr() == flat.data_ptr()
    assert (update.delta.tolist(), update.norm) == ([3.0, 4.0], 5.0)
    assert not message.content.array_records[wire.ARRAYS]


def test_a_vector_that_others_may_have_is_never_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not unshared, or looked at before: a reply may carry the very model that was sent."""
    monkeypatch.setattr(layouts, "LARGE_BYTES", 4)
    looked_at, flat = unshared([4.0, 6.0], REFERENCE.layout)
    looked_at.content.array_records[wire.ARRAYS].values()
    sent = reply(with_arrays(wire.FlatRecord(REFERENCE.flat, REFERENCE.layout)))
    for message, expected in ((looked_at, [3.0, 4.0]), (sent, [0.0, 0.0])):
        assert check_reply(message, REFERENCE, keep_model=False).delta.tolist() == expected
    assert (flat.tolist(), REFERENCE.flat.tolist()) == ([4.0, 6.0], [1.0, 2.0])


def test_a_large_model_that_is_not_finite_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "LARGE_BYTES", 4)
    message, _ = unshared([math.nan, 1.0], REFERENCE.layout)
    with pytest.raises(Rejected, match="NaN in the parameters"):
        check_reply(message, REFERENCE, keep_model=False)
