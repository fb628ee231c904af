"""Makes examples of what a user has: tensors, arrays, frames, data sets, loaders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from app.data.datasets import TARGET_KEYS, Collate, DatasetSource, listed_targets, split_pair
from app.data.labels import sorted_names, texts_of
from app.data.values import TargetKind, TargetRule, inputs_tensor, stacked
from strategies.core.augmenting import Augmented, variation
from strategies.core.dataset_examples import DatasetExamples, StoredParts
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, GroupsOf, TensorExamples, labels_as_groups

if TYPE_CHECKING:
    from app.data.columns import Columns

_WANTED = (
    "a pair (inputs, targets) of tensors or arrays, a dict of them, a torch Dataset or DataLoader, a data "
    "set of Hugging Face or its folder, or a pandas DataFrame"
)


@dataclass(frozen=True)
class Adapting:
    """How a user's data become examples.

    Parameters
    ----------
    target
        Name of the target: a column, or a key of a dict; empty: ``label``, ``labels``, ``target``,
        ``targets`` or ``y``; a frame needs it.
    targets
        ``classes``: whole numbers or texts become int64; ``numbers``: float32; ``given``: as they are.
    class_names
        One per class, in their order; empty: targets are 0 to K − 1 already.
    group_of
        Which group each target is of, as the task says; by default class labels are the groups.
    size
        Side of the square that images are scaled to; neutral 0.
    columns
        How a frame's columns become numbers; needed if some hold texts or lack values.
    whole
        Whether these are all examples of the run, so that a frame's schema may be made of them.
    transform
        Varies inputs in local training; None: nothing does (see `strategies.core.augmenting`).
    where
        Begins the messages.
    """

    target: str = ""
    targets: TargetKind = "given"
    class_names: tuple[str, ...] = ()
    group_of: GroupsOf = labels_as_groups
    size: int = 0
    columns: "Columns | None" = None
    whole: bool = False
    transform: object = None
    where: str = "data"

    @property
    def rule(self) -> TargetRule:
        """How targets become a tensor."""
        return TargetRule(self.targets, self.class_names, self.where)


def as_examples(thing: object, how: Adapting | None = None) -> Examples:
    """Return examples made of what a user has; data sets are read when a batch is asked for.

    Parameters
    ----------
    thing
        `Examples`, a pair (inputs, targets) of tensors or numpy arrays, where inputs may be a dict of them, a
        dict of tensors or arrays with the targets under `target`, a torch `Dataset` or `DataLoader`, a data
        set of Hugging Face or the folder of one, or a pandas frame.
    how
        None: as `Adapting` says by default.

    Raises
    ------
    BadInput
        If it is none of these, or holds what is no example.

    Examples
    --------
    >>> as_examples((np.zeros((3, 2)), [1, 0, 1])).group_counts(2)
    [1, 2]
    """
    how = how or Adapting()
    examples = _adapted(thing, how)
    if how.transform is not None:
        return Augmented(examples, variation(how.transform))
    return examples


def labels_in(thing: object, target: str = "", where: str = "data") -> tuple[str, ...]:
    """Return the different labels of what a user has, in the order of their classes; no image is decoded.

    Raises
    ------
    BadInput
        If its targets are no labels.
    """
    found = texts_of(np.asarray(_raw_targets(thing, target, where)).ravel())
    if isinstance(found, str):
        raise BadInput(f"{where}: targets: {found}")
    return sorted_names(found[0])


def _adapted(thing: object, how: Adapting) -> Examples:
    if isinstance(thing, Examples):
        return thing
    if isinstance(thing, str | Path):
        thing = _loaded(Path(thing).expanduser(), how.where)
    if _is_frame(thing):
        from app.data.columns import frame_examples

        return frame_examples(thing, how.target, how.rule, how.columns, how.group_of, whole=how.whole)
    if isinstance(thing, tuple) and len(thing) == 2 and _is_batch(thing[0]):
        return _in_memory(thing[0], thing[1], how)
    if isinstance(thing, Mapping) and all(isinstance(v, Tensor | np.ndarray | list) for v in thing.values()):
        inputs, targets = split_pair(thing, how.target, how.where, 0)
        return _in_memory(inputs, targets, how)
    dataset, collate = _opened(thing, how.where)
    if dataset is None:
        raise BadInput(f"{how.where}: given {type(thing).__name__}, allowed {_WANTED}")
    _check_length(dataset, how.where)
    source = DatasetSource(dataset, how.rule, how.target, how.size, collate)
    return DatasetExamples.all_of(source, how.group_of)


def _is_frame(thing: object) -> bool:
    return type(thing).__module__.partition(".")[0] == "pandas" and hasattr(thing, "columns")


def _is_batch(thing: object) -> bool:
    parts = thing.values() if isinstance(thing, Mapping) else [thing]
    return all(isinstance(part, Tensor | np.ndarray) for part in parts)


def _in_memory(inputs: Any, targets: Any, how: Adapting) -> Examples:
    where, rule = how.where, how.rule
    if not len(targets):
        raise BadInput(f"{where}: holds no example; wanted at least one")
    y = rule.tensor(stacked(targets, where, "target"))
    if isinstance(inputs, Mapping):
        parts = {str(name): inputs_tensor(part, where, how.size) for name, part in inputs.items()}
        _check_count(parts, y, where)
        return DatasetExamples.all_of(StoredParts(parts, y), how.group_of)
    x = inputs_tensor(inputs, where, how.size)
    _check_count({"": x}, y, where)
    return TensorExamples(x, y, how.group_of)


def _check_count(parts: Mapping[str, Tensor], targets: Tensor, where: str) -> None:
    for name, part in parts.items():
        if len(part) != len(targets):
            of = f" of {name}" if name else ""
            raise BadInput(f"{where}: {len(part)} inputs{of}, but {len(targets)} targets; wanted as many")


def _loaded(folder: Path, where: str) -> Any:
    """Return the data set of Hugging Face in a folder."""
    if not (folder / "state.json").is_file():
        kind = (
            "holds several parts; give the folder of one, such as train/"
            if (folder / "dataset_dict.json").is_file()
            else f"no data set of Hugging Face lies there; allowed {_WANTED}"
        )
        raise BadInput(f"{where}: given {folder}, {kind}")
    from datasets import load_from_disk

    return load_from_disk(str(folder))


def _opened(thing: Any, where: str) -> tuple[Any, Collate | None]:
    """Return a data set, and what makes batches of it if that is the user's own."""
    from torch.utils.data import DataLoader, IterableDataset, default_collate

    if isinstance(thing, DataLoader):
        _check_order(thing, where)
        own = thing.batch_size is not None and thing.collate_fn is not default_collate
        return _opened(thing.dataset, where)[0], (thing.collate_fn if own else None)
    if isinstance(thing, IterableDataset | Iterator) or type(thing).__name__ == "IterableDataset":
        raise BadInput(
            f"{where}: {type(thing).__name__} can only be iterated; training, forgetting and the audit need "
            "examples by position: wanted a data set with __getitem__ and __len__"
        )
    readable = hasattr(thing, "__getitem__") and not isinstance(thing, str | bytes | Mapping)
    return (thing if readable else None), None


