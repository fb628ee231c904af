"""Labelled examples: what training, evaluation and forgetting read, however they are stored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, final

import torch
from torch import Tensor

from strategies.core.errors import BadInput

Inputs = Tensor | Mapping[str, Tensor]
"""A batch of inputs, shape [n, ...]; or several by the name of the model's argument, shape [n, ...] each."""

GroupsOf = Callable[[Tensor], Tensor | None]
"""Gives the group of each example from the targets, shape [n], int64; or its groups, shape [n, groups], bool;
None where there are no groups."""


def labels_as_groups(targets: Tensor) -> Tensor | None:
    """Return targets that are class labels, shape [n], int64, or sets of them, shape [n, groups], bool.

    None for all others.

    >>> labels_as_groups(torch.tensor([2, 0])), labels_as_groups(torch.tensor([0.5]))
    (tensor([2, 0]), None)
    """
    one = targets.dim() == 1 and targets.dtype == torch.int64
    return targets if one or (targets.dim() == 2 and targets.dtype == torch.bool) else None


def on_device(inputs: Inputs, device: str | torch.device) -> Inputs:
    """Return a batch of inputs on a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def num_rows(inputs: Inputs) -> int:
    """Return the number of inputs in a batch."""
    return len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values())))


class Examples(ABC):
    """A set of labelled examples, read in batches."""

    @property
    @abstractmethod
    def group_of(self) -> GroupsOf:
        """Which group each target is of, as the task says."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def batch(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """Return inputs and targets of the examples at some positions, shape [k] int64, on any device."""

    @abstractmethod
    def subset(self, indices: Tensor | Sequence[int]) -> Self:
        """Return the examples at the given positions, in that order."""

    @abstractmethod
    def groups(self) -> Tensor | None:
        """Return the group of each example, such as its class, shape [n], int64; None where there is none.

        Where an example may be of several: shape [n, groups], bool.
        """

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Return examples whose batches are on a device."""

    def targets(self) -> Tensor:
        """Return the targets of all examples, shape [n, ...]."""
        return torch.cat([targets for _, targets in self.batches(512)])

    def batches(self, size: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield all examples in order, `size` at a time; a set without examples yields one empty batch."""
        for index in torch.split(torch.arange(len(self)), size):
            yield self.batch(index)

    def training_batch(
        self, index: Tensor, generator: torch.Generator, *, alone: bool = False
    ) -> tuple[Inputs, Tensor]:
        """Return what local training gets of a batch: the batch itself, or a random variation of it.

        Parameters
        ----------
        index
            As for `batch`.
        generator
            Decides the variation; on the CPU.
        alone
            Whether the variation of an input may depend on no other, as private training needs.
        """
        return self.batch(index)

    @property
    def varies(self) -> bool:
        """Whether local training gets random variations of the inputs."""
        return False

    def variation_generator(self, generator: torch.Generator) -> torch.Generator:
        """Return what decides the variation of training inputs; the given one where nothing is varied."""
        return generator

    def fingerprint(self, index: Tensor) -> Iterator[bytes]:
        """Yield bytes that change with any of the examples at some positions, and with their order."""
        inputs, targets = self.batch(index)
        parts = {"": inputs} if isinstance(inputs, Tensor) else inputs
        described = " ".join(f"{name}{tuple(part.shape)} {part.dtype}" for name, part in parts.items())
        yield f"{described} {targets.dtype}|".encode()
        for part in (*parts.values(), targets):
            yield part.contiguous().numpy().tobytes()

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that these examples take by themselves, roughly."""
        return 8 * len(self)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input; empty where an input has several parts."""
        inputs, _ = self.batch(torch.arange(min(1, len(self))))
        return tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else ()

    def split(self, chosen: Tensor) -> tuple[Self, Self]:
        """Return (the chosen, the others) for a boolean mask of shape [n]."""
        return self.subset(chosen.nonzero().flatten()), self.subset((~chosen).nonzero().flatten())

    def without(self, indices: Tensor | Sequence[int]) -> Self:
        """Return the examples that are not at the given positions, in their order."""
        left_out = torch.zeros(len(self), dtype=torch.bool)
        left_out[torch.as_tensor(indices, dtype=torch.int64)] = True
        return self.split(left_out)[1]

    def chosen(self, groups: Sequence[int], indices: Sequence[int]) -> Tensor:
        """Return which examples are of some groups or at some positions, shape [n], bool.

        Parameters
        ----------
        groups
            Such as classes.
        indices
            Positions; those outside [0, n) name nothing.
        """
        return selection_mask(groups_of(self), groups, indices)

    def group_counts(self, num_groups: int) -> list[int]:
        """Return the number of examples of each group, from group 0 on; nothing where there are no groups.

        Raises
        ------
        BadInput
            If an example is of none of the groups.

        Examples
        --------
        >>> TensorExamples(torch.zeros(3, 1), torch.tensor([2, 0, 2])).group_counts(4)
        [1, 0, 2, 0]
        """
        groups = self.groups()
        if groups is None:
            return []
        if groups.dim() == 2:
            if groups.shape[1] != num_groups:
                raise BadInput(f"targets say {groups.shape[1]} labels of each example, expected {num_groups}")
            return groups.sum(dim=0).tolist()
        wrong = groups[(groups < 0) | (groups >= num_groups)]
        if len(wrong):
            raise BadInput(f"label {int(wrong[0])} is no class; labels must be 0 to {num_groups - 1}")
        return torch.bincount(groups, minlength=num_groups).tolist()


@final
@dataclass(frozen=True, eq=False)
class TensorExamples(Examples):
    """Examples in memory.

    Parameters
    ----------
    x
        Inputs, shape [n, ...], float32.
    y
        Targets, shape [n, ...]; class labels have shape [n], int64.
    group_of
        Which group each target is of, as the task says; by default class labels are the groups.
    """

    x: Tensor
    y: Tensor
    group_of: GroupsOf = labels_as_groups
    _elsewhere: dict[torch.device, "TensorExamples"] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that inputs and labels pair up."""
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} inputs but {len(self.y)} targets")

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.y)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of the examples at some positions."""
        there = index.to(self.x.device)
        return self.x[there], self.y[there]

    def batches(self, size: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield all examples in order, `size` at a time, without a copy."""
        yield from zip(torch.split(self.x, size), torch.split(self.y, size), strict=True)

    def subset(self, indices: Tensor | Sequence[int]) -> "TensorExamples":
        """Return the examples at the given positions, in that order."""
        return TensorExamples(*self.batch(torch.as_tensor(indices, dtype=torch.int64)), self.group_of)

    def targets(self) -> Tensor:
        """Return the targets."""
        return self.y

    def groups(self) -> Tensor | None:
        """Return the group of each example, where the targets lie."""
        return self.group_of(self.y)

    def to(self, device: str | torch.device) -> "TensorExamples":
        """Return the examples on a device; they are put there once, for as long as they are here."""
        place = torch.device(device)
        if place == self.x.device:
            return self
        if place not in self._elsewhere:
            self._elsewhere[place] = TensorExamples(self.x.to(place), self.y.to(place), self.group_of)
        return self._elsewhere[place]

    @property
    def held_bytes(self) -> int:
        """Bytes of memory of inputs and targets."""
        return self.x.nbytes + self.y.nbytes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])


