"""Sub-networks: the hidden neurons of a model, and the smaller network that some of them make.

A hidden neuron is a unit of a linear layer or a channel of a convolution, with its weights from the layer
before, its bias, its norm, and its weights into the layer after. Inputs and outputs stay whole. In a residual
network, what flows past the blocks stays whole as well, so the neurons are the inner channels of each block.

The smaller network computes what the full one computes with all other neurons at zero: group norms count them
as zeros (`PartialGroupNorm`). Federated Dropout (Caldas et al., arXiv 1812.07210) and HeteroFL (Diao et al.,
arXiv 2010.01264) extract networks in the same way.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.errors import BadInput
from strategies.wire import Layout


@dataclass(frozen=True)
class Slot:
    """A dimension of a tensor along which a group's neurons lie, each over `repeat` entries in a row."""

    name: str
    dim: int
    repeat: int = 1


@dataclass(frozen=True)
class Group:
    """The neurons of one hidden layer.

    Parameters
    ----------
    name
        Of the layer that computes them.
    size
        How many there are.
    slots
        Where they lie. The first is the weights from the layer before; those of dimension 0 are the neuron's
        own, the others lead into the layer after.
    """

    name: str
    size: int
    slots: tuple[Slot, ...]


Kept = tuple[tuple[int, ...], ...]
"""For each group the neurons that are kept, in ascending order, at least one."""


def hidden_groups(model: nn.Module) -> tuple[Group, ...]:
    """Return the hidden layers of a model, in the order of the computation.

    Raises
    ------
    BadInput
        If the model is neither a chain of layers nor made of residual blocks.
    """
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
            groups.append(Group(name, layer.weight.shape[0], _own(name, layer)))
        elif isinstance(layer, nn.GroupNorm) and groups:
            groups[-1] = _with(groups[-1], *_own(name, layer))
        elif list(layer.parameters()):
            raise BadInput(f"model.name: layer '{name}' ({type(layer).__name__}) cannot be pruned")
    return tuple(groups[:-1])


def _of_blocks(model: nn.Module) -> tuple[Group, ...]:
    groups = []
    for name, block in model.named_modules():
        inner, norm, outer = (getattr(block, part, None) for part in ("conv1", "bn1", "conv2"))
        if isinstance(inner, nn.Conv2d) and isinstance(norm, nn.GroupNorm) and isinstance(outer, nn.Conv2d):
            after = Slot(f"{name}.conv2.weight", 1)
            slots = (*_own(f"{name}.conv1", inner), *_own(f"{name}.bn1", norm), after)
            groups.append(Group(f"{name}.conv1", inner.out_channels, slots))
    return tuple(groups)


def _own(name: str, layer: nn.Module) -> tuple[Slot, ...]:
    return tuple(Slot(f"{name}.{key}", 0) for key, _ in layer.named_parameters())


def _with(group: Group, *slots: Slot) -> Group:
    return Group(group.name, group.size, (*group.slots, *slots))


def keep_count(keep: float, size: int) -> int:
    """Return ⌈keep · size⌉.

    Examples
    --------
    >>> keep_count(0.4, 10), keep_count(0.01, 10), keep_count(1.0, 10)
    (4, 1, 10)
    """
    return max(1, math.ceil(keep * size - 1e-9))


def block_index(layout: Layout, groups: Sequence[Group], kept: Kept) -> tuple[Tensor, Layout]:
    """Return where the entries of a sub-network lie in the flat model, and the sub-network's layout.

    Parameters
    ----------
    layout
        Of the full model.
    groups, kept
        Its hidden layers, and the neurons that stay.

    Returns
    -------
    tuple
        Positions, shape [block], int64, in the order of the sub-network's layout; the layout.
    """
    chosen: dict[tuple[str, int], Tensor] = {}
    for group, neurons in zip(groups, kept, strict=True):
        for slot in group.slots:
            first = torch.tensor(neurons) * slot.repeat
            chosen[slot.name, slot.dim] = (first[:, None] + torch.arange(slot.repeat)).flatten()
    pieces, shapes, offset = [], [], 0
    for name, shape, size in zip(layout.names, layout.shapes, layout.sizes, strict=True):
        positions = torch.arange(offset, offset + size).view(shape)
        for dim in range(len(shape)):
            if (name, dim) in chosen:
                positions = positions.index_select(dim, chosen[name, dim])
        pieces.append(positions.flatten())
        shapes.append(tuple(positions.shape))
        offset += size
    return torch.cat(pieces), Layout(layout.names, tuple(shapes))


