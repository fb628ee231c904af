"""Gradient coding: which parts of the data a client sums up, and how the full gradient comes from any n − s.

Tandon, Lei, Dimakis, Karampatziakis, "Gradient Coding: Avoiding Stragglers in Distributed Learning", ICML
2017, arXiv 1612.03301. The data lie in n parts with gradients g_1 … g_n; client i holds the parts i, …, i + s
(mod n) and sends f_i = Σ_j B_ij g_j. B has that cyclic support (Algorithm 2): its rows lie in the null space
of a random H of shape [s, n] whose rows add up to zero, so that the vector of ones lies in the span of any
n − s rows of B. For the set F of those that answered, a with aᵀ B_F = 1ᵀ gives Σ_i a_i f_i = Σ_j g_j.
"""

import numpy as np
from numpy.typing import NDArray

from strategies.core.seeds import numpy_generator

Matrix = NDArray[np.float64]

_TOLERANCE = 1e-6


def encoding(size: int, stragglers: int, seed: int = 0) -> Matrix:
    """Return B, shape [n, n]; row i has the factors of client i's gradients.

    Parameters
    ----------
    size
        Number of clients, and of parts: n.
    stragglers
        How many may fail to answer: s, in [0, n); 0 gives the identity.

    Raises
    ------
    ValueError
        If s is not in [0, n).

    Examples
    --------
    >>> encoding(2, 0).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if not 0 <= stragglers < size:
        raise ValueError(f"{stragglers} stragglers of {size} clients")
    if stragglers == 0:
        return np.eye(size)
    drawn = numpy_generator(seed, "gradient-coding", size, stragglers).standard_normal((stragglers, size))
    drawn[:, -1] = -drawn[:, :-1].sum(axis=1)
    found = np.zeros((size, size))
    for row in range(size):
        support = [(row + offset) % size for offset in range(stragglers + 1)]
        first, others = support[0], support[1:]
        found[row, first] = 1.0
        found[row, others] = -np.linalg.solve(drawn[:, others], drawn[:, first])
    return found


def decoding(rows: Matrix) -> Matrix | None:
    """Return the shortest a with aᵀ · rows = 1ᵀ, shape [m]; None if there is no such vector.

    Parameters
    ----------
    rows
        The rows of B that belong to those that answered, shape [m, n].
    """
    ones = np.ones(rows.shape[1])
    found = np.linalg.lstsq(rows.T, ones, rcond=None)[0]
    exact = bool(np.abs(rows.T @ found - ones).max(initial=0.0) <= _TOLERANCE) and len(rows) > 0
    return np.asarray(found) if exact else None
