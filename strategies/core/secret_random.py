"""Random numbers that nobody can guess: a keyed cryptographic stream, and what private mechanisms draw of it.

The noise of a private release protects nothing if it can be drawn again. torch's CPU generator keeps 32 bits
of its seed, so that its streams can be tried one by one; numpy's is no cryptographic generator either. Every
secret draw therefore comes from AES-256 in counter mode (NIST SP 800-38A; `cryptography`) under a key of 256
bits. A secret stream's key is from the machine's entropy, a seeded one's is a hash of seed and scope: the
numbers are made of it in the same way, and repeat.

Uniform numbers have 53 bits. Normal ones are made of them by Box and Muller ("A Note on the Generation of
Random Normal Deviates", Ann. Math. Stat. 1958) in float64,

    z₁ = sqrt(−2 ln(1 − u)) cos(2πv),   z₂ = sqrt(−2 ln(1 − u)) sin(2πv),   u, v in [0, 1),

so that none is beyond sqrt(106 ln 2) = 8.57; a normal number is with probability 10⁻¹⁷.
"""

import hashlib
import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from torch import Tensor

KEY_BYTES = 32
"""Bytes of a stream's key."""

BLOCK = 32_768
"""Normal numbers made at a time: what they are made of stays in the L2 cache."""
_ZEROS = memoryview(bytes(8 * BLOCK))
_UNIT = 2.0**-53

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@final
class RandomStream:
    """A stream of random numbers that only the holder of its key can predict.

    A stream is made where it is used and belongs to one process: after a fork both sides would draw the same.

    Parameters
    ----------
    key
        `KEY_BYTES` bytes, never used for another stream.

    Raises
    ------
    ValueError
        If the key has another length.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a stream's key has {KEY_BYTES} bytes, got {len(key)}")
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    @staticmethod
    def secret() -> "RandomStream":
        """Return a stream under a fresh key from the machine's entropy; the key is not kept."""
        return RandomStream(secrets.token_bytes(KEY_BYTES))

    @staticmethod
    def seeded(seed: int, *scope: int | str) -> "RandomStream":
        """Return the stream of a seed and a scope, the same each time; no secret to those who know the seed.

        Examples
        --------
        >>> first, again = RandomStream.seeded(0, "noise"), RandomStream.seeded(0, "noise")
        >>> torch.equal(first.normal(3), again.normal(3))
        True
        """
        return RandomStream(hashlib.sha256(repr((int(seed), *scope)).encode()).digest())

    def words(self, count: int) -> Tensor:
        """Return uniform 64-bit words, shape [count], int64."""
        words = np.empty(count, dtype=np.uint64)
        for start in range(0, count, BLOCK):
            self._fill(words[start : start + BLOCK])
        return torch.from_numpy(words.view(np.int64))

    def uniform(self, count: int) -> Tensor:
        """Return uniform multiples of 2⁻⁵³ in [0, 1), shape [count], float64."""
        words = self.words(count).numpy().view(np.uint64)
        return torch.from_numpy(_fraction(words)).double().mul_(_UNIT)

    def normal(self, count: int) -> Tensor:
        """Return standard normal numbers, shape [count], float64."""
        normal = torch.empty(count, dtype=torch.float64)
        for part, block in zip(torch.split(normal, BLOCK), self.normal_blocks(count), strict=True):
            part.copy_(block)
        return normal

    def normal_blocks(self, count: int, std: float = 1.0) -> Iterator[Tensor]:
        """Yield normal numbers, at most `BLOCK` at a time; a block is overwritten by the next one.

        Parameters
        ----------
        std
            Their standard deviation, above 0.
        """
        words = np.empty(min(BLOCK, count + count % 2), dtype=np.uint64)
        whole, normal = np.empty(len(words)), torch.empty(len(words), dtype=torch.float64)
        for start in range(0, max(count, 1), BLOCK):
            size = min(BLOCK, count - start)
            even = size + size % 2
            self._fill(words[:even])
            np.copyto(whole[:even], _fraction(words[:even]))
            _box_muller(whole[:even], normal[:even], std)
            yield normal[:size]

    def _fill(self, words: Words) -> None:
        """Overwrite at most `BLOCK` words."""
        self._cipher.update_into(_ZEROS[: words.nbytes], words.view(np.uint8).data)

    def subset(self, count: int, size: int) -> list[int]:
        """Return `size` of `count` positions, all subsets alike, ascending."""
        return torch.argsort(self.words(count), stable=True)[:size].sort().values.tolist()


def _fraction(words: Words) -> Integers:
    """Return the upper 53 bits of words, in place: whole numbers in [0, 2⁵³)."""
    np.right_shift(words, 11, out=words)
    return words.view(np.int64)


def _box_muller(whole: Floats, normal: Tensor, std: float) -> None:
    """Make normal numbers, shape [2n], of whole ones in [0, 2⁵³), which are overwritten.

    Logarithm and root are numpy's and the cosine torch's, each the faster one. Its sine takes half as long
    again: sin(θ) is made as cos(θ − π/2).
    """
    half = len(whole) // 2
    radius, angle = whole[:half], torch.from_numpy(whole[half:])
    radius *= -_UNIT
    radius += 1.0
    np.log(radius, out=radius)
    radius *= -2.0 * std**2
    np.sqrt(radius, out=radius)
    angle.mul_(2.0 * math.pi * _UNIT)
    torch.cos(angle, out=normal[:half]).mul_(torch.from_numpy(radius))
    torch.cos(angle.sub_(math.pi / 2), out=normal[half:]).mul_(torch.from_numpy(radius))


@dataclass(frozen=True)
class Randomness:
    """Where the samples and the noise of a private run come from.

    Parameters
    ----------
    secret
        Whether from the machine's entropy; otherwise from the run's seed, so that a run repeats.
    """

    secret: bool = True

    @staticmethod
    def of(setting: str) -> "Randomness":
        """Return what ``privacy.randomness`` says."""
        return Randomness(setting == "secret")

    def stream(self, seed: int, *scope: int | str) -> RandomStream:
        """Return a new secret stream, or that of the seed and the scope."""
        return RandomStream.secret() if self.secret else RandomStream.seeded(seed, *scope)

    def after(self, given: torch.Generator) -> RandomStream:
        """Return a new secret stream, or one seeded by a draw from a generator."""
        return self.repeated_after(given)()

    def repeated_after(self, given: torch.Generator) -> Callable[[], RandomStream]:
        """Draw from a generator now; return what makes a new secret stream, or each time that of the draw."""
        seed = int(torch.randint(2**62, (), generator=given))
        return partial(self.stream, seed, "drawn")
