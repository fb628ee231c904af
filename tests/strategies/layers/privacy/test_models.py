"""Models that are refused, by what they are made of and by a trial; what a trial leaves behind."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.core.augmenting import Augmented
from strategies.core.errors import BadInput
from strategies.core.examples import Inputs, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.layers.privacy import models
from strategies.layers.privacy.clipping import OnePass
from strategies.layers.privacy.models import engine_words, require_losses, require_private, verify
from strategies.layers.privacy.settings import EngineName
from tests.strategies.layers.privacy.private_models import (
    COUNT,
    LENGTH,
    SEQUENCES,
    SQUARES,
    TEXT,
    VOCABULARY,
    WIDTH,
    Attending,
    Recurrent,
    Tied,
    Twice,
    WithParameter,
    numbers,
)

REFUSED = r'model\.name: cannot be trained with privacy\.unit = "example": '


class Whole(nn.Module):
    """A layer with a parameter of its own beside others."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.weight, self.inner = nn.Parameter(torch.ones(WIDTH)), nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x * self.weight)
        return out


class Counting(nn.Module):
    """Keeps a mean of what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean += x.detach().mean(dim=0)
        return x


class Centred(nn.Module):
    """Subtracts the mean of the batch from it, as soon as it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x - x.mean(dim=0))
        return out


class SequenceFirst(nn.Module):
    """A layer that reads sequences first."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.transpose(0, 1)).transpose(0, 1)
        return out


class BehindItsBack(nn.Module):
    """Uses the table of an embedding for its outputs without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(self.table(x)), self.table.weight)


