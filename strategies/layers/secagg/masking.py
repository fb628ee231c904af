"""Masks: vectors modulo 2^64 that look uniform to all who do not know their seed, and cancel in a sum.

Bonawitz et al. (see `strategies.layers.secagg.client`), equation of section 4: client u sends

    y_u = x_u + PRG(b_u) + Σ_{v > u} PRG(s_uv) − Σ_{v < u} PRG(s_uv)   (mod 2^64),

with b_u known to u alone and s_uv to u and v. In the sum over all u the last two terms cancel. PRG is
ChaCha20 (RFC 8439) under the seed as its key, read as unsigned 64-bit integers, lowest byte first. Every seed
is used for one vector only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

KEY_BYTES = 32
Vector = NDArray[np.uint64]
"""A vector of integers modulo 2^64."""

_BLOCK = 1 << 18  # Bytes of a mask made at a time; they stay in the L2 cache.


def agreed_key(private: bytes, public: bytes, context: bytes) -> bytes:
    """Return the 32 bytes that two clients share: HKDF-SHA256 of their X25519 secret.

    Parameters
    ----------
    private
        One's own key, 32 bytes.
    public
        The other's.
    context
        What the key is for, the same on both sides; another context gives another key.

    Raises
    ------
    ValueError
        If the public key is none, or one that makes the secret known to everybody.
    """
    own = X25519PrivateKey.from_private_bytes(private)
    try:
        secret = own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ValueError("the public key is none, or makes the secret known") from None
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=context).derive(secret)


def public_key(private: bytes) -> bytes:
    """Return the X25519 public key of a private one, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def add_mask(vector: Vector, seed: bytes, sign: int) -> None:
    """Add PRG(seed), or take it away where the sign is −1, in place.

    Parameters
    ----------
    vector
        Shape [size].
    seed
        32 bytes, never used for another vector.
    sign
        1 or −1.
    """
    stream: Any = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()
    zeros, step = bytes(_BLOCK), _BLOCK // 8
    for start in range(0, len(vector), step):
        part = vector[start : start + step]
        mask = np.frombuffer(stream.update(zeros[: 8 * len(part)]), dtype="<u8")
        part += mask if sign > 0 else np.negative(mask)


def add_pair_masks(vector: Vector, own: int, seeds: Mapping[int, bytes], sign: int = 1) -> None:
    """Add a client's pairwise masks, Σ_{v > u} PRG(s_uv) − Σ_{v < u} PRG(s_uv), in place.

    Parameters
    ----------
    vector
        Shape [size].
    own
        u.
    seeds
        s_uv by v.
    sign
        −1 takes them away.
    """
    for other, seed in seeds.items():
        add_mask(vector, seed, sign if own < other else -sign)
