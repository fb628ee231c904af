"""Private trainings of many clients as one batched computation: what each gets is what it gets by itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.side_by_side import Report, side_by_side
from strategies.client.stackable import examined
from strategies.client.stacked import Limits
from strategies.client.training import GradientAdjustment, Training, TrainStats, near
from strategies.client.written_out import _Linear
from strategies.core.examples import Examples, GroupsOf, Inputs, TensorExamples
from strategies.core.secret_random import Randomness, RandomStream
from strategies.core.seeds import seeded_layers, torch_generator
from strategies.layers.privacy.settings import EngineName
from strategies.layers.privacy.training import PrivateSteps, PrivateTrainer
from strategies.models.mask import hold
from strategies.task import CLASSIFICATION, Task
from strategies.tasks.regression import Regression
from tests.strategies.ragged import SIZES, data, flat, network

TRAIN = TrainSettings(batch_size=3, local_epochs=2, learning_rate=0.1, momentum=0.9)


@dataclass
class Federation:
    """Private trainings, one for each size."""

    sizes: Sequence[int] = SIZES
    model: Callable[[], nn.Module] = network
    examples: Callable[[int, int], Examples] = data
    settings: TrainSettings = TRAIN
    noise: float = 1.0
    clip_norms: Sequence[float] = (0.3, 0.3, 1.0, 0.05)
    secret: bool = False
    engine: EngineName = "auto"
    adjust: Callable[[nn.Module], GradientAdjustment | None] = lambda model: None
    task: Task = CLASSIFICATION

    def __post_init__(self) -> None:
        self.models = [self.model() for _ in self.sizes]
        self.trainers = [
            PrivateTrainer(self.noise, norm, Randomness(self.secret), self.engine) for norm in self.clip_norms
        ]

    def train(self, number: int) -> TrainStats:
        model, examples = self.models[number], self.examples(self.sizes[number], number)
        with seeded_layers(torch_generator(number, "layers")):
            return self.trainers[number](
                model,
                examples,
                self.settings,
                torch_generator(number, "batches"),
                adjust=self.adjust(model),
                task=self.task,
            )

    def one_by_one(self) -> list[TrainStats]:
        return [self.train(number) for number in range(len(self.sizes))]

    def together(self, limits: Limits | None = None) -> tuple[list[TrainStats], Report]:
        report = Report()
        works = [partial(self.train, number) for number in range(len(self.sizes))]
        return side_by_side(works, limits, report=report), report


def assert_same(federation: Federation, engine: EngineName = "auto") -> None:
    """From the same start: ‖difference‖ ≤ 1e-5 ‖update‖ of every client, and as many steps.

    `engine` is that of the clients which train one by one.
    """
    alone, beside = replace(federation, engine=engine), replace(federation)
    stats = alone.one_by_one()
    found, report = beside.together()
    assert (report.together, dict(report.alone)) == (len(federation.sizes), {})
    assert found == stats
    assert [t.steps for t in beside.trainers] == [s.num_steps for s in stats]
    for a, b in zip(alone.models, beside.models, strict=True):
        moved = (flat(a) - flat(federation.model())).norm()
        assert moved > 1e-3
        assert (flat(a) - flat(b)).norm() <= 1e-5 * moved


class Slope(nn.Module):
    """A linear layer without bias, from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


