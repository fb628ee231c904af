"""From the settings to the server's data and to each client's.

The training data are limited, then the public share is taken out, then the rest is spread over the clients;
every draw is seeded and keeps the proportions of the classes. A process loads a data set once and spreads
it once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from app.data.folder import read_client_folder
from app.data.npz import read_npz
from app.data.partition import partition_indices
from app.data.pool import DataSet, Pool
from app.data.sources import open_data_set
from app.settings import DataSettings
from strategies.errors import BadInput
from strategies.examples import Examples
from strategies.seeds import numpy_generator

UNLABELLED = -1
"""Label of public examples that come from another data set, whose classes are not the run's."""


@dataclass(frozen=True, eq=False)
class ServerData:
    """What the server holds itself, and what the data are like.

    Parameters
    ----------
    public
        Data of no client, for methods that need some; None where ``data.public`` is 0. Labelled `UNLABELLED`
        where they come from another data set.
    test
        Test data; None where the data set has none and ``data.test-share`` is 0.
    num_classes
        Number of classes.
    input_shape
        Shape of one input: (channels, height, width) for images.
    name
        Name of the data set.
    class_names
        One name per class, in the order of the labels.
    """

    public: Examples | None
    test: Examples | None
    num_classes: int
    input_shape: tuple[int, ...]
    name: str
    class_names: tuple[str, ...]


def load_server_data(data: DataSettings, seed: int) -> ServerData:
    """Load the server's data.

    Parameters
    ----------
    data
        The data set and how it is split.
    seed
        The run's seed.

    Raises
    ------
    BadInput
        If a data set is unknown, missing or malformed, the public data are the training data or have another
        shape, or a share is too small for one example.
    """
    data_set, split = _data_set(data), _split(data, seed)
    return ServerData(
        public=_public(data, data_set, split),
        test=None if split.test is None else (data_set.test or data_set.train).take(split.test),
        num_classes=len(data_set.class_names),
        input_shape=data_set.input_shape,
        name=data_set.name,
        class_names=data_set.class_names,
    )


def load_client_data(data: DataSettings, seed: int, node_config: Mapping[str, object]) -> Examples:
    """Load a copy of a client's examples: its own file or folder if it has one, else its partition.

    Parameters
    ----------
    data
        The data set and how it is spread; ``path`` is what every client has of its own, unless its node says.
    seed
        The run's seed.
    node_config
        Of the client's node: ``data.path`` or ``data-path``, else ``partition-id`` and ``num-partitions``.

    Raises
    ------
    BadInput
        If the node has neither data of its own nor a partition of those there are, or the data are missing or
        malformed.
    """
    path = node_config.get("data.path") or node_config.get("data-path") or data.path
    if path:
        pool = _own_pool(Path(str(path)).expanduser(), data)
        return pool.take(np.arange(len(pool)))
    client = _whole_number(node_config, "partition-id")
    num_clients = data.clients or _whole_number(node_config, "num-partitions")
    if not 0 <= client < num_clients:
        raise BadInput(
            f"partition-id: given {client}, allowed 0 to {num_clients - 1}; "
            f"the data are spread over {num_clients} clients (data.clients)"
        )
    return _data_set(data).train.take(_partitions(data, num_clients, seed)[client])


def client_id_of(node_config: Mapping[str, object]) -> str:
    """Return a client's stable name: its node's ``client-id``, else its ``partition-id``.

    Raises
    ------
    BadInput
        If the node has neither, or the name is empty or has a blank or a comma in it.

    Examples
    --------
    >>> client_id_of({"client-id": "hospital-a", "partition-id": 3}), client_id_of({"partition-id": 3})
    ('hospital-a', '3')
    """
    for key in ("client-id", "partition-id"):
        if key in node_config:
            return _checked_client_id(str(node_config[key]))
    raise BadInput(
        "client-id: not in the node's config; start the SuperNode with --node-config 'client-id=\"…\"'"
    )


