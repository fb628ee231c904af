"""Clipping and Gaussian noise on whole updates.

What is released is a multiple of a power of two g, with 2¹⁰ to 2¹¹ of them in the noise's standard deviation.
Numbers of a computer are no real ones: which of them a sum of an update and float noise can be, and how
often, depends on the update, and tells of it (Mironov, "On Significance of the Least Significant Bits for
Differential Privacy", CCS 2012; Jin, McMurtry, Rubinstein, Ohrimenko, "Are We There Yet? Timing and
Floating-Point Attacks on Differential Privacy Systems", IEEE S&P 2022). Here the sum is made in float64 of
noise of 106 random bits, and rounded to the nearest multiple of g, which by itself is post-processing and
costs nothing:

- fine enough: g is at most a thousandth of the standard deviation and adds less than 10⁻⁷ of its variance;
- coarse enough: noise and sum are off by some 2⁻⁵⁰ standard deviations, 2⁻³⁹ g, which is by how much the
  probability of a multiple can differ from that of exact noise: over 2³⁰ entries at most 0.002 of ε;
- a multiple of a power of two stays one when it is rounded to float32, whose numbers, beyond 2²⁴ g, are
  multiples of larger powers. So what is sent is what was released.

Noise comes from a cryptographic stream (`strategies.core.secret_random`).
"""

import math

import torch
from torch import Tensor

from strategies.core.errors import LetheError
from strategies.core.secret_random import BLOCK, RandomStream

_GRID_BITS = 10
"""A standard deviation has at least 2¹⁰ steps of the grid."""


def clipped(delta: Tensor, clip_norm: float) -> Tensor:
    """Return an update scaled down to the norm C where it is longer, delta · min(1, C / ‖delta‖).

    An update within the norm is returned as it is, to the bit, and so is one without a direction.

    Examples
    --------
    >>> clipped(torch.tensor([3.0, 4.0]), 1.0)
    tensor([0.6000, 0.8000])
    >>> clipped(torch.tensor([3.0, 4.0]), 5.0)
    tensor([3., 4.])

    Raises
    ------
    LetheError
        If an entry is not finite: no scaling bounds it.
    """
    norm = float(torch.linalg.vector_norm(delta.double()))
    if not math.isfinite(norm):
        raise LetheError("the update is not finite and cannot be clipped: nothing is sent")
    return delta if norm <= clip_norm else delta * (clip_norm / norm)


def grid_step(std: float) -> float:
    """Return g, of which released values are multiples: the power of two in (std / 2¹¹, std / 2¹⁰].

    Parameters
    ----------
    std
        Standard deviation of the noise, above 0.

    Examples
    --------
    >>> grid_step(1.0) == 2**-10, grid_step(1.999) == 2**-10, grid_step(0.5) == 2**-11
    (True, True, True)
    """
    return math.ldexp(1.0, math.frexp(std)[1] - 1 - _GRID_BITS)


def noised(delta: Tensor, noise_multiplier: float, clip_norm: float, stream: RandomStream) -> Tensor:
    """Return delta + N(0, σ²C² I), rounded to multiples of `grid_step`; neutral σ = 0 returns delta.

    Parameters
    ----------
    delta
        Of any shape and floating dtype, on any device; it is not altered.
    noise_multiplier
        σ, at least 0.
    clip_norm
        C, above 0.
    """
    std = noise_multiplier * clip_norm
    if std == 0:
        return delta
    step, released = grid_step(std), torch.empty_like(delta, device="cpu").flatten()
    blocks = (torch.split(vector, BLOCK) for vector in (released, delta.detach().flatten().cpu()))
    for part, exact, noise in zip(*blocks, stream.normal_blocks(delta.numel(), std / step), strict=True):
        part.copy_(noise.add_(exact, alpha=1.0 / step).round_()).mul_(step)
    return released.view(delta.shape).to(delta.device)
