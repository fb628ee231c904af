"""Tensors in a file: the safetensors format in one pass, with a seal that shows a single flipped byte.

The format: 8 bytes with the header's length, a JSON header that names each tensor's type, shape and place,
then the raw numbers (https://github.com/huggingface/safetensors). Any safetensors reader reads these files.
The seal is the SHA-256 of the whole file, taken with 64 zeros in the seal's own place, and kept in the
header's metadata.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from strategies.core.errors import RunCorrupt
from strategies.runs.files import Chunk, read_bytes, write_chunks

_TYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _TYPES.items()}
_SEAL_START = b'{"__metadata__":{"sha256":"'
_SEAL = slice(8 + len(_SEAL_START), 8 + len(_SEAL_START) + 64)
_NO_SEAL = "0" * 64


@dataclass(frozen=True, eq=False)
class TensorFile:
    """What a tensor file holds.

    Parameters
    ----------
    tensors
        In the order in which they were given to the writer; views of one buffer.
    metadata
        Texts by name.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[Chunk]:
    """Return the bytes of a safetensors file: the header, then one view per tensor; no number is copied.

    The header lists the tensors in the given order. The numbers lie in order of their width, widest first, so
    that each is aligned.
    """
    flat = {name: t.detach().to("cpu").contiguous().reshape(-1) for name, t in tensors.items()}
    places, end = {}, 0
    in_file = sorted(flat, key=lambda name: -flat[name].element_size())
    for name in in_file:
        start, end = end, end + flat[name].numel() * flat[name].element_size()
        places[name] = [start, end]
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, t in tensors.items():
        header[name] = {"dtype": _TYPES[t.dtype], "shape": list(t.shape), "data_offsets": places[name]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = bytearray(len(text).to_bytes(8, "little") + text)
    return [head, *(flat[name].view(torch.uint8).numpy().data for name in in_file)]


def decode(content: bytearray) -> TensorFile:
    """Return what the bytes of a safetensors file hold, as views of them.

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
    return TensorFile({name: _tensor(content, start, entry) for name, entry in header.items()}, metadata)


def _tensor(content: bytearray, start: int, entry: object) -> Tensor:
    described = entry if isinstance(entry, dict) else {}
    dtype, shape = _DTYPES.get(str(described.get("dtype"))), described.get("shape")
    place = described.get("data_offsets")
    if dtype is None or not _is_counts(shape) or not _is_counts(place) or len(place) != 2:
        raise ValueError("its header does not say where a tensor lies")
    count = math.prod(shape)
    if place[1] - place[0] != count * dtype.itemsize or place[1] > len(content) - start:
        raise ValueError("a tensor does not fill the place that its header gives it")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype, count=count, offset=start + place[0]).reshape(shape)


def _is_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def write_sealed(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    mode: int = 0o666,
) -> str:
    """Write tensors to a sealed file, all of it or nothing, and return the seal (64 hexadecimal digits).

    Parameters
    ----------
    path, mode
        As `write_chunks` takes them.

    Raises
    ------
    LetheError
        If the disk is full or does not take the file; the old file is untouched.
    """
    head, *body = encode(tensors, {"sha256": _NO_SEAL, **(metadata or {})})
    digest = hashlib.sha256(head)
    for chunk in body:
        digest.update(chunk)
    sealed = bytearray(head)
    sealed[_SEAL] = digest.hexdigest().encode()
    write_chunks(path, [sealed, *body], mode)
    return digest.hexdigest()


def read_sealed(path: Path) -> TensorFile:
    """Return what a sealed file holds.

    Raises
    ------
    RunCorrupt
        If the file is missing, cut off, or a single byte of it differs from what was written.
    """
    content = read_bytes(path)
    seal = bytes(content[_SEAL])
    content[_SEAL] = _NO_SEAL.encode()
    if hashlib.sha256(content).hexdigest().encode() != seal:
        raise RunCorrupt(f"{path}: damaged, its bytes do not match its SHA-256; restore it from a copy")
    try:
        found = decode(content)
        found.metadata.pop("sha256")
    except (ValueError, KeyError) as error:
        raise RunCorrupt(f"{path}: sealed, but no file of tensors: {error}") from None
    return found
