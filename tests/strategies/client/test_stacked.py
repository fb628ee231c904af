"""Many trainings as one batched computation: what each gets is what it gets by itself."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from app.models.built_in import mlp
from app.models.norms import group_norm
from strategies.client.settings import TrainSettings
from strategies.client.stacked import (
    Alone,
    Failed,
    Limits,
    Outcome,
    Trained,
    put_into,
    train_stacked,
)
from strategies.client.stacked_data import Request
from strategies.client.training import StepState, Training, TrainStats, near
from strategies.core.augmenting import Augmented
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import GlobalState, seeded_layers, torch_generator
from strategies.models.mask import hold
from strategies.task import CLASSIFICATION, Task
from strategies.tasks.regression import Regression
from tests.strategies.ragged import SIZES, data, flat, network

TRAIN = TrainSettings(batch_size=4, local_epochs=2, learning_rate=0.1, momentum=0.9)


def trainings(
    sizes: Sequence[int] = SIZES,
    model: Callable[[], nn.Module] = network,
    settings: TrainSettings = TRAIN,
    change: Callable[[Training, int], Training] = lambda training, number: training,
) -> list[Training]:
    """Return a training for each size, with examples and generator of its own, and the same first model."""
    found = []
    for number, size in enumerate(sizes):
        examples = data(size, number)
        steps = 2 * -(-size // settings.batch_size)
        rates = [settings.learning_rate] * steps
        own = Training(model(), examples, settings, torch_generator(number, "batches"), steps, rates)
        found.append(change(own, number))
    return found


def layers(number: int) -> GlobalState:
    """Return a state of the global generators of a client's own."""
    with seeded_layers(torch_generator(number, "layers")):
        return GlobalState.now()


def one_by_one(each: Sequence[Training]) -> list[TrainStats]:
    """The slow reference: every client as it trains today."""
    stats = []
    for number, training in enumerate(each):
        before = GlobalState.now()
        layers(number).put_back()
        stats.append(training.run())
        before.put_back()
    return stats


def together(each: Sequence[Training], limits: Limits | None = None) -> list[Outcome]:
    outcomes = train_stacked(
        [Request(training, partial(layers, i)) for i, training in enumerate(each)], limits
    )
    for training, outcome in zip(each, outcomes, strict=True):
        if isinstance(outcome, Trained):
            put_into(training.model, outcome)
    return outcomes


def assert_same(make: Callable[[], list[Training]]) -> None:
    """Both ways, from the same start: ‖difference‖ ≤ 1e-5 ‖update‖ for every client, and the same loss."""
    alone, beside = make(), make()
    starts = [flat(t.model) for t in alone]
    stats, outcomes = one_by_one(alone), together(beside)
    for a, b, start, stat, outcome in zip(alone, beside, starts, stats, outcomes, strict=True):
        assert isinstance(outcome, Trained), outcome
        assert outcome.stats.num_steps == stat.num_steps
        assert outcome.stats.mean_loss == pytest.approx(stat.mean_loss, rel=1e-5)
        moved = (flat(a.model) - start).norm()
        assert moved > 1e-3
        assert (flat(a.model) - flat(b.model)).norm() <= 1e-5 * moved


class Line(nn.Module):
    """w x, from w = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x


class Halved(Task):
    """½ (output − target)²."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().flatten(1).sum(dim=1) / 2

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.flatten()


def test_two_clients_by_hand() -> None:
    """½ (w − m)² at rate ½, from 0. To 1 in two steps: ½, ¾, losses ½ and ⅛; to −2 in one: −1, loss 2."""
    task, settings = Halved(), TrainSettings(batch_size=1, momentum=0.0)

    def training(target: float, steps: int) -> Training:
        examples = TensorExamples(torch.ones(1, 1), torch.tensor([[target]]))
        generator = torch_generator(0)
        return Training(Line(), examples, settings, generator, steps, [0.5] * steps, task=task)

    each = [training(-2.0, 1), training(1.0, 2)]
    first, second = together(each)
    assert isinstance(first, Trained)
    assert first.stats == TrainStats(1, 2.0)
    assert isinstance(second, Trained)
    assert second.stats == TrainStats(2, 0.3125)
    assert [flat(t.model).item() for t in each] == [-1.0, 0.75]


