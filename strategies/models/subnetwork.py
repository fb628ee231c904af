"""Sub-networks: the smaller network that some hidden neurons of a model make (`strategies.models.neurons`).

The smaller network computes what the full one computes with all other neurons at zero: group norms count them
as zeros (`PartialGroupNorm`). Federated Dropout (Caldas et al., arXiv 1812.07210) and HeteroFL (Diao et al.,
arXiv 2010.01264) extract networks in the same way.
"""

import copy
import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.core.wire import Layout
from strategies.models.neurons import Group, Slot

Kept = tuple[tuple[int, ...], ...]
"""For each group the neurons that are kept, in ascending order, at least one."""


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
