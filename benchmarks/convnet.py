"""A convolutional network for small colour images that a CPU trains in minutes, and varied inputs for it.

Five convolutions, each with ReLU, at three sizes of the image, and the largest value of each channel of the
last: 0.39 million parameters, and 26 million multiplications for an image of 32×32, of which a ResNet-18
takes twenty times as many. It has no normalisation, which on a CPU takes as long as the convolutions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.core.examples import Inputs

_WIDTHS = (48, 96, 96, 128, 128)
_POOLED = (1, 3)
"""The convolutions after which each side of the image is halved, as it is by the first one."""
_PADDING = 2
"""Pixels by which a crop may be moved, either way."""


def convnet(channels: int, num_outputs: int) -> nn.Module:
    """Build the network, for images [n, channels, height, width] of at least 8×8, from torch's generator.

    Images have values from 0 to 1. Its weights lie with the channels last, in which order a CPU convolves
    fastest in bfloat16.
    """
    layers: list[nn.Module] = [_Centred()]
    for place, width in enumerate(_WIDTHS):
        side, stride = (4, 2) if place == 0 else (3, 1)
        layers += [nn.Conv2d(channels, width, side, stride, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if place in _POOLED else []
        channels = width
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, num_outputs)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


class _Centred(nn.Module):
    """Brings values from 0 to 1 to a mean near 0 and a standard deviation near 1."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25


def crops_and_flips(inputs: Inputs, generator: torch.Generator) -> Tensor:
    """Return images, [n, channels, height, width], each moved by up to 2 pixels and mirrored or not."""
    if not isinstance(inputs, Tensor):
        raise TypeError("images are one tensor")
    count, _, height, width = inputs.shape
    padded = functional.pad(inputs, (_PADDING,) * 4)
    top, left = torch.randint(0, 2 * _PADDING + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand((count, 1), generator=generator) < 0.5
    columns = torch.arange(width).expand(count, width)
    columns = left + torch.where(mirrored, width - 1 - columns, columns)  # [n, width]
    rows = top + torch.arange(height)  # [n, height]
    images = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