def groups_of(examples: Examples) -> Tensor:
    """Return the group of each example, shape [n], or its groups, [n, groups]; −1 where there are none."""
    groups = examples.groups()
    return torch.full((len(examples),), -1) if groups is None else groups


def least_groups(examples: Examples) -> int:
    """Return how many groups the examples show that there are at least; 0 where there are none."""
    groups = examples.groups()
    if groups is None or not len(groups):
        return 0
    return groups.shape[1] if groups.dim() == 2 else int(groups.max()) + 1


def selection_mask(known: Tensor, groups: Sequence[int], indices: Sequence[int]) -> Tensor:
    """Return which examples a class or sample request names.

    Parameters
    ----------
    known
        The group of each example, shape [n]; or its groups, shape [n, groups], bool, of which one is enough.
    indices
        Positions that are named; those outside [0, n) name nothing.

    Returns
    -------
    Tensor
        Boolean, shape [n].
    """
    if not groups:
        mask = torch.zeros(len(known), dtype=torch.bool)
    elif known.dim() == 2:
        mask = known[:, [group for group in groups if group < known.shape[1]]].any(dim=1)
    else:
        mask = torch.isin(known, torch.as_tensor(groups, dtype=known.dtype))
    inside = [i for i in indices if 0 <= i < len(known)]
    if inside:
        mask[torch.as_tensor(inside)] = True
    return mask


def in_memory(examples: Examples) -> TensorExamples:
    """Return all examples as tensors; BadInput if an input has several parts."""
    if isinstance(examples, TensorExamples):
        return examples
    parts = [_tensors(*batch) for batch in examples.batches(512)]
    x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    return TensorExamples(x, y, examples.group_of)


def concatenated(parts: Iterable[Examples]) -> TensorExamples:
    """Join several sets, in order; there must be at least one."""
    listed = [in_memory(part) for part in parts]
    x, y = torch.cat([part.x for part in listed]), torch.cat([part.y for part in listed])
    return TensorExamples(x, y, listed[0].group_of)


def _tensors(inputs: Inputs, targets: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(inputs, Tensor):
        raise BadInput(f"inputs of several parts ({', '.join(inputs)}) are no one tensor")
    return inputs, targets
