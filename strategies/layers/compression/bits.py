"""Bits in bytes: half-bytes, signs, and increasing positions in a Rice code.

Rice, "Some practical universal noiseless coding techniques", JPL 79-22, 1979: with parameter b, a gap g is
written as ⌊g / 2^b⌋ ones and a zero, and the b low bits of g beside them. Positions that are drawn uniformly
have geometric gaps, for which the code is within a few hundredths of a bit of the entropy.
"""

import struct

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

_HEAD = struct.Struct("<BI")  # b, and how many bytes the ones and zeros take
_MOST_LOW_BITS = 31


def pack_nibbles(values: npt.NDArray[np.int8]) -> bytes:
    """Return whole numbers in [-8, 7] as half-bytes, two per byte."""
    nibbles = (values.astype(np.int16) + 8).astype(np.uint8)
    if len(nibbles) % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    return (nibbles[0::2] << 4 | nibbles[1::2]).tobytes()


def unpack_nibbles(data: bytes, count: int) -> npt.NDArray[np.int8]:
    """Return what `pack_nibbles` was given."""
    packed = np.frombuffer(data, dtype=np.uint8)
    nibbles = np.empty(2 * len(packed), dtype=np.uint8)
    nibbles[0::2], nibbles[1::2] = packed >> 4, packed & 15
    return (nibbles[:count].astype(np.int16) - 8).astype(np.int8)


def pack_positions(positions: Positions) -> bytes:
    """Return increasing positions from 0 in a Rice code.

    Examples
    --------
    >>> unpack_positions(pack_positions(np.array([3, 4, 90])), 3, 100).tolist()
    [3, 4, 90]
    """
    gaps = np.diff(positions, prepend=-1) - 1
    low = _best_low_bits(gaps)
    high = gaps >> low
    unary = np.ones(int(high.sum()) + len(gaps), dtype=np.uint8)
    unary[np.cumsum(high + 1) - 1] = 0
    packed = np.packbits(unary).tobytes()
    low_bits = (gaps[:, None] >> np.arange(low)[None, :]) & 1  # [k, b]
    return _HEAD.pack(low, len(packed)) + packed + np.packbits(low_bits.astype(np.uint8)).tobytes()


def _best_low_bits(gaps: Positions) -> int:
    if not len(gaps):
        return 0
    sizes = [int((gaps >> low).sum()) + len(gaps) * (1 + low) for low in range(_MOST_LOW_BITS + 1)]
    return int(np.argmin(sizes))


def unpack_positions(data: bytes, count: int, size: int) -> Positions:
    """Return what `pack_positions` was given.

    Parameters
    ----------
    size
        Every position is below it.

    Raises
    ------
    ValueError
        If the bytes are no code of that many positions.
    """
    if len(data) < _HEAD.size:
        raise ValueError("positions: cut off")
    low, num_unary = _HEAD.unpack_from(data)
    unary = np.unpackbits(np.frombuffer(data[_HEAD.size : _HEAD.size + num_unary], dtype=np.uint8))
    rest = data[_HEAD.size + num_unary :]
    zeros = np.flatnonzero(unary == 0)[:count]
    if low > _MOST_LOW_BITS or len(zeros) != count or len(rest) != -(-count * low // 8):
        raise ValueError("positions: wrong length")
    high = np.diff(zeros, prepend=-1) - 1
    bits = np.unpackbits(np.frombuffer(rest, dtype=np.uint8), count=count * low).reshape(count, low)
    gaps = (high << low) + (bits.astype(np.int64) << np.arange(low)).sum(axis=1)
    positions: Positions = np.cumsum(gaps + 1) - 1
    if count and positions[-1] >= size:
        raise ValueError(f"positions: {positions[-1]} is beyond the {size} entries")
    return positions