def label_counts(examples: Examples, num_classes: int) -> list[int]:
    """Return the number of examples of each class, from class 0 on.

    Raises
    ------
    BadInput
        If a label is no class.

    Examples
    --------
    >>> label_counts(Examples(torch.zeros(3, 1), torch.tensor([2, 0, 2])), num_classes=4)
    [1, 0, 2, 0]
    """
    wrong = examples.y[(examples.y < 0) | (examples.y >= num_classes)]
    if len(wrong):
        raise BadInput(f"label {int(wrong[0])} is no class; labels must be 0 to {num_classes - 1}")
    return torch.bincount(examples.y, minlength=num_classes).tolist()


@dataclass(frozen=True, eq=False)
class _Split:
    """Positions in the data set's training examples; `test` are in its test examples if it has any."""

    clients: np.ndarray
    public: np.ndarray
    test: np.ndarray | None


def _data_set(data: DataSettings) -> DataSet:
    return open_data_set(data.name, data.root, data.download)


@lru_cache(maxsize=4)
def _split(data: DataSettings, seed: int) -> _Split:
    data_set = _data_set(data)
    labels = data_set.train.y.numpy()
    train, test = np.arange(len(labels)), None
    if data_set.test is not None:
        test_labels = data_set.test.y.numpy()
        test = _limited(np.arange(len(test_labels)), test_labels, data.test_limit, seed, "test-limit")
    elif data.test_share:
        test, train = _held_out(train, labels, data.test_share, seed, "test-share")
        test = _limited(test, labels, data.test_limit, seed, "test-limit")
    train = _limited(train, labels, data.train_limit, seed, "train-limit")
    public, clients = _held_out(train, labels, data.public_share, seed, "public")
    return _Split(clients, public, test)


@lru_cache(maxsize=4)
def _partitions(data: DataSettings, num_clients: int, seed: int) -> list[np.ndarray]:
    clients = _split(data, seed).clients
    labels = _data_set(data).train.y.numpy()[clients]
    return [clients[part] for part in partition_indices(labels, data, num_clients, seed)]


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
    held = _drawn(positions, labels, count, seed, key)
    return held, np.setdiff1d(positions, held, assume_unique=True)


def _limited(positions: np.ndarray, labels: np.ndarray, limit: int, seed: int, key: str) -> np.ndarray:
    return _drawn(positions, labels, limit, seed, key) if 0 < limit < len(positions) else positions


def _drawn(positions: np.ndarray, labels: np.ndarray, count: int, seed: int, key: str) -> np.ndarray:
    """Draw some of the positions, ascending, of each class its share to within one.

    Every (n / count)-th of the positions is drawn, after these were shuffled and then sorted by class.
    """
    shuffled = numpy_generator(seed, "data", key).permutation(positions)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[((np.arange(count) + 0.5) * len(positions) / max(count, 1)).astype(np.int64)])


def _public(data: DataSettings, data_set: DataSet, split: _Split) -> Examples | None:
    if data.public_name is None:
        return data_set.train.take(split.public) if len(split.public) else None
    public = open_data_set(data.public_name, data.root, data.download, key="data.public")
    if public.name == data_set.name:
        raise BadInput(
            f"data.public: {public.name!r} is the clients' data; give a share of it or another data set"
        )
    if public.input_shape != data_set.input_shape:
        raise BadInput(
            f"data.public: {public.name!r} has inputs of shape {public.input_shape}, "
            f"{data_set.name!r} of {data_set.input_shape}; they must be the same"
        )
    x = public.train.take(np.arange(len(public.train))).x
    return Examples(x, torch.full((len(x),), UNLABELLED))


@lru_cache(maxsize=2)
def _own_pool(path: Path, data: DataSettings) -> Pool:
    if path.is_dir():
        return read_client_folder(path, lambda: _data_set(data).class_names)
    return read_npz(path).train


def _whole_number(node_config: Mapping[str, object], key: str) -> int:
    try:
        return int(str(node_config[key]))
    except KeyError:
        wanted = "partition-id and num-partitions, or data.path"
        raise BadInput(f"{key}: not in the node's config; wanted {wanted}") from None
    except ValueError:
        raise BadInput(f"{key}: given {node_config[key]!r}, allowed an integer") from None


def _checked_client_id(client_id: str) -> str:
    if not client_id or "," in client_id or any(character.isspace() for character in client_id):
        raise BadInput(f"client-id: given {client_id!r}, allowed a name without blanks and commas")
    return client_id
