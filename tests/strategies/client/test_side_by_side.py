"""Works that go on together: each is as if it were alone."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from app.models.built_in import mlp
from strategies.client.pausing import Pausing
from strategies.client.precision import PRECISION, computed_in
from strategies.client.settings import TrainSettings
from strategies.client.side_by_side import Report, seat, side_by_side
from strategies.client.stacked import Trained
from strategies.client.stacked_data import Request
from strategies.client.training import HANDED_OVER, Training, local_train, planned_steps
from strategies.core.examples import TensorExamples
from strategies.core.seeds import GlobalState, seeded_layers, torch_generator


def data(seed: int, size: int = 8) -> TensorExamples:
    generator = torch_generator(seed, "data")
    return TensorExamples(torch.randn(size, 6, generator=generator), torch.arange(size) % 3)


def work(seed: int, rounds: int = 1, size: int = 8, model: Callable[[], nn.Module] | None = None) -> Tensor:
    """Return a model after trainings with dropout, and numbers that were drawn before and after."""
    with seeded_layers(torch_generator(seed, "layers")):
        own = mlp((6, 8), 3, "fc2", 0.5) if model is None else model()
        drawn = [torch.rand(1)]
        for number in range(rounds):
            local_train(own, data(seed, size), TrainSettings(batch_size=4), torch_generator(seed, number))
            drawn.append(torch.rand(1))
    return torch.cat([*(p.detach().flatten() for p in own.parameters()), *drawn])


def test_each_work_is_as_if_it_were_alone() -> None:
    """Of different lengths, with one, two and three trainings, and what they draw in between."""
    works = [partial(work, seed, rounds=1 + seed % 3, size=4 + seed) for seed in range(7)]
    expected = [each() for each in works]
    report, state = Report(), torch.random.get_rng_state()
    found = side_by_side(works, report=report)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert torch.random.get_rng_state().equal(state)
    assert (report.together, dict(report.alone)) == (13, {})


def test_what_cannot_be_stacked_has_the_bits_of_one_by_one() -> None:
    def batch_norm() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))

    works = [partial(work, seed, model=batch_norm) for seed in range(3)]
    report = Report()
    found = side_by_side(works, report=report)
    assert all(a.equal(each()) for a, each in zip(found, works, strict=True))
    assert dict(report.alone) == {"its layers keep statistics while they train": 3}


class Noting(nn.Module):
    """A layer that notes in what precision it is computed."""

    noted: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's outputs."""
        self.noted.append(PRECISION.get())
        return torch.as_tensor(self.layer(x))


def test_a_training_has_the_precision_of_the_work_that_asks_for_it() -> None:
    """Whoever carries it out: the stack is in no work's own context."""

    def mixed(seed: int) -> Tensor:
        with computed_in("bf16", torch.device("cpu")):
            return work(seed, model=Noting)

    Noting.noted.clear()
    report = Report()
    side_by_side([partial(mixed, seed) for seed in range(3)], report=report)
    assert report.together == 3
    assert set(Noting.noted) == {"bf16"}
    Noting.noted.clear()
    side_by_side([partial(mixed, 0), partial(work, 1, model=Noting)], report=Report())
    assert set(Noting.noted) == {"bf16", "float32"}
    assert PRECISION.get() == "float32"


def test_works_without_a_training_and_with_an_error_beside_others() -> None:
    """The error is that of the first work that fails; the others have come to their end before."""
    done: list[str] = []

    def fails() -> Tensor:
        done.append("fails")
        raise KeyError("first")

    def idle() -> Tensor:
        done.append("idle")
        return torch.zeros(1)

    def trains() -> Tensor:
        found = work(1)
        done.append("trains")
        return found

    with pytest.raises(KeyError, match="first"):
        side_by_side([trains, fails, idle, trains])
    assert done == ["fails", "idle", "trains", "trains"]
    assert side_by_side([]) == []


def test_turns_and_seats() -> None:
    turns: list[int | None] = []
    seats = side_by_side(
        [lambda: (work(1), seat())[1], seat, lambda: (work(2), seat())[1]], on_turn=turns.append
    )
    assert seats == [1, 2, 3]
    assert turns == [0, 1, 2, None, 0, 2]
    assert seat() == 0


def in_steps(seed: int, size: int = 8) -> Pausing[Tensor]:
    """As `work` with one training, but that it says where it trains."""
    with seeded_layers(torch_generator(seed, "layers")):
        own = mlp((6, 8), 3, "fc2", 0.5)
        drawn = torch.rand(1)
        state = GlobalState.now()
    settings = TrainSettings(batch_size=4)
    steps = planned_steps(size, settings)
    training = Training(own, data(seed, size), settings, torch_generator(seed, 0), steps)
    outcome = yield Request(training, lambda: state)
    assert isinstance(outcome, Trained)
    assert outcome.layers is not None
    outer = GlobalState.now()
    outcome.layers.put_back()
    parts = [outcome.parameters, drawn, torch.rand(1)]
    outer.put_back()
    return torch.cat(parts)


def test_works_in_threads_and_in_steps_go_on_together() -> None:
    report = Report()
    works = [partial(work, 0), in_steps(1), partial(work, 2, 2), in_steps(3, 11)]
    found = side_by_side(works, report=report)
    for number, (vector, size) in enumerate(zip(found, (8, 8, 8, 11), strict=True)):
        expected = work(number, rounds=2 if number == 2 else 1, size=size)
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-6)
    assert (report.together, dict(report.alone)) == (4, {"no other training is like it": 1})


def test_the_error_of_a_work_in_steps_is_raised_after_the_others_have_ended() -> None:
    def fails() -> Pausing[Tensor]:
        yield from in_steps(0)
        raise KeyError("second")

    done: list[str] = []
    with pytest.raises(KeyError, match="second"):
        side_by_side([fails(), lambda: (work(1), done.append("trains"))[0]])
    assert done == ["trains"]


def test_outside_of_works_each_training_is_carried_out_by_itself() -> None:
    assert HANDED_OVER.get() is Training.run
    side_by_side([partial(work, 1), partial(work, 2)])
    assert HANDED_OVER.get() is Training.run
