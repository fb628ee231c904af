"""strategies/core/seeds.py: a generator is a function of seed and scope alone."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from strategies.core.seeds import derive_seed, numpy_generator, torch_generator

SCOPES = st.lists(st.integers() | st.text(max_size=5), max_size=3).map(tuple)


def torch_draws(seed: int, *scope: int | str) -> list[float]:
    """Return ten numbers of a torch generator."""
    return torch.rand(10, generator=torch_generator(seed, *scope)).tolist()


def numpy_draws(seed: int, *scope: int | str) -> list[float]:
    """Return ten numbers of a numpy generator."""
    numbers: list[float] = numpy_generator(seed, *scope).random(10).tolist()
    return numbers


def test_by_hand() -> None:
    """The first eight bytes of the SHA-256 of the text "(3, 'client', 7)", the lowest bit dropped."""
    first = hashlib.sha256(b"(3, 'client', 7)").hexdigest()[:16]
    assert derive_seed(3, "client", 7) == int(first, 16) // 2


@settings(deadline=None)
@given(st.integers(), SCOPES)
def test_in_range_and_repeatable(seed: int, scope: tuple[int | str, ...]) -> None:
    """Any seed and scope give one number of 63 bits, the same each time."""
    assert 0 <= derive_seed(seed, *scope) < 2**63
    assert derive_seed(seed, *scope) == derive_seed(seed, *scope)


@settings(deadline=None)
@given(st.integers(), SCOPES, st.integers(), SCOPES)
def test_another_seed_or_scope_differs(
    seed: int, scope: tuple[int | str, ...], other_seed: int, other_scope: tuple[int | str, ...]
) -> None:
    """Two seeds are equal only where seed and scope are."""
    same = (seed, scope) == (other_seed, other_scope)
    assert (derive_seed(seed, *scope) == derive_seed(other_seed, *other_scope)) == same


@pytest.mark.parametrize(
    "scope",
    [(), ("client", 7), ("client", "77"), ("client7",), ("7", "client"), ("client", "7", ""), ("client, 7",)],
)
def test_look_alike_scopes_differ(scope: tuple[int | str, ...]) -> None:
    """Type, order and the borders between parts all count."""
    assert derive_seed(0, *scope) != derive_seed(0, "client", "7")


def test_numpy_integers_are_integers() -> None:
    """A seed that numpy drew counts as the whole number it is."""
    assert derive_seed(int(np.int64(5)), "a") == derive_seed(np.int64(5), "a")  # type: ignore[arg-type]


@pytest.mark.parametrize("draws", [torch_draws, numpy_draws])
def test_generators_repeat_and_differ(draws: Callable[..., list[float]]) -> None:
    """Same seed and scope repeat the numbers; another seed or scope gives others."""
    assert draws(0, "client", "7") == draws(0, "client", "7")
    assert draws(0, "client", "7") != draws(1, "client", "7")
    assert draws(0, "client", "7") != draws(0, "client", "8")


def test_generators_share_nothing() -> None:
    """Neither another generator's draws nor the global one has an effect, and the global one is not used."""
    expected = torch_draws(0, "a"), numpy_draws(0, "a")
    before = torch.get_rng_state()
    torch_draws(0, "b")
    numpy_draws(0, "b")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        assert (torch_draws(0, "a"), numpy_draws(0, "a")) == expected
    assert torch.get_rng_state().equal(before)


def test_generator_is_on_its_device() -> None:
    """Unless told otherwise, the CPU."""
    assert torch_generator(0).device == torch.device("cpu")
    assert torch_generator(0, "a", device=torch.device("cpu")).device == torch.device("cpu")
