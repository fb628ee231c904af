"""Secret sharing: any t shares of a secret give it back, and t − 1 say nothing about it.

Shamir, "How to Share a Secret", Communications of the ACM 22(11), 1979: the secret is f(0) of a polynomial f
of degree t − 1 with otherwise random coefficients over a prime field, share x is f(x), and

    f(0) = Σ_x f(x) · Π_{z ≠ x} z / (z − x)   over any t different x.

The field is that of the prime 2^256 + 297, so that 32 bytes are one secret.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(
    secret: bytes, threshold: int, points: Iterable[int], randbelow: Callable[[int], int]
) -> dict[int, bytes]:
    """Return a share of a secret for each point.

    Parameters
    ----------
    secret
        32 bytes.
    threshold
        How many shares give the secret back, at least 1.
    points
        Different numbers from 1, one for each receiver.
    randbelow
        Draws uniformly from [0, n), unpredictably: `secrets.randbelow`.

    Examples
    --------
    >>> shares = split((5).to_bytes(32), 2, [1, 2, 3], lambda n: 3)
    >>> [int.from_bytes(share) for share in shares.values()]
    [8, 11, 14]
    """
    coefficients = [int.from_bytes(secret), *(randbelow(PRIME) for _ in range(threshold - 1))]
    return {x: _value(coefficients, x).to_bytes(SHARE_BYTES) for x in points}


def _value(coefficients: list[int], x: int) -> int:
    total = 0
    for coefficient in reversed(coefficients):
        total = (total * x + coefficient) % PRIME
    return total


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret that shares make up: the right one from as many as the threshold.

    Raises
    ------
    ValueError
        If they make up no 32 bytes, which can only be with shares that were changed.

    Examples
    --------
    >>> combine({1: (8).to_bytes(33), 3: (14).to_bytes(33)})[-1]
    5
    """
    weights = _weights(tuple(shares))
    pairs = zip(shares.values(), weights, strict=True)
    total = sum(int.from_bytes(share) * weight for share, weight in pairs) % PRIME
    try:
        return total.to_bytes(SECRET_BYTES)
    except OverflowError:
        raise ValueError("the shares make up no secret") from None


@lru_cache(maxsize=64)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Return Π_{z ≠ x} z / (z − x) for each x."""
    weights = []
    for x in points:
        above, below = 1, 1
        for z in points:
            if z != x:
                above, below = above * z % PRIME, below * (z - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
