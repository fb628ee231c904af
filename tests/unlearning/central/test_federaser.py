"""unlearning/central/federaser.py: the logged length in a fresh direction, per client and as a whole."""

from typing import cast

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from strategies.core.seeds import torch_generator
from unlearning.central.federaser import calibrate, calibrated_step, logged_update

seeds = st.integers(0, 1000)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_generator(seed), dtype=torch.float64)


def norms(updates: Tensor) -> list[float]:
    return cast(list[float], updates.norm(dim=-1).tolist())


# by hand


def test_calibration_by_hand() -> None:
    """‖(6, 8)‖ = 10 in the direction of (0, −2): (0, −10)."""
    assert calibrate(torch.tensor([6.0, 8.0]), torch.tensor([0.0, -2.0])).tolist() == [0.0, -10.0]


def test_a_step_by_hand() -> None:
    """Two clients, one parameter; lengths 4 and 2, fresh signs + and −, weights 3 and 1: (12 − 2)/4 = 2.5."""
    logged = [torch.tensor([-4.0]), torch.tensor([2.0])]
    fresh = [torch.tensor([0.5]), torch.tensor([-8.0])]
    assert calibrated_step(logged, fresh, [3.0, 1.0]).tolist() == [2.5]


# properties


@given(seed=seeds, scale=st.floats(1e-6, 1e6))
def test_the_logged_length_and_the_fresh_direction_are_kept(seed: int, scale: float) -> None:
    logged, fresh = scale * draw(seed, 50), draw(seed + 1, 50)
    result = calibrate(logged, fresh)
    assert float(result.norm()) == pytest.approx(float(logged.norm()), rel=1e-12)
    assert float(result @ fresh) == pytest.approx(float(result.norm() * fresh.norm()), rel=1e-12)
    torch.testing.assert_close(calibrate(logged, 7.0 * fresh), result, rtol=1e-12, atol=0)


def test_the_norm_is_of_the_whole_update() -> None:
    """Layers (3 | 4) in a fresh direction (1 | 0): the first gets all of the length 5, not 3."""
    assert calibrate(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])).tolist() == [5.0, 0.0]


def test_an_update_is_its_own_calibration() -> None:
    logged = draw(0, 50)
    torch.testing.assert_close(calibrate(logged, logged), logged, rtol=1e-14, atol=0)


def test_zero_updates_give_zero() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert torch.equal(calibrate(one, zero), zero)
    assert torch.equal(calibrate(zero, one), zero)


def test_without_a_new_direction_the_step_is_the_average() -> None:
    """The neutral case: the same data, seed and work give Û = U, and the step of the logged round."""
    updates, weights = draw(0, 4, 20), [1.0, 2.0, 3.0, 4.0]
    average = (torch.tensor(weights, dtype=torch.float64).unsqueeze(1) * updates).sum(dim=0) / 10.0
    step = calibrated_step(list(updates), list(updates), weights)
    torch.testing.assert_close(step, average, rtol=1e-12, atol=1e-14)


@given(seed=seeds, order=st.permutations(range(4)), scale=st.floats(0.01, 100))
def test_order_and_scale_of_the_weights_do_not_matter(seed: int, order: list[int], scale: float) -> None:
    logged, fresh, weights = draw(seed, 4, 20), draw(seed + 1, 4, 20), [1.0, 2.0, 3.0, 4.0]
    plain = calibrated_step(list(logged), list(fresh), weights)
    shuffled = calibrated_step(
        [logged[i] for i in order], [fresh[i] for i in order], [scale * weights[i] for i in order]
    )
    torch.testing.assert_close(shuffled, plain, rtol=1e-9, atol=1e-12)


# errors


def test_unpaired_updates_are_refused() -> None:
    with pytest.raises(ValueError, match="one weight per pair of updates, got 2, 1 and 2"):
        calibrated_step([torch.ones(1)] * 2, [torch.ones(1)], [1.0, 1.0])


def test_a_round_without_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0, 0 and 0"):
        calibrated_step([], [], [])


# a damaged answer


def test_pairing_with_the_next_global_model_is_noticed() -> None:
    """The released code subtracts the next global model, which holds the mean update already.

    20 clients that mostly agree: what is left of each update is its disagreement, and the step shrinks.
    """
    received, sent = draw(0, 30), 10.0 * draw(1, 30) + draw(2, 20, 30)
    models = received + sent
    fresh = draw(3, 20, 30)

    def lengths(reference: Tensor) -> list[float]:
        return norms(
            torch.stack(
                [
                    calibrate(logged_update(model, reference), direction)
                    for model, direction in zip(models, fresh, strict=True)
                ]
            )
        )

    assert lengths(received) == pytest.approx(norms(sent), rel=1e-12)
    damaged = lengths(models.mean(dim=0))
    assert damaged != pytest.approx(norms(sent), rel=1e-12)
    assert sum(damaged) < 0.2 * sum(norms(sent))
