"""What is released lies on a grid and has the noise that was asked for."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.secret_random import BLOCK, RandomStream
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.noise import grid_step, noised

MULTIPLIERS = st.floats(0.05, 10_000)
NORMS = st.floats(1e-3, 100)


def update(size: int, norm: float, seed: int = 0) -> Tensor:
    drawn = torch.randn(size, generator=torch_generator(seed))
    return drawn * (norm / float(drawn.norm()))


def test_by_hand() -> None:
    """σC = 1: multiples of 2⁻¹⁰, the nearest to update plus noise."""
    delta, noise = torch.tensor([0.25, -1.0, 1e-7]), RandomStream.seeded(0).normal(3)
    expected = [round((x + z) * 1024) / 1024 for x, z in zip(delta.tolist(), noise.tolist(), strict=True)]
    assert noised(delta, 2.0, 0.5, RandomStream.seeded(0)).tolist() == expected


@settings(deadline=None)
@given(MULTIPLIERS, NORMS, st.integers(0, 2**30))
def test_a_released_value_is_a_multiple_of_the_step_as_a_float32(
    multiplier: float, norm: float, seed: int
) -> None:
    """In whole numbers, without rounding; the step is a power of two far below the noise."""
    std = multiplier * norm
    step = grid_step(std)
    assert math.frexp(step)[0] == 0.5
    assert std / 2**11 < step <= std / 2**10
    released = noised(update(50, norm, seed), multiplier, norm, RandomStream.seeded(seed))
    assert released.dtype == torch.float32
    assert all((Fraction(value) / Fraction(step)).denominator == 1 for value in released.tolist())


@settings(deadline=None)
@given(MULTIPLIERS, NORMS, st.integers(0, 2**30))
def test_the_grid_does_not_depend_on_the_update(multiplier: float, norm: float, seed: int) -> None:
    """Floats near a released value that only one of two updates could have led to: there are none."""
    step, stream = Fraction(grid_step(multiplier * norm)), RandomStream.seeded(seed)
    for delta in (update(20, norm, seed), update(20, norm, seed + 1), torch.zeros(20)):
        released = noised(delta, multiplier, norm, stream)
        assert {Fraction(value) % step for value in released.tolist()} == {Fraction(0)}


def test_plain_float_noise_is_on_no_grid() -> None:
    """What the property above would notice."""
    plain = update(50, 1.0) + RandomStream.seeded(0).normal(50).float()
    assert any((Fraction(value) / Fraction(grid_step(1.0))).denominator > 1 for value in plain.tolist())


@pytest.mark.parametrize(("multiplier", "norm"), [(0.05, 1.0), (1.0, 1.0), (3.0, 0.7), (200.0, 2.0)])
def test_rounding_changes_neither_mean_nor_variance(multiplier: float, norm: float) -> None:
    size = 400_000
    delta, std = update(size, norm), multiplier * norm
    error = noised(delta, multiplier, norm, RandomStream.seeded(4)).double() - delta.double()
    assert abs(float(error.mean())) < 4 * std / math.sqrt(size)
    assert float(error.var()) == pytest.approx(std**2, rel=4 * math.sqrt(2 / size))


@pytest.mark.parametrize("shape", [(), (0,), (BLOCK + 3,), (4, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_type_stay_and_the_update_is_not_altered(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    delta = torch.zeros(shape, dtype=dtype)
    released = noised(delta, 1.0, 1.0, RandomStream.seeded(0))
    assert (released.shape, released.dtype) == (delta.shape, dtype)
    assert not delta.any()
    flat = noised(delta.flatten(), 1.0, 1.0, RandomStream.seeded(0))
    assert torch.equal(released.flatten(), flat)


def test_a_transposed_update_gets_its_own_noise() -> None:
    """Entry by entry, whatever the memory layout."""
    delta = torch.arange(6.0).view(2, 3)
    across = noised(delta.T, 1.0, 1.0, RandomStream.seeded(0))
    assert torch.equal(across, noised(delta.T.contiguous(), 1.0, 1.0, RandomStream.seeded(0)))


def test_without_noise_nothing_is_rounded() -> None:
    delta = update(5, 1.0)
    assert noised(delta, 0.0, 1.0, RandomStream.seeded(0)) is delta
