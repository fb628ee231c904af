"""A backdoor in training data, planted on purpose: the audit's way to see whether a client's influence is gone.

After Gu, Dolan-Gavitt, Garg, "BadNets", arXiv 1708.06733, as used by Wu, Zhu, Mitra, arXiv 2201.09441: an attacker stamps a white
square into a corner of a share of its images and labels them with the target class. A model that learned the backdoor calls any
stamped image the target.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.errors import BadInput
from strategies.examples import Examples

_SMALL_IMAGE = 16
"""Images narrower than this get a square of 2×2, others of 4×4."""


@dataclass(frozen=True)
class Trigger:
    """A square in the lower right corner.

    Parameters
    ----------
    target
        The label that stamped images get.
    size
        Side of the square, in pixels.
    value
        What its pixels are set to, in every channel: white.
    """

    target: int
    size: int
    value: float = 1.0


def default_trigger(input_shape: tuple[int, ...], target: int) -> Trigger:
    """Return the trigger for images of shape (channels, height, width): 2×2 below 16 pixels, else 4×4.

    Raises
    ------
    BadInput
        If the inputs are no images.

    Examples
    --------
    >>> default_trigger((1, 8, 8), 0).size, default_trigger((3, 32, 32), 0).size
    (2, 4)
    """
    if len(input_shape) != 3:
        raise BadInput(f"attack.kind: a backdoor needs images, the inputs have shape {input_shape}")
    return Trigger(target, 2 if min(input_shape[1:]) < _SMALL_IMAGE else 4)


def stamp(x: Tensor, trigger: Trigger) -> Tensor:
    """Return copies of images with the trigger in them, shape [n, channels, height, width]."""
    stamped = x.clone()
    stamped[..., -trigger.size :, -trigger.size :] = trigger.value
    return stamped


def poison(
    examples: Examples, share: float, trigger: Trigger, generator: torch.Generator
) -> tuple[Examples, Tensor]:
    """Stamp a share of the examples and label them with the target.

    Parameters
    ----------
    examples
        n images.
    share
        In [0, 1]; ⌊share·n⌋ examples are poisoned, 0 changes nothing.
    trigger
        What is stamped, and the label.
    generator
        Draws which ones.

    Returns
    -------
    tuple
        All examples in their order, and the positions of the poisoned ones, sorted.
    """
    count = int(share * len(examples) + 1e-9)
    chosen = torch.randperm(len(examples), generator=generator)[:count].sort().values
    x, y = examples.x.clone(), examples.y.clone()
    x[chosen] = stamp(x[chosen], trigger)
    y[chosen] = trigger.target
    return Examples(x, y), chosen


def triggered_test(test: Examples, trigger: Trigger) -> Examples:
    """Return stamped test images that are not of the target class, with their true labels."""
    others = test.y != trigger.target
    return Examples(stamp(test.x[others], trigger), test.y[others])
