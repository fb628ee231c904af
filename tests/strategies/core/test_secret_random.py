"""AES in counter mode, normal numbers of it, and keys that cannot be tried."""

import math
import secrets

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.secret_random import BLOCK, KEY_BYTES, Randomness, RandomStream
from strategies.core.seeds import torch_generator

KEY = bytes(range(KEY_BYTES))
MANY = 1_000_000


def slow_words(key: bytes, count: int) -> list[int]:
    """Return the keystream of AES-256-CTR from block 0 on, eight bytes a word, lowest first."""
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * count))
    return [int.from_bytes(stream[i : i + 8], "little") for i in range(0, len(stream), 8)]


def slow_normal(words: list[int]) -> list[float]:
    """Return Box and Muller's pairs of one block, by Python's own functions."""
    half = len(words) // 2
    u, v = ([(word >> 11) / 2**53 for word in part] for part in (words[:half], words[half:]))
    radius = [math.sqrt(-2 * math.log(1 - each)) for each in u]
    cosines = [r * math.cos(2 * math.pi * each) for r, each in zip(radius, v, strict=True)]
    return cosines + [r * math.sin(2 * math.pi * each) for r, each in zip(radius, v, strict=True)]


def distance_to_normal(values: Tensor) -> float:
    """Return Kolmogorov and Smirnov's distance of a sample from N(0, 1)."""
    ideal = torch.special.ndtr(values.sort().values)
    steps = torch.arange(len(values) + 1, dtype=torch.float64) / len(values)
    return float(torch.maximum((ideal - steps[:-1]).abs(), (ideal - steps[1:]).abs()).max())


# by hand and against the slow way


def test_words_are_the_keystream() -> None:
    """The first block of AES-256 under the key 00 … 1f and the counter 0, and all others."""
    words = RandomStream(KEY).words(BLOCK + 5)
    assert [word % 2**64 for word in words.tolist()] == slow_words(KEY, BLOCK + 5)


def test_uniform_numbers_are_the_upper_53_bits() -> None:
    expected = [(word >> 11) / 2**53 for word in slow_words(KEY, 1000)]
    assert RandomStream(KEY).uniform(1000).tolist() == expected
    assert all(0 <= u < 1 for u in expected)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_normal_numbers_are_box_and_mullers(count: int) -> None:
    expected = slow_normal(slow_words(KEY, count + count % 2))[:count]
    assert RandomStream(KEY).normal(count).tolist() == pytest.approx(expected, rel=1e-13, abs=1e-14)


def test_the_largest_normal_number_is_finite() -> None:
    """1 − u is at least 2⁻⁵³, so that the radius is at most sqrt(106 ln 2) = 8.57."""
    assert math.sqrt(-2 * math.log(1 - (2**53 - 1) / 2**53)) == pytest.approx(8.57, abs=0.01)


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_blocks_are_the_whole(count: int) -> None:
    parts = [block.clone() for block in RandomStream(KEY).normal_blocks(count)]
    whole = RandomStream(KEY).normal(count)
    assert len(whole) == count
    assert torch.equal(torch.cat([*parts, torch.zeros(0, dtype=torch.float64)]), whole)


# laws


def test_a_million_normal_numbers_are_normal() -> None:
    """Distance, moments and tails within four standard errors; neighbours and pairs do not go together."""
    z = RandomStream.seeded(0, "law").normal(MANY)
    assert distance_to_normal(z) < 2.0 / math.sqrt(MANY)  # is passed with probability 0.0007
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - moment) < 4 * math.sqrt(variance / MANY)
    for far in (2.0, 3.0, 4.0, 4.5):
        expected = MANY * math.erfc(far / math.sqrt(2))
        assert abs(int((z.abs() > far).sum()) - expected) < 4 * math.sqrt(expected) + 1
    half = BLOCK // 2
    for shift in (1, half):
        assert abs(float((z[:-shift] * z[shift:]).mean())) < 4 / math.sqrt(MANY)
        assert abs(float((z[:-shift] ** 2 * z[shift:] ** 2).mean()) - 1) < 4 * math.sqrt(8 / MANY)


def test_the_law_is_not_that_of_a_wrong_draw() -> None:
    """What the distance above would notice: radius and angle from one uniform number."""
    u = RandomStream.seeded(0, "law").uniform(MANY)
    assert distance_to_normal(torch.sqrt(-2 * torch.log(1 - u)) * torch.cos(2 * math.pi * u)) > 0.01


def test_uniform_numbers_are_uniform() -> None:
    u = RandomStream.seeded(1).uniform(MANY)
    counts = torch.histc(u, 100, 0.0, 1.0)
    chi = float(((counts - MANY / 100) ** 2).sum() / (MANY / 100))
    assert abs(chi - 99) < 4 * math.sqrt(2 * 99)


def test_all_subsets_are_alike() -> None:
    """Each of ten pairs of five, in 10,000 draws: 1,000 with standard deviation 30."""
    stream, seen = RandomStream.seeded(2), dict[tuple[int, ...], int]()
    for _ in range(10_000):
        pair = tuple(stream.subset(5, 2))
        seen[pair] = seen.get(pair, 0) + 1
    assert len(seen) == 10
    assert all(a < b for a, b in seen)
    assert all(abs(count - 1000) < 4 * 30 for count in seen.values())


# secrecy


def test_two_secret_streams_differ() -> None:
    draws = [RandomStream.secret().words(4).tolist() for _ in range(50)]
    assert len({word for draw in draws for word in draw}) == 200


def test_a_secret_key_has_256_bits_of_the_machines_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bytes] = []
    monkeypatch.setattr(secrets, "token_bytes", lambda size: given.append(bytes(size)) or KEY[:size])
    assert RandomStream.secret().words(3).tolist() == RandomStream(KEY).words(3).tolist()
    assert [8 * len(key) for key in given] == [256]


@settings(deadline=None)
@given(st.integers(0, 8 * KEY_BYTES - 1))
def test_every_bit_of_a_key_matters(bit: int) -> None:
    changed = bytearray(KEY)
    changed[bit // 8] ^= 1 << bit % 8
    assert RandomStream(bytes(changed)).words(1).tolist() != RandomStream(KEY).words(1).tolist()


def test_seeds_with_equal_lower_halves_give_other_streams() -> None:
    """torch's generator takes the lower 32 bits only, so that all its streams can be tried."""
    seeds = [5, 5 + 2**32, 5 + 7 * 2**32]
    old = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    assert torch.equal(old[0], old[1])
    assert torch.equal(old[0], old[2])
    assert len({tuple(RandomStream.seeded(seed).normal(4).tolist()) for seed in seeds}) == 3


def test_a_seeded_stream_depends_on_seed_and_scope_alone() -> None:
    first = RandomStream.seeded(1, "noise", 2).normal(5)
    assert torch.equal(first, RandomStream.seeded(1, "noise", 2).normal(5))
    for other in (RandomStream.seeded(2, "noise", 2), RandomStream.seeded(1, "noise", "2")):
        assert not torch.equal(first, other.normal(5))


def test_randomness_is_secret_unless_told_otherwise() -> None:
    assert Randomness().secret
    for secret in (True, False):
        how = Randomness(secret)
        same = [how.after(torch_generator(3)).words(2).tolist() for _ in range(2)]
        assert (same[0] == same[1]) is not secret
        generators = torch_generator(3), torch_generator(3)
        how.after(generators[0])
        torch.randint(2**62, (), generator=generators[1])
        assert torch.equal(generators[0].get_state(), generators[1].get_state())


@pytest.mark.parametrize("length", [0, 4, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"key has 32 bytes, got {length}"):
        RandomStream(bytes(length))
