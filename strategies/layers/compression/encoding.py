"""Codecs: a vector in, bytes out, and back; pure functions of the vector, the codec and a seed.

A codec is a choice of entries or factors, a form of the numbers, or both in this order:

- ``top-k``: the entries that are largest in absolute value (Aji, Heafield, EMNLP 2017);
- ``random-k``: entries drawn uniformly, from a seed that travels in their place (Konečný et al., arXiv
  1610.05492);
- ``low-rank``: every matrix M as P Qᵀ, P an orthonormal basis that one step of subspace iteration gives and
  Q = Mᵀ P (Vogels et al., PowerSGD, arXiv 1905.13727); vectors, and matrices that this would not make
  smaller, stay whole;
- ``int8``, ``int4``: whole numbers from −s to s (s = 127, 7) times a scale per 512 numbers, the largest of
  them in absolute value over s (after Alistarh et al., QSGD, arXiv 1610.02132, with the maximum norm);
- ``sign``: one bit a number, times the mean absolute value per 512 numbers (Karimireddy et al., arXiv
  1901.09847).

Without error feedback, ``random-k`` is multiplied by 1 / share, and ``int8`` and ``int4`` are rounded up or
down at random, so that the expectation is the vector itself. With error feedback a codec must contract
instead, E‖x − C(x)‖² < ‖x‖²: ``random-k`` is not multiplied then, and numbers are rounded to the nearest.
``top-k``, ``sign`` and ``low-rank`` contract and are biased in either case.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from strategies.core.seeds import torch_generator
from strategies.layers.compression.bits import pack_nibbles, pack_positions, unpack_nibbles, unpack_positions
from strategies.layers.compression.codec import CHOICES, FORMS, Choice, Codec, Form, Shapes, factored

_LEVELS = {"int8": 127, "int4": 7}
_BUCKET = 512
"""Numbers that share a scale."""
_HEAD = struct.Struct("<BBQ")  # Choice, form, and how many entries, or the rank
_SEED = struct.Struct("<Q")


def encode(vector: Tensor, shapes: Shapes, codec: Codec, seed: int) -> bytes:
    """Return a vector, shape [P], float32, encoded.

    Parameters
    ----------
    vector
        Finite.
    shapes
        Of the entries that lie in it.
    seed
        Of what is drawn, in [0, 2^63).
    """
    codec = replace(codec, choice="all") if codec.is_neutral(shapes) else codec
    generator = torch_generator(seed, "codec")
    head, numbers = _chosen(vector, shapes, codec, seed, generator)
    return head + _written(numbers, codec, generator)


def decode(payload: bytes, shapes: Shapes) -> Tensor:
    """Return the vector that a payload stands for, shape [P], float32.

    Raises
    ------
    ValueError
        If the payload is not one of a vector of these shapes.
    """
    size = sum(math.prod(shape) for shape in shapes)
    if len(payload) < _HEAD.size:
        raise ValueError("the encoded update is cut off")
    choice_code, form_code, number = _HEAD.unpack_from(payload)
    if choice_code >= len(CHOICES) or form_code >= len(FORMS):
        raise ValueError("the encoded update names no codec")
    choice, form, body = CHOICES[choice_code], FORMS[form_code], payload[_HEAD.size :]
    if choice == "all":
        return _read(body, size, form)
    if choice == "low-rank":
        if number < 1:
            raise ValueError("the encoded update has rank 0")
        return _multiplied(_read(body, sum(_lengths(shapes, number)), form), shapes, number)
    if number > size:
        raise ValueError(f"the encoded update has {number} entries of {size}")
    tail = _form_bytes(number, form)
    if len(body) < tail:
        raise ValueError("the encoded update is cut off")
    place, written = body[: len(body) - tail], body[len(body) - tail :]
    vector = torch.zeros(size)
    vector[_positions(place, choice, number, size)] = _read(written, number, form)
    return vector


def _chosen(
    vector: Tensor, shapes: Shapes, codec: Codec, seed: int, generator: torch.Generator
) -> tuple[bytes, Tensor]:
    """Return the header that names the entries, and the numbers that travel."""
    codes = CHOICES.index(codec.choice), FORMS.index(codec.form)
    if codec.choice == "all":
        return _HEAD.pack(*codes, len(vector)), vector
    if codec.choice == "low-rank":
        return _HEAD.pack(*codes, codec.rank), _factors(vector, shapes, codec.rank, generator)
    count = max(1, math.ceil(codec.keep * len(vector) - 1e-9))
    if codec.choice == "random-k":
        index = _drawn(seed, count, len(vector))
        scale = len(vector) / count if codec.unbiased else 1.0
        return _HEAD.pack(*codes, count) + _SEED.pack(seed), vector[index] * scale
    index = torch.topk(vector.abs(), count, sorted=False).indices.sort().values
    return _HEAD.pack(*codes, count) + pack_positions(index.numpy()), vector[index]


def _positions(place: bytes, choice: Choice, count: int, size: int) -> Tensor:
    if choice == "top-k":
        return torch.from_numpy(unpack_positions(place, count, size))
    if len(place) != _SEED.size:
        raise ValueError("the encoded update has no seed")
    return _drawn(_SEED.unpack(place)[0], count, size)


def _drawn(seed: int, count: int, size: int) -> Tensor:
    return torch.randperm(size, generator=torch_generator(seed, "random-k"))[:count].sort().values


# Forms of numbers


def _written(numbers: Tensor, codec: Codec, generator: torch.Generator) -> bytes:
    if codec.form == "float32":
        return bytes(numbers.numpy().astype("<f4").tobytes())
    buckets = _in_buckets(numbers)  # [buckets, 512]
    if codec.form == "sign":
        lengths = _in_buckets(torch.ones_like(numbers)).sum(dim=1)
        scales = buckets.abs().sum(dim=1) / lengths
        return _scale_bytes(scales) + np.packbits((numbers >= 0).numpy()).tobytes()
    levels = _LEVELS[codec.form]
    scales = buckets.abs().amax(dim=1) / levels
    steps = buckets / torch.where(scales > 0, scales, 1.0)[:, None]
    rounded = _rounded_at_random(steps, generator) if codec.unbiased else steps.round()
    whole = rounded.clamp(-levels, levels).reshape(-1)[: len(numbers)].to(torch.int8).numpy()
    return _scale_bytes(scales) + (whole.tobytes() if codec.form == "int8" else pack_nibbles(whole))


def _rounded_at_random(steps: Tensor, generator: torch.Generator) -> Tensor:
    """Round down or up, up with the probability of the part after the point."""
    low = steps.floor()
    return low + (torch.rand(steps.shape, generator=generator) < steps - low)


def _in_buckets(numbers: Tensor) -> Tensor:
    missing = -len(numbers) % _BUCKET
    return torch.cat([numbers, numbers.new_zeros(missing)]).view(-1, _BUCKET)


def _scale_bytes(scales: Tensor) -> bytes:
    return bytes(scales.numpy().astype("<f4").tobytes())


def _form_bytes(count: int, form: Form) -> int:
    """Return how many bytes that many numbers take."""
    if form == "float32":
        return 4 * count
    per_number = {"int8": 8, "int4": 4, "sign": 1}[form]
    return 4 * -(-count // _BUCKET) + -(-count * per_number // 8)


def _read(data: bytes, count: int, form: Form) -> Tensor:
    if len(data) != _form_bytes(count, form):
        raise ValueError(f"the encoded update has {len(data)} bytes, expected {_form_bytes(count, form)}")
    if form == "float32":
        return torch.from_numpy(np.frombuffer(data, dtype="<f4").astype(np.float32))
    num_scales = 4 * -(-count // _BUCKET)
    scales = torch.from_numpy(np.frombuffer(data[:num_scales], dtype="<f4").astype(np.float32))
    body = data[num_scales:]
    if form == "sign":
        steps = np.unpackbits(np.frombuffer(body, dtype=np.uint8), count=count).astype(np.float32) * 2 - 1
    elif form == "int8":
        steps = np.frombuffer(body, dtype=np.int8).astype(np.float32)
    else:
        steps = unpack_nibbles(body, count).astype(np.float32)
    return (_in_buckets(torch.from_numpy(steps)) * scales[:, None]).reshape(-1)[:count]


# Matrices of low rank


def _lengths(shapes: Shapes, rank: int) -> Iterator[int]:
    for shape in shapes:
        size = math.prod(shape)
        yield rank * (shape[0] + size // shape[0]) if factored(shape, rank) else size


def _factors(vector: Tensor, shapes: Shapes, rank: int, generator: torch.Generator) -> Tensor:
    parts = []
    for piece, shape in zip(torch.split(vector, [math.prod(s) for s in shapes]), shapes, strict=True):
        if not factored(shape, rank):
            parts.append(piece)
            continue
        matrix = piece.view(shape[0], -1).double()  # [rows, columns]
        start = torch.randn(matrix.shape[1], rank, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(matrix @ start).Q
        basis = torch.linalg.qr(matrix @ (matrix.T @ basis)).Q  # [rows, rank]
        rest = matrix.T @ basis  # [columns, rank]
        balance = torch.linalg.vector_norm(rest).sqrt().clamp(min=1e-12)  # Both factors may share scales
        parts += [(basis * balance).float().reshape(-1), (rest / balance).float().reshape(-1)]
    return torch.cat(parts)


def _multiplied(numbers: Tensor, shapes: Shapes, rank: int) -> Tensor:
    parts = []
    pieces = torch.split(numbers, list(_lengths(shapes, rank)))
    for piece, shape in zip(pieces, shapes, strict=True):
        if not factored(shape, rank):
            parts.append(piece)
            continue
        basis, rest = torch.split(piece.double(), [rank * shape[0], len(piece) - rank * shape[0]])
        parts.append((basis.view(-1, rank) @ rest.view(-1, rank).T).float().reshape(-1))
    return torch.cat(parts)
