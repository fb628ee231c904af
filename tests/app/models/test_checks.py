"""One line for each model that the data do not fit, with the layer that it fails at."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from app.models.checks import Expected, check_model, takes, two_inputs
from strategies.core.errors import BadInput

SHAPE = (2, 4)


def chain(last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(8, 5), nn.ReLU()), last)


def not_finite() -> nn.Module:
    model = chain(nn.Linear(5, 3))
    with torch.no_grad():
        model[2].bias[1] = torch.nan
    return model


class OnlyEvaluates(nn.Module):
    """Answers with a pair while it trains, as models with auxiliary heads do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits, twice while it trains."""
        logits = self.layer(x.flatten(1))
        return (logits, logits) if self.training else logits


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chain(nn.Linear(6, 3)), "does not take inputs of shape (2, 4) at layer '2': "),
        (lambda: nn.Sequential(nn.Sequential(nn.Conv2d(2, 3, 3))), "at layer '0.0': "),
        (lambda: chain(nn.Linear(5, 4)), "answers two inputs with (2, 4), wanted logits of shape (2, 3)"),
        (lambda: nn.Sequential(nn.Linear(4, 3)), "answers two inputs with (2, 2, 3), wanted logits"),
        (OnlyEvaluates, "answers two inputs with a tuple, wanted logits"),
        (not_finite, "'2.bias' is not finite before any training"),
        (lambda: chain(nn.Linear(5, 3)).requires_grad_(False), "has no trainable parameter"),
        (lambda: chain(nn.Linear(5, 3, dtype=torch.complex64)), "parameter '2.weight' is torch.complex64"),
    ],
)
def test_what_does_not_fit_is_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)) as raised:
        build_model(ModelSettings(), SHAPE, 3, 0, make)
    assert "\n" not in str(raised.value)


def test_any_outputs_with_a_row_for_each_are_right_for_other_tasks() -> None:
    build_model(ModelSettings(), SHAPE, 3, 0, lambda: nn.Linear(4, 7), any_outputs=True)
    with pytest.raises(BadInput, match=r"answers two inputs with \(16,\), wanted two rows"):
        build_model(ModelSettings(), SHAPE, 3, 0, Flat, any_outputs=True)


class Flat(nn.Module):
    """Loses the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return one long row."""
        return torch.as_tensor(self.layer(x)).flatten()


def test_inputs_of_the_datas_own_kind_are_taken() -> None:
    words = torch.tensor([[1, 2], [3, 0]])
    model = build_model(
        ModelSettings(), (2,), 3, 0, lambda: nn.Sequential(nn.Embedding(4, 3), Mean()), example=words
    )
    assert model(words).shape == (2, 3)
    with pytest.raises(BadInput, match=r"its model does not take inputs of shape \(2,\) at layer '0'"):
        build_model(
            ModelSettings(), (2,), 3, 0, lambda: nn.Sequential(nn.Embedding(3, 3), Mean()), example=words
        )


def test_a_model_of_words_is_tried_on_whole_numbers() -> None:
    build_model(ModelSettings(), (2,), 3, 0, lambda: nn.Sequential(nn.Embedding(4, 3), Mean()))


def test_without_a_shape_there_is_nothing_to_try() -> None:
    build_model(ModelSettings(), (), 3, 0, lambda: nn.Linear(4, 7))
    with pytest.raises(BadInput, match=r"^run\.project: its model has no trainable parameter"):
        build_model(ModelSettings(), (), 3, 0, nn.ReLU)


class Mean(nn.Module):
    """The mean over the words."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean, shape [n, features]."""
        return x.mean(dim=1)


def test_a_check_changes_nothing() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    before, state = torch.get_rng_state(), {n: t.clone() for n, t in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        check_model(model, Expected("model.name: it", two_inputs(SHAPE), (3,)))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_takes_says_whether() -> None:
    assert takes(nn.Linear(4, 1), Expected("model.name: it", two_inputs(SHAPE), None))
    assert not takes(nn.Linear(5, 1), Expected("model.name: it", two_inputs(SHAPE), None))
