"""From the settings to the server's data and to each client's.

The data that remain after test and public data are taken out (`app.data.split`) are spread over the clients.
A process loads and spreads a data set once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from app.config.settings import DataSettings
from app.data.folder import read_client_folder
from app.data.labels import some
from app.data.npz import read_npz
from app.data.partition import partition_indices
from app.data.pool import DataSet, numbered
from app.data.public import load_public
from app.data.scale import Scale, notes_on_columns
from app.data.shaping import shaped
from app.data.split import private_data, scale_of, split_of
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import numpy_generator


@dataclass(frozen=True, eq=False)
class ServerData:
    """The server's own data, and the properties of the federation's data.

    `public` are data of no client, for methods that need some, labelled `UNLABELLED` if they come from
    another data set; `test` are None if the data set has none and ``data.test-share`` is 0. `num_groups`
    counts the classes, with those that the public data add; `input_shape` is (channels, height, width) for
    images; `class_names` are in the order of the labels; `notes` tell how the data were read.
    """

    public: Examples | None
    test: Examples | None
    num_groups: int
    input_shape: tuple[int, ...]
    name: str
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_server_data(data: DataSettings, seed: int) -> ServerData:
    """Load the server's data.

    Raises
    ------
    BadInput
        If a data set is unknown, missing or malformed, the public data are the training data or have another
        shape, or a share is too small for one example.
    """
    data_set, split, public = private_data(data), split_of(data, seed), load_public(data, seed)
    class_names = data_set.class_names + (() if public is None else public.class_names)
    scale = scale_of(data, seed)
    test = None if split.test is None else (data_set.test or data_set.train).take(split.test)
    columns = notes_on_columns(data_set.name, data_set.train.x) if scale is None else ()
    return ServerData(
        public=None if public is None else public.examples(),
        test=None if test is None else _scaled(test, scale),
        num_groups=len(class_names),
        input_shape=data_set.input_shape,
        name=data_set.name,
        class_names=class_names,
        notes=(*data_set.notes, *columns),
    )


def load_client_data(
    data: DataSettings, seed: int, node_config: Mapping[str, object], class_names: tuple[str, ...] = ()
) -> TensorExamples:
    """Load a copy of a client's examples: its own file or folder if it has one, else its partition.

    The node's config names the first by ``data.path`` or ``data-path``; `path` of the settings is the
    default. A partition needs ``partition-id`` and ``num-partitions``. `class_names` are those of the server,
    one per class of the run; empty: those of ``data.name``.

    Raises
    ------
    BadInput
        If the node has neither data of its own nor a valid partition, or the data are missing, malformed, or
        of other classes than the run's.
    """
    if path := own_path_of(data, node_config):
        return own_data(path, data, class_names or private_data(data).class_names).train.all()
    client = _whole_number(node_config, "partition-id")
    num_clients = data.clients or _whole_number(node_config, "num-partitions")
    if not 0 <= client < num_clients:
        raise BadInput(
            f"partition-id: given {client}, allowed 0 to {num_clients - 1}; "
            f"the data are spread over {num_clients} clients (data.clients)"
        )
    data_set = private_data(data)
    server_names = class_names[: len(data_set.class_names)]
    if server_names not in {data_set.class_names, numbered(len(server_names))}:
        raise BadInput(
            f"data.name: {data_set.name!r} has the classes {some(data_set.class_names)} here, and "
            f"{some(class_names)} with the server; both must read the same data"
        )
    examples = data_set.train.take(_partitions(data, num_clients, seed)[client])
    return _scaled(examples, scale_of(data, seed))


def own_path_of(data: DataSettings, node_config: Mapping[str, object]) -> Path | None:
    """Return the path of a node's own data; None for a partition.

    Raises
    ------
    BadInput
        If the run gives every virtual client the same file.
    """
    if own := node_config.get("data.path") or node_config.get("data-path"):
        return Path(str(own)).expanduser()
    if (
        data.path
        and {"partition-id", "num-partitions"} <= node_config.keys()
        and "client-id" not in node_config
    ):
        raise BadInput(same_for_all(data.path))
    return Path(data.path).expanduser() if data.path else None


def same_for_all(path: str) -> str:
    """Return the line that refuses one file for every client of a simulation."""
    kind = "folder" if Path(path).expanduser().is_dir() else "npz"
    return (
        f"data.path: given {path}, which every client of a simulation would hold whole; give "
        f"data.name={kind}:{path}, which is spread over the clients, or each node a data.path of its own"
    )


def client_id_of(node_config: Mapping[str, object]) -> str:
    """Return a client's stable name: its node's ``client-id``, else its ``partition-id``.

    Raises
    ------
    BadInput
        If the node has neither, or what it has can be no client-id.

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


@lru_cache(maxsize=4)
def _partitions(data: DataSettings, num_clients: int, seed: int) -> list[np.ndarray]:
    clients, train = split_of(data, seed).clients, private_data(data).train
    labels = train.y.numpy()[clients]
    kind = train.device if data.partition == "devices" else train.kind
    kinds = None if kind is None else kind.numpy()[clients]
    parts = partition_indices(labels, data, num_clients, seed, kinds)
    if data.per_class:
        parts = [_few(part, labels, data.per_class, seed) for part in parts]
    return [clients[part] for part in parts]


def _few(positions: np.ndarray, labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Return at most `per_class` positions of each class, sorted."""
    shuffled = numpy_generator(seed, "data", "per-class").permutation(positions)
    kept = [shuffled[labels[shuffled] == label][:per_class] for label in np.unique(labels[positions])]
    return np.sort(np.concatenate(kept))


@lru_cache(maxsize=2)
def own_data(path: Path, data: DataSettings, class_names: tuple[str, ...]) -> DataSet:
    """Return a node's own data, in the classes of the run; a folder has no test data here.

    Raises
    ------
    BadInput
        If they are missing, malformed, of other classes, or would have to be brought to a common scale.
    """
    if data.scale != "none":
        raise BadInput(
            f'data.scale: given "{data.scale}", which takes all data in one place, as a simulation has them; '
            f"{path} is a node's own: allowed none"
        )
    if path.is_dir():
        pool = read_client_folder(path, class_names, data.size)
        own = DataSet(f"folder:{path}", pool, None, class_names)
    else:
        own = read_npz(path, class_names)
    return shaped(own, (), data.size)


def _scaled(examples: TensorExamples, scale: Scale | None) -> TensorExamples:
    return examples if scale is None else TensorExamples(scale.apply(examples.x), examples.y)


def _whole_number(node_config: Mapping[str, object], key: str) -> int:
    try:
        return int(str(node_config[key]))
    except KeyError:
        wanted = "partition-id and num-partitions, or data.path"
        raise BadInput(f"{key}: not in the node's config; wanted {wanted}") from None
    except ValueError:
        raise BadInput(f"{key}: given {node_config[key]!r}, allowed an integer") from None


def _checked_client_id(client_id: str) -> str:
    if fault := wire.client_id_fault(client_id):
        raise BadInput(f"client-id: {fault}")
    return client_id