@final
class PartialGroupNorm(nn.Module):
    """A group norm over some of the channels of another, the others counted as zeros.

    Parameters
    ----------
    full
        The norm of all channels.
    channels
        Which are left.
    """

    def __init__(self, full: nn.GroupNorm, channels: Sequence[int]) -> None:
        super().__init__()
        index = torch.tensor(channels)
        self.weight = nn.Parameter(full.weight.detach()[index].clone())
        self.bias = nn.Parameter(full.bias.detach()[index].clone())
        self.eps = full.eps
        self.group_size = full.num_channels // full.num_groups
        self._groups = index // self.group_size  # no buffer: it is no part of the state
        self._num_groups = full.num_groups

    def normal(self, x: Tensor) -> Tensor:
        """Return the channels with their group's mean and variance taken out; x has shape [n, k, …]."""
        flat = x.flatten(2) if x.dim() > 2 else x[..., None]  # [n, k, l]
        member = functional.one_hot(self._groups.to(x.device), self._num_groups).to(x.dtype)  # [k, g]
        count = self.group_size * flat.shape[2]
        mean = (flat.sum(dim=2) @ member) / count  # [n, g]
        centred = flat - (mean @ member.T)[..., None]
        zeros = count - member.sum(dim=0) * flat.shape[2]  # [g] entries of the channels that are gone
        variance = (centred.square().sum(dim=2) @ member + zeros * mean.square()) / count
        return (centred * (torch.rsqrt(variance + self.eps) @ member.T)[..., None]).view(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised channels, scaled and shifted."""
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return self.normal(x) * self.weight.view(shape) + self.bias.view(shape)


def subnetwork(model: nn.Module, groups: Sequence[Group], kept: Kept) -> nn.Module:
    """Return the smaller network, with its part of the model's parameters; nothing is shared.

    A group that is kept whole keeps its layers, so that with everything kept it is a copy of the model.
    """
    small = copy.deepcopy(model)
    for group, neurons in zip(groups, kept, strict=True):
        if len(neurons) == group.size:
            continue
        for slot in group.slots:
            _shrink(small, slot, neurons)
    return small


def _shrink(model: nn.Module, slot: Slot, neurons: Sequence[int]) -> None:
    path, _, key = slot.name.rpartition(".")
    layer = model.get_submodule(path)
    if isinstance(layer, nn.GroupNorm):
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, PartialGroupNorm(layer, neurons))
        return
    if isinstance(layer, PartialGroupNorm):
        return  # Weight and bias were taken over at once
    index = (torch.tensor(neurons)[:, None] * slot.repeat + torch.arange(slot.repeat)).flatten()
    tensor = getattr(layer, key).detach().cpu()
    part = tensor.index_select(slot.dim, index).to(getattr(layer, key).device)
    setattr(layer, key, nn.Parameter(part))
    _rename_sizes(layer)


def _rename_sizes(layer: nn.Module) -> None:
    """Make a layer's sizes say what its weight is."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv2d):
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]


def neuron_scores(scores: Mapping[str, Tensor], group: Group) -> Tensor:
    """Return Σ of an entry's scores over each neuron's weights from the layer before and its bias, [size]."""
    layer = group.name + "."
    own = [slot.name for slot in group.slots if slot.dim == 0 and slot.name.startswith(layer)]
    return torch.stack([scores[name].reshape(group.size, -1).double().sum(dim=1) for name in own]).sum(dim=0)


def top_neurons(scores: Tensor, count: int) -> tuple[int, ...]:
    """Return the `count` neurons with the highest scores, ascending; of equal ones, the first."""
    order = torch.sort(scores, descending=True, stable=True).indices[:count]
    return tuple(sorted(order.tolist()))


def pack_kept(groups: Sequence[Group], kept: Kept) -> bytes:
    """Return which neurons are kept in the fewer bytes: a bit for each neuron, or two bytes for each kept.

    The first byte says which: 0 for bits, 1 for indices.
    """
    bits = bytearray((sum(group.size for group in groups) + 7) // 8)
    offset, numbers = 0, []
    for group, neurons in zip(groups, kept, strict=True):
        for neuron in neurons:
            bits[(offset + neuron) // 8] |= 1 << ((offset + neuron) % 8)
            numbers.append(offset + neuron)
        offset += group.size
    if offset < 2**16 and 2 * len(numbers) < len(bits):
        return b"\x01" + b"".join(number.to_bytes(2, "little") for number in numbers)
    return b"\x00" + bytes(bits)


def unpack_kept(groups: Sequence[Group], packed: bytes) -> Kept:
    """Return the neurons of `pack_kept`.

    Raises
    ------
    ValueError
        If the bytes are not of these groups, or a group keeps nothing.
    """
    total = sum(group.size for group in groups)
    body = packed[1:]
    if packed[:1] == b"\x01" and len(body) % 2 == 0:
        numbers = [int.from_bytes(body[i : i + 2], "little") for i in range(0, len(body), 2)]
    elif packed[:1] == b"\x00" and len(body) == (total + 7) // 8:
        numbers = [i for i in range(8 * len(body)) if body[i // 8] >> (i % 8) & 1]
    else:
        raise ValueError("positions of neurons: malformed")
    kept, offset = [], 0
    for group in groups:
        kept.append(tuple(i - offset for i in numbers if offset <= i < offset + group.size))
        offset += group.size
    if not all(kept) or sum(map(len, kept)) != len(numbers):
        raise ValueError("positions of neurons: not of this model")
    return tuple(kept)
