"""Shamir's secret sharing."""

import secrets
from itertools import combinations

import pytest
from hypothesis import given, settings, strategies as st

from strategies.layers.secagg.shamir import PRIME, SECRET_BYTES, combine, split

SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


def share(value: int) -> bytes:
    return value.to_bytes(33)


def test_worked_by_hand() -> None:
    """f(x) = 5 + 3x + 3x²: f(1) = 11, f(2) = 23, f(3) = 41; and 3·11 − 3·23 + 41 = 5."""
    shares = split((5).to_bytes(32), 3, [1, 2, 3], lambda n: 3)
    assert shares == {1: share(11), 2: share(23), 3: share(41)}
    assert int.from_bytes(combine(shares)) == 5


def test_the_field_is_one() -> None:
    """Fermat: a^(p−1) = 1 for all a not divisible by a prime p, and for hardly any a if p is composite."""
    assert all(pow(a, PRIME - 1, PRIME) == 1 for a in range(2, 60))
    assert pow(2, PRIME + 1, PRIME + 2) != 1


@settings(deadline=None)
@given(SECRETS, st.integers(1, 5), st.integers(0, 3))
def test_any_threshold_of_shares_gives_the_secret_back(secret: bytes, threshold: int, more: int) -> None:
    shares = split(secret, threshold, range(1, threshold + more + 1), secrets.randbelow)
    for chosen in combinations(shares, threshold):
        assert combine({x: shares[x] for x in chosen}) == secret


@settings(deadline=None)
@given(SECRETS, SECRETS)
def test_fewer_shares_fit_every_secret(secret: bytes, other: bytes) -> None:
    """Of t = 2, one share leaves each secret possible: some slope leads from any secret to that share."""
    seen = split(secret, 2, [3], secrets.randbelow)[3]
    slope = (int.from_bytes(seen) - int.from_bytes(other)) * pow(3, -1, PRIME) % PRIME
    assert split(other, 2, [3], lambda n: slope)[3] == seen


def test_a_changed_share_gives_another_secret() -> None:
    shares = split(bytes(32), 2, [1, 2], secrets.randbelow)
    changed = {1: shares[1], 2: share((int.from_bytes(shares[2]) + 1) % PRIME)}
    assert combine_or_none(changed) != bytes(32)


def combine_or_none(shares: dict[int, bytes]) -> bytes | None:
    try:
        return combine(shares)
    except ValueError:
        return None


def test_shares_that_make_up_no_secret() -> None:
    """f(1) = p − 1 with t = 1: p − 1 ≥ 2^256 needs more than 32 bytes."""
    with pytest.raises(ValueError, match="no secret"):
        combine({1: share(PRIME - 1)})
