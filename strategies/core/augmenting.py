"""Random variations of training inputs, such as crops and flips, seeded by run, client and round.

Only local training sees them: `Examples.training_batch` is varied, `Examples.batch` is not, so that nothing
that measures a model, recognises data or forgets them is changed.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.core.examples import Examples, GroupsOf, Inputs, num_rows
from strategies.core.seeds import seeded_layers, varying

Variation = Callable[[Inputs, torch.Generator], Inputs]
"""From inputs of a batch, shape [k, ...], to as many varied ones."""


def variation(transform: object) -> Variation:
    """Return a transform as a function of a batch and a generator.

    Parameters
    ----------
    transform
        A function `transform(inputs, generator)` of a whole batch; or one with a single argument, such as a
        transform of torchvision, which is given one input at a time while torch's global generator is seeded.

    Raises
    ------
    BadInput
        If it is no function of one or two arguments.
    """
    if not callable(transform):
        raise BadInput(f"transform: given {type(transform).__name__}, {_WANTED}")
    arguments = 1 if isinstance(transform, torch.nn.Module) else _num_arguments(transform)
    if arguments == 2:
        return transform
    if arguments != 1:
        raise BadInput(f"transform: given a function of {arguments} arguments, {_WANTED}")
    return _OneByOne(transform)


_WANTED = "allowed a transform of torchvision, a function of one input, or one of (inputs, generator)"


def _num_arguments(function: Callable[..., Any]) -> int:
    """Return how many arguments a function must be given, without those that have a default."""
    parameters = inspect.signature(function).parameters.values()
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters
    )


@dataclass(frozen=True)
class _OneByOne:
    """Applies a transform to one input at a time: torchvision draws one variation per call, for all of it."""

    transform: Callable[[Any], Any]

    def __call__(self, inputs: Inputs, generator: torch.Generator) -> Inputs:
        with seeded_layers(generator):
            if isinstance(inputs, Tensor):
                return _stack([self.transform(one) for one in inputs])
            names, rows = list(inputs), zip(*inputs.values(), strict=True)
            varied = [self.transform(dict(zip(names, row, strict=True))) for row in rows]
            if not all(isinstance(one, Mapping) and set(names) <= set(one) for one in varied):
                raise BadInput(
                    f"transform: wanted a dict with {', '.join(names)} for each input, as it is given"
                )
            return {name: _stack([one[name] for one in varied]) for name in names}


def _stack(varied: Sequence[Any]) -> Tensor:
    """Return varied inputs as a batch; refuses what is no tensor, and tensors of several shapes."""
    if strange := [one for one in varied if not isinstance(one, Tensor)]:
        raise BadInput(f"transform: gives {type(strange[0]).__name__} for an input; wanted a tensor")
    if others := [one for one in varied if one.shape != varied[0].shape]:
        shapes = f"{tuple(varied[0].shape)} and {tuple(others[0].shape)}"
        raise BadInput(f"transform: gives inputs of shapes {shapes}; wanted one shape")
    return torch.stack(list(varied))


@final
@dataclass(frozen=True, eq=False)
class Augmented(Examples):
    """Examples whose training batches are varied.

    Parameters
    ----------
    inner
        The examples as they are; everything but `training_batch` is theirs.
    """

    inner: Examples
    vary: Variation

    @property
    def group_of(self) -> GroupsOf:
        """Which group each target is of."""
        return self.inner.group_of

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.inner)

    @property
    def varies(self) -> bool:
        """Return true."""
        return True

    def variation_generator(self, generator: torch.Generator) -> torch.Generator:
        """Return a generator of the variation's own, which draws nothing from the given one."""
        return varying(generator)

    def batch(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """Return inputs and targets of the examples at some positions, as they are."""
        return self.inner.batch(index)

    def batches(self, size: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield all examples in order, as they are."""
        return self.inner.batches(size)

    def training_batch(
        self, index: Tensor, generator: torch.Generator, *, alone: bool = False
    ) -> tuple[Inputs, Tensor]:
        """Return varied inputs and their targets.

        Raises
        ------
        BadInput
            If the transform gives no tensors, or inputs of another number.
        """
        inputs, targets = self.inner.batch(index)
        if not len(targets):
            return inputs, targets
        varied = self._each_alone(inputs, generator) if alone else self.vary(inputs, generator)
        varied = _like(varied, inputs)
        if (found := num_rows(varied)) != len(targets):
            raise BadInput(f"transform: gives {found} inputs for {len(targets)}; wanted as many")
        return varied, targets

    def _each_alone(self, inputs: Inputs, generator: torch.Generator) -> Inputs:
        varied = [self.vary(_one(inputs, i), generator) for i in range(num_rows(inputs))]
        if isinstance(inputs, Tensor):
            return torch.cat([each for each in varied if isinstance(each, Tensor)])
        named = [each for each in varied if not isinstance(each, Tensor)]
        return {name: torch.cat([each[name] for each in named]) for name in named[0]}

    def subset(self, indices: Tensor | Sequence[int]) -> "Augmented":
        """Return the examples at the given positions, in that order."""
        return Augmented(self.inner.subset(indices), self.vary)

    def targets(self) -> Tensor:
        """Return the targets of all examples."""
        return self.inner.targets()

    def groups(self) -> Tensor | None:
        """Return the group of each example."""
        return self.inner.groups()

    def to(self, device: str | torch.device) -> "Augmented":
        """Return examples whose batches are on a device."""
        return Augmented(self.inner.to(device), self.vary)

    def fingerprint(self, index: Tensor) -> Iterator[bytes]:
        """Yield bytes that change with any of the examples, as they are."""
        return self.inner.fingerprint(index)


def _like(varied: Any, inputs: Inputs) -> Inputs:
    """Return varied inputs in the kind of numbers of the inputs; refuses what is no tensor."""
    if isinstance(inputs, Tensor):
        return _of_kind(varied, inputs.dtype)
    if not isinstance(varied, Mapping):
        raise BadInput(f"transform: gives {type(varied).__name__} for a dict of inputs; wanted such a dict")
    return {
        name: _of_kind(part, inputs[name].dtype if name in inputs else None) for name, part in varied.items()
    }


def _of_kind(varied: Any, kind: torch.dtype | None) -> Tensor:
    if not isinstance(varied, Tensor) or not varied.dim():
        raise BadInput(f"transform: gives {type(varied).__name__} for inputs; wanted a tensor of as many")
    floats = kind is not None and kind.is_floating_point and varied.is_floating_point()
    return varied.to(kind) if floats and kind is not None else varied


def _one(inputs: Inputs, position: int) -> Inputs:
    """Return a batch of one input."""
    if isinstance(inputs, Tensor):
        return inputs[position : position + 1]
    return {name: part[position : position + 1] for name, part in inputs.items()}
