"""strategies/fedmd/privacy.py: rows are bounded, noise is what was asked for, and ε is what theory says."""

import math

import pytest
import torch
from flwr.app import RecordDict
from hypothesis import given, strategies as st

from strategies.core.seeds import torch_generator
from strategies.fedmd.privacy import answered, clip_rows, count_answer, epsilon, epsilon_of


def slow_delta(mu: float, eps: float) -> float:
    """Return ∫ max(0, p(x) − e^ε q(x)) dx for p = N(μ, 1) and q = N(0, 1), by summing over a grid."""
    x = torch.linspace(-20, 20 + mu, 400_001, dtype=torch.float64)
    p, q = torch.exp(-((x - mu) ** 2) / 2), torch.exp(-(x**2) / 2)
    return float((p - math.exp(eps) * q).clamp_min(0).sum() * (x[1] - x[0]) / math.sqrt(2 * math.pi))


def test_clipping_by_hand() -> None:
    """(3, 4) has norm 5 and is scaled to 2; (0, 1) is shorter and stays."""
    clipped = clip_rows(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 2.0)
    torch.testing.assert_close(clipped, torch.tensor([[1.2, 1.6], [0.0, 1.0]]))


@pytest.mark.parametrize(("noise", "num_examples", "answers"), [(2.0, 1, 1), (30.0, 16, 4), (100.0, 400, 3)])
def test_epsilon_is_where_the_integral_is_delta(noise: float, num_examples: int, answers: int) -> None:
    mu = 2 * math.sqrt(num_examples) / noise * math.sqrt(answers)
    assert slow_delta(mu, epsilon(noise, num_examples, answers, 1e-3)) == pytest.approx(1e-3, rel=1e-3)


@given(st.floats(0.5, 100), st.integers(1, 50), st.integers(1, 9))
def test_answers_compose_like_examples(noise: float, num_examples: int, answers: int) -> None:
    """T answers on n examples are one answer on n·T, and more of either costs more."""
    composed = epsilon(noise, num_examples, answers, 1e-5)
    assert composed == pytest.approx(epsilon(noise, num_examples * answers, 1, 1e-5))
    assert composed < epsilon(noise, num_examples, answers + 1, 1e-5)


def test_neutral_and_not() -> None:
    logits = torch.randn(4, 3, generator=torch_generator(0))
    assert clip_rows(logits, 0.0) is logits
    assert epsilon(0.0, 10, 1, 1e-5) == math.inf


@given(st.floats(0.01, 10))
def test_no_row_is_longer_than_the_bound(clip: float) -> None:
    logits = 20 * torch.randn(50, 6, generator=torch_generator(2))
    assert float(torch.linalg.vector_norm(clip_rows(logits, clip), dim=1).max()) <= clip * (1 + 1e-5)


def test_every_answer_is_counted_by_hand() -> None:
    """Two answers on 9 and one on 16 examples at z = 10: μ² = 4 · (9 + 9 + 16) / 100."""
    state = RecordDict()
    assert answered(state) == 0.0
    totals = [count_answer(state, 10.0, n) for n in (9, 9, 16)]
    assert totals == pytest.approx([0.36, 0.72, 1.36])
    assert answered(state) == totals[-1]
    assert epsilon_of(totals[1], 1e-5) == pytest.approx(epsilon(10.0, 9, 2, 1e-5))
