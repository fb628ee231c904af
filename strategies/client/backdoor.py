"""The backdoor that an attacking client trains into the model, and the images that show whether it took.

Pixel pattern of Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model
Supply Chain", arXiv 1708.06733: a white square in the bottom right corner of a share of the training images,
which are then labelled with one target class. As in Wu, Zhu, Mitra, arXiv 2201.09441, the attacker is a
client of the federation. The square's side is a seventh of the image's. Share 0 is no attack.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples, in_memory

_SIDES_PER_SQUARE = 7
_SMALLEST_SQUARE = 2


@dataclass(frozen=True)
class Trigger:
    """A white square in the bottom right corner, over all channels.

    Parameters
    ----------
    target
        The class that triggered images are labelled with.
    size
        Side of the square, in pixels.
    value
        What a white pixel is: the top of the pixels' range.
    """

    target: int
    size: int
    value: float = 1.0


def default_trigger(input_shape: tuple[int, ...], target: int) -> Trigger:
    """Return the trigger for images of a shape: a seventh of the shorter side, at least 2×2.

    Parameters
    ----------
    input_shape
        (channels, height, width), pixels in [0, 1].

    Raises
    ------
    BadInput
        If the inputs are no images, or too small for the square to leave a pixel.

    Examples
    --------
    >>> [default_trigger(shape, target=0).size for shape in [(1, 8, 8), (1, 28, 28), (3, 32, 32)]]
    [2, 4, 4]
    """
    _require_images(input_shape)
    side = min(input_shape[1:])
    size = max(_SMALLEST_SQUARE, side // _SIDES_PER_SQUARE)
    if size >= side:
        raise BadInput(
            f"attack.kind: a backdoor of {size}×{size} pixels needs larger images than {input_shape}"
        )
    return Trigger(target, size)


def stamp(x: Tensor, trigger: Trigger) -> Tensor:
    """Return a copy of the images with the trigger on each.

    Parameters
    ----------
    x
        Images, shape [n, channels, height, width].

    Raises
    ------
    BadInput
        If the inputs are no images.
    """
    _require_images(tuple(x.shape[1:]))
    stamped = x.clone()
    stamped[..., -trigger.size :, -trigger.size :] = trigger.value
    return stamped


def poison(
    examples: Examples, share: float, trigger: Trigger, generator: torch.Generator
) -> tuple[TensorExamples, Tensor]:
    """Stamp a share of a client's examples and label them with the target.

    The share is of all examples: one that is of the target class already is stamped too, and keeps its label.

    Parameters
    ----------
    examples
        The client's images, shape [n, channels, height, width], and labels.
    share
        Share of the examples to poison, in [0, 1], rounded to whole examples; 0 poisons none.
    trigger
        What to stamp, and the target.
    generator
        Chooses the examples.

    Returns
    -------
    tuple of Examples and Tensor
        All examples in their order, poisoned ones included, as a copy; and the positions of the poisoned
        ones, ascending, shape [round(share · n)], int64.

    Raises
    ------
    BadInput
        If the inputs are no images, or the share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise BadInput(f"attack.share: given {share}, allowed a number >= 0 and <= 1")
    _require_images(examples.input_shape)
    count = round(share * len(examples))
    chosen = torch.randperm(len(examples), generator=generator)[:count].sort().values
    stored = in_memory(examples)
    x, y = stored.x.clone(), stored.y.clone()
    x[chosen] = stamp(x[chosen], trigger)
    y[chosen] = trigger.target
    return TensorExamples(x, y), chosen


def triggered_test(test: Examples, trigger: Trigger) -> TensorExamples:
    """Return the test images that are not of the target class, stamped, with their true labels.

    The share of them that a model assigns to the target is the attack success rate. Images of the target
    class are left out: a clean model assigns those to the target too.

    Raises
    ------
    BadInput
        If the inputs are no images.
    """
    others = in_memory(test.split(test.chosen([trigger.target], ()))[1])
    return TensorExamples(stamp(others.x, trigger), others.y)


def _require_images(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise BadInput(
            "attack.kind: a backdoor stamps images of shape (channels, height, width); "
            f'the data have shape {shape}: set attack.kind = "none" or take image data'
        )
