"""From the settings to the server's data and to each client's.

The data that remain after test and public data are taken out (`app.data.split`) are spread over the clients.
A process loads and spreads a data set once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from app.config.settings import DataSettings
from app.data.clients import Survey, path_of_client, survey
from app.data.columns import Columns
from app.data.forms import ONE, Form, Forms
from app.data.labels import some
from app.data.own import kind_of, read_client
from app.data.partition import partition_indices
from app.data.pool import DataSet, numbered
from app.data.public import load_public
from app.data.reading import Reading
from app.data.scale import Scale, notes_on_columns
from app.data.shaping import shaped
from app.data.split import private_data, scale_of, split_of
from app.data.terms import NO_TERMS, Terms
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples
from strategies.core.seeds import numpy_generator, torch_generator


@dataclass(frozen=True, eq=False)
class ServerData:
    """The server's own data, and the properties of the federation's data.

    `public` are data of no client, for methods that need some, labelled `UNLABELLED` if they come from
    another data set; `test` are None if the data set has none and ``data.test-share`` is 0; `validation` were
    taken out of `test`, and are None if rounds are judged by nothing. `num_groups`
    counts the classes, with those that the public data add; `input_shape` is (channels, height, width) for
    images; `class_names` are in the order of the labels; `notes` tell how the data were read; `columns` is
    the schema of a table; `forms` are shape and type of an input's parts, empty where those are not known.
    """

    public: Examples | None
    test: Examples | None
    num_groups: int
    input_shape: tuple[int, ...]
    name: str
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    columns: Columns | None = None
    validation: Examples | None = None
    forms: Forms = field(default_factory=dict)

    @property
    def terms(self) -> Terms:
        """What clients must know to read their own data."""
        return Terms(self.class_names, self.columns)

    def scaled(self, terms: Terms) -> "ServerData":
        """Return the same with the server's examples on the run's scale."""
        parts = (self.public, self.test, self.validation)
        public, test, validation = (None if part is None else terms.scaled(part) for part in parts)
        return replace(self, public=public, test=test, validation=validation)

    def with_validation(self, share: float, seed: int) -> "ServerData":
        """Return the same with a share of the test data, drawn by the seed, set apart as `validation`.

        Raises
        ------
        BadInput
            If there are no test data, or too few for one example on either side.
        """
        if not share:
            return self
        count = 0 if self.test is None else round(share * len(self.test))
        if self.test is None or not 0 < count < len(self.test):
            had = "none" if self.test is None else f"{len(self.test)} examples"
            raise BadInput(
                f"data.validation-share: given {share:g}, a share of the server's test data, but it has "
                f"{had}; allowed 0, or with more test data at the server (data.test-share, a project's test)"
            )
        order = torch.randperm(len(self.test), generator=torch_generator(seed, "validation"))
        judged, reported = (part.sort().values for part in (order[:count], order[count:]))
        return replace(self, test=self.test.subset(reported), validation=self.test.subset(judged))


def load_server_data(data: DataSettings, seed: int) -> ServerData:
    """Load the server's data.

    In a simulation whose clients have a file each, and whose server names no data, it has none: what it knows
    is what all files together are like.

    Raises
    ------
    BadInput
        If a data set is unknown, missing or malformed, the public data are the training data or have another
        shape, or a share is too small for one example.
    """
    if data.only_clients_have_data:
        found = survey_of(data)
        names, shape = found.class_names, found.input_shape
        place = f"clients:{data.folder_of_clients}"
        forms = {ONE: Form(shape)}
        return ServerData(
            None, None, len(names), shape, place, names, found.notes, found.columns, forms=forms
        )
    data_set, split, public = private_data(data), split_of(data, seed), load_public(data, seed)
    class_names = data_set.class_names + (() if public is None else public.class_names)
    scale = scale_of(data, seed)
    test = None if split.test is None else (data_set.test or data_set.train).take(split.test)
    columns = notes_on_columns(data_set.name, data_set.train.x) if data.scale == "none" else ()
    return ServerData(
        public=None if public is None else public.examples(),
        test=None if test is None else _scaled(test, scale),
        num_groups=len(class_names),
        input_shape=data_set.input_shape,
        name=data_set.name,
        class_names=class_names,
        notes=(*data_set.notes, *columns),
        columns=data_set.columns,
        forms={ONE: Form(data_set.input_shape)},
    )


def survey_of(data: DataSettings) -> Survey:
    """Return what the files of all clients of a simulation are like together."""
    return survey(Path(data.folder_of_clients).expanduser(), Reading.of(data))


def load_client_data(
    data: DataSettings, seed: int, node_config: Mapping[str, object], terms: Terms = NO_TERMS
) -> Examples:
    """Load a client's examples: its own file or folder if it has one, else its partition.

    The node's config names the first by ``data.path`` or ``data-path``; `path` of the settings is the
    default. A partition needs ``partition-id`` and ``num-partitions``. `terms` are what the server says;
    without names of classes, they are those of ``data.name``.

    Raises
    ------
    BadInput
        If the node has neither data of its own nor a valid partition, or the data are missing, malformed, or
        of other classes than the run's.
    """
    if path := own_path_of(data, node_config):
        return own_data(path, data, _completed(terms, data)).train.all()
    client = _whole_number(node_config, "partition-id")
    num_clients = data.clients or _whole_number(node_config, "num-partitions")
    if not 0 <= client < num_clients:
        raise BadInput(
            f"partition-id: given {client}, allowed 0 to {num_clients - 1}; "
            f"the data are spread over {num_clients} clients (data.clients)"
        )
    data_set = private_data(data)
    class_names = terms.class_names
    server_names = class_names[: len(data_set.class_names)]
    if server_names not in {data_set.class_names, numbered(len(server_names))}:
        raise BadInput(
            f"data.name: {data_set.name!r} has the classes {some(data_set.class_names)} here, and "
            f"{some(class_names)} with the server; both must read the same data"
        )
    examples = data_set.train.take(_partitions(data, num_clients, seed)[client])
    return _scaled(examples, scale_of(data, seed))


def load_client_test(
    data: DataSettings, node_config: Mapping[str, object], terms: Terms = NO_TERMS
) -> Examples | None:
    """Return the test data that came with a client's own file or folder; None if none did.

    Raises
    ------
    BadInput
        If its data are missing, malformed, or of other classes than the run's.
    """
    path = own_path_of(data, node_config)
    test = None if path is None else own_data(path, data, _completed(terms, data)).test
    return None if test is None or not len(test) else test.all()


def _completed(terms: Terms, data: DataSettings) -> Terms:
    """Return the server's word, or what this machine's own data say where there is none."""
    if terms.class_names or data.targets == "numbers":
        return terms
    if data.only_clients_have_data:
        return Terms(survey_of(data).class_names, terms.columns or survey_of(data).columns)
    return replace(terms, class_names=private_data(data).class_names)


def own_path_of(data: DataSettings, node_config: Mapping[str, object]) -> Path | None:
    """Return the path of a node's own data; None for a partition.

    Raises
    ------
    BadInput
        If the run gives every virtual client the same file.
    """
    if own := node_config.get("data.path") or node_config.get("data-path"):
        return Path(str(own)).expanduser()
    own_folder = node_config.get("data.folder-of-clients") or node_config.get("data-folder-of-clients")
    if folder := own_folder or data.folder_of_clients:
        return path_of_client(Path(str(folder)).expanduser(), client_id_of(node_config))
    if (
        data.path
        and {"partition-id", "num-partitions"} <= node_config.keys()
        and "client-id" not in node_config
    ):
        raise BadInput(same_for_all(data.path))
    return Path(data.path).expanduser() if data.path else None


def same_for_all(path: str) -> str:
    """Return the line that refuses one file for every client of a simulation."""
    kind = kind_of(Path(path).expanduser())
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
def own_data(path: Path, data: DataSettings, terms: Terms) -> DataSet:
    """Return a node's own data, in the classes and columns of the run.

    Raises
    ------
    BadInput
        If they are missing, malformed, of other classes or columns, or would have to be brought to a common
        scale in one place.
    """
    if data.scale == "standard":
        raise BadInput(
            f'data.scale: given "standard", which takes all data in one place, as a simulation has them; '
            f'{path} is a node\'s own: allowed "none" or "federated"'
        )
    own = read_client(path, Reading.of(data), terms.class_names, terms.columns)
    if terms.columns is None and not data.columns and own.columns is not None:
        own.columns.check_common(str(path))
    return shaped(own, (), data.size)


def _scaled(examples: Examples, scale: Scale | None) -> Examples:
    if scale is None:
        return examples
    return scale.scaled(examples)


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
