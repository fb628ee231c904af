"""Clipping and Gaussian noise on whole updates, and where the randomness of private runs comes from.

Noise is drawn by torch's generators in float32. They are not cryptographically secure, and the rounding of
floating-point noise is a known side channel (Mironov, CCS 2012), against which nothing is done here.
"""

import math
import secrets
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.errors import LetheError


@dataclass(frozen=True)
class Randomness:
    """Where samples and noise come from.

    Parameters
    ----------
    secret
        Whether from the machine's entropy instead of the generator that is handed in.
    """

    secret: bool

    def generator(self, given: torch.Generator, device: torch.device) -> torch.Generator:
        """Return a generator on a device."""
        seed = int(torch.randint(2**62, (), generator=given))
        generator = torch.Generator(device=device)
        generator.manual_seed(secrets.randbits(63) if self.secret else seed)
        return generator


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


def noised(delta: Tensor, noise_multiplier: float, clip_norm: float, generator: torch.Generator) -> Tensor:
    """Return delta + N(0, σ²C² I)."""
    if noise_multiplier == 0:
        return delta
    std = noise_multiplier * clip_norm
    return delta + std * torch.randn(delta.shape, generator=generator, dtype=delta.dtype)