@pytest.mark.parametrize(
    "settings",
    [
        TRAIN,
        TRAIN.model_copy(update={"nesterov": True, "weight_decay": 0.01}),
        TRAIN.model_copy(update={"momentum": 0.0, "max_gradient_norm": 0.3}),
        TrainSettings(batch_size=4, optimizer="adam", learning_rate=0.01, weight_decay=0.01),
        TrainSettings(batch_size=4, optimizer="adamw", learning_rate=0.01, weight_decay=0.01),
        TrainSettings(batch_size=4, optimizer="rmsprop", learning_rate=0.01),
    ],
)
def test_every_optimizer_on_ragged_clients(settings: TrainSettings) -> None:
    assert_same(lambda: trainings(settings=settings))


def test_algorithms_terms_of_some_and_of_others() -> None:
    """A proximal term, a correction, both, and nothing, side by side."""

    def change(training: Training, number: int) -> Training:
        correction = [torch.full_like(p, 0.01 * number) for p in training.parameters] if number % 2 else ()
        pulled = near(training.model, 0.5 if number > 1 else 0.0)
        return replace(training, adjust=replace(pulled, correction=correction).adjustment)

    assert_same(lambda: trainings(change=change))


def test_an_adjustment_that_is_any_function() -> None:
    def change(training: Training, number: int) -> Training:
        return replace(training, adjust=lambda parameters, g: [each * (number + 1) / 4 for each in g])

    assert_same(lambda: trainings(change=change))


def test_dropout_is_each_clients_own() -> None:
    """The numbers are drawn as the client by itself draws them, and not those of its neighbour."""
    assert_same(lambda: trainings(model=lambda: network(0.5)))
    same = trainings((8, 8), model=lambda: network(0.5))
    same = [replace(t, examples=same[0].examples, generator=torch_generator(0)) for t in same]
    together(same)
    assert not torch.allclose(flat(same[0].model), flat(same[1].model))


def test_variations_of_inputs_are_each_clients_own() -> None:
    def change(training: Training, number: int) -> Training:
        def vary(inputs: Tensor, generator: torch.Generator) -> Tensor:
            return inputs + torch.randn(inputs.shape, generator=generator)

        return replace(training, examples=Augmented(training.examples, vary))  # type: ignore[arg-type]

    assert_same(lambda: trainings(change=change))


def test_frozen_parts_stay_and_pruned_weights_stay_pruned() -> None:
    mask = (torch.arange(48) % 3 > 0).view(8, 6)

    def frozen() -> nn.Module:
        model = network()
        model.get_parameter("fc2.weight").requires_grad_(False)
        return hold(model, {"fc1.weight": mask})

    assert_same(lambda: trainings(model=frozen))
    each = trainings(model=frozen)
    together(each)
    for training in each:
        assert training.model.get_parameter("fc2.weight").equal(network().get_parameter("fc2.weight"))
        assert not training.model.get_parameter("fc1.weight")[~mask].any()


class Bent(nn.Module):
    """What torch prints of it does not tell how it bends."""

    def __init__(self, bend: Callable[[Tensor], Tensor], slope: float) -> None:
        super().__init__()
        self.bend, self.slope = bend, slope
        self.line = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(self.slope * self.line(x))


def in_turn(*makers: Callable[[], nn.Module], sizes: Sequence[int] = (8, 8, 8, 8)) -> list[Training]:
    """Return trainings whose models are made by one maker after the other, again and again."""
    with seeded_layers(torch_generator(0, "network")):
        models = [makers[number % len(makers)]() for number in range(len(sizes))]
    return trainings(sizes, change=lambda training, number: replace(training, model=models[number]))


@pytest.mark.parametrize(
    "makers",
    [
        (partial(Bent, torch.tanh, 1.0), partial(Bent, torch.sigmoid, 1.0)),
        (partial(Bent, torch.tanh, 1.0), partial(Bent, torch.tanh, 2.0)),
        (partial(network, 0.1), partial(network, 0.6)),
    ],
)
def test_models_that_differ_in_what_is_no_parameter_are_apart(
    makers: tuple[Callable[[], nn.Module], ...],
) -> None:
    assert_same(lambda: in_turn(*makers))


def square(pruned: str = "", frozen: float | None = None) -> nn.Module:
    """Return a network with two layers of one shape, one of them pruned, or with a norm that is frozen."""
    with seeded_layers(torch_generator(0, "square")):
        layers = nn.Linear(6, 6), nn.GroupNorm(1, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3)
    model = nn.Sequential(*layers)
    if frozen is not None:
        nn.init.constant_(model.get_parameter("1.weight").requires_grad_(False), frozen)
    return hold(model, {pruned: MASK} if pruned else {})


