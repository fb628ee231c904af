"""Server-side optimisers against arithmetic by hand, Flower's own, plain averaging, and a resumed run."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from hypothesis import given, strategies as st
from torch import Tensor

from app.config.run_config import RunConfig
from app.simulation.grid import take_identity
from strategies.algorithm import ServerSide
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.fedopt.fedopt import (
    FedOpt,
    Moments,
    Step,
    adagrad,
    adam,
    adaptive_step,
    begin,
    momentum_step,
    yogi,
)
from strategies.fedopt.settings import FedOptSettings
from strategies.plan import Start
from strategies.registry import lookup, traits_of
from strategies.settings import StrategySettings
from tests.strategies.fakes import flat_record
from tests.strategies.hills import Hill, run

NAMES = ["fedavgm", "fedadagrad", "fedadam", "fedyogi"]
HALVES = FedOptSettings(adaptive_learning_rate=1.0, beta1=0.5, beta2=0.75, tau=1.0)


def hills(name: str, **more: Any) -> list[Hill]:
    settings = StrategySettings(name=name, **more)
    return [Hill("a", 0.7, 3.0, settings, n=2), Hill("b", 2.1, -1.0, settings, n=5)]


def path(step: Step, means: Sequence[Tensor], settings: FedOptSettings, moments: Moments) -> list[Tensor]:
    """Return the changes that a step makes of mean updates, one after the other."""
    changes = []
    for mean in means:
        change, moments = step(mean.double(), moments, settings)
        changes.append(change)
    return changes


# by hand


def test_momentum_by_hand() -> None:
    """Mean updates 1 and 1 at β = ½ and η = 2: 2 · 1, then 2 · (½ + 1)."""
    how = FedOptSettings(server_momentum=0.5, server_learning_rate=2.0)
    changes = path(momentum_step, [torch.ones(1)] * 2, how, begin(1, how))
    assert [float(change) for change in changes] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("second", "squares"), [(adagrad, [1 + 9, 10 + 1]), (adam, [3, 2.5]), (yogi, [1 + 9 / 4, 13 / 4 - 1 / 4])]
)
def test_adaptive_steps_by_hand(second: Any, squares: list[float]) -> None:
    """Mean updates 3 and 1 at β₁ = ½, β₂ = ¾, τ = η = 1: m is 3/2, then 5/4; v begins at τ² = 1.

    Adagrad adds 9 and 1. Adam: ¾ + 9/4 = 3, then 9/4 + ¼. Yogi: 9/4 more, as 1 < 9, then ¼ less.
    """
    changes = path(
        partial(adaptive_step, second), [torch.tensor([3.0]), torch.ones(1)], HALVES, begin(1, HALVES)
    )
    expected = [m / (math.sqrt(v) + 1) for m, v in zip([1.5, 1.25], squares, strict=True)]
    assert [float(change) for change in changes] == pytest.approx(expected, rel=1e-6)


# equivalence


def flowers(
    strategy: Any, start: np.ndarray, replies: Sequence[Sequence[tuple[np.ndarray, int]]]
) -> np.ndarray:
    """Return the model that a strategy of Flower's makes of rounds of (update, number of examples)."""
    take_identity()
    x = start
    for number, updates in enumerate(replies, start=1):
        strategy.current_arrays = (
            ArrayRecord({"w": Array(x)}) if isinstance(strategy, flower.FedAvgM) else {"w": x}
        )
        listed = []
        for node, (update, count) in enumerate(updates, start=1):
            content = RecordDict(
                {
                    "arrays": ArrayRecord({"w": Array(x + update)}),
                    "metrics": MetricRecord({"num-examples": count}),
                }
            )
            asked = Message(RecordDict({"config": ConfigRecord()}), node, "train")
            listed.append(Message(content, reply_to=asked))
        arrays, _ = strategy.aggregate_train(number, listed)
        x = arrays["w"].numpy()
    return x


def correction(number: int, beta1: float, beta2: float) -> float:
    """Return the factor on η with which Flower's FedAdam begins."""
    return math.sqrt(1 - beta2 ** (number + 1)) / (1 - beta1 ** (number + 1))


@given(st.integers(0, 2**16), st.integers(1, 5), st.floats(0.0, 0.95), st.floats(0.0, 0.99))
def test_they_are_flowers_own(seed: int, rounds: int, beta1: float, beta2: float) -> None:
    """From v = 0, as Flower begins, and for Adam with Flower's correction of η; two clients."""
    draw = np.random.default_rng(seed)
    start = draw.normal(size=3)
    replies = [[(draw.normal(size=3), int(draw.integers(1, 9))) for _ in range(2)] for _ in range(rounds)]
    means = [
        torch.from_numpy(sum(u * n for u, n in updates) / sum(n for _, n in updates)) for updates in replies
    ]
    how = FedOptSettings(
        adaptive_learning_rate=0.3,
        beta1=beta1,
        beta2=beta2,
        tau=1e-2,
        server_momentum=beta1,
        server_learning_rate=0.3,
    )
    zero = Moments(torch.zeros(3), torch.zeros(3))
    shared = {"eta": 0.3, "tau": 1e-2}
    momentum = flower.FedAvgM(server_learning_rate=0.3, server_momentum=beta1)
    expected = flowers(momentum, start, replies)
    moved = start + sum(path(momentum_step, means, how, zero)).numpy()
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-5)
    kept = {**shared, "beta_1": beta1, "beta_2": beta2}
    plain = how.model_copy(update={"beta1": 0.0})
    for theirs, second, settings in (
        (flower.FedYogi(**kept), yogi, how),
        (flower.FedAdagrad(**shared), adagrad, plain),
    ):
        moved = start + sum(path(partial(adaptive_step, second), means, settings, zero)).numpy()
        np.testing.assert_allclose(moved, flowers(theirs, start, replies), rtol=1e-4, atol=1e-4)
    changes = path(partial(adaptive_step, adam), means, how, zero)
    moved = start + sum(c.numpy() * correction(t, beta1, beta2) for t, c in enumerate(changes, start=1))
    np.testing.assert_allclose(moved, flowers(flower.FedAdam(**kept), start, replies), rtol=1e-4, atol=1e-4)


