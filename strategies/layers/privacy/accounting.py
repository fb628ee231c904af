"""How much privacy a history of Gaussian mechanisms has spent, and how much noise a budget asks for.

Mironov, Talwar, Zhang, "Rényi Differential Privacy of the Sampled Gaussian Mechanism", arXiv 1908.10530
(``rdp``), and Gopi, Lee, Wutschitz, "Numerical Composition of Differential Privacy", arXiv 2106.02848
(``prv``), both as Opacus implements them. Neighbouring data sets differ by adding or removing one unit; each
unit takes part in a step by itself with the step's sample rate (Poisson sampling), 1 for all of them.

Both accountants give an upper bound; ``prv`` is the smaller of the two, which is PRV's except where its
discretisation fails or is too coarse. Its absolute error is at most one percent of the result, or 0.01.

The bound does not depend on the number of parameters: pruning a model does not lower it.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from strategies.client.settings import TrainSettings

ORDERS: Sequence[float] = (
    *(1 + x / 10 for x in range(1, 100)),
    *range(11, 64),
    *(80, 96, 128, 192, 256, 512, 1024),
)
"""Orders α of the Rényi divergences that are tried."""
MAX_NOISE = 10_000.0
"""Noise multiplier above which a budget is called too small."""
_MIN_NOISE = 0.05
_NOISE_TOLERANCE = 1.002
_PRV_ERROR = 0.01


@dataclass(frozen=True)
class Spend:
    """Steps of one mechanism.

    Parameters
    ----------
    noise_multiplier
        Standard deviation of the noise over the largest contribution of a unit, at least 0.
    sample_rate
        Probability with which a unit takes part in a step, in (0, 1].
    steps
        At least 1.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int


History = tuple[Spend, ...]
"""All that was spent, in the order of time."""


def extended(history: History, spend: Spend) -> History:
    """Return the history with more steps; steps of the same mechanism are counted together.

    Examples
    --------
    >>> extended((Spend(1.0, 0.1, 5),), Spend(1.0, 0.1, 2))
    (Spend(noise_multiplier=1.0, sample_rate=0.1, steps=7),)
    """
    steps: dict[tuple[float, float], int] = {}
    for entry in (*history, spend):
        key = (entry.noise_multiplier, entry.sample_rate)
        steps[key] = steps.get(key, 0) + entry.steps
    return tuple(Spend(noise, rate, count) for (noise, rate), count in steps.items())


@lru_cache(maxsize=4096)
def epsilon_of(history: History, delta: float, accountant: str) -> float:
    """Return the ε that the history has spent at δ; infinite where there was a step without noise.

    Parameters
    ----------
    history
        Empty: nothing was released, ε is 0.
    delta
        In (0, 1).
    accountant
        ``prv`` or ``rdp``.
    """
    if not history:
        return 0.0
    if any(spend.noise_multiplier <= 0 for spend in history):
        return math.inf
    # Sorted, as float sums depend on the order: the planned ε must equal the spent ε to the bit.
    history = tuple(sorted(history, key=lambda spend: (spend.noise_multiplier, spend.sample_rate)))
    bound = _rdp_epsilon(history, delta)
    return bound if accountant == "rdp" else min(bound, _prv_epsilon(history, delta, bound))


def _rdp_epsilon(history: History, delta: float) -> float:
    from opacus.accountants.analysis import rdp

    total = np.zeros(len(ORDERS))
    for spend in history:
        total = total + _rdp_of_step(spend.noise_multiplier, spend.sample_rate) * spend.steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The best order at the edge of those tried only loosens the bound.
        epsilon, _ = rdp.get_privacy_spent(orders=list(ORDERS), rdp=total.tolist(), delta=delta)
    return max(0.0, float(epsilon))


@lru_cache(maxsize=4096)
def _rdp_of_step(noise_multiplier: float, sample_rate: float) -> npt.NDArray[np.float64]:
    from opacus.accountants.analysis import rdp

    spent = rdp.compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(ORDERS))
    return np.asarray(spent, dtype=np.float64)


def _prv_epsilon(history: History, delta: float, bound: float) -> float:
    """Return PRV's ε, or `bound` where its discretisation does not reach the accuracy it promises."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()  # type: ignore[no-untyped-call]
    accountant.history = [(s.noise_multiplier, s.sample_rate, s.steps) for s in history]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            epsilon = accountant.get_epsilon(delta, eps_error=max(_PRV_ERROR, 0.01 * bound))
        except (RuntimeError, ValueError, OverflowError):
            return bound
    return float(epsilon) if math.isfinite(epsilon) and epsilon > 0 else bound


@lru_cache(maxsize=1024)
def solve_noise(
    epsilon: float, delta: float, sample_rate: float, steps: int, accountant: str, besides: History = ()
) -> float:
    """Return the least noise multiplier, to 0.2 %, with which so many steps stay within ε at δ.

    What is spent besides them, with noise of its own, counts towards ε.

    Raises
    ------
    ValueError
        If even `MAX_NOISE` is too little.

    Examples
    --------
    >>> sigma = solve_noise(8.0, 1e-5, 0.05, 100, "rdp")
    >>> 7.9 < epsilon_of((Spend(sigma, 0.05, 100),), 1e-5, "rdp") <= 8.0
    True
    """

    def fits(noise: float, name: str) -> bool:
        return epsilon_of(extended(besides, Spend(noise, sample_rate, steps)), delta, name) <= epsilon

    if not fits(MAX_NOISE, "rdp"):
        raise ValueError(f"epsilon {epsilon:g} is too small for {steps} steps, whatever the noise")
    high = _bisected(_MIN_NOISE, MAX_NOISE, lambda noise: fits(noise, "rdp"))
    if accountant == "rdp":
        return high
    low = high / 1.5
    return _bisected(low, high, lambda noise: fits(noise, accountant)) if not fits(low, accountant) else low


def _bisected(low: float, high: float, fits: Callable[[float], bool]) -> float:
    """Return the upper end of a bracket whose upper end fits, narrowed to the tolerance."""
    while high / low > _NOISE_TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def sample_rate(num_examples: int, settings: TrainSettings) -> float:
    """Return the probability with which an example is in a batch: batches have `batch_size` on average.

    Examples
    --------
    >>> sample_rate(320, TrainSettings(batch_size=32)), sample_rate(20, TrainSettings(batch_size=32))
    (0.1, 1.0)
    """
    return min(1.0, settings.batch_size / num_examples)