@dataclass(frozen=True)
class Pulled(Regression):
    """A loss whose gradient by the output is −target."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -(outputs * targets).sum(dim=1)


@pytest.mark.parametrize("model", [Slope, lambda: nn.Sequential(nn.Linear(1, 1, bias=False))])
def test_two_clients_by_hand(model: Callable[[], nn.Module]) -> None:
    """Gradients −y x: (−3, −0.5) clipped to 1 is −1 − 0.5, and (−8) to 2 is −2; over n = 2 and 1, q = 1.

    So w is 0 + 0.75 and 0 + 2 after a step of rate 1 without noise.
    """

    def examples(size: int, number: int) -> Examples:
        x = [[3.0], [0.5]] if number == 0 else [[8.0]]
        return TensorExamples(torch.tensor(x), torch.ones(size, 1))

    def at_zero() -> nn.Module:
        made = model()
        for p in made.parameters():
            nn.init.zeros_(p)
        return made

    settings = TrainSettings(batch_size=2, local_steps=1, learning_rate=1.0, momentum=0.0)
    found = Federation((2, 1), at_zero, examples, settings, 0.0, (1.0, 2.0), task=Pulled())
    _, report = found.together()
    assert report.together == 2
    w = [float(next(m.parameters()).detach()) for m in found.models]
    assert w == pytest.approx([0.75, 2.0], rel=1e-5)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_ragged_clients_with_small_batches_and_empty_ones(noise: float, optimizer: str) -> None:
    settings = TrainSettings(
        batch_size=2, local_steps=12, learning_rate=0.05, momentum=0.5, optimizer=optimizer
    )
    assert_same(Federation(settings=settings, noise=noise))


def test_norms_of_every_layer_that_is_written_out() -> None:
    def model() -> nn.Module:
        with seeded_layers(torch_generator(0, "network")):
            return nn.Sequential(
                nn.Flatten(), nn.Linear(6, 8, bias=False), nn.GroupNorm(2, 8), nn.Tanh(), nn.Linear(8, 3)
            )

    assert_same(Federation(model=model, clip_norms=(0.1, 0.2, 0.5, 0.05)))


def test_a_norm_that_is_not_trained_counts_for_nothing() -> None:
    def model() -> nn.Module:
        with seeded_layers(torch_generator(0, "network")):
            return nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(1, 8, affine=False), nn.Linear(8, 3))

    assert examined(private_training(model())).written is not None
    assert_same(Federation(model=model))


@pytest.mark.parametrize("engine", ["ghost", "hooks"])
def test_it_is_what_opacus_computes(engine: EngineName) -> None:
    assert_same(Federation(), engine)


def test_algorithms_terms() -> None:
    assert_same(Federation(adjust=lambda model: near(model, 0.5)))


def test_dropout_is_each_clients_own() -> None:
    assert_same(Federation(model=partial(network, 0.5)))


def test_convolutions_by_functorch() -> None:
    def model() -> nn.Module:
        with seeded_layers(torch_generator(0, "network")):
            return nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(16, 3)
            )

    assert_same(Federation(model=model, examples=partial(data, shape=(1, 4, 4))))


class Named(Examples):
    """Inputs of two parts, read one batch at a time."""

    def __init__(self, size: int, seed: int) -> None:
        self.whole = data(size, seed)

    @property
    def group_of(self) -> GroupsOf:
        return lambda targets: None

    def __len__(self) -> int:
        return len(self.whole)

    def batch(self, index: Tensor) -> tuple[Inputs, Tensor]:
        x, y = self.whole.batch(index)
        assert isinstance(x, Tensor)
        return {"first": x[:, :2], "second": x[:, 2:]}, y

    def subset(self, indices: Tensor | Sequence[int]) -> "Named":
        raise NotImplementedError

    def groups(self) -> None:
        return None

    def to(self, device: str | torch.device) -> "Named":
        return self


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 3), nn.Linear(4, 3)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        out: Tensor = self.one(first) * self.two(second)
        return out


def test_inputs_of_several_parts() -> None:
    def model() -> nn.Module:
        with seeded_layers(torch_generator(0, "network")):
            return TwoParts()

    assert_same(Federation(model=model, examples=Named))


def test_data_that_fail_are_their_clients_own_fault() -> None:
    class Failing(Named):
        def batch(self, index: Tensor) -> tuple[Inputs, Tensor]:
            if index.max() > 9:
                raise OSError("the disk is gone")
            return super().batch(index)

    def model() -> nn.Module:
        with seeded_layers(torch_generator(0, "network")):
            return TwoParts()

    beside, alone = (Federation(model=model, examples=Failing) for _ in range(2))
    with pytest.raises(OSError, match="the disk is gone"):
        beside.together()
    for number in (1, 2, 3):
        alone.train(number)
        assert torch.allclose(flat(alone.models[number]), flat(beside.models[number]), atol=1e-6)
    assert torch.equal(flat(beside.models[0]), flat(model()))
    assert beside.trainers[0].steps == 0


def test_an_example_that_is_not_finite_spoils_its_own_client_alone() -> None:
    def examples(size: int, number: int) -> Examples:
        found = data(size, number)
        if number == 1:
            found.x[:] = torch.inf
        return found

    beside, alone = Federation(examples=examples), Federation(examples=examples)
    beside.together()
    alone.one_by_one()
    finite = [bool(flat(model).isfinite().all()) for model in beside.models]
    assert finite == [True, False, True, True]
    for number in (0, 2, 3):
        assert torch.allclose(flat(alone.models[number]), flat(beside.models[number]), atol=1e-6)


def test_secret_noise_is_drawn_anew_and_seeded_noise_is_not() -> None:
    def trained(secret: bool) -> list[Tensor]:
        federation = Federation(secret=secret)
        federation.together()
        return [flat(model) for model in federation.models]

    assert all(torch.equal(a, b) for a, b in zip(trained(False), trained(False), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(trained(True), trained(True), strict=True))


def test_the_noise_has_the_size_that_was_paid_for() -> None:
    """A gradient of zero: after a step of rate 1 every number is noise of σ C / qn = 2 · 0.5 / 3."""
    settings = TrainSettings(batch_size=3, local_steps=1, learning_rate=1.0, momentum=0.0)

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(2000, 1))

    def examples(size: int, number: int) -> Examples:
        return TensorExamples(torch.zeros(size, 2000), torch.zeros(size, 1))

    def zero() -> nn.Module:
        made = model()
        for p in made.parameters():
            nn.init.zeros_(p)
        return made

    found = Federation((9, 9), zero, examples, settings, 2.0, (0.5, 0.5), True, task=Regression())
    _, report = found.together()
    assert report.together == 2
    first, second = (flat(m) for m in found.models)
    for noise in (first, second):
        assert float(noise.std()) == pytest.approx(2 * 0.5 / 3, rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.1


@pytest.mark.parametrize("engine", ["ghost", "hooks"])
def test_engines_of_opacus_are_used_where_they_are_named(engine: EngineName) -> None:
    federation = Federation(engine=engine)
    _, report = federation.together()
    assert report.together == 0
    assert dict(report.alone) == {
        f'privacy.engine = "{engine}" computes the gradients of one client at a time': 4
    }


def test_pruned_models_are_trained_by_themselves() -> None:
    def model() -> nn.Module:
        made = network()
        hold(made, {"fc1.weight": torch.rand(8, 6, generator=torch_generator(0, "mask")) > 0.5})
        return made

    alone, beside = Federation(model=model), Federation(model=model)
    alone.one_by_one()
    _, report = beside.together()
    assert report.together == 0
    assert all(torch.equal(flat(a), flat(b)) for a, b in zip(alone.models, beside.models, strict=True))


def test_gradients_of_examples_that_take_too_much_are_not_held() -> None:
    def model() -> nn.Module:
        with seeded_layers(torch_generator(0, "network")):
            return nn.Sequential(nn.Linear(6, 3000), nn.Softplus(), nn.Linear(3000, 3000), nn.Linear(3000, 3))

    settings = TrainSettings(batch_size=4, local_steps=1, learning_rate=0.1)
    _, report = Federation((8, 8), model, settings=settings, clip_norms=(1.0, 1.0)).together()
    assert dict(report.alone) == {"its examples' gradients take 275 MB a client": 2}


def private_training(model: nn.Module) -> Training:
    steps = PrivateSteps(1.0, 0.3, 0.5, 8, RandomStream.secret, RandomStream.secret)
    return Training(model, data(8, 0), TRAIN, torch_generator(0), 1, mechanism=steps)


def test_norms_that_are_not_those_of_autograd_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined(private_training(network())).written is not None
    monkeypatch.setattr(_Linear, "squares", lambda self, of_y: of_y.square().sum(dim=2))
    assert examined(private_training(network())).written is None
