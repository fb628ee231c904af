"""Examples that are read when a batch of them is asked for: data sets of any size, inputs of several parts.

A `Source` reads examples by position. `DatasetExamples` is some of a source's positions: a subset copies
positions, not data, and groups are computed once for the whole source, whatever the number of its subsets.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from strategies.core.examples import Examples, GroupsOf, Inputs, labels_as_groups, on_device

_TARGETS_AT_ONCE = 512
_MOST_BYTES = 1 << 25
"""Inputs that `batches` holds at a time, in bytes; images are large, and all are in memory as floats."""


class Source(ABC):
    """Examples that are read by position, on the CPU."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples, at least 1."""

    @abstractmethod
    def read(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """Return inputs and targets at some positions, shape [k] int64, at least one."""

    def known_targets(self) -> Tensor | None:
        """Return the targets of all examples where they are known without reading inputs, else None."""
        return None

    def fingerprint(self, index: Tensor) -> Iterator[bytes] | None:
        """Return bytes that change with any of the examples; None: those of the inputs and targets."""
        return None

    @cached_property
    def targets(self) -> Tensor:
        """The targets of all examples; if need be, everything is read once, in batches, to know them."""
        known = self.known_targets()
        if known is not None:
            return known
        parts = torch.split(torch.arange(len(self)), self.at_once(_TARGETS_AT_ONCE))
        return torch.cat([self.read(index)[1] for index in parts])

    @cached_property
    def _input_bytes(self) -> int:
        inputs, _ = self.read(torch.zeros(1, dtype=torch.int64))
        parts = [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
        return max(1, sum(part.nbytes for part in parts))

    @property
    def held_bytes(self) -> int:
        """Bytes of memory of all its examples; 0 where they are read."""
        return 0

    def at_once(self, wanted: int) -> int:
        """Return how many examples may be read at a time, at most `wanted`, without filling memory."""
        return max(1, min(wanted, _MOST_BYTES // self._input_bytes))


@final
class StoredParts(Source):
    """Inputs of several parts, in memory.

    Parameters
    ----------
    parts
        By the name of the model's argument, shape [n, ...] each.
    targets
        Shape [n, ...].
    """

    def __init__(self, parts: Mapping[str, Tensor], targets: Tensor) -> None:
        wrong = [f"{name} {len(part)}" for name, part in parts.items() if len(part) != len(targets)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} inputs but {len(targets)} targets")
        self._parts, self._targets = dict(parts), targets

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._targets)

    def read(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """Return inputs and targets at some positions."""
        return {name: part[index] for name, part in self._parts.items()}, self._targets[index]

    def known_targets(self) -> Tensor:
        """Return the targets of all examples."""
        return self._targets

    @property
    def held_bytes(self) -> int:
        """Bytes of memory of the parts."""
        return sum(part.nbytes for part in self._parts.values())


@final
@dataclass(frozen=True, eq=False)
class DatasetExamples(Examples):
    """Some of a source's examples, read when they are asked for.

    Parameters
    ----------
    source
        Has at least one example.
    positions
        Which of them, in this order, shape [n], int64, on the CPU.
    group_of
        Which group each target is of, as the task says; by default class labels are the groups.
    device
        Where batches are put.
    """

    source: Source
    positions: Tensor
    group_of: GroupsOf = labels_as_groups
    device: str | torch.device = "cpu"

    @property
    def held_bytes(self) -> int:
        """Bytes of memory of the positions, and their share of the source's."""
        return 8 * len(self) + self.source.held_bytes * len(self) // max(1, len(self.source))

    @staticmethod
    def all_of(source: Source, group_of: GroupsOf = labels_as_groups) -> "DatasetExamples":
        """Return all of a source's examples."""
        return DatasetExamples(source, torch.arange(len(source)), group_of)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.positions)

    def batch(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """Return inputs and targets of the examples at some positions."""
        chosen = self.positions[index.cpu()]
        if not len(chosen):
            return self._empty()
        inputs, targets = self.source.read(chosen)
        return on_device(inputs, self.device), targets.to(self.device)

    def _empty(self) -> tuple[Inputs, Tensor]:
        inputs, targets = self.source.read(torch.zeros(1, dtype=torch.int64))
        none = inputs[:0] if isinstance(inputs, Tensor) else {name: part[:0] for name, part in inputs.items()}
        return on_device(none, self.device), targets[:0].to(self.device)

    def batches(self, size: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield all examples in order, `size` at a time, or fewer where they are large."""
        yield from super().batches(self.source.at_once(size))

    def subset(self, indices: Tensor | Sequence[int]) -> "DatasetExamples":
        """Return the examples at the given positions, in that order; nothing is read."""
        index = torch.as_tensor(indices, dtype=torch.int64).cpu()
        return DatasetExamples(self.source, self.positions[index], self.group_of, self.device)

    def targets(self) -> Tensor:
        """Return the targets of all examples."""
        return self.source.targets[self.positions].to(self.device)

    def groups(self) -> Tensor | None:
        """Return the group of each example, on the CPU."""
        return self.group_of(self.source.targets[self.positions])

    def to(self, device: str | torch.device) -> "DatasetExamples":
        """Return examples whose batches are on a device."""
        return DatasetExamples(self.source, self.positions, self.group_of, device)

    def fingerprint(self, index: Tensor) -> Iterator[bytes]:
        """Yield bytes that change with any of the examples at some positions, and with their order."""
        own = self.source.fingerprint(self.positions[index.cpu()])
        yield from super().fingerprint(index) if own is None else own
