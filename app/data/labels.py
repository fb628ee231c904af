"""The labels of a data set, and the class of the model that each of them is.

Labels are what people have: 0 to K − 1, 1 to K, −1 and 1, numbers with gaps, or names. The labels of training
and test data together, sorted, are the model's classes 0 to K − 1. A label is kept as the name of its class,
and a class can be given by that name.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from app.config.settings import is_integer
from app.data.pool import numbered
from strategies.core.errors import BadInput

_SHOWN = 5
MOST_CLASSES = 1 << 16
"""A model has an output for each: more would be no class labels, but numbers to be predicted."""


class UnknownLabels(BadInput):
    """A node's data have `labels` that are not among `names`, those of the run's classes.

    `where` is the file or folder; empty if the message says it elsewhere. `by` can name all classes.
    """

    def __init__(
        self, labels: Sequence[str], names: Sequence[str], where: object = "", by: str = "data.classes"
    ) -> None:
        self.labels, self.names, self._by = labels, names, by
        which = f"label {labels[0]} is" if len(labels) == 1 else f"labels {some(labels)} are"
        super().__init__(f"{where}: {self._line(which)}" if where else self._line(which))

    @property
    def unnamed(self) -> str:
        """The same message without the labels, which tell of the node's data."""
        return self._line("a label is")

    def _line(self, which: str) -> str:
        run = f"which has {some(self.names)}"
        return f"{which} no class of the run, {run}; {self._by} can name all that there are"


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return labels in the order of their classes: by number if all are numbers, else alphabetically.

    >>> sorted_names({"10", "9", "-1"}), sorted_names({"cat", "10", "9"})
    (('-1', '9', '10'), ('10', '9', 'cat'))
    """
    found = list(names)
    return tuple(sorted(found, key=int) if all(map(is_integer, found)) else sorted(found))


def texts_of(labels: np.ndarray) -> tuple[list[str], np.ndarray] | str:
    """Return the different labels as texts, and which of them each label is; or what is wrong, in words.

    `labels` has shape [n] and holds whole numbers of any type, booleans, or texts.
    """
    kind = labels.dtype.kind
    if labels.ndim != 1 or not labels.size or kind not in "biufUS":
        return "wanted one label per input: whole numbers or texts"
    if kind == "f" and len(wrong := labels[~(np.isfinite(labels) & (labels == np.round(labels)))]):
        return f"it holds {wrong[0]}; wanted one label per input: whole numbers or texts"
    different, positions = np.unique(labels, return_inverse=True)
    return [_text(value) for value in different.tolist()], positions


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(int(value)) if isinstance(value, int | float) else str(value)


def classes_by_name(names: Sequence[str]) -> dict[str, int]:
    """Return the class of each label; a class made of several labels is found by each of them.

    >>> classes_by_name(("cat", "4+30"))
    {'cat': 0, '4+30': 1, '4': 1, '30': 1}
    """
    whole = {name: position for position, name in enumerate(names)}
    parts = {part: position for position, name in enumerate(names) for part in name.split("+")}
    return whole | {part: position for part, position in parts.items() if part not in whole}


def encoded(texts: Sequence[str], positions: np.ndarray, names: Sequence[str]) -> Tensor:
    """Return the class of each label, shape [n], int64.

    `texts` and `positions` are as `texts_of` returns them; `names` has one name per class.

    Raises
    ------
    BadInput
        If a label is no class.
    """
    known = classes_by_name(names)
    if unknown := [text for text in texts if text not in known]:
        raise UnknownLabels(unknown, names)
    return torch.from_numpy(np.array([known[text] for text in texts], dtype=np.int64)[positions])


def joint_classes(
    parts: Sequence[tuple[Sequence[str], np.ndarray]], names: Sequence[str], where: str, what: str
) -> tuple[list[Tensor], tuple[str, ...]]:
    """Return the classes of the labels of several parts of one data set, and the names of all classes.

    Parameters
    ----------
    parts
        The labels of each, as `texts_of` returns them.
    names
        One per class; empty: the labels in all parts are the classes.
    where, what
        The file, and what holds the labels in it, for messages.

    Raises
    ------
    BadInput
        If a label is no class, or there are too many to be classes.
    """
    known = tuple(names) or sorted_names({text for texts, _ in parts for text in texts})
    if len(known) > MOST_CLASSES:
        raise BadInput(f"{where}: {what} holds {len(known)} different labels; wanted at most {MOST_CLASSES}")
    try:
        return [encoded(texts, positions, known) for texts, positions in parts], known
    except UnknownLabels as error:
        raise UnknownLabels(error.labels, error.names, where) from None


def some(names: Sequence[str]) -> str:
    """Return a few names.

    >>> some(numbered(3)), some(numbered(7))
    ('0, 1, 2', '0, 1, 2, …, 6')
    """
    listed = names if len(names) <= _SHOWN else [*names[: _SHOWN - 2], "…", names[-1]]
    return ", ".join(listed)


def notes_on(where: str, names: Sequence[str], train: Iterable[int]) -> list[str]:
    """Return notes on the labels of a data set, read from the file or folder `where`.

    `names` are those of all classes, `train` the classes that training examples have.
    """
    notes, trained = [], set(train)
    if all(map(is_integer, names)) and tuple(names) != numbered(len(names)):
        notes.append(f"{where}: the labels {some(names)} are the model's classes 0 to {len(names) - 1}")
    if missing := [name for position, name in enumerate(names) if position not in trained]:
        notes.append(f"{where}: no training example of {some(missing)}, which the test data hold")
    if len(names) == 1:
        notes.append(f"{where}: all examples are of one class, {names[0]}: there is nothing to tell apart")
    return notes


def notes_on_gaps(groups: Iterable[Tensor], num_groups: int) -> tuple[str, ...]:
    """Return a note if no example has some of the classes 0 to `num_groups` − 1.

    >>> notes_on_gaps([torch.tensor([0, 3])], 4)
    ('no example is of class 1, 2: labels count the classes from 0, or lethe.Project(classes=) names them',)
    """
    present = {label for each in groups for label in each.tolist()}
    lacking = [str(label) for label in range(num_groups) if label not in present]
    if not lacking:
        return ()
    how = "labels count the classes from 0, or lethe.Project(classes=) names them"
    return (f"no example is of class {some(lacking)}: {how}",)


def class_of(text: str, names: Sequence[str]) -> int:
    """Return the class with a label: by its name, or if names are no numbers, by its number.

    Raises
    ------
    BadInput
        If there is none.

    Examples
    --------
    >>> class_of("dog", ("cat", "dog")), class_of("1", ("cat", "dog")), class_of("1", ("1", "2"))
    (1, 1, 0)
    """
    if (found := classes_by_name(names).get(text)) is not None:
        return found
    if is_integer(text):
        by_number = {int(name): position for position, name in enumerate(names) if is_integer(name)}
        number = int(text)
        if len(by_number) == len(names) and number in by_number:
            return by_number[number]
        if not by_number and 0 <= number < len(names):
            return number
    numbers = tuple(names) == numbered(len(names))
    known = f"0 to {len(names) - 1}" if numbers else some(names)
    raise BadInput(f"unknown class {text}; the run has classes {known}")
