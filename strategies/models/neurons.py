"""Which hidden neurons a model has: units of linear layers and channels of convolutions that may be left out.

A neuron comes with its weights from the layer before, its bias, its norm, and its weights into the layer
after. Inputs and outputs stay whole.

In a residual network (He et al., arXiv 1512.03385) two kinds of channels are hidden: those inside a block,
and those of the stream that flows past the blocks. Blocks add to the stream channel by channel, so a channel
of it is one neuron from where a block projects what comes in to where the next one does, and all layers that
write to it lose it together, as in HeteroFL (Diao et al., arXiv 2010.01264).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strategies.core.errors import BadInput


@dataclass(frozen=True)
class Slot:
    """A dimension of a tensor along which a group's neurons lie, each over `repeat` entries in a row."""

    name: str
    dim: int
    repeat: int = 1


@dataclass(frozen=True)
class Group:
    """The neurons of one hidden layer, or of one stage's residual stream.

    Parameters
    ----------
    name
        Of the first layer that computes them.
    size
        How many there are.
    slots
        Where they lie. Those of dimension 0 are the neuron's own, the others lead into the layer after.
    scored
        Names of the tensors that lead into the neurons, weights and biases, without norms.
    """

    name: str
    size: int
    slots: tuple[Slot, ...]
    scored: tuple[str, ...] = ()


def hidden_groups(model: nn.Module) -> tuple[Group, ...]:
    """Return the hidden layers of a model, in the order of the computation, streams last.

    Raises
    ------
    BadInput
        If the model is neither a chain of layers nor made of residual blocks, or a part of it is frozen.
    """
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    if frozen:
        raise BadInput(f"model.name: parameter '{frozen[0]}' is frozen, so no neurons can be left out")
    groups = _of_chain(model) if isinstance(model, nn.Sequential) else _of_blocks(model)
    if not groups:
        raise BadInput(
            f"model.name: {type(model).__name__} has no hidden layer that can be pruned; "
            "mlp, cnn and resnet18 have"
        )
    return groups


def _of_chain(model: nn.Sequential) -> tuple[Group, ...]:
    groups: list[Group] = []
    for name, layer in model.named_children():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if groups:
                inputs = layer.weight.shape[1]
                groups[-1] = _with(groups[-1], Slot(f"{name}.weight", 1, inputs // groups[-1].size))
            groups.append(_computed_by(model, name))
        elif isinstance(layer, nn.GroupNorm) and groups:
            groups[-1] = _with(groups[-1], *_own(model, name))
        elif list(layer.parameters()):
            raise BadInput(f"model.name: layer '{name}' ({type(layer).__name__}) cannot be pruned")
    return tuple(groups[:-1])


def _of_blocks(model: nn.Module) -> tuple[Group, ...]:
    blocks = list(_blocks(model))
    inner = [
        _with(
            _computed_by(model, f"{block}.conv1"),
            *_own(model, f"{block}.bn1"),
            Slot(f"{block}.conv2.weight", 1),
        )
        for block in blocks
    ]
    return (*inner, *(_streams(model, blocks) if blocks else ()))


def _blocks(model: nn.Module) -> Iterator[str]:
    """Yield the names of the residual blocks: two convolutions, each normalised, added to what came in."""
    for name, block in model.named_modules():
        parts = [getattr(block, part, None) for part in ("conv1", "bn1", "conv2", "bn2")]
        kinds = nn.Conv2d, nn.GroupNorm, nn.Conv2d, nn.GroupNorm
        if all(isinstance(part, kind) for part, kind in zip(parts, kinds, strict=True)):
            yield name


def _streams(model: nn.Module, blocks: list[str]) -> Iterator[Group]:
    """Yield the streams: one begins at the stem, and one at each block that projects its input."""
    stream = _with(_computed_by(model, "conv1"), *_own(model, "bn1"))
    for block in blocks:
        stream = _with(stream, Slot(f"{block}.conv1.weight", 1))
        if model.get_submodule(block).downsample is not None:
            yield _with(stream, Slot(f"{block}.downsample.0.weight", 1))
            stream = _computed_by(model, f"{block}.downsample.0")
            stream = _with(stream, *_own(model, f"{block}.downsample.1"))
        stream = _joined(stream, _computed_by(model, f"{block}.conv2"))
        stream = _with(stream, *_own(model, f"{block}.bn2"))
    yield _with(stream, Slot("fc.weight", 1))


def _computed_by(model: nn.Module, name: str) -> Group:
    own = _own(model, name)
    return Group(name, model.get_parameter(own[0].name).shape[0], own, tuple(slot.name for slot in own))


def _own(model: nn.Module, name: str) -> tuple[Slot, ...]:
    return tuple(Slot(f"{name}.{key}", 0) for key, _ in model.get_submodule(name).named_parameters())


def _with(group: Group, *slots: Slot) -> Group:
    return Group(group.name, group.size, (*group.slots, *slots), group.scored)


def _joined(group: Group, other: Group) -> Group:
    return Group(group.name, group.size, (*group.slots, *other.slots), (*group.scored, *other.scored))


def neuron_scores(scores: Mapping[str, Tensor], group: Group) -> Tensor:
    """Return Σ of an entry's scores over each neuron's weights from before it and its biases, [size]."""
    summed = [scores[name].reshape(group.size, -1).double().sum(dim=1) for name in group.scored]
    return torch.stack(summed).sum(dim=0)
