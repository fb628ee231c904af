"""Every engine on every kind of layer, against one example at a time; noise and traces of each."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings, strategies as st
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from torch import Tensor, nn

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from app.models.per_client import build_client_model
from benchmarks.private_steps import Transformer
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.core.secret_random import RandomStream
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.engines import Engine, Mechanism, engine_of
from strategies.layers.privacy.models import require_private, verify
from strategies.layers.privacy.noise import grid_step
from strategies.layers.privacy.settings import EngineName
from tests.strategies.layers.privacy.private_models import (
    ALL,
    CASES,
    SQUARES,
    WIDTH,
    median_norm,
    numbers,
    slow_sum,
    tokens,
)


@contextmanager
def listening(
    name: EngineName, model: nn.Module, clip_norm: float = 1.0, noise_multiplier: float = 0.0
) -> Iterator[Engine]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    mechanism = Mechanism(noise_multiplier, clip_norm, 1.0, RandomStream.seeded(0))
    engine = engine_of(name, model, optimizer, mechanism)
    try:
        yield engine
    finally:
        engine.close()


def fast_sum(name: EngineName, model: nn.Module, x: Tensor, clip_norm: float) -> list[Tensor]:
    """Return the second of two steps' sums without noise, so that nothing of a step is left in the next."""
    require_private(model, name)
    verify(
        model, SQUARES, TensorExamples(x, torch.zeros(len(x), dtype=torch.int64)), name, torch_generator(0)
    )
    with listening(name, model, clip_norm) as engine:
        for part in (x[:2], x):
            engine.backward(SQUARES.losses(model(part), part))
            engine.release()
        return [p.grad.clone() for p in engine.parameters if p.grad is not None]


def assert_same(name: EngineName, model: nn.Module, x: Tensor, clip_norm: float | None = None) -> None:
    bound = median_norm(model, x) if clip_norm is None else clip_norm
    slow = slow_sum(model, x, bound)
    torch.testing.assert_close(fast_sum(name, model, x, bound), slow, rtol=1e-4, atol=1e-5 * bound)
    assert sum(float(gradient.norm()) for gradient in slow) > 0


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_every_layer_against_one_example_at_a_time(name: str, engine: EngineName) -> None:
    """Half of the examples are above the clip norm; an engine that cannot do it refuses by its key."""
    case = CASES[name]
    model = case.build()
    if engine in case.engines:
        assert_same(engine, model, case.x)
    else:
        with pytest.raises(
            BadInput, match=f'privacy.engine: given "{engine}", but layer .* allowed for this'
        ):
            fast_sum(engine, model, case.x, 1.0)


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18"])
def test_the_projects_own_models(name: str, engine: EngineName) -> None:
    settings_of = ModelSettings.model_validate({"name": name, "width": 4, "hidden": 8})
    model = build_model(settings_of, (1, 8, 8), 3, seed=1)
    assert_same(engine, model, numbers(3, 1, 8, 8), 0.5)


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("name", ["mlp-6-5@0", "cnn-4-6@0", "cnn-4-6-8@0"])
def test_models_of_single_clients(name: str, engine: EngineName) -> None:
    assert_same(engine, build_client_model(name, (1, 20, 20), 3, 0, "0"), numbers(3, 1, 20, 20), 0.5)


@pytest.mark.parametrize("engine", ["auto", "ghost", "hooks"])
def test_a_small_transformer(engine: EngineName) -> None:
    """As long as its batch, so that the two dimensions cannot be told apart by their size."""
    assert_same(engine, Transformer(), tokens(5, 5))


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize("frozen", [(0,), (2,), (0, 1), (1, 3), (0, 1, 2)])
def test_frozen_parameters_count_for_nothing(frozen: tuple[int, ...], engine: EngineName) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3))
    parameters = list(model.parameters())
    for index in frozen:
        parameters[index].requires_grad_(requires_grad=False)
    assert_same(engine, model, numbers(4, 2, 6, 6))
    assert all(parameters[index].grad is None for index in frozen)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(ALL),
    st.integers(1, 4),
    st.lists(st.integers(1, 3), max_size=2),
    st.booleans(),
    st.floats(0.01, 100.0),
)
def test_linear_layers_of_any_shape(
    engine: EngineName, count: int, inner: list[int], bias: bool, clip_norm: float
) -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 3, bias=bias), nn.Tanh(), nn.Linear(3, 2))
    assert_same(engine, model, numbers(count, *inner, WIDTH), clip_norm)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(ALL),
    st.sampled_from([1, 3, 9]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.booleans(),
)
def test_convolutions_of_any_shape(
    engine: EngineName,
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    last: bool,
) -> None:
    model = nn.Conv2d(channels, 2, kernel, stride, padding, dilation)
    x = numbers(3, channels, 6, 7)
    assert_same(engine, model, x.to(memory_format=torch.channels_last) if last else x)


