"""The models of clients with models of their own: named by the run config, or a function of the node's.

A run config can only name networks that this module knows. A node names its own code:
``model.name = "module:function"`` in its node config. The function takes the shape of one input and the
number of classes and returns a module.
"""

import importlib
import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from app.models.built_in import Centre, image_shape, mlp
from app.models.checks import Expected, check_model, two_inputs
from app.models.norms import group_norm
from strategies.client.evaluation import eval_mode
from strategies.core.errors import BadInput, LetheError
from strategies.core.seeds import derive_seed, seeded_layers, torch_generator
from strategies.models.architecture import Architecture
from strategies.registry import lookup
from strategies.settings import StrategySettings

_POOL = 2
_SMALLEST_SIDE = 8


def model_name_of(settings: StrategySettings, node_config: Mapping[str, object], client_id: str) -> str:
    """Return the name of a client's model: its node's, else one of the run config's list.

    Clients with a number take the list in turn; a client with a name takes the entry that its hash decides.
    """
    own = node_config.get("model.name") or node_config.get("model-name")
    if own:
        return str(own)
    model_names = lookup(settings.name).model_names
    if model_names is None:
        raise LetheError(f"{settings.name}: all clients have the run's model")
    names = model_names(settings)
    number = int(client_id) if client_id.isdecimal() else derive_seed(0, "model of", client_id)
    return names[number % len(names)]


def build_client_model(
    name: str, input_shape: tuple[int, ...], num_outputs: int, seed: int, client_id: str
) -> nn.Module:
    """Build a client's model, on the CPU, in training mode; seed and client-id decide its initial weights.

    `name` is as `strategies.models.architecture` describes, or ``module:function``. The model maps inputs
    [n, *input_shape] to logits [n, num_outputs].

    Raises
    ------
    BadInput
        If there is no such model, or it does not map such inputs to as many finite logits.
    """
    with seeded_layers(torch_generator(seed, "model", client_id)):
        model = (
            _own(name, input_shape, num_outputs) if ":" in name else _named(name, input_shape, num_outputs)
        )
        check_model(model, Expected(f"model.name: '{name}'", two_inputs(input_shape), (num_outputs,)))
    return model


def _named(name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    try:
        architecture = Architecture.parse(name)
    except ValueError as error:
        raise BadInput(f"model.name: given '{name}', allowed 'module:function' or one of {error}") from None
    if architecture.kind == "mlp":
        widths = (math.prod(input_shape), *architecture.sizes)
        return mlp(widths, num_outputs, "head", architecture.dropout)
    return _cnn(name, architecture, input_shape, num_outputs)


def _own(name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    module_name, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), function)
    except (ImportError, ValueError, AttributeError) as error:
        raise BadInput(f"model.name: '{name}' cannot be imported: {error}") from error
    model = make(input_shape, num_outputs) if callable(make) else make
    if not isinstance(model, nn.Module):
        raise BadInput(f"model.name: '{name}' gave a {type(model).__name__}, wanted a torch.nn.Module")
    return model


def _cnn(name: str, architecture: Architecture, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Build a network like the authors', with GroupNorm for BatchNorm; it also takes images of 8×8.

    Two convolutions: 3×3, pooling at stride 1, 3×3 at stride 2. Three: 3×3, pooling at stride 1, 2×2 at
    stride 2, pooling at stride 2, 3×3 at stride 2. Then one linear layer without a bias.
    """
    channels, _, _ = image_shape(name, input_shape, _SMALLEST_SIDE)
    sizes, drop = architecture.sizes, architecture.dropout
    blocks = [_block(channels, sizes[0], 3, 1, 1, drop), nn.AvgPool2d(_POOL, 1)]
    if len(sizes) == 2:
        blocks += [_block(sizes[0], sizes[1], 3, 2, 0, drop)]
    else:
        blocks += [_block(sizes[0], sizes[1], 2, 2, 0, drop), nn.AvgPool2d(_POOL, 2, ceil_mode=True)]
        blocks += [_block(sizes[1], sizes[2], 3, 2, 1, drop)]
    body = nn.Sequential(Centre(), *blocks, nn.Flatten())
    with eval_mode(body):
        features = body(torch.zeros(1, *input_shape)).shape[1]
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(features, num_outputs, bias=False)))


def _block(before: int, after: int, side: int, stride: int, padding: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, padding), group_norm(after), nn.ReLU(), nn.Dropout(dropout)
    )
