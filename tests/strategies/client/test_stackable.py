"""Whether a model can be stacked, found out by trying it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.stackable import NotStackable, examined, has_convolutions
from strategies.client.training import Training
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator


def training(model: nn.Module, size: int = 5) -> Training:
    examples = TensorExamples(torch.rand(size, 4), torch.arange(size) % 2)
    return Training(model, examples, TrainSettings(), torch_generator(0), 1)


class Odd(nn.Module):
    """A linear layer with something after it."""

    def __init__(self, after: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.after = after
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        return self.after(self.layer(x))


class Counting(Odd):
    """Counts its calls in a buffer."""

    def forward(self, x: Tensor) -> Any:
        self.get_buffer("seen").add_(1)
        return self.layer(x)


def by_value(x: Tensor) -> Tensor:
    return x if float(x.sum()) > -1000 else -x


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), "its layers keep statistics while they train"),
        (
            nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, track_running_stats=False)),
            "its outputs depend on the other examples of a batch",
        ),
        (Counting(lambda x: x), "its layers keep statistics while they train"),
        (Odd(lambda x: x - x.mean(dim=0)), "its outputs depend on the other examples of a batch"),
        (Odd(lambda x: x + torch.rand(1)), "it draws random numbers elsewhere than in dropout layers"),
        (Odd(nn.AlphaDropout(0.5)), "it draws random numbers elsewhere than in dropout layers"),
        (Odd(lambda x: x.sum()), "its outputs are not one row per example"),
        (Odd(by_value), r"torch cannot batch it \(RuntimeError: .*"),
        (
            nn.Sequential(nn.Unflatten(0, (1, -1)), nn.Dropout(0.5), nn.Flatten(0, 1), nn.Linear(4, 2)),
            "a dropout",
        ),
    ],
)
def test_what_cannot_be_stacked_says_why(model: nn.Module, reason: str) -> None:
    with pytest.raises(NotStackable, match=reason):
        examined(training(model))


def test_the_trial_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = training(model)
    state = torch.random.get_rng_state()
    with pytest.raises(NotStackable):
        examined(given)
    assert torch.random.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model[2].training


def test_a_single_example_is_enough_for_the_trial() -> None:
    examined(training(nn.Linear(4, 2), size=1))
    with pytest.raises(NotStackable, match="depend on the other examples"):
        examined(training(Odd(lambda x: x - x.mean(dim=0)), size=1))


def test_dropout_is_found_in_the_order_of_its_use() -> None:
    shared = nn.Dropout(0.5)
    model = nn.Sequential(shared, nn.Linear(4, 3), nn.ReLU(), shared, nn.Linear(3, 2), nn.Dropout(0.0))
    found = examined(training(model))
    assert [(noise.layer is shared, noise.shape) for noise in found.noises] == [(True, (4,)), (True, (3,))]
    drawn = found.noises[0].draw(1000, torch.zeros(1))
    assert set(drawn.unique().tolist()) == {0.0, 2.0}


def test_convolutions_are_seen() -> None:
    assert has_convolutions(nn.Sequential(nn.Conv2d(1, 1, 1)))
    assert not has_convolutions(nn.Linear(1, 1))
