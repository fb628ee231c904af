"""unlearning/central/skew.py: plain subtraction at α = 0, and exact where the others react linearly."""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from strategies.core.seeds import torch_generator
from unlearning.central.skew import RoundShare, influence_estimate, subtract_with_skew
from unlearning.traits.fast_fedul import SkewSettings

seeds = st.integers(0, 1000)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_generator(seed), dtype=torch.float64)


def one_target_rounds(seed: int, count: int = 6, size: int = 8) -> list[RoundShare]:
    """Rounds in which the target has weight ¼, save every third, in which it is absent."""
    updates = draw(seed, count, size)
    return [
        RoundShare(0.75, [(0.25, delta)]) if t % 3 != 2 else RoundShare(1.0)
        for t, delta in enumerate(updates)
    ]


# by hand


def test_the_estimate_by_hand() -> None:
    """α = 0.1. Round 1: target ½·8 = 4. Round 2 without it: β = 1 − 0.1·1, u = 3.6.

    Round 3: β = 1 − 0.1·½ = 0.95, u = 0.95·3.6 + ½·2 = 4.42. From M_F = 10, M' = 5.58.
    """
    rounds = [
        RoundShare(0.5, [(0.5, torch.tensor([8.0]))]),
        RoundShare(1.0),
        RoundShare(0.5, [(0.5, torch.tensor([2.0]))]),
    ]
    assert influence_estimate(rounds, 1, 0.1).tolist() == pytest.approx([4.42])
    result = subtract_with_skew(torch.tensor([10.0]), rounds, SkewSettings(alpha=0.1))
    assert result.tolist() == pytest.approx([5.58])


def test_theta_scales_what_is_subtracted() -> None:
    """Half of the u = 4.42 above: 10 − 2.21 = 7.79."""
    rounds = [RoundShare(0.0, [(1.0, torch.tensor([4.42]))])]
    result = subtract_with_skew(torch.tensor([10.0]), rounds, SkewSettings(theta=0.5))
    assert result.tolist() == pytest.approx([7.79])


def test_several_targets_are_subtracted_together() -> None:
    both = RoundShare(0.5, [(0.25, torch.tensor([4.0])), (0.25, torch.tensor([8.0]))])
    assert influence_estimate([both], 1, 0.07).tolist() == pytest.approx([3.0])


# neutral equals baseline, anything else differs


@given(seed=seeds)
def test_without_skew_it_is_plain_subtraction(seed: int) -> None:
    rounds, final = one_target_rounds(seed), draw(seed + 1, 8)
    plain = final - sum((w * delta for share in rounds for w, delta in share.target), torch.zeros(8))
    torch.testing.assert_close(
        subtract_with_skew(final, rounds, SkewSettings(alpha=0.0)), plain, rtol=1e-12, atol=1e-12
    )
    assert not torch.allclose(subtract_with_skew(final, rounds, SkewSettings()), plain)


def test_a_client_that_never_took_part_changes_nothing() -> None:
    final = draw(0, 8)
    assert torch.equal(subtract_with_skew(final, [RoundShare(1.0)] * 5, SkewSettings()), final)


# against retraining, where the estimate is exact


@pytest.mark.parametrize("alpha", [0.0, 0.07, 0.5])
def test_it_is_retraining_where_the_others_react_linearly(alpha: float) -> None:
    """Each remaining client sends α(c − M); the target sends what it likes.

    Rerunning with the target's updates replaced by 0, at the same weights, is what M' must reach.
    """
    center, target = draw(1, 8), draw(2, 6, 8)

    def run(factor: float) -> Tensor:
        model = draw(0, 8)
        for delta in target:
            model = model + 0.75 * alpha * (center - model) + 0.25 * factor * delta
        return model

    rounds = [RoundShare(0.75, [(0.25, delta)]) for delta in target]
    result = subtract_with_skew(run(1.0), rounds, SkewSettings(alpha=alpha))
    torch.testing.assert_close(result, run(0.0), rtol=1e-12, atol=1e-12)


# properties


def test_the_model_keeps_its_dtype_and_is_not_altered() -> None:
    final = draw(0, 8).float()
    before = final.clone()
    result = subtract_with_skew(final, one_target_rounds(1), SkewSettings())
    assert result.dtype == torch.float32
    assert torch.equal(final, before)


# errors


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        SkewSettings(alpha=1.5)


# a damaged answer


def test_skipping_rounds_without_the_target_is_noticed() -> None:
    rounds = one_target_rounds(0)
    present = [share for share in rounds if share.target]
    full, damaged = (influence_estimate(each, 8, 0.07) for each in (rounds, present))
    assert not torch.allclose(full, damaged)
