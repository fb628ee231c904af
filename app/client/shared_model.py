"""The model that all clients of a process share: built once, overwritten by each message."""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from weakref import ref

import torch
from flwr.app import ArrayRecord
from torch import Tensor, device, nn

from app.project import Workload
from strategies.client.side_by_side import seat
from strategies.core import wire
from strategies.models import travelling
from strategies.models.mask import hold, masks_in, unpack
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import subnetwork, unpack_kept


@dataclass(frozen=True, eq=False)
class SharedModel:
    """A model that serves all clients of a process, and the mask that it holds.

    `changeable` has what does not travel and a client's work may change, with its initial values; `local`
    what stays with each client, by name; and `staying` says what does not travel. `held` is the vector that
    the model holds, with what tells whether it still does; empty where somebody may have trained it.
    """

    model: nn.Module
    layout: wire.Layout
    mask: Tensor | None
    changeable: list[tuple[Tensor, Tensor]]
    local: wire.State
    staying: str
    held: "list[tuple[ref[Tensor], tuple[int, ...]]]" = field(default_factory=list)

    @cached_property
    def travels_as_trained(self) -> bool:
        """Whether the model's vector is what is trained of it, in one piece, and nothing else."""
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        plain = all(p.dtype == torch.float32 for p in trained.values())
        return plain and self.mask is None and not self.local and self.layout == wire.Layout.of(trained)

    def hold(self, flat: Tensor, *, to_read: bool = False) -> None:
        """Load a vector, shape [P].

        Parameters
        ----------
        to_read
            Whoever is given the model does not train it: it is not loaded again for the next who only reads.
            What torch counts of changes does not tell this by itself: fused optimisers are not counted.
        """
        if to_read and self.held and self.held[0][0]() is flat and self.held[0][1] == self._versions:
            return
        wire.load_flat(self.model, flat, self.layout)
        self.held[:] = [(ref(flat), self._versions)] if to_read else []

    def release(self) -> None:
        """Have the next vector loaded in any case: whoever was given the model to read changes it now."""
        self.held.clear()

    @property
    def _versions(self) -> tuple[int, ...]:
        """Numbers that change with the model and what it was given."""
        return tuple(tensor._version for tensor in self._tensors)

    @cached_property
    def _tensors(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def layout_of(self, model: nn.Module) -> wire.Layout:
        """Return the layout of what travels of this model, or of another."""
        return self.layout if model is self.model else travelling.layout_of(model)


def part_of(model: nn.Module, positions: bytes, arrays: ArrayRecord) -> nn.Module:
    """Return the smaller model of some neurons, with the given weights."""
    groups = hidden_groups(model)
    small = subnetwork(model, groups, unpack_kept(groups, positions))
    layout = travelling.layout_of(small)
    wire.load_flat(small, wire.flat_of(arrays, layout), layout)
    return small


def shared_model(
    work: Workload, weights: str, place: device, sizes: tuple[tuple[int, ...], int], packed: bytes
) -> SharedModel:
    """Return the run's model; built once per process, and once for each client that trains beside others.

    Parameters
    ----------
    weights
        Where initial weights lie on this node; empty: nowhere.
    sizes
        Shape of one input, and number of groups.
    packed
        The mask that the model holds, as `strategies.models.mask.pack` returns it; empty: none.
    """
    kept = _by_seat(work, weights, place, sizes, packed)
    if seat() not in kept:
        kept[seat()] = _built(work, weights, place, sizes, packed)
    return kept[seat()]


@lru_cache(maxsize=4)
def _by_seat(
    work: Workload, weights: str, place: device, sizes: tuple[tuple[int, ...], int], packed: bytes
) -> dict[int, SharedModel]:
    """Return where the models of these arguments are kept."""
    return {}


def _built(
    work: Workload, weights: str, place: device, sizes: tuple[tuple[int, ...], int], packed: bytes
) -> SharedModel:
    model = work.model(*sizes, work.config.run.seed, weights).to(place)
    layout = travelling.layout_of(model)
    changeable, staying = travelling.changeable(model), travelling.fingerprint(travelling.staying(model))
    mask = unpack(packed, layout.size) if packed else None
    held = model if mask is None else hold(model, masks_in(mask, layout))
    return SharedModel(held, layout, mask, changeable, travelling.local(model), staying)
