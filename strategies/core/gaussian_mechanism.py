"""How far two Gaussians with one standard deviation can be told apart, exactly.

Balle, Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 8.
"""

import math

import torch

_HALVINGS = 60


def least_delta(epsilon: float, mu: float) -> float:
    """Return the least δ with which two Gaussians, μ standard deviations apart, are (ε, δ)-indistinguishable.

    It is Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ); the second term is computed in logarithms to avoid underflow.

    Examples
    --------
    >>> round(least_delta(1.0, 1.0), 6)  # Φ(−1/2) − e Φ(−3/2)
    0.126937
    """
    if mu <= 0:
        return 0.0
    first = 0.5 * math.erfc((epsilon / mu - mu / 2) / math.sqrt(2))
    return max(0.0, first - math.exp(min(epsilon + _log_cdf(-epsilon / mu - mu / 2), 0.0)))


def largest_ratio(epsilon: float, delta: float) -> float:
    """Return how many σ two Gaussians may lie apart to be (ε, δ)-indistinguishable; rounded down."""
    low, high = 0.0, 1.0
    while least_delta(epsilon, high) <= delta:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if least_delta(epsilon, middle) <= delta else (low, middle)
    return low


def _log_cdf(x: float) -> float:
    return float(torch.special.log_ndtr(torch.tensor(x, dtype=torch.float64)))