def test_without_momentum_at_rate_1_it_is_fedavg_to_the_bit() -> None:
    plain = run(*hills("fedavg"), rounds=4).model
    assert run(*hills("fedavgm", server_momentum=0.0), rounds=4).model == plain
    assert run(*hills("fedavgm", server_momentum=0.5), rounds=4).model != plain
    assert run(*hills("fedavgm", server_momentum=0.0, server_learning_rate=0.5), rounds=4).model != plain


def server_half(name: str, **values: float) -> FedOpt:
    found = lookup(name).build(ServerSide(StrategySettings(name=name, **values)))
    assert isinstance(found, FedOpt)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_in_rounds_it_is_its_own_step_on_the_weighted_mean(name: str) -> None:
    """The first round: clients of 2 and 5 examples; then a model that has moved."""
    more = {"adaptive_learning_rate": 0.1}
    settings = StrategySettings(name=name, **more)
    own = settings.own(FedOptSettings)
    steps = {
        "fedavgm": momentum_step,
        "fedadagrad": partial(adaptive_step, adagrad),
        "fedadam": partial(adaptive_step, adam),
        "fedyogi": partial(adaptive_step, yogi),
    }
    mean = torch.tensor([run(*hills("fedavg"), rounds=1).model]).double()
    expected, _ = steps[name](mean, begin(1, own), own)
    assert run(*hills(name, **more), rounds=1).model == pytest.approx(float(expected), rel=1e-6)
    assert server_half(name, **more).is_weighted_average is False


# what is kept


@pytest.mark.parametrize("name", NAMES)
def test_resumed_it_goes_on_as_if_nothing_had_happened(name: str) -> None:
    whole = run(*hills(name), rounds=6).model
    half = run(*hills(name), rounds=3)
    start = Start(flat_record([half.model]), 3, strategy_tensors=half.memory)
    assert run(*hills(name), rounds=6, start=start).model == whole
    assert run(*hills(name), rounds=6, start=Start(flat_record([half.model]), 3)).model != whole


@pytest.mark.parametrize("name", NAMES)
def test_a_round_without_a_usable_reply_changes_nothing(name: str) -> None:
    """Neither the model nor what is kept: the run is the one without that round."""

    def spoil(content: RecordDict) -> None:
        nonlocal count
        count += 1
        if count in {3, 4}:
            content[wire.ARRAYS] = flat_record([float("nan")])

    def spoiled() -> list[Hill]:
        clients = hills(name)
        for client in clients:
            client.spoil = spoil
        return clients

    count = 0
    ended = run(*spoiled(), rounds=5)
    assert [len(each.accepted) for each in ended.rounds] == [2, 0, 2, 2, 2]
    assert ended.model == run(*hills(name), rounds=4).model


# what is refused


def test_only_a_step_without_memory_is_an_average_and_then_it_says_by_what_it_divides() -> None:
    assert server_half("fedavgm", server_momentum=0.0, server_learning_rate=0.5).is_weighted_average
    assert not server_half("fedavgm").is_weighted_average
    ended = run(*hills("fedavgm", server_momentum=0.0, server_learning_rate=0.5), rounds=1)
    assert ended.model == pytest.approx(0.5 * run(*hills("fedavg"), rounds=1).model, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_noise_on_the_mean_would_not_be_what_moves_the_model(name: str) -> None:
    assert not traits_of(name).adds_mean
    private = ["privacy.unit=client-central", "privacy.epsilon=2.0", "train.max-gradient-norm=0"]
    with pytest.raises(BadInput, match=f'strategy.name: given "{name}", but privacy.unit = "client-central"'):
        RunConfig().with_overrides([f"strategy.name={name}", *private])


def test_keys_belong_to_those_that_read_them() -> None:
    with pytest.raises(BadInput, match=r"strategy\.beta2: .*fedadam.* or .*fedyogi"):
        RunConfig().with_overrides(["strategy.name=fedadagrad", "strategy.beta2=0.9"])
    with pytest.raises(BadInput, match=r"strategy\.server-learning-rate"):
        RunConfig().with_overrides(["strategy.name=fedadam", "strategy.server-learning-rate=0.5"])
    found = RunConfig().with_overrides(["strategy.name=fedavgm", "strategy.server-learning-rate=0.5"])
    assert found.strategy.own(FedOptSettings).server_learning_rate == 0.5
