"""Splits the training examples into the clients', the public and the test examples.

The training data are limited, then the public share is taken out; every draw is seeded and keeps the
proportions of the classes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from app.config.settings import DataSettings
from app.data.pool import DataSet
from app.data.reading import Reading
from app.data.scale import Scale
from app.data.shaping import Groups, shaped
from app.data.sources import open_data_set
from strategies.core.errors import BadInput
from strategies.core.seeds import numpy_generator


@dataclass(frozen=True, eq=False)
class Split:
    """Positions in the data set's training examples; `test` are in its test examples if it has any."""

    clients: np.ndarray
    public: np.ndarray
    test: np.ndarray | None


def private_data(data: DataSettings) -> DataSet:
    """Return the data set of the clients, with the classes and the size that the settings ask for.

    Raises
    ------
    BadInput
        If it cannot be loaded.
    """
    return _shaped(data.name, Reading.of(data), data.class_groups)


@lru_cache(maxsize=4)
def _shaped(name: str, how: Reading, groups: Groups) -> DataSet:
    return shaped(open_data_set(name, how), groups, how.size)


@lru_cache(maxsize=4)
def split_of(data: DataSettings, seed: int) -> Split:
    """Return the split of the examples; a process draws it once.

    Raises
    ------
    BadInput
        If the data cannot be loaded, or a share is too small for one example.
    """
    data_set = private_data(data)
    test_labels = None if data_set.test is None else data_set.test.y.numpy()
    return split_positions(data_set.train.y.numpy(), test_labels, data, seed)


def split_positions(
    labels: np.ndarray, test_labels: np.ndarray | None, data: DataSettings, seed: int
) -> Split:
    """Return the split of training examples, and of the test examples that they came with, if any.

    Parameters
    ----------
    labels, test_labels
        Class of each example, shape [n], int64; the same for all where there are none.

    Raises
    ------
    BadInput
        If a share is too small for one example.
    """
    train, test = np.arange(len(labels)), None
    if test_labels is not None:
        test = _limited(np.arange(len(test_labels)), test_labels, data.test_limit, seed, "test-limit")
    elif data.test_share:
        test, train = _held_out(train, labels, data.test_share, seed, "test-share")
        test = _limited(test, labels, data.test_limit, seed, "test-limit")
    train = _limited(train, labels, data.train_limit, seed, "train-limit")
    public, clients = _held_out(train, labels, data.public_share, seed, "public")
    return Split(clients, public, test)


def scale_of(data: DataSettings, seed: int) -> Scale | None:
    """Return the scale that inputs are brought to; None if they stay as they are.

    It is measured on the training data, those of the clients and the public share of them together.

    Raises
    ------
    BadInput
        If the inputs are no tables, or the data cannot be loaded.
    """
    if data.scale != "standard":
        return None
    return _measured(data, seed)


@lru_cache(maxsize=4)
def _measured(data: DataSettings, seed: int) -> Scale:
    data_set, split = private_data(data), split_of(data, seed)
    if len(data_set.input_shape) != 1:
        raise BadInput(
            f'data.scale: given "{data.scale}", which is for tables; {data_set.name!r} has inputs of shape '
            f"{data_set.input_shape}"
        )
    return Scale.of(data_set.train.stored[np.sort(np.concatenate([split.clients, split.public]))])


def _held_out(
    positions: np.ndarray, labels: np.ndarray, share: float, seed: int, key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (a share of the positions, the others)."""
    count = round(share * len(positions))
    if share and not 0 < count < len(positions):
        raise BadInput(
            f"data.{key}: given {share}, which is {count} of {len(positions)} training examples; "
            f"allowed 0, or a share that is 1 to {len(positions) - 1}"
        )
    held = drawn(positions, labels, count, seed, key)
    return held, np.setdiff1d(positions, held, assume_unique=True)


def _limited(positions: np.ndarray, labels: np.ndarray, limit: int, seed: int, key: str) -> np.ndarray:
    return drawn(positions, labels, limit, seed, key) if 0 < limit < len(positions) else positions


def drawn(positions: np.ndarray, labels: np.ndarray, count: int, seed: int, key: str) -> np.ndarray:
    """Draw `count` of the positions, sorted, with each class's share right to within one.

    The positions are shuffled, then sorted by class; every (n / count)-th is drawn.
    """
    shuffled = numpy_generator(seed, "data", key).permutation(positions)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[((np.arange(count) + 0.5) * len(positions) / max(count, 1)).astype(np.int64)])