MASK = (torch.arange(36) % 3 > 0).view(6, 6)


def test_masks_of_different_layers_are_apart() -> None:
    assert_same(lambda: in_turn(partial(square, "0.weight"), partial(square, "3.weight")))


def test_a_model_that_was_tried_may_change_afterwards() -> None:
    """Whoever comes next and is like what it was has nothing of what it has become."""
    first = in_turn(partial(square, frozen=0.5))
    together(first)
    for training in first:
        nn.init.constant_(training.model.get_parameter("1.weight"), -3.0)
    assert_same(lambda: in_turn(partial(square, frozen=0.5)))


def test_a_model_that_is_pruned_after_a_training_stays_pruned() -> None:
    each = in_turn(square)
    together(each)
    for training in each:
        hold(training.model, {"3.weight": MASK})
    together([replace(training) for training in each])
    for training in each:
        assert not training.model.get_parameter("3.weight")[~MASK].any()


def test_convolutions_and_other_tasks() -> None:
    def images(training: Training, number: int) -> Training:
        x = training.examples.batch(torch.arange(len(training.examples)))[0]
        return replace(training, examples=TensorExamples(x.view(-1, 1, 2, 3), training.examples.targets()))  # type: ignore[union-attr]

    def convolution() -> nn.Module:
        with seeded_layers(torch_generator(0)):
            conv = nn.Conv2d(1, 4, 3, padding=1)
            return nn.Sequential(conv, group_norm(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))

    assert_same(lambda: trainings(model=convolution, change=images))

    def numbers(training: Training, number: int) -> Training:
        targets = training.examples.targets().float().unsqueeze(1).expand(-1, 3).contiguous()
        examples = TensorExamples(training.examples.batch(torch.arange(len(targets)))[0], targets)  # type: ignore[arg-type]
        return replace(training, examples=examples, task=task)

    task = Regression(1.0, 3)
    assert_same(lambda: trainings(change=numbers))


def test_rates_that_change_and_end_at_different_steps() -> None:
    """Clients of as many steps share a schedule; the others' schedule is another one."""

    def change(training: Training, number: int) -> Training:
        settings = training.settings.model_copy(update={"schedule": "cosine"})
        return replace(training, settings=settings, rates=settings.rates(1, 2, training.steps))

    sizes = (12, 8, 12, 7)
    alone, beside = (trainings(sizes, change=change) for _ in range(2))
    one_by_one(alone)
    outcomes = together(beside)
    assert all(isinstance(outcome, Trained) for outcome in outcomes)
    for a, b in zip(alone, beside, strict=True):
        torch.testing.assert_close(flat(a.model), flat(b.model), rtol=1e-4, atol=1e-6)


@given(st.permutations(range(len(SIZES))))
def test_the_order_of_clients_is_irrelevant(order: list[int]) -> None:
    straight, shuffled = trainings(), trainings()
    together(straight)
    outcomes = train_stacked([Request(shuffled[i], partial(layers, i)) for i in order])
    for i, outcome in zip(order, outcomes, strict=True):
        assert isinstance(outcome, Trained)
        put_into(shuffled[i].model, outcome)
    for a, b in zip(straight, shuffled, strict=True):
        torch.testing.assert_close(flat(a.model), flat(b.model), rtol=1e-5, atol=1e-7)


def test_nobody_is_touched_by_a_client_of_nothing_but_nan() -> None:
    each, calm = trainings(), trainings()
    bad = TensorExamples(torch.full((9, 6), torch.nan), torch.zeros(9, dtype=torch.int64))
    each[1] = replace(each[1], examples=bad)
    outcomes = together(each)
    one_by_one(calm)
    assert isinstance(outcomes[1], Trained)
    assert outcomes[1].stats.mean_loss != outcomes[1].stats.mean_loss
    assert flat(each[1].model).isnan().any()
    for i in (0, 2, 3):
        torch.testing.assert_close(flat(each[i].model), flat(calm[i].model), rtol=1e-4, atol=1e-6)


