"""Makes examples of what a user has: tensors, arrays, frames, data sets, loaders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from torch import Tensor

from app.data.datasets import TARGET_KEYS, Collate, DatasetSource, listed_targets, split_pair
from app.data.labels import texts_of
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
    lowest
        The least label that may be without class names; −1 where examples may be without a label.
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
    lowest: int = 0
    where: str = "data"

    @property
    def rule(self) -> TargetRule:
        """How targets become a tensor."""
        return TargetRule(self.targets, self.class_names, self.where, self.lowest)


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


def texts_in(thing: object, target: str = "", where: str = "data") -> frozenset[str]:
    """Return the different texts among the targets of what a user has; none if they are no texts.

    Where a data set lists its targets, no item is read for it but the first.

    Raises
    ------
    BadInput
        If it cannot be read.
    """
    targets = _raw_targets(opened_folder(thing, where), target, where)
    labels = np.asarray(targets if isinstance(targets, np.ndarray) else np.zeros(0))
    if labels.dtype.kind not in "USO" or labels.ndim != 1:
        return frozenset()
    return frozenset(texts_of(labels.astype(str))[0])


def columns_in(thing: object, target: str, where: str) -> "Columns | None":
    """Return the schema of a frame, alone or in a pair with its targets; None of anything else.

    Raises
    ------
    BadInput
        If a column of it cannot be used.
    """
    paired = isinstance(thing, tuple) and len(thing) == 2
    frame = thing[0] if isinstance(thing, tuple) and paired else thing
    if not _is_frame(frame):
        return None
    from app.data.columns import Columns, checked_frame

    return Columns.of(checked_frame(frame, where), "" if paired else target, where)


def opened_folder(thing: object, where: str) -> object:
    """Return what lies in the folder that a path names; anything else as it is.

    Raises
    ------
    BadInput
        If nothing of Hugging Face lies there.
    """
    return _loaded(Path(thing).expanduser(), where) if isinstance(thing, str | Path) else thing


def _adapted(thing: object, how: Adapting) -> Examples:
    if isinstance(thing, Examples):
        return thing
    thing = opened_folder(thing, how.where)
    target = how.target
    if isinstance(thing, tuple) and len(thing) == 2 and _is_frame(thing[0]):
        thing, target = _joined(*thing, how.where)
    if _is_frame(thing):
        from app.data.columns import frame_examples

        return frame_examples(thing, target, how.rule, how.columns, how.group_of, whole=how.whole)
    if how.columns is not None:
        raise BadInput(
            f"data.columns: given a schema of a table, but {how.where} is of type {type(thing).__name__}, "
            "which is no frame"
        )
    if isinstance(thing, tuple) and len(thing) == 2 and _is_batch(thing[0]):
        return _in_memory(thing[0], thing[1], how)
    if _is_columns(thing):
        inputs, targets = split_pair(thing, how.target, how.where)
        return _in_memory(inputs, targets, how)
    dataset, collate = _opened(thing, how.where)
    if dataset is None:
        raise BadInput(f"{how.where}: given {_kind(thing)}, allowed {_WANTED}")
    _check_length(dataset, how.where)
    source = DatasetSource(dataset, how.rule, how.target, how.size, collate)
    return DatasetExamples.all_of(source, how.group_of)


def _is_frame(thing: object) -> bool:
    return type(thing).__module__.partition(".")[0] == "pandas" and hasattr(thing, "columns")


def _is_columns(thing: object) -> TypeGuard[Mapping[str, Any]]:
    """Say whether a thing is a dict of arrays, one of which has the targets."""
    return isinstance(thing, Mapping) and all(map(_is_column, thing.values()))


def _is_column(part: object) -> bool:
    return isinstance(part, Tensor | np.ndarray | list) or type(part).__name__ == "Series"


def _joined(frame: Any, targets: Any, where: str) -> tuple[Any, str]:
    """Return a frame of inputs with one more column, the targets given beside it row by row, and its name."""
    values = stacked(targets, where, "target")
    if len(values) != len(frame) or values.ndim != 1:
        raise BadInput(
            f"{where}: {len(frame)} rows, but targets of shape {tuple(values.shape)}; wanted one each"
        )
    name = "targets"
    while name in frame.columns:
        name += "_"
    return frame.assign(**{name: np.asarray(values)}), name


def _is_batch(thing: object) -> bool:
    parts = thing.values() if isinstance(thing, Mapping) else [thing]
    return all(isinstance(part, Tensor | np.ndarray) for part in parts)


def _in_memory(inputs: Any, targets: Any, how: Adapting) -> Examples:
    where, rule = how.where, how.rule
    if isinstance(targets, Tensor | np.ndarray) and not targets.ndim:
        raise BadInput(f"{where}: its targets are one number; wanted an array of one for each input")
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
    """Return the data set of Hugging Face in a folder, or the dict of several."""
    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise BadInput(f"{where}: given {folder}, no data set of Hugging Face lies there; allowed {_WANTED}")
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
    if isinstance(thing, Examples):
        return thing.targets()
    if _is_frame(thing):
        from app.data.columns import frame_target

        return frame_target(thing, target, where).to_numpy()
    if isinstance(thing, tuple) and len(thing) == 2 and (_is_batch(thing[0]) or _is_frame(thing[0])):
        return stacked(thing[1], where, "target")
    return _targets_by_item(thing, target, where)


def _targets_by_item(thing: Any, target: str, where: str) -> Any:
    if _is_columns(thing):
        return stacked(split_pair(thing, target, where)[1], where, "target")
    dataset, collate = _opened(thing, where)
    if dataset is None:
        raise BadInput(f"{where}: given {_kind(thing)}, allowed {_WANTED}")
    _check_length(dataset, where)
    if collate is not None:
        return None  # What it makes of the targets is known batch by batch
    if (listed := listed_targets(dataset, target)) is not None:
        return stacked(listed, where, "target")
    first = split_pair(dataset[0], target, where, 0)[1]
    if not isinstance(first, str):
        return None
    targets = (split_pair(dataset[i], target, where, i)[1] for i in range(1, len(dataset)))
    return stacked([first, *targets], where, "target")


def _kind(thing: object) -> str:
    """Return what a thing is, in words; of a dict also what it holds."""
    if isinstance(thing, Mapping):
        parts = ", ".join(f"{name} ({type(part).__name__})" for name, part in thing.items())
        return f"a {type(thing).__name__} of {parts}" if parts else "an empty dict"
    return type(thing).__name__


__all__ = ["TARGET_KEYS", "Adapting", "as_examples", "columns_in", "opened_folder", "texts_in"]
