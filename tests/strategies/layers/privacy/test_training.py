"""Private local training: what a step does, and that nothing of it stays on the model."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.config.settings import ModelSettings
from app.models.built_in import ChannelsLast, build_model
from strategies.client.settings import TrainSettings
from strategies.client.training import local_train
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, GroupsOf, Inputs, TensorExamples
from strategies.core.secret_random import Randomness, RandomStream
from strategies.core.seeds import torch_generator
from strategies.core.wire import Layout
from strategies.layers.privacy.noise import clipped, noised
from strategies.layers.privacy.settings import EngineName
from strategies.layers.privacy.training import PrivateTrainer, poisson_batches
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import subnetwork
from tests.strategies.layers.privacy.private_models import Squares

ONE_STEP = TrainSettings(local_steps=1, batch_size=64, momentum=0.0, learning_rate=1.0)
Name = Literal["mlp", "cnn", "resnet18"]
SEEDED = Randomness(secret=False)


def model_of(name: Name = "cnn") -> nn.Module:
    return build_model(ModelSettings(name=name, width=4, hidden=8), (1, 8, 8), 3, seed=1)


def straight() -> nn.Module:
    """Return a linear model of zeros: no entry of its gradient is as small as rounding."""
    layer = nn.Linear(64, 3, bias=False)
    nn.init.zeros_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer)


def examples_of(n: int = 6) -> Examples:
    generator = torch_generator(0, "examples")
    return TensorExamples(torch.rand(n, 1, 8, 8, generator=generator), torch.arange(n) % 3)


def flat(model: nn.Module) -> Tensor:
    return Layout.of(model.state_dict()).flatten(model.state_dict())


class Tagger(nn.Module):
    """Gives a class for every token of a sentence; reads tokens and a mask by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(9, 6), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.table(tokens)) * mask[..., None])
        return out


class Sentences(Examples):
    """Six sentences of five tokens, each with a tag."""

    def __init__(self) -> None:
        generator = torch_generator(0, "sentences")
        self.tokens = torch.randint(0, 9, (6, 5), generator=generator)
        self.mask = torch.rand(6, 5, generator=generator)
        self.tags = torch.randint(0, 4, (6, 5), generator=generator)

    @property
    def group_of(self) -> GroupsOf:
        return lambda targets: None

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, index: Tensor) -> tuple[Inputs, Tensor]:
        return {"tokens": self.tokens[index], "mask": self.mask[index]}, self.tags[index]

    def subset(self, indices: Tensor | Sequence[int]) -> "Sentences":
        raise NotImplementedError

    def groups(self) -> None:
        return None

    def to(self, device: str | torch.device) -> "Sentences":
        return self


class Untidy(Squares):
    """A loss for every token."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.mT, targets, reduction="none")


class Tagging(Untidy):
    """The sum of a sentence's losses."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().losses(outputs, targets).sum(dim=1)


def slow_step(model: nn.Module, examples: Examples, clip_norm: float) -> Tensor:
    """Return −Σ_i g_i min(1, C/‖g_i‖) / n, one example at a time."""
    total = torch.zeros(len(flat(model)), dtype=torch.float64)
    for x, y in zip(examples.x, examples.y, strict=True):
        model.zero_grad()
        functional.cross_entropy(model(x[None]), y[None]).backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()
        total += gradient * min(1.0, clip_norm / float(gradient.norm()))
    model.zero_grad()
    return -total / len(examples)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
@pytest.mark.parametrize("clip_norm", [0.3, 1e4])
def test_clipping_equals_a_loop_over_examples(name: Name, clip_norm: float) -> None:
    """A step of size 1 without noise, over all examples, against one example at a time."""
    model, examples = model_of(name), examples_of(3 if name == "resnet18" else 6)
    before, expected = flat(model), slow_step(model, examples, clip_norm)
    PrivateTrainer(0.0, clip_norm, SEEDED)(model, examples, ONE_STEP, torch_generator(0))
    torch.testing.assert_close((flat(model) - before).double(), expected, rtol=1e-4, atol=2e-5)
    assert float(expected.norm()) <= clip_norm


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_part_of_a_network_is_clipped_like_any_other(name: Name) -> None:
    """Its norms count the missing channels as zeros, and have norms of their own."""
    whole, examples = model_of(name), examples_of()
    groups = hidden_groups(whole)
    model = subnetwork(whole, groups, tuple(tuple(range(1, group.size)) for group in groups))
    before, expected = flat(model), slow_step(model, examples, 0.3)
    PrivateTrainer(0.0, 0.3, SEEDED)(model, examples, ONE_STEP, torch_generator(0))
    torch.testing.assert_close((flat(model) - before).double(), expected, rtol=1e-4, atol=2e-5)


