"""strategies/gossip/topology.py: graphs and mixing weights."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from strategies.core.errors import LetheError
from strategies.gossip.topology import adjacency, is_connected, mixing_weights, second_eigenvalue

TOPOLOGIES = ("ring", "torus", "complete", "random")


# by hand


def test_a_ring_of_four() -> None:
    """Two neighbours each: 1/3 for both and for oneself; eigenvalues (1 + 2 cos(2πk/4))/3: 1, ⅓, −⅓, ⅓."""
    weights = mixing_weights(adjacency("ring", 4))
    third = 1 / 3
    expected = [
        [third, third, 0, third],
        [third, third, third, 0],
        [0, third, third, third],
        [third, 0, third, third],
    ]
    np.testing.assert_allclose(weights, expected)
    assert second_eigenvalue(weights) == pytest.approx(third)


def test_a_torus_of_nine_is_three_by_three() -> None:
    """Node 0 has 1 and 2 in its row, 3 and 6 in its column."""
    assert np.flatnonzero(adjacency("torus", 9)[0]).tolist() == [1, 2, 3, 6]
    assert np.flatnonzero(adjacency("torus", 6)[0]).tolist() == [1, 2, 3]


def test_a_torus_of_a_prime_number_is_a_ring() -> None:
    np.testing.assert_array_equal(adjacency("torus", 7), adjacency("ring", 7))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_complete_weights_are_uniform_and_mix_at_once(size: int) -> None:
    weights = mixing_weights(adjacency("complete", size))
    np.testing.assert_allclose(weights, np.full((size, size), 1 / size))
    assert second_eigenvalue(weights) == pytest.approx(0.0, abs=1e-12)


def test_a_ring_of_n_has_its_known_eigenvalue() -> None:
    """(1 + 2 cos(2π/n)) / 3 for n = 10: 0.873."""
    found = second_eigenvalue(mixing_weights(adjacency("ring", 10)))
    assert found == pytest.approx((1 + 2 * math.cos(2 * math.pi / 10)) / 3)


# properties


@given(st.sampled_from(TOPOLOGIES), st.integers(1, 24), st.integers(0, 9))
def test_weights_are_symmetric_doubly_stochastic_and_connected(topology: str, size: int, seed: int) -> None:
    found = adjacency(topology, size, 0.5, seed)
    weights = mixing_weights(found)
    np.testing.assert_array_equal(found, found.T)
    assert not found.diagonal().any()
    assert is_connected(found)
    np.testing.assert_allclose(weights, weights.T, atol=0)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert (weights >= 0).all()
    assert (weights.diagonal() > 0).all()
    assert second_eigenvalue(weights) < 1 - 1e-9 or size == 1


@given(st.sampled_from(TOPOLOGIES), st.integers(2, 16), st.integers(0, 9))
def test_mixing_falls_at_least_by_the_second_eigenvalue(topology: str, size: int, seed: int) -> None:
    weights = mixing_weights(adjacency(topology, size, 0.5, seed))
    models = np.random.default_rng(seed).normal(size=(size, 3))
    apart = models - models.mean(axis=0)
    assert np.linalg.norm(weights @ apart) <= second_eigenvalue(weights) * np.linalg.norm(apart) + 1e-12


# randomness and errors


def test_the_seed_decides_a_random_graph() -> None:
    first = adjacency("random", 12, 0.4, 1)
    np.testing.assert_array_equal(first, adjacency("random", 12, 0.4, 1))
    assert (first != adjacency("random", 12, 0.4, 2)).any()


def test_a_graph_that_never_connects_is_refused() -> None:
    with pytest.raises(LetheError, match=r"given 0\.01, but none of 1000 random graphs over 9"):
        adjacency("random", 9, 0.01)


def test_two_islands_are_not_connected() -> None:
    found = np.zeros((4, 4), dtype=bool)
    found[0, 1] = found[1, 0] = found[2, 3] = found[3, 2] = True
    assert not is_connected(found)
