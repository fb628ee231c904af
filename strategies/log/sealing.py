"""Authenticated encryption of byte strings of any length: AES-256-GCM in segments.

    bytes 0–7   random prefix, drawn anew for every sealing
    then        segments: up to 64 MiB of ciphertext and 16 bytes of tag each

A segment's nonce is the prefix and its number (4 bytes, big-endian), as in the STREAM construction (Hoang,
Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", CRYPTO
2015). What is authenticated with it says how long the whole is and what it is (`context`), so a segment that
is changed, exchanged, dropped or moved is noticed, and so is a file in the place of another. Segments exist
because one call of GCM takes less than 2^31 bytes here. With one key, two of n sealings share a prefix with
probability n²/2^65: 3·10^-8 for a million.
"""

import mmap
import secrets
from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strategies.log.pieces import Chunk, Pieces

Content = bytes | bytearray | memoryview | mmap.mmap

SEGMENT = 1 << 26
"""Bytes of plain text per segment."""
_PREFIX, _TAG, _NUMBER = 8, 16, 4


def seal(key: bytes, content: Content, context: bytes, segment: int = SEGMENT) -> bytearray:
    """Return the encrypted and authenticated form of a byte string.

    Parameters
    ----------
    key
        32 bytes.
    context
        What it is; the same must be given to `unseal`.
    segment
        Bytes of `content` per segment.
    """
    view = memoryview(content)
    pieces = (view[start : start + segment] for start in _starts(len(view), segment))
    return bytearray().join(_sealed(key, pieces, _bound(context, len(view))))


def sealed_pieces(key: bytes, content: Pieces, context: bytes, segment: int = SEGMENT) -> Iterator[bytes]:
    """Yield what `seal` returns, a segment at a time."""
    return _sealed(key, content.of_size(segment), _bound(context, len(content)))


def _sealed(key: bytes, segments: Iterable[Chunk], bound: bytes) -> Iterator[bytes]:
    cipher, prefix = AESGCM(key), secrets.token_bytes(_PREFIX)
    yield prefix
    for number, piece in enumerate(segments):
        yield cipher.encrypt(_nonce(prefix, number), piece, bound)


def unseal(key: bytes, sealed: Content, context: bytes, segment: int = SEGMENT) -> bytearray:
    """Return what was sealed.

    Raises
    ------
    ValueError
        If a byte differs from what `seal` returned for this key and context.
    """
    view, step = memoryview(sealed), segment + _TAG
    body = len(view) - _PREFIX
    count = max(1, -(-body // step))
    length = body - count * _TAG
    if length < 0:
        raise ValueError("cut off")
    cipher, prefix, content = AESGCM(key), bytes(view[:_PREFIX]), bytearray()
    try:
        for number in range(count):
            start = _PREFIX + number * step
            content += cipher.decrypt(
                _nonce(prefix, number), view[start : start + step], _bound(context, length)
            )
    except InvalidTag:
        raise ValueError("not what was encrypted with this key") from None
    return content


def _starts(length: int, segment: int) -> range:
    return range(0, max(1, length), segment)


def _nonce(prefix: bytes, number: int) -> bytes:
    return prefix + number.to_bytes(_NUMBER, "big")


def _bound(context: bytes, length: int) -> bytes:
    return length.to_bytes(8, "big") + context
