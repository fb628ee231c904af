"""Small pictures as PNG data URIs, without a library of pictures."""

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

_KINDS = {1: 0, 3: 2, 4: 6}
"""Channels -> PNG's colour type: grey, colours, colours with opacity."""


def png_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Return pixels, shape [height, width] or [height, width, 1, 3 or 4 channels], as a data URI."""
    deep = pixels[..., None] if pixels.ndim == 2 else pixels  # [height, width, channels]
    height, width, channels = deep.shape
    rows = deep.reshape(height, width * channels)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # each row: no filter
    head = struct.pack(">IIBBBBB", width, height, 8, _KINDS[channels], 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b"")]
    document = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)
    return "data:image/png;base64," + base64.b64encode(document).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))
