"""A client that says itself where it trains answers what the ClientApp answers."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from torch import Tensor, nn

from app.client import shared_model
from app.client_app import app
from app.models import built_in
from app.models.built_in import mlp
from strategies.client.pausing import Pausing
from strategies.client.stacked import Alone, Failed, Outcome, Trained, train_stacked
from strategies.client.stacked_data import Request
from strategies.client.training import TrainStats
from strategies.core import wire
from strategies.core.seeds import seeded_layers, torch_generator
from strategies.core.settings import Scalar
from tests.app.asking import context, message, run_config

ALONE = Alone("for a test")
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "fedavg": ("train.local-steps=3",),
    "fedprox": ("strategy.mu=0.5",),
    "scaffold": ("train.momentum=0",),
    "feddyn": ("train.momentum=0",),
    "fedadam": ("train.schedule=cosine",),
}


@pytest.fixture(params=[None, 0.5])
def dropout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[float | None]:
    """The built-in perceptron, with and without dropout."""
    share: float | None = request.param
    shared_model._by_seat.cache_clear()
    monkeypatch.setitem(
        built_in._BUILDERS, "mlp", lambda settings, shape, size: mlp((64, 8), size, "fc2", share)
    )
    yield share
    shared_model._by_seat.cache_clear()


def asked(strategy: str, partition: int = 0, round: int = 1) -> tuple[Message, Context]:
    keys = (f"strategy.name={strategy}", *ALGORITHMS[strategy], "model.hidden=8")
    told = message("train", **{wire.SERVER_ROUND: round, wire.KEEP_TAGS: 1})
    with seeded_layers(torch_generator(round, "start")):
        told.content[wire.ARRAYS] = wire.record_of(mlp((64, 8), 10, "fc2").state_dict())
    if strategy == "scaffold":
        arrays = told.content.array_records[wire.ARRAYS]
        control = torch.full_like(wire.flat_of(arrays, wire.layout_of(arrays)), 0.01)
        told.content["control"] = wire.FlatRecord(control, wire.layout_of(arrays))
    return told, context(run_config(*keys), {"partition-id": partition})


def begun(told: Message, own: Context) -> tuple[Pausing[RecordDict], Request]:
    steps = app.pausing(told, own)
    assert steps is not None
    return steps, next(steps)


def ended(steps: Pausing[RecordDict], outcome: Outcome) -> RecordDict:
    with pytest.raises(StopIteration) as end:
        steps.send(outcome)
    return end.value.value  # type: ignore[no-any-return]


def vectors(content: RecordDict) -> dict[str, Tensor]:
    return {n: wire.flat_of(r, wire.layout_of(r)) for n, r in content.array_records.items()}


@pytest.mark.parametrize("strategy", ALGORITHMS)
def test_one_by_one_it_has_the_bits_of_the_app(strategy: str, dropout: float | None) -> None:
    """Two clients in turns, each with its own state, over two rounds: all records, and what is kept.

    They are sent one and the same record, as in a worker of the simulation.
    """
    apart = [asked(strategy, partition)[1] for partition in range(2)]
    beside = [asked(strategy, partition)[1] for partition in range(2)]
    state = torch.random.get_rng_state()
    for number in (1, 2):
        told = [asked(strategy, partition, number)[0] for partition in range(2)]
        expected = [app(m, c).content for m, c in zip(told, apart, strict=True)]
        shared = asked(strategy, 0, number)[0]
        paused = [begun(shared, c)[0] for c in beside]
        found = [ended(steps, ALONE) for steps in paused]
        for a, b in zip(found, expected, strict=True):
            assert list(a) == list(b)
            assert {n: dict(r) for n, r in a.metric_records.items()} == dict(b.metric_records)
            assert dict(a.config_records) == dict(b.config_records)
            assert all(vectors(b)[name].equal(vector) for name, vector in vectors(a).items())
        assert [sorted(c.state) for c in beside] == [sorted(c.state) for c in apart]
    assert torch.random.get_rng_state().equal(state)


@pytest.mark.parametrize("strategy", ALGORITHMS)
def test_side_by_side_it_is_near_the_app(strategy: str, dropout: float | None) -> None:
    told = [asked(strategy, partition) for partition in range(2)]
    paused = [begun(m, c) for m, c in told]
    outcomes = train_stacked([request for _, request in paused])
    assert all(isinstance(outcome, Trained) for outcome in outcomes)
    for (steps, _), outcome, (m, _), partition in zip(paused, outcomes, told, range(2), strict=True):
        content, expected = ended(steps, outcome), app(m, asked(strategy, partition)[1]).content
        start = vectors(m.content)["arrays"]
        for name, vector in vectors(expected).items():
            base = start if name == wire.ARRAYS else torch.zeros(())
            assert (vectors(content)[name] - vector).norm() <= 2e-5 * (vector - base).norm()
        loss = content.metric_records[wire.METRICS][wire.TRAIN_LOSS]
        assert loss == pytest.approx(expected.metric_records[wire.METRICS][wire.TRAIN_LOSS], rel=1e-5)


def test_what_was_trained_is_what_is_sent(dropout: float | None) -> None:
    steps, request = begun(*asked("fedavg"))
    assert request.start is not None
    vector = torch.arange(float(request.start.numel()))
    content = ended(steps, Trained(TrainStats(3, 0.5), None, vector))
    assert vectors(content)[wire.ARRAYS].equal(vector)
    numbers = dict(content.metric_records[wire.METRICS])
    assert (numbers[wire.TRAIN_LOSS], numbers[wire.NUM_STEPS]) == (0.5, 3)


def test_a_failure_is_the_clients_own(dropout: float | None) -> None:
    steps, _ = begun(*asked("fedavg"))
    with pytest.raises(OSError, match="the disk is gone"):
        steps.send(Failed(OSError("the disk is gone")))


def test_nothing_left_to_train_on_is_said_as_the_app_says_it(dropout: float | None) -> None:
    told, own = asked("fedavg")
    told.content.config_records[wire.CONFIG][wire.DROP_CLASSES] = list(range(10))
    steps = app.pausing(told, own)
    assert steps is not None
    with pytest.raises(StopIteration) as end:
        next(steps)
    content, expected = end.value.value, app(told, asked("fedavg")[1]).content
    assert content.config_records[wire.CONFIG][wire.REFUSED] == wire.NOTHING_LEFT
    assert {n: dict(r) for n, r in content.items()} == {n: dict(r) for n, r in expected.items()}


@pytest.mark.parametrize(
    "keys",
    [
        {"privacy.unit": "example", "privacy.epsilon": 3.0},
        {"privacy.secure-aggregation": True, "log.enabled": False},
        {"strategy.name": "ditto"},
        {"strategy.name": "per-fedavg"},
    ],
)
def test_all_other_clients_are_left_to_the_app(keys: Mapping[str, Scalar]) -> None:
    flat = run_config(*(f"{key}={str(value).lower()}" for key, value in keys.items()))
    assert app.pausing(message("train"), context(flat)) is None


def test_other_messages_and_parts_of_a_model_are_left_to_the_app() -> None:
    own = context(run_config())
    assert app.pausing(message("evaluate"), own) is None
    assert app.pausing(message("train.federaser"), own) is None
    assert app.pausing(message("train", mask=b"\x01"), own) is None
    assert app.pausing(message("train", link="a-run"), own) is None
    other = message("train")
    other.content[wire.ARRAYS] = wire.record_of(nn.Linear(2, 2).state_dict())
    assert app.pausing(other, own) is None
    assert app.pausing(message("train", {"train.local-steps": "many"}), own) is None