def test_activations_in_any_layout_are_clipped_right() -> None:
    """Channels-last activations, which Opacus' own unfolding misreads: no example counts more than C."""
    layers = (nn.Conv2d(1, 4, 3), ChannelsLast(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    model, examples = nn.Sequential(*layers), examples_of()
    before, expected = flat(model), slow_step(model, examples, 0.05)
    PrivateTrainer(0.0, 0.05, SEEDED)(model, examples, ONE_STEP, torch_generator(0))
    torch.testing.assert_close((flat(model) - before).double(), expected, rtol=1e-3, atol=1e-6)


def test_without_noise_and_clipping_it_is_plain_training() -> None:
    """Batches of all examples, σ = 0, a norm that nothing reaches: the steps of `local_train`."""
    private, plain, examples = model_of(), model_of(), examples_of()
    settings = TrainSettings(local_steps=3, batch_size=6)
    PrivateTrainer(0.0, 1e6, SEEDED)(private, examples, settings, torch_generator(0))
    local_train(plain, examples, settings, torch_generator(0))
    torch.testing.assert_close(flat(private), flat(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "more", [{"nesterov": True}, {"optimizer": "rmsprop"}, {"optimizer": "adamw", "weight_decay": 0.1}]
)
def test_every_optimizer_and_schedule_steps_by_what_was_released(more: dict[str, Any]) -> None:
    """The same as `local_train` at the same rates, which differ from step to step."""
    private, plain, examples = straight(), straight(), examples_of()
    settings, rates = TrainSettings(local_steps=3, batch_size=6).model_copy(update=more), [0.03, 0.01, 0.02]
    PrivateTrainer(0.0, 1e6, SEEDED)(private, examples, settings, torch_generator(0), rates=rates)
    local_train(plain, examples, settings, torch_generator(0), rates=rates)
    torch.testing.assert_close(flat(private), flat(plain), rtol=1e-4, atol=2e-5)
    assert not flat(private).allclose(flat(straight()), atol=1e-3)


@pytest.mark.parametrize("engine", ["auto", "ghost", "hooks"])
def test_inputs_by_name_and_targets_of_any_shape(engine: EngineName) -> None:
    """Tokens with a mask, and a class for every token: a step over all examples against one at a time."""
    model, examples, task = Tagger(), Sentences(), Tagging()
    before, total = flat(model), torch.zeros(len(flat(model)))
    for i in range(len(examples)):
        inputs, tags = examples.batch(torch.tensor([i]))
        loss = task.losses(task.forward(model, inputs), tags).sum()
        found = torch.autograd.grad(loss, list(model.parameters()))
        gradient = torch.cat([g.flatten() for g in found])
        total -= gradient * min(1.0, 0.2 / float(gradient.norm())) / len(examples)
    PrivateTrainer(0.0, 0.2, SEEDED, engine)(model, examples, ONE_STEP, torch_generator(0), task=task)
    torch.testing.assert_close(flat(model) - before, total, rtol=1e-4, atol=1e-6)
    assert float(total.norm()) > 0


def test_losses_that_are_not_one_for_each_example_are_refused() -> None:
    model, examples = Tagger(), Sentences()
    before = flat(model)
    with pytest.raises(BadInput, match=r"task\.losses: given shape \(3, 5\), allowed \(3,\): one loss"):
        PrivateTrainer(0.0, 1.0, SEEDED)(model, examples, ONE_STEP, torch_generator(0), task=Untidy())
    assert flat(model).equal(before)


@pytest.mark.parametrize("engine", ["one-pass", "ghost", "hooks"])
def test_every_engine_takes_the_same_private_steps(engine: EngineName) -> None:
    """Four steps on batches of two of six examples, noise of the same seed: those of ``auto``, rounded."""

    def trained(by: EngineName) -> Tensor:
        model, steps = model_of(), TrainSettings(local_steps=4, batch_size=2)
        PrivateTrainer(0.5, 0.5, SEEDED, by)(model, examples_of(), steps, torch_generator(0))
        return flat(model)

    torch.testing.assert_close(trained(engine), trained("auto"), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("engine", ["auto", "one-pass", "ghost", "hooks"])
def test_weights_with_their_channels_last_take_the_same_private_steps(engine: EngineName) -> None:
    """What is released is one vector, in whose order the weights do not lie."""

    def trained(order: torch.memory_format) -> Tensor:
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 3))
        for number, parameter in enumerate(model.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=torch_generator(number, "weights"))
        model = model.to(memory_format=order)
        PrivateTrainer(0.5, 0.5, SEEDED, engine)(
            model, examples_of(), TrainSettings(local_steps=4, batch_size=2), torch_generator(0)
        )
        return flat(model)

    torch.testing.assert_close(
        trained(torch.channels_last), trained(torch.contiguous_format), rtol=1e-3, atol=2e-3
    )


def test_noise_has_the_variance_that_was_paid_for() -> None:
    """σC over the expected batch: 10,000 entries of a step whose batch is empty are N(0, (σC/qn)²)."""
    model = nn.Linear(100, 100)
    with torch.no_grad():
        model.weight.zero_()
    examples = TensorExamples(torch.zeros(50, 100), torch.zeros(50, dtype=torch.int64))  # x = 0: no gradient
    settings = ONE_STEP.model_copy(update={"batch_size": 25})
    PrivateTrainer(2.0, 0.5, SEEDED)(model, examples, settings, torch_generator(3))
    assert float(model.weight.detach().std()) == pytest.approx(2.0 * 0.5 / 25, rel=0.03)
    assert abs(float(model.weight.detach().mean())) < 4 * 2.0 * 0.5 / 25 / 100


def test_poisson_batches_have_the_expected_size_and_may_be_empty() -> None:
    """10,000 draws with q = 0.02 of 50: binomial with mean 1 and variance 0.98; e^-1 of them are empty."""
    drawn = poisson_batches(50, 0.02, 10_000, RandomStream.seeded(0))
    sizes = torch.tensor([len(batch) for batch in drawn]).float()
    assert float(sizes.mean()) == pytest.approx(1.0, abs=0.05)
    assert float(sizes.var()) == pytest.approx(0.98, abs=0.08)
    assert float((sizes == 0).float().mean()) == pytest.approx(0.98**50, abs=0.03)


def test_an_empty_batch_is_a_step_of_noise() -> None:
    """One example of q = 1/2 is in no batch half of the time; every step is taken and moves the model."""
    model, examples = model_of("mlp"), examples_of(2)
    trainer = PrivateTrainer(1.0, 1.0, SEEDED)
    before = flat(model)
    trainer(model, examples, TrainSettings(local_steps=12, batch_size=1), torch_generator(0))
    assert trainer.steps == 12
    assert torch.isfinite(flat(model)).all()
    assert bool((flat(model) != before).all())


@pytest.mark.parametrize("engine", ["auto", "ghost", "hooks"])
def test_the_model_can_be_trained_privately_again_and_keeps_no_trace(engine: EngineName) -> None:
    """Neither hooks nor attributes nor a prefix stay: a process uses one model for many clients."""
    model, examples = model_of(), examples_of()
    names = list(model.state_dict())
    for _ in range(2):
        PrivateTrainer(1.0, 1.0, SEEDED, engine)(model, examples, ONE_STEP, torch_generator(0))
    assert list(model.state_dict()) == names
    assert not any(
        hasattr(p, name)
        for p in model.parameters()
        for name in ("grad_sample", "summed_grad", "_norm_sample", "_forward_counter")
    )
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in model.modules())


def test_seeded_noise_repeats_and_secret_noise_does_not() -> None:
    def trained(randomness: Randomness, seed: int) -> Tensor:
        model = model_of("mlp")
        PrivateTrainer(1.0, 1.0, randomness)(model, examples_of(), ONE_STEP, torch_generator(seed))
        return flat(model)

    assert trained(SEEDED, 0).equal(trained(SEEDED, 0))
    assert not trained(SEEDED, 0).equal(trained(SEEDED, 1))
    assert not trained(Randomness(secret=True), 0).equal(trained(Randomness(secret=True), 0))


def test_batch_norm_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3))
    expected = (
        r"model\.name: cannot be trained with privacy\.unit = \"example\": layer '2' \(BatchNorm1d\) mixes"
    )
    with pytest.raises(BadInput, match=expected):
        PrivateTrainer(1.0, 1.0, SEEDED)(model, examples_of(), ONE_STEP, torch_generator(0))


