"""The models: a multi-layer perceptron, a small convolutional network and ResNet-18.

All are normalised by GroupNorm, as BatchNorm's running statistics cannot be averaged or noised. The initial
weights are a function of the settings, the shapes and the seed alone.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from app.config.settings import ModelSettings
from strategies.core.errors import BadInput
from strategies.core.seeds import torch_generator

_GROUPS = 8
_SMALLEST_SIDE = 4


def build_model(
    settings: ModelSettings,
    input_shape: tuple[int, ...],
    num_outputs: int,
    seed: int,
    own: Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """Build a model with seeded parameters, on the CPU, in training mode; `own` makes a user's.

    It maps float32 inputs [n, *input_shape] (images: [n, channels, height, width]) to logits [n,
    num_outputs]. Layers draw their first parameters from torch's global generator; its state is replaced by a
    derived one meanwhile and put back afterwards; those of CUDA devices are not touched.

    Raises
    ------
    BadInput
        If the model cannot take inputs of that shape.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_generator(seed, "model").get_state())
        model = _BUILDERS[settings.name](settings, input_shape, num_outputs) if own is None else own()
    require_no_batch_norm(model)
    return model


def require_no_batch_norm(model: nn.Module) -> None:
    """Refuse a model that normalises over the batch.

    Raises
    ------
    BadInput
        Naming the first such layer.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm):
            raise BadInput(
                f"model.name: layer {name!r} is {type(layer).__name__}, whose running statistics "
                "cannot be averaged over clients; use GroupNorm"
            )


def _mlp(settings: ModelSettings, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Two hidden layers (the "2NN" of McMahan et al., arXiv 1602.05629), each normalised."""
    return mlp((math.prod(input_shape), settings.hidden, settings.hidden), num_outputs, "fc3")


def _cnn(settings: ModelSettings, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Two convolutions with pooling and two linear layers, for images of 8×8 to 32×32 in [0, 1].

    Pooling comes before norm and ReLU, which then work on a quarter of the values.
    """
    channels, height, width = image_shape(settings.name, input_shape, _SMALLEST_SIDE)
    first, second = settings.width, 2 * settings.width
    return nn.Sequential(
        OrderedDict(
            centre=Centre(),
            conv1=nn.Conv2d(channels, first, 3, padding=1),
            layout=ChannelsLast(),
            pool1=nn.MaxPool2d(2),
            norm1=group_norm(first),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(first, second, 3, padding=1),
            pool2=nn.MaxPool2d(2),
            norm2=group_norm(second),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(second * (height // 4) * (width // 4), settings.hidden),
            norm3=nn.GroupNorm(1, settings.hidden),
            relu3=nn.ReLU(),
            fc2=nn.Linear(settings.hidden, num_outputs),
        )
    )


def _resnet18(settings: ModelSettings, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """ResNet-18 for small images; width and hidden do not apply."""
    from app.models.resnet import small_resnet18

    channels, _, _ = image_shape(settings.name, input_shape, _SMALLEST_SIDE)
    return small_resnet18(channels, num_outputs, group_norm)


_BUILDERS: dict[str, Callable[[ModelSettings, tuple[int, ...], int], nn.Module]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet18": _resnet18,
}


class Centre(nn.Module):
    """Map pixels from [0, 1] to [-1, 1]: inputs that are all positive make large steps diverge."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 2x − 1."""
        return 2 * x - 1


class ChannelsLast(nn.Module):
    """Lays activations [n, c, h, w] out channels-last: a step on a CPU then takes a third less time.

    Written with transpositions because `torch.func.vmap` knows no memory formats.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x, of the same shape and values."""
        return x.movedim(1, -1).contiguous().movedim(-1, 1)


def mlp(widths: Sequence[int], num_outputs: int, last: str, dropout: float | None = None) -> nn.Sequential:
    """Build a perceptron: the input's size, then those of the hidden layers; `last` names the last layer.

    Each hidden layer is normalised; with a `dropout` rate in [0, 1), a dropout layer follows it.
    """
    layers: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for i, (before, after) in enumerate(pairwise(widths), start=1):
        layers += [(f"fc{i}", nn.Linear(before, after)), (f"norm{i}", nn.GroupNorm(1, after))]
        layers += [(f"relu{i}", nn.ReLU())]
        layers += [] if dropout is None else [(f"drop{i}", nn.Dropout(dropout))]
    return nn.Sequential(OrderedDict([*layers, (last, nn.Linear(widths[-1], num_outputs))]))


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm of eight groups, or as many as divide the channels."""
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


def image_shape(model: str, shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """Return (channels, height, width).

    Raises
    ------
    BadInput
        If inputs of this shape are no images, or their sides have fewer than `smallest` pixels.
    """
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise BadInput(
            f"model.name: {model!r} takes images of shape (channels, height, width) of at least "
            f"{smallest}×{smallest} pixels; the data have shape {shape}, which 'mlp' takes"
        )
    return shape[0], shape[1], shape[2]