@dataclass(frozen=True, eq=False)
class Failing(Examples):
    """Examples that cannot be read from a batch on."""

    inner: TensorExamples
    good: list[int]

    group_of = property(lambda self: self.inner.group_of)  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.inner)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.batch(index)

    def training_batch(
        self, index: Tensor, generator: torch.Generator, *, alone: bool = False
    ) -> tuple[Tensor, Tensor]:
        if not self.good:
            raise OSError("the disk is gone")
        self.good.pop()
        return self.inner.batch(index)

    def subset(self, indices: object) -> "Failing":
        return self

    def groups(self) -> Tensor | None:
        return self.inner.groups()

    def to(self, device: object) -> "Failing":
        return self


@pytest.mark.parametrize(("which", "good"), [(0, 0), (0, 2), (2, 0), (3, 1)])
def test_data_that_fail_are_their_clients_own_fault(which: int, good: int) -> None:
    each, calm = trainings(), trainings()
    failing = Failing(each[which].examples, [0] * good)  # type: ignore[arg-type]
    each[which] = replace(each[which], examples=failing)
    outcomes = together(each)
    one_by_one(calm)
    failed = outcomes[which]
    assert isinstance(failed, Failed)
    assert str(failed.error) == "the disk is gone"
    for i in set(range(len(SIZES))) - {which}:
        assert isinstance(outcomes[i], Trained)
        torch.testing.assert_close(flat(each[i].model), flat(calm[i].model), rtol=1e-4, atol=1e-6)


def test_a_label_that_no_class_has_leaves_the_others_side_by_side() -> None:
    """It fails the whole computation: the halves without it go on, and it is left to its own training."""
    each, calm = trainings((8,) * 8), trainings((8,) * 8)
    wrong = TensorExamples(each[5].examples.x, torch.full((8,), 7))  # type: ignore[attr-defined]
    each[5] = replace(each[5], examples=wrong)
    outcomes = together(each)
    one_by_one(calm)
    assert isinstance(outcomes[5], Alone)
    assert flat(each[5].model).equal(flat(network()))
    with pytest.raises(IndexError):
        each[5].run()
    for i in (0, 1, 2, 3, 6, 7):
        assert isinstance(outcomes[i], Trained)
        torch.testing.assert_close(flat(each[i].model), flat(calm[i].model), rtol=1e-4, atol=1e-6)
    assert isinstance(outcomes[4], Alone)  # Its half was the two of them


def test_trainings_of_several_kinds_are_stacked_by_kind() -> None:
    def wide() -> nn.Module:
        with seeded_layers(torch_generator(0)):
            return mlp((6, 5), 3, "fc2")

    other = [replace(t, model=wide()) for t in trainings((8, 8))]
    inputs = TensorExamples(torch.randn(4, 6).double(), torch.zeros(4, dtype=torch.int64))
    odd = replace(trainings((4,))[0], examples=inputs)
    both = [*trainings((8, 8)), *other, odd]
    kinds = [type(outcome) for outcome in together(both)]
    assert kinds == [Trained, Trained, Trained, Trained, Alone]


def test_at_most_so_many_at_a_time() -> None:
    few, all_at_once = trainings((8,) * 5), trainings((8,) * 5)
    outcomes = together(few, Limits(2))
    together(all_at_once)
    assert [type(o) for o in outcomes] == [Alone] + [Trained] * 4
    torch.testing.assert_close(flat(few[1].model), flat(all_at_once[1].model), rtol=1e-5, atol=1e-7)
    assert [type(o) for o in together(trainings((8,) * 4), Limits(3))] == [Trained] * 4


def test_where_nothing_is_gained_they_are_left_alone() -> None:
    each = [
        replace(t, model=nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 6), nn.Flatten()))
        for t in trainings((8, 8))
    ]
    (first, _) = together(each, Limits(where_faster=True))
    assert first == Alone("a CPU takes convolutions one after the other, stacked or not")
    assert isinstance(together(each)[0], Trained)


def test_a_damaged_result_would_be_noticed() -> None:
    """A client with its neighbour's batches is far from what it is by itself."""
    alone, beside = trainings((8, 8)), trainings((8, 8))
    beside[0] = replace(beside[0], examples=beside[1].examples)
    one_by_one(alone)
    together(beside)
    assert not torch.allclose(flat(alone[0].model), flat(beside[0].model), rtol=1e-3)


def test_states_without_effect_are_none() -> None:
    assert StepState().adjustment is None
    assert copy.copy(CLASSIFICATION) is not None
