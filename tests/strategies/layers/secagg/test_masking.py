"""Masks modulo 2^64."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from strategies.layers.secagg.masking import add_mask, add_pair_masks, agreed_key, public_key

KEYS = st.binary(min_size=32, max_size=32)


def test_the_stream_is_that_of_the_standard() -> None:
    """RFC 8439, A.1, test vector 1: key and nonce zero, counter 0."""
    vector = np.zeros(2, dtype=np.uint64)
    add_mask(vector, bytes(32), 1)
    assert vector.astype("<u8").tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_a_key_agreement_of_the_standard() -> None:
    """RFC 7748, 6.1: Bob's public key is that of his private one."""
    private = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert public_key(private).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


@settings(deadline=None)
@given(KEYS, KEYS, st.binary(max_size=20))
def test_two_clients_agree_and_the_context_counts(one: bytes, other: bytes, context: bytes) -> None:
    key = agreed_key(one, public_key(other), context)
    assert key == agreed_key(other, public_key(one), context)
    assert key != agreed_key(one, public_key(other), context + b"x")


def test_a_key_that_makes_the_secret_known_is_refused() -> None:
    with pytest.raises(ValueError, match="makes the secret known"):
        agreed_key(bytes(range(32)), bytes(32), b"")


@settings(deadline=None)
@given(KEYS, st.integers(0, 100))
def test_a_mask_taken_away_leaves_what_was_there(seed: bytes, size: int) -> None:
    before = np.arange(size, dtype=np.uint64)
    vector = before.copy()
    add_mask(vector, seed, 1)
    assert size == 0 or not np.array_equal(vector, before)
    add_mask(vector, seed, -1)
    assert np.array_equal(vector, before)


def test_blocks_make_no_difference() -> None:
    """A mask of 70,000 entries, in blocks of 32,768, begins like one of 10 and ends like the whole stream."""
    long, short = np.zeros(70_000, dtype=np.uint64), np.zeros(10, dtype=np.uint64)
    add_mask(long, b"k" * 32, 1)
    add_mask(short, b"k" * 32, 1)
    assert np.array_equal(long[:10], short)
    assert len(np.unique(long)) == len(long)


def test_pair_masks_cancel() -> None:
    """Clients 1, 2, 3: +12 +13, −12 +23, −13 −23."""
    seeds = {(1, 2): b"a" * 32, (1, 3): b"b" * 32, (2, 3): b"c" * 32}
    total = np.zeros(4, dtype=np.uint64)
    for own in (1, 2, 3):
        pairs = {o: seeds[min(own, o), max(own, o)] for o in (1, 2, 3) if o != own}
        part = np.zeros(4, dtype=np.uint64)
        add_pair_masks(part, own, pairs)
        assert part.any()
        total += part
    assert not total.any()
