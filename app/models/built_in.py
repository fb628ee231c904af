"""Builds the run's model: one of torchvision, of timm, of the user's own, or one of the four that are here.

A linear layer, a multi-layer perceptron, a small convolutional network and ResNet-18 are built in, the last
three normalised by GroupNorm, as BatchNorm's running statistics cannot be averaged or noised. The initial
weights are a function of the settings, the shapes and the seed alone.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from app.config.settings import ModelSettings
from app.models.checks import Expected, check_model, takes, two_inputs
from app.models.named import RepeatChannel, build_named, channels_of, library_of
from app.models.norms import group_norm, settle_batch_norm
from app.models.weights import load_weights
from strategies.core.errors import BadInput
from strategies.core.examples import Inputs
from strategies.core.seeds import torch_generator

_SMALLEST_SIDE = 4
OWN = "run.project: its model"
"""What a line about a project's model begins with."""


def build_model(
    settings: ModelSettings,
    input_shape: tuple[int, ...],
    num_outputs: int,
    seed: int,
    own: Callable[[], nn.Module] | None = None,
    *,
    example: Inputs | None = None,
    any_outputs: bool = False,
) -> nn.Module:
    """Build a model with seeded parameters, on the CPU, in training mode; `own` makes a user's.

    It maps inputs, if not said otherwise float32 of shape [n, *input_shape] (images: [n, channels, height,
    width]), to logits [n, num_outputs]. Layers draw their first parameters from torch's global generator; its
    state is replaced by a derived one meanwhile and put back afterwards; those of CUDA devices are not
    touched. The model is checked against the data.

    Parameters
    ----------
    own
        Makes the model in place of the one that the settings name; None: that.
    example
        Two examples' inputs, by which the model is checked; None: made up from the shape.
    any_outputs
        Whether a row of outputs may have any shape, as tasks other than classification have it.

    Raises
    ------
    BadInput
        If the model cannot be trained on such inputs, or its weights cannot be had.
    """
    subject = f"model.name: '{settings.name}'" if own is None else OWN
    made_up = two_inputs(input_shape) if input_shape else None
    outputs = None if any_outputs else (num_outputs,)
    expected = Expected(subject, made_up if example is None else example, outputs)
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_generator(seed, "model").get_state())
        if own is None and not library_of(settings.name):
            model = _BUILDERS[settings.name](settings, input_shape, num_outputs)
        else:
            model = build_named(settings.name, num_outputs) if own is None else own()
            expected = fitted(model, expected)
        settle_batch_norm(model, settings.batch_norm)
        if settings.weights:
            load_weights(model, settings.weights, subject.partition(": ")[2])
        check_model(model, expected)
    return model


def fitted(model: nn.Module, expected: Expected) -> Expected:
    """Make a model of others' ready for its inputs, in place; return what it is to be checked by.

    Layers without a shape get one, and grey images as many channels as the model takes. A model that takes no
    real numbers, such as one of words, is checked with whole ones.
    """
    inputs = expected.inputs
    if not isinstance(inputs, Tensor) or takes(model, expected):
        return expected
    channels = channels_of(model)
    if inputs.dim() == 4 and inputs.shape[1] == 1 < channels:
        handle = model.register_forward_pre_hook(RepeatChannel(channels))
        if takes(model, expected):
            return expected
        handle.remove()
    whole = replace(expected, inputs=torch.zeros(inputs.shape, dtype=torch.int64))
    return whole if inputs.is_floating_point() and takes(model, whole) else expected


def _linear(settings: ModelSettings, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Return one linear layer, of which the loss of classification and regression is convex."""
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(math.prod(input_shape), num_outputs)))


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
    "linear": _linear,
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