def _check_order(loader: Any, where: str) -> None:
    """Refuse a loader that chooses examples: what it leaves out would be trained on."""
    from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

    plain = isinstance(loader.sampler, RandomSampler | SequentialSampler)
    if not plain or type(loader.batch_sampler) not in {BatchSampler, type(None)}:
        raise BadInput(
            f"{where}: the DataLoader has a sampler of its own, but only its data set and collate_fn are "
            "used; choose examples by torch.utils.data.Subset"
        )


def _check_length(dataset: Any, where: str) -> None:
    try:
        length = len(dataset)
    except TypeError:
        raise BadInput(
            f"{where}: {type(dataset).__name__} has no length; give it __len__, the number of its examples"
        ) from None
    if length < 1:
        raise BadInput(f"{where}: {type(dataset).__name__} holds no example; wanted at least one")


def _raw_targets(thing: Any, target: str, where: str) -> Any:
    if isinstance(thing, str | Path):
        thing = _loaded(Path(thing).expanduser(), where)
    if isinstance(thing, Examples):
        return thing.targets()
    if _is_frame(thing):
        from app.data.columns import target_of

        return target_of(thing, target, where).to_numpy()
    if isinstance(thing, tuple) and len(thing) == 2 and _is_batch(thing[0]):
        return stacked(thing[1], where, "target")
    return _targets_by_item(thing, target, where)


def _targets_by_item(thing: Any, target: str, where: str) -> Any:
    if isinstance(thing, Mapping):
        return stacked(split_pair(thing, target, where, 0)[1], where, "target")
    dataset, _ = _opened(thing, where)
    if dataset is None:
        raise BadInput(f"{where}: given {type(thing).__name__}, allowed {_WANTED}")
    if (listed := listed_targets(dataset, target)) is not None:
        return stacked(listed, where, "target")
    return [split_pair(dataset[i], target, where, i)[1] for i in range(len(dataset))]


__all__ = ["TARGET_KEYS", "Adapting", "as_examples", "labels_in"]
