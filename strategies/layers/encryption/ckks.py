"""Sums of encrypted vectors, by CKKS.

Cheon, Kim, Kim, Song, "Homomorphic Encryption for Arithmetic of Approximate Numbers", ASIACRYPT 2017, IACR
ePrint 2016/421, as Microsoft SEAL has it behind TenSEAL (Benaissa et al., arXiv 2104.03152). Only addition is
used, so the parameters are small: ring degree 8192 with a modulus of 180 bits, of which the standard of
homomorphicencryption.org allows 218 for 128-bit security; 4096 numbers per ciphertext, 64 bytes each.

A party that sees ciphertexts *and* their decryptions can learn the key from CKKS' own rounding errors (Li,
Micciancio, EUROCRYPT 2021, ePrint 2020/1533). The server sees both, so a decryption adds Gaussian noise far
above these errors ("noise flooding"; Li, Micciancio, Schultz, Sorrell, CRYPTO 2022, ePrint 2022/816): the
errors are below 2⁻⁵⁸ for a thousand clients, the noise has a standard deviation of 2⁻²⁰, both on the *sum* of
the terms, which leaves some 60 bits of statistical security over a thousand decryptions.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.core.secret_random import RandomStream

SLOTS = 4096
"""Numbers per ciphertext."""
FLOODING_STD = 2.0**-20
"""Standard deviation of the noise that a decryption adds to each entry of a sum."""
MAX_ABS_SUM = 2.0**36
"""Largest absolute entry of a sum; 2³⁹ would wrap around."""
_DEGREE, _MODULUS_BITS, _SCALE = 2 * SLOTS, (60, 60, 60), 2.0**80
_KEY_ID_CONTEXT = b"lethe ckks key id"

Floats = npt.NDArray[np.float64]


def new_secret() -> bytes:
    """Return a new key pair as bytes: what every client holds and the server must not."""
    return bytes(_new_context().serialize(save_secret_key=True, save_relin_keys=False))


@final
class Secret:
    """The clients' key: encrypts and decrypts.

    Parameters
    ----------
    content
        As `new_secret` returns it.

    Raises
    ------
    ValueError
        If it is something else, or without its secret half.
    """

    def __init__(self, content: bytes) -> None:
        import tenseal

        try:
            self._context = tenseal.context_from(content)
            usable = self._context.has_secret_key() and self._context.global_scale == _SCALE
            usable = usable and tenseal.ckks_vector(self._context, [0.0] * SLOTS).size() == SLOTS
        except (ValueError, RuntimeError):
            usable = False
        if not usable:
            raise ValueError("no CKKS key with a secret half and the parameters of this program")
        self.key_id = hashlib.sha256(_KEY_ID_CONTEXT + content).hexdigest()[:32]

    def encrypt(self, vector: Tensor) -> list[bytes]:
        """Return a vector's ciphertexts, `SLOTS` numbers each.

        Parameters
        ----------
        vector
            Shape [n], finite, entries within ±`MAX_ABS_SUM`.

        Raises
        ------
        ValueError
            If an entry is not.
        """
        import tenseal

        numbers: Floats = vector.double().numpy()
        if not bool((np.abs(numbers) <= MAX_ABS_SUM).all()):
            raise ValueError(f"an entry is not within ±{MAX_ABS_SUM:g}")
        return [tenseal.ckks_vector(self._context, part).serialize() for part in _parts(numbers)]

    def decrypt(self, ciphertexts: Sequence[bytes], size: int) -> Tensor:
        """Return what ciphertexts hold, with noise of standard deviation `FLOODING_STD`.

        Returns
        -------
        Tensor
            Shape [n], float64.

        Raises
        ------
        ValueError
            If the ciphertexts are damaged, of other parameters, or not those of n numbers.
        """
        parts = _loaded(self._context, ciphertexts, size)
        plain = np.concatenate([np.asarray(part.decrypt()) for part in parts]) if parts else np.zeros(0)
        return RandomStream.secret().normal(size).mul_(FLOODING_STD).add_(torch.from_numpy(plain))


@final
class EncryptedSum:
    """A running sum of encrypted vectors, made without any key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._total: list[Any] | None = None

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Add a vector.

        Raises
        ------
        ValueError
            If the ciphertexts are damaged, of other parameters, or of another size; the sum stays as it was.
        """
        given = _loaded(_public_context(), ciphertexts, self._size)
        try:
            total = given if self._total is None else [a + b for a, b in zip(self._total, given, strict=True)]
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"ciphertexts cannot be added: {error}") from None
        self._total = total

    def ciphertexts(self) -> list[bytes]:
        """Return the sum; nothing where nothing was added."""
        return [part.serialize() for part in self._total or []]


@lru_cache(maxsize=1)
def _public_context() -> Any:
    """Return a public context of the same parameters; addition does not depend on the keys."""
    context = _new_context()
    context.make_context_public()
    return context


def _new_context() -> Any:
    import tenseal

    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=_DEGREE, coeff_mod_bit_sizes=list(_MODULUS_BITS)
    )
    context.global_scale = _SCALE
    return context


def _parts(numbers: Floats) -> list[Floats]:
    return [numbers[first : first + SLOTS] for first in range(0, len(numbers), SLOTS)]


def _loaded(context: Any, ciphertexts: Sequence[bytes], size: int) -> list[Any]:
    import tenseal

    sizes = [min(SLOTS, size - first) for first in range(0, size, SLOTS)]
    if len(ciphertexts) != len(sizes):
        raise ValueError(f"expected {len(sizes)} for {size} numbers, got {len(ciphertexts)} ciphertexts")
    try:
        parts = [tenseal.ckks_vector_from(context, ciphertext) for ciphertext in ciphertexts]
        fit = [part.size() for part in parts] == sizes and all(_is_fresh_or_sum(part) for part in parts)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"a damaged ciphertext: {str(error).strip() or type(error).__name__}") from None
    if not fit:
        raise ValueError(f"ciphertexts of other sizes or another scale than those of {size} numbers")
    return parts


def _is_fresh_or_sum(part: Any) -> bool:
    found = part.ciphertext()
    if len(found) != 1:
        return False
    forms = found[0].size(), found[0].coeff_modulus_size(), found[0].scale
    return bool(forms == (2, len(_MODULUS_BITS) - 1, _SCALE))