class Rotated(nn.Module):
    """Lets examples change places between two layers, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.roll(self.second(torch.roll(torch.tanh(self.first(x)), 1, 0)), -1, 0)


MADE_OF: list[tuple[Callable[[], nn.Module], EngineName, str]] = [
    (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        "auto",
        r"layer '1' \(BatchNorm1d\) mixes the",
    ),
    (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).requires_grad_(requires_grad=False)),
        "auto",
        r"layer '1' \(BatchNorm1d\) mixes the examples of a batch; use GroupNorm",
    ),
    (
        lambda: nn.TransformerEncoderLayer(8, 2, 16),
        "auto",
        "layer 'self_attn' is MultiheadAttention; use opacus.layers.DPMultiheadAttention with batch_first=F",
    ),
    (lambda: Recurrent(nn.LSTM(8, 4), 4), "hooks", r"layer 'layer' is LSTM; use opacus\.layers\.DPLSTM"),
    (lambda: Recurrent(nn.GRU(8, 4), 4), "auto", r"layer 'layer' is GRU; use opacus\.layers\.DPGRU"),
    (lambda: Recurrent(nn.RNN(8, 4), 4), "auto", r"layer 'layer' is RNN; use opacus\.layers\.DPRNN"),
    (lambda: nn.Embedding(7, 3, max_norm=1.0), "auto", r"layer '' \(Embedding\): max_norm and scale_grad"),
    (lambda: nn.EmbeddingBag(7, 3, mode="max"), "auto", r"layer '' \(EmbeddingBag\): mode \"max\" has no"),
    (
        lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
        "auto",
        r"layer '' \(InstanceNorm1d\): We do not support tracking running stats",
    ),
    (lambda: Whole(nn.Dropout(0.1)), "auto", r"layer '' \(Whole\) has parameters of its own beside dropout"),
]


@pytest.mark.parametrize(("build", "engine", "reason"), MADE_OF)
def test_what_a_model_is_made_of_is_refused(
    build: Callable[[], nn.Module], engine: EngineName, reason: str
) -> None:
    with pytest.raises(BadInput, match=REFUSED + reason):
        require_private(build(), engine)


@pytest.mark.parametrize(
    ("build", "engine", "reason"),
    [
        (
            lambda: nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)),
            "one-pass",
            r"layer '1' \(LayerNorm\) has no rule for one pass; allowed for this model: auto, ghost, hooks",
        ),
        (Tied, "ghost", r"layer 'head' \(Linear\) shares parameters with another; allowed .*: auto, hooks"),
        (
            lambda: Whole(Counting()),
            "hooks",
            r"layer '' \(Whole\) has buffers and no sampler; allowed for this model: auto",
        ),
    ],
)
def test_an_engine_that_a_model_contradicts_is_refused(
    build: Callable[[], nn.Module], engine: EngineName, reason: str
) -> None:
    with pytest.raises(BadInput, match=rf'privacy\.engine: given "{engine}", but {reason}'):
        require_private(build(), engine)
    require_private(build(), "auto")


def test_what_is_frozen_may_be_of_any_kind() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16).requires_grad_(requires_grad=False))
    require_private(model.append(nn.Linear(8, 2)), "one-pass")


@pytest.mark.parametrize(
    ("model", "x", "reason"),
    [
        (Centred(), SEQUENCES[:, 0], "what it gives for an example depends on the others in the batch"),
        (SequenceFirst(), SEQUENCES[:3, :3], "the gradient of 'layer.weight' is not the sum of what single"),
        (SequenceFirst(), SEQUENCES, r"layer 'layer' \(Linear\) does not see the examples one by one"),
        (BehindItsBack(), TEXT, "the gradient of 'table.weight' is not the sum of what single examples add"),
        (Rotated(), SEQUENCES[:, 0], "the gradient of 'second.weight' is not the sum of what single"),
        (nn.Sequential(nn.Linear(WIDTH, WIDTH), Counting()), SEQUENCES[:, 0], r"buffer '1\.mean' changes"),
    ],
)
def test_what_a_trial_shows_is_refused_and_the_model_stays_as_it_was(
    model: nn.Module, x: Tensor, reason: str
) -> None:
    require_private(model, "auto")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BadInput, match=REFUSED + reason):
        verify(model, SQUARES, examples(x), "auto", torch_generator(0))
    assert all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in model.modules())


def examples(x: Tensor) -> TensorExamples:
    return TensorExamples(x, torch.zeros(len(x), dtype=torch.int64))


@pytest.mark.parametrize(
    ("engine", "model", "x", "reason"),
    [
        (
            "ghost",
            Twice(nn.Linear(WIDTH, WIDTH)),
            SEQUENCES[:, 0],
            "is used more than once; allowed .* auto, hooks",
        ),
    ],
)
def test_a_trial_shows_what_an_engine_cannot_do(
    engine: EngineName, model: nn.Module, x: Tensor, reason: str
) -> None:
    with pytest.raises(BadInput, match=rf'privacy\.engine: given "{engine}", but layer .*{reason}'):
        verify(model, SQUARES, examples(x), engine, torch_generator(0))
    verify(model, SQUARES, examples(x), "auto", torch_generator(0))


@pytest.mark.parametrize("count", [0, 1, 2, COUNT])
def test_a_trial_leaves_nothing_behind(count: int) -> None:
    """Parameters to the bit, no generator's state, with dropout, and with as few examples as there are."""
    model = nn.Sequential(Attending(batch_first=False), nn.Dropout(0.5), nn.Linear(2, 2))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    verify(model, SQUARES, examples(SEQUENCES[:count]), "auto", torch_generator(0))
    assert all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())
    assert torch.get_rng_state().equal(random)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_kind_of_model_is_tried_once_whatever_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another layer, task or engine is another kind, and what was refused is refused again."""
    tried: list[object] = []
    data = TensorExamples(numbers(COUNT, WIDTH), numbers(COUNT, 2))
    trial = models._require_account
    monkeypatch.setattr(models, "_verified", {})

    def counted(module: OnePass, losses: Tensor) -> None:
        tried.append(module)
        trial(module, losses)

    monkeypatch.setattr(models, "_require_account", counted)

    def check(model: nn.Module, engine: EngineName = "auto") -> None:
        verify(model, SQUARES, data, engine, torch_generator(0))

    for model in (nn.Linear(WIDTH, 2), nn.Linear(WIDTH, 2)):
        check(model)
    assert len(tried) == 1
    check(nn.Linear(WIDTH, 2, bias=False))
    check(nn.Linear(WIDTH, 2), "hooks")
    assert len(tried) == 3
    for _ in range(2):
        with pytest.raises(BadInput, match=REFUSED):
            check(Centred())


def test_a_trial_draws_the_same_whether_or_not_its_kind_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_verified", {})

    def shifted(inputs: Inputs, generator: torch.Generator) -> Inputs:
        assert isinstance(inputs, Tensor)
        return inputs + torch.rand(inputs.shape, generator=generator)

    varied = Augmented(TensorExamples(torch.rand(4, 16), torch.zeros(4, 2)), shifted)
    generators = [torch_generator(0), torch_generator(0)]
    for generator in generators:
        verify(nn.Linear(16, 2), SQUARES, varied, "auto", generator)
    assert generators[0].get_state().equal(generators[1].get_state())
    assert not generators[0].get_state().equal(torch_generator(0).get_state())


def test_a_layer_at_zero_hides_nothing_from_a_trial() -> None:
    """Behind a head of zeros all gradients are zero, and so are mistakes: parameters are altered."""
    model = nn.Sequential(Rotated(), nn.Linear(WIDTH, 2))
    nn.init.zeros_(model[1].weight)
    with pytest.raises(BadInput, match=r"the gradient of '0\.second\.weight' is not the sum"):
        verify(model, SQUARES, examples(SEQUENCES[:, 0]), "auto", torch_generator(0))


def test_words_for_a_summary() -> None:
    assert engine_words(nn.Linear(2, 2), "one-pass") == "one-pass"
    assert engine_words(nn.Linear(2, 2), "ghost") == "ghost"
    model = nn.Sequential(nn.LayerNorm(2), nn.RMSNorm(2), WithParameter())
    assert (
        engine_words(model, "auto")
        == "one-pass, samplers for LayerNorm, RMSNorm, functorch for WithParameter"
    )


def test_losses_are_one_for_each_example() -> None:
    require_losses(numbers(3), 3)
    with pytest.raises(
        BadInput, match=r"task\.losses: given shape \(3, 5\), allowed \(3,\): one loss for each"
    ):
        require_losses(numbers(3, LENGTH), 3)
