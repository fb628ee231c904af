"""What tensor files say of themselves, checked without torch: the header of a safetensors file, and its seal.

The format: 8 bytes with the header's length, a JSON header that names each tensor's type, shape and place,
then the raw numbers (https://github.com/huggingface/safetensors). The seal is the SHA-256 of the whole file,
taken with 64 zeros in the seal's own place, and kept in the header's metadata.
"""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from strategies.core.errors import RunCorrupt
from strategies.runs.files import Content, contents, pieces_of

TYPES = {
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "F32": ("float32", 4),
    "I32": ("int32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""Type in a header -> torch's name of it, and the bytes of an entry."""
SEAL_START = b'{"__metadata__":{"sha256":"'
SEAL = slice(8 + len(SEAL_START), 8 + len(SEAL_START) + 64)
NO_SEAL = "0" * 64


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: its type in torch's words, its shape, and the byte at which it begins."""

    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Header:
    """What a file says of its tensors, in order, its metadata, and its seal if it is sealed."""

    places: dict[str, Place]
    metadata: dict[str, str]
    seal: str = ""


def header_of(content: Content) -> Header:
    """Return the header of a safetensors file, each tensor of which fits the place that it is given.

    Raises
    ------
    ValueError
        If the bytes are not a safetensors file.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= len(content):
        raise ValueError("its header is cut off")
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("its header is no table of tensors")
    places = {name: _place(entry, start, len(content)) for name, entry in header.items()}
    return Header(places, metadata)


def check_sealed(path: Path) -> None:
    """Check a sealed file without making tensors of it.

    Raises
    ------
    RunCorrupt
        If the file is missing, cut off, or a single byte of it differs from what was written.
    """
    read_unsealed(path)


def read_unsealed(path: Path) -> tuple[Content, Header]:
    """Return the bytes of a sealed file and its header without the seal; RunCorrupt as `check_sealed`."""
    content = contents(path)
    seal = bytes(content[SEAL])
    if len(seal) == len(NO_SEAL):
        content[SEAL] = NO_SEAL.encode()
    if sha256_of(path, content).encode() != seal:
        raise RunCorrupt(f"{path}: damaged, its bytes do not match its SHA-256; restore it from a copy")
    try:
        header = replace(header_of(content), seal=seal.decode())
        header.metadata.pop("sha256")
    except (ValueError, KeyError) as error:
        raise RunCorrupt(f"{path}: sealed, but no file of tensors: {error}") from None
    return content, header


def sha256_of(path: Path, content: Content) -> str:
    """Return the hash of a file, or of what was changed at the beginning of its content."""
    if isinstance(content, bytearray):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    for number, piece in enumerate(pieces_of(path)):  # Not of what is mapped, which would stay in memory
        if number == 0:
            piece[: SEAL.stop] = content[: SEAL.stop]
        digest.update(piece)
    return digest.hexdigest()


def _place(entry: object, start: int, end: int) -> Place:
    described = entry if isinstance(entry, dict) else {}
    found, shape = TYPES.get(str(described.get("dtype"))), described.get("shape")
    place = described.get("data_offsets")
    if found is None or not _is_counts(shape) or not _is_counts(place) or len(place) != 2:
        raise ValueError("its header does not say where a tensor lies")
    dtype, width = found
    if place[1] - place[0] != math.prod(shape) * width or place[1] > end - start:
        raise ValueError("a tensor does not fill the place that its header gives it")
    return Place(dtype, tuple(shape), start + place[0])


def _is_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)