def test_10_000_updates_are_none_longer_than_the_clip_norm() -> None:
    """Of any length from 10⁻³ to 10³: the long ones have the norm, the short ones are as they were."""
    generator = torch_generator(0)
    lengths = 10 ** (6 * torch.rand(10_000, generator=generator) - 3)
    for update, length in zip(torch.randn(10_000, 7, generator=generator), lengths, strict=True):
        delta = update * (length / update.norm())
        short = clipped(delta, 0.7)
        assert float(short.norm()) == pytest.approx(min(0.7, float(delta.norm())), rel=1e-5)
        assert (short is delta) == (float(delta.double().norm()) <= 0.7)


def test_clipping_an_update_by_hand_and_its_noise_over_10_000_draws() -> None:
    """(3, 4) has norm 5 and is clipped to (0.6, 0.8) at 1; the noise has σC = 3 · 0.5."""
    assert clipped(torch.tensor([3.0, 4.0]), 1.0).tolist() == pytest.approx([0.6, 0.8])
    zero = torch.zeros(10_000)
    assert clipped(zero, 1.0) is zero
    noise = noised(zero, 3.0, 0.5, RandomStream.seeded(0))
    assert float(noise.std()) == pytest.approx(1.5, rel=0.03)
    assert noised(zero, 0.0, 0.5, RandomStream.seeded(0)) is zero
