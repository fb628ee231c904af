"""A user's data set as a source of examples: torch's, Hugging Face's, or anything with length and positions.

Items are pairs (inputs, target), or dicts with the target under a key; inputs are one value or a dict of
them. Targets come from the data set's ``targets`` or ``labels``, where it has them, so that images are not
decoded to know their classes.

Worker processes are forked. What a data set holds open is then shared, and so is the place in it at which it
is read. In another process than the one that made the source, plain files that lie in the attributes of a
data set are therefore opened again, and its method ``reopen`` is called if it has one; a handle of another
kind, without that method, is refused.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from app.data.values import TargetRule, as_input, check_shapes, finite, real
from strategies.core.dataset_examples import Source
from strategies.core.errors import BadInput
from strategies.core.examples import Inputs

TARGET_KEYS = ("label", "labels", "target", "targets", "y")
"""Where the target of a dict is looked for if no key is given."""
_KEPT_OPEN = ("h5py", "lmdb", "netCDF4", "sqlite3", "tarfile", "zipfile")
"""Libraries whose objects hold a file open."""
_PROBED = 64
_COLOURS = 3

Items = Sequence[Any]
Collate = Callable[[list[Any]], Any]


@final
class DatasetSource(Source):
    """A data set's items.

    Parameters
    ----------
    dataset
        Has a length, at least 1, and items by position.
    rule
        How targets become a tensor; its `where` begins the messages.
    target
        Key of the target in items that are dicts; empty: one of `TARGET_KEYS`.
    size
        Side of the square that images are scaled to; neutral 0.
    collate
        Makes a batch from items, as a DataLoader's does; None: they are stacked.

    Raises
    ------
    BadInput
        If an item is no pair.
    """

    def __init__(
        self, dataset: Any, rule: TargetRule, target: str = "", size: int = 0, collate: Collate | None = None
    ) -> None:
        self._dataset, self._rule, self._target, self._size = dataset, rule, target, size
        self._collate, self._pid = collate, os.getpid()
        self._channels = _COLOURS if collate is None and self._has_colour() else 0
        self.read(torch.zeros(1, dtype=torch.int64))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._dataset)

    def read(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """Return inputs and targets at some positions."""
        positions, where = index.tolist(), self._rule.where
        items = _items(self._here(), positions)
        if self._collate is not None:
            batch = self._collate(items)
            inputs, targets = split_pair(batch, self._target, where, positions[0])
            return _collated(inputs, where), self._rule.tensor(targets)
        pairs = [split_pair(item, self._target, where, i) for item, i in zip(items, positions, strict=True)]
        targets = self._rule.tensor([y for _, y in pairs])
        self._check_listed(index, targets)
        return self._stacked([inputs for inputs, _ in pairs], positions), targets

    def _check_listed(self, index: Tensor, targets: Tensor) -> None:
        """Refuse items with other targets than the data set lists, by which it is spread and forgotten."""
        listed = vars(self).get("targets")
        if listed is None or listed.shape[1:] != targets.shape[1:] or targets.equal(listed[index]):
            return
        position = next(int(i) for i, y in zip(index, targets, strict=True) if not y.equal(listed[i]))
        raise BadInput(
            f"{self._rule.where}: item {position} has another target than the data set lists in its targets "
            "or labels; wanted the same"
        )

    def known_targets(self) -> Tensor | None:
        """Return the targets as the data set lists them; None if it does not, or its items have others."""
        listed = listed_targets(self._here(), self._target)
        if listed is None or len(listed) != len(self):
            return None
        targets = self._rule.tensor(listed)
        first = self.read(torch.zeros(1, dtype=torch.int64))[1]
        return targets if targets.shape[1:] == first.shape[1:] and targets[:1].equal(first) else None

    def _stacked(self, inputs: Sequence[Any], positions: Sequence[int]) -> Inputs:
        where = self._rule.where
        _check_names(inputs, positions, where)
        if not isinstance(inputs[0], Mapping):
            return _stack([as_input(x, where, self._size, self._channels) for x in inputs], where)
        names = list(inputs[0])
        return {
            name: _stack([as_input(x[name], where, self._size, self._channels) for x in inputs], where)
            for name in names
        }

    def _has_colour(self) -> bool:
        """Say whether one of a few images is coloured; grey ones beside it then become coloured, too."""
        step = max(1, len(self) // _PROBED)
        for position in range(0, len(self), step):
            inputs, _ = split_pair(self._dataset[position], self._target, self._rule.where, position)
            values = inputs.values() if isinstance(inputs, Mapping) else [inputs]
            bands = [len(value.getbands()) for value in values if hasattr(value, "getbands")]
            if not bands:
                return False
            if max(bands) >= _COLOURS:
                return True
        return False

    def _here(self) -> Any:
        """Return the data set, with its files opened anew if this process is a fork."""
        if self._pid != os.getpid():
            for holder in _holders(self._dataset):
                _reopen(holder, self._rule.where)
            self._pid = os.getpid()
        return self._dataset


def _check_names(inputs: Sequence[Any], positions: Sequence[int], where: str) -> None:
    """Refuse items of which one has other inputs, by name, than another."""
    names = [set(x) if isinstance(x, Mapping) else None for x in inputs]
    for found, position in zip(names, positions, strict=True):
        if found != names[0]:
            one, other = (
                "one input without a name"
                if each is None
                else f"the inputs {', '.join(sorted(map(str, each)))}"
                for each in (names[0], found)
            )
            raise BadInput(
                f"{where}: item {positions[0]} has {one} and item {position} {other}; wanted the same in all"
            )


def split_pair(item: Any, target: str, where: str, position: int | None = None) -> tuple[Any, Any]:
    """Return inputs and target of the item at a position, or of all together.

    Raises
    ------
    BadInput
        If it is neither a pair nor a dict with the target.
    """
    what = "its dict" if position is None else f"item {position}"
    if isinstance(item, Mapping):
        key = target or next((key for key in TARGET_KEYS if key in item), "")
        if key not in item or len(item) < 2:
            named = f"target {target!r}" if target else f"target, one of {', '.join(TARGET_KEYS)}"
            keys = ", ".join(map(str, item))
            raise BadInput(f"{where}: {what} has the keys {keys}; wanted inputs and a {named}")
        inputs = {name: value for name, value in item.items() if name != key}
        return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), item[key]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    kind = f"{type(item).__name__} of {len(item)}" if isinstance(item, tuple | list) else type(item).__name__
    raise BadInput(f"{where}: {what} is a {kind}; wanted a pair (inputs, target), or a dict with the target")


def listed_targets(dataset: Any, target: str = "") -> Any:
    """Return the targets that a data set lists, one per item; None if it lists none."""
    from torch.utils.data import ConcatDataset, Subset, TensorDataset

    if isinstance(dataset, Subset):
        inner = listed_targets(dataset.dataset, target)
        return None if inner is None else [inner[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [listed_targets(part, target) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [y for part in parts for y in part]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1]
    return _attribute(dataset, target)


def _attribute(dataset: Any, target: str) -> Any:
    if columns := getattr(dataset, "column_names", None):
        key = target or next((key for key in TARGET_KEYS if key in columns), "")
        return list(dataset.with_format(None)[key]) if key in columns else None
    if getattr(dataset, "target_transform", None) is not None:
        return None  # What torchvision's data sets list is not yet transformed
    return next((v for k in ("targets", "labels") if (v := getattr(dataset, k, None)) is not None), None)


def _items(dataset: Any, positions: list[int]) -> list[Any]:
    if hasattr(dataset, "__getitems__"):
        return list(dataset.__getitems__(positions))
    return [dataset[position] for position in positions]


def _stack(inputs: list[Tensor], where: str) -> Tensor:
    check_shapes([tuple(x.shape) for x in inputs], where, "input")
    try:
        together = torch.stack(inputs)
    except RuntimeError as error:
        raise BadInput(f"{where}: inputs cannot be put together: {' '.join(str(error).split())}") from None
    return finite(together, where)


def _collated(inputs: Any, where: str) -> Inputs:
    if isinstance(inputs, Mapping):
        return {str(name): _as_tensor(part, where) for name, part in inputs.items()}
    return _as_tensor(inputs, where)


def _as_tensor(part: Any, where: str) -> Tensor:
    if isinstance(part, np.ndarray):
        part = torch.from_numpy(part)
    if not isinstance(part, Tensor):
        raise BadInput(f"{where}: collate_fn gives inputs of type {type(part).__name__}; wanted tensors")
    real(part, where, "input")
    return finite(part.detach().float(), where) if part.is_floating_point() else part


def _holders(dataset: Any) -> Iterator[Any]:
    """Yield a data set and those that it is made of."""
    yield dataset
    inner = getattr(dataset, "dataset", None)
    for part in [*([] if inner is None else [inner]), *(getattr(dataset, "datasets", None) or ())]:
        yield from _holders(part)


def _reopen(holder: Any, where: str) -> None:
    own = getattr(holder, "reopen", None)
    if callable(own):
        own()
        return
    for name, value in list(getattr(holder, "__dict__", {}).items()):
        if isinstance(value, io.BytesIO | io.StringIO):
            continue
        path = getattr(value, "name", None)
        if isinstance(value, io.IOBase) and isinstance(path, str):
            fresh = Path(path).open(getattr(value, "mode", "rb"))  # noqa: SIM115 -- kept by the data set
            fresh.seek(value.tell())
            setattr(holder, name, fresh)
        elif isinstance(value, io.IOBase) or type(value).__module__.partition(".")[0] in _KEPT_OPEN:
            raise BadInput(
                f"{where}: {type(holder).__name__} holds {name} open ({type(value).__name__}), which worker "
                "processes cannot share; give it a method reopen(), or open it in __getitem__"
            )
