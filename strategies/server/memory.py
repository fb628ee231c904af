"""A strategy's own memory, in and out, so that a run can be resumed.

What keeps something between rounds says so (see `Remembers`). Flower's
optimiser strategies keep moments as attributes: arrays, dicts or lists of arrays, records. Those are read and
written here by attribute, so that a resumed run continues with the same moments.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.server.wrapper import StrategyWrapper, innermost

_SEPARATOR = "|"
_WRAPPER = "@"


@runtime_checkable
class Remembers(Protocol):
    """A wrapper or server half that keeps something between rounds."""

    memory_name: str

    def memory(self) -> dict[str, Tensor]:
        """Return what it keeps, by name."""

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""


def capture(strategy: Strategy) -> dict[str, Tensor]:
    """Return what the wrappers keep, and the arrays that the innermost strategy holds.

    The keys are ``@wrapper|entry`` and ``attribute|kind|entry``.
    """
    tensors: dict[str, Tensor] = {}
    for wrapper in _remembering(strategy):
        prefix = f"{_WRAPPER}{wrapper.memory_name}{_SEPARATOR}"
        tensors |= {prefix + name: tensor for name, tensor in wrapper.memory().items()}
    for attribute, value in vars(innermost(strategy)).items():
        if not attribute.startswith("_"):
            tensors |= {f"{attribute}{_SEPARATOR}{key}": tensor for key, tensor in _entries(value).items()}
    return tensors


def _remembering(strategy: Strategy) -> Iterator[Remembers]:
    while True:
        if isinstance(strategy, Remembers):
            yield strategy
        if not isinstance(strategy, StrategyWrapper):
            return
        strategy = strategy.inner


def _entries(value: Any) -> dict[str, Tensor]:
    if isinstance(value, np.ndarray):
        return {f"array{_SEPARATOR}": _tensor(value)}
    if isinstance(value, ArrayRecord):
        return {f"record{_SEPARATOR}{k}": _tensor(v.numpy()) for k, v in value.items()}
    if isinstance(value, dict) and value and all(isinstance(v, np.ndarray) for v in value.values()):
        return {f"dict{_SEPARATOR}{k}": _tensor(v) for k, v in value.items()}
    if isinstance(value, list) and value and all(isinstance(v, np.ndarray) for v in value):
        return {f"list{_SEPARATOR}{i:06d}": _tensor(v) for i, v in enumerate(value)}
    return {}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


def restore(strategy: Strategy, tensors: dict[str, Tensor]) -> None:
    """Give the wrappers and the innermost strategy back what `capture` read."""
    for wrapper in _remembering(strategy):
        prefix = f"{_WRAPPER}{wrapper.memory_name}{_SEPARATOR}"
        kept = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        if kept:
            wrapper.recall(kept)
    inner = innermost(strategy)
    grouped: dict[str, tuple[str, dict[str, np.ndarray]]] = {}
    for key, tensor in tensors.items():
        if key.startswith(_WRAPPER):
            continue
        attribute, kind, entry = key.split(_SEPARATOR, 2)
        grouped.setdefault(attribute, (kind, {}))[1][entry] = tensor.numpy().copy()
    for attribute, (kind, arrays) in grouped.items():
        setattr(inner, attribute, _value(kind, arrays))


def _value(kind: str, arrays: dict[str, np.ndarray]) -> Any:
    if kind == "array":
        return next(iter(arrays.values()))
    if kind == "record":
        return ArrayRecord({name: Array(array) for name, array in arrays.items()})
    if kind == "list":
        return [arrays[key] for key in sorted(arrays)]
    return arrays