@pytest.mark.parametrize("engine", ALL)
def test_a_layer_that_the_losses_do_not_need_has_a_zero_gradient(engine: EngineName) -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 2), "unused": nn.Linear(4, 2)})
    x = numbers(3, 4)
    with listening(engine, model) as engine_of_model:
        engine_of_model.backward(SQUARES.losses(model["used"](x), x))
        engine_of_model.release()
        norms = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    assert [norm > 0 for norm in norms] == [True, True, False, False]


def test_a_turn_that_the_losses_do_not_need_is_left_out_or_refused() -> None:
    """Opacus would take the activations of the second turn for those of the first."""
    model, x = nn.Sequential(nn.Linear(4, 4)), numbers(3, 4)

    def sums(engine: EngineName) -> list[Tensor]:
        with listening(engine, model) as listener:
            first = SQUARES.losses(model(x), x)
            model(2 * x)
            listener.backward(first)
            listener.release()
            return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    torch.testing.assert_close(sums("auto"), slow_sum(model, x, 1.0), rtol=1e-5, atol=1e-5)
    with pytest.raises(BadInput, match="layer '0' has a turn that the losses do not need"):
        sums("hooks")


@pytest.mark.parametrize("engine", ALL)
def test_an_empty_batch_between_two_others_is_noise_alone_and_on_the_grid(engine: EngineName) -> None:
    """σC = 2 · 0.5 over 10,100 entries; every released number is a multiple of the grid's step, 2⁻¹⁰."""
    model, x = nn.Linear(100, 100), numbers(3, 100)
    with listening(engine, model, 0.5, 2.0) as listener:
        for batch in (x, x[:0], x):
            listener.backward(SQUARES.losses(model(x), x)) if len(batch) else listener.skip()
            listener.release()
            released = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            assert float(released.std()) == pytest.approx(1.0, rel=0.03)
            steps = released / grid_step(1.0)
            assert steps.equal(steps.round())


@pytest.mark.parametrize("engine", ALL)
def test_nothing_stays_on_the_model(engine: EngineName) -> None:
    model, x = Transformer() if engine != "one-pass" else nn.Sequential(nn.Linear(5, 4)), tokens(3, 5)
    given = x.float() if engine == "one-pass" else x
    listed = [sorted(vars(part)) for part in [*model.modules(), *model.parameters()]]
    fast_sum(engine, model, given, 1.0)
    assert [sorted(vars(part)) for part in [*model.modules(), *model.parameters()]] == listed
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_opacus_own_registry_stays_as_it_is_and_what_a_user_registers_there_is_taken() -> None:
    registry = GradSampleModule.GRAD_SAMPLERS
    own_of_opacus = registry[nn.Conv2d]
    assert own_of_opacus.__module__.startswith("opacus.")
    calls: list[int] = []

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    @register_grad_sampler(Scale)
    def sampler(layer: Scale, activations: list[Tensor], back: Tensor) -> dict[nn.Parameter, Tensor]:
        calls.append(len(back))
        return {layer.weight: activations[0] * back}

    try:
        for engine in ("auto", "ghost", "hooks"):
            assert_same(engine, Scale(), numbers(4, WIDTH))
    finally:
        del registry[Scale]
    assert len(calls) >= 6
    assert registry[nn.Conv2d] is own_of_opacus
