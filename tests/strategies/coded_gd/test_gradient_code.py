"""strategies/coded_gd/gradient_code.py: every set of stragglers is made up for."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from strategies.coded_gd.gradient_code import decoding, encoding

SIZES = [(n, s) for n in range(1, 7) for s in range(n)]


def test_three_clients_and_one_straggler_by_hand() -> None:
    """The paper's example: f = (½g₁ + g₂, g₂ − g₃, ½g₁ + g₃); a = (2, −1) for the first two."""
    rows = np.array([[0.5, 1, 0], [0, 1, -1]])
    found = decoding(rows)
    assert found is not None
    np.testing.assert_allclose(found, [2.0, -1.0])


@pytest.mark.parametrize(("size", "stragglers"), SIZES)
def test_every_set_of_stragglers_is_made_up_for(size: int, stragglers: int) -> None:
    """Remove every set of s of up to six clients: the sum of the parts' gradients is exact to 1e-6."""
    code = encoding(size, stragglers)
    parts = np.random.default_rng(size).normal(size=(size, 20))
    coded = code @ parts
    for kept in combinations(range(size), size - stragglers):
        weights = decoding(code[list(kept)])
        assert weights is not None
        np.testing.assert_allclose(weights @ coded[list(kept)], parts.sum(axis=0), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("size", "stragglers"), [(n, s) for n, s in SIZES if s < n - 1])
def test_one_more_straggler_is_too_many(size: int, stragglers: int) -> None:
    code = encoding(size, stragglers)
    assert decoding(code[: size - stragglers - 1]) is None


@given(st.integers(1, 12), st.integers(0, 11), st.integers(0, 50))
def test_a_client_holds_its_own_part_and_the_next(size: int, stragglers: int, seed: int) -> None:
    if stragglers >= size:
        return
    code = encoding(size, stragglers, seed)
    for row in range(size):
        held = {(row + offset) % size for offset in range(stragglers + 1)}
        assert set(np.flatnonzero(code[row]).tolist()) == held
    everybody = decoding(code)
    assert everybody is not None
    np.testing.assert_allclose(everybody @ code, np.ones(size), atol=1e-6)


def test_the_seed_decides() -> None:
    np.testing.assert_array_equal(encoding(5, 2, 1), encoding(5, 2, 1))
    assert (encoding(5, 2, 1) != encoding(5, 2, 2)).any()


def test_as_many_stragglers_as_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="3 stragglers of 3 clients"):
        encoding(3, 3)


def test_nobody_decodes_nothing() -> None:
    assert decoding(np.zeros((0, 3))) is None
