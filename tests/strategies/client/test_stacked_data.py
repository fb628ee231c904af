"""The batches of many trainings as one."""

import pytest
import torch

from strategies.client import stacked_data
from strategies.client.settings import TrainSettings
from strategies.client.stackable import Stackable
from strategies.client.stacked_data import Member, Request, feed_of, weights_of
from strategies.client.training import Training
from strategies.core.examples import TensorExamples
from strategies.core.seeds import GlobalState, torch_generator

SIZES = (11, 10, 4, 3)
STEPS = (7, 7, 5, 2)


def trainings() -> list[Training]:
    """Batches of four: three steps an epoch with a short last one, twice; one; and less than one."""
    found = []
    for number, (size, steps) in enumerate(zip(SIZES, STEPS, strict=True)):
        x = 100 * number + torch.arange(size, dtype=torch.float32).view(size, 1, 1)
        examples = TensorExamples(x, torch.arange(size))
        settings = TrainSettings(batch_size=4)
        found.append(Training(torch.nn.Linear(1, 2), examples, settings, torch_generator(number), steps))
    return found


@pytest.mark.parametrize("at_once", [1, 40, 2**20])
def test_each_has_the_batches_that_it_draws_by_itself(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps are copied at once; the generators are then where they are after a training."""
    monkeypatch.setattr(stacked_data, "_AT_ONCE", at_once)
    apart, beside = trainings(), trainings()
    expected = [list(training.batches()) for training in apart]
    members = [Member(Request(training, GlobalState.now)) for training in beside]
    feed = feed_of(members, Stackable(beside[0]), torch.zeros(4, 4))
    for step in range(max(STEPS)):
        active = sum(steps > step for steps in STEPS)
        drawn = feed.next(step, active)
        inputs, targets = drawn.batch
        assert isinstance(inputs, torch.Tensor)
        for number in range(active):
            x, y = expected[number][step]
            assert inputs[number, : len(y)].equal(x)
            assert targets[number, : len(y)].equal(y)
            assert drawn.weights[number].tolist() == pytest.approx(
                [1 / len(y)] * len(y) + [0.0] * (targets.shape[1] - len(y))
            )
    for a, b in zip(apart, beside, strict=True):
        assert a.generator.get_state().equal(b.generator.get_state())


def test_the_weights_of_filled_batches() -> None:
    assert weights_of([2, 1], torch.device("cpu")).tolist() == [[0.5, 0.5], [1.0, 0.0]]
