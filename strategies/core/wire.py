"""What travels: record names and keys, and the way from a model's state to Flower's records and back.

Record names follow Flower (`arrays`, `metrics`, `config`). Every further key is a constant here, with what it
holds and who sends it. A dense reply carries the client's new parameters in `arrays` and `num-examples` in
`metrics`, so that Flower's own strategies work with this client as they are.

Arrays are flat where both ends allow it: a `FlatRecord` is an ordinary `ArrayRecord` whose entries are views
of one float32 buffer. Between processes of one machine the buffer moves; over a network the entries serialise
themselves as any other `Array` does.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, TypeVar, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.recorddict import RecordType
from flwr.app.message.typeddict import TypedDict
from torch import Tensor

from strategies.core import layout as layouts, names
from strategies.core.arrays import floats_in
from strategies.core.layout import is_large

State = layouts.State
Layout = layouts.Layout
MAX_ENTRIES = layouts.MAX_ENTRIES
EVERYBODY = names.EVERYBODY
client_id_fault = names.client_id_fault
client_sort_key = names.client_sort_key
short_hash = names.short_hash

ConfigValue = bool | int | float | str | bytes | list[int] | list[float] | list[str] | list[bytes]
"""What the record ``config`` may hold here."""

# Records
ARRAYS = "arrays"
"""Both ways. A model's state: name -> array."""
REFERENCE = "reference"
"""Server to client, audits only: a second model to compare with."""
METRICS = "metrics"
"""Client to server. Numbers about the work done."""
CODED = "coded"
"""Both ways, if updates are compressed, instead of `arrays`: payloads of `strategies.layers.compression`."""
ENCRYPTED = "encrypted"
"""Both ways, if updates are encrypted: ciphertexts of `strategies.layers.encryption`, and what they are."""
CONFIG = "config"
"""Both ways. Small settings of this message."""
SUMS = "sums"
"""Client to server, evaluations only: the sums of the model's figures (`strategies.figures`)."""
MASKED = "masked"
"""Client to server, under secure aggregation, instead of `arrays`: the masked vector."""

# Keys of `metrics`
NUM_EXAMPLES = "num-examples"
"""int > 0, client to server: how many examples the client trained or evaluated on."""
NUM_TEST = "num-test-examples"
"""int >= 0, client to server, in its description: how many test examples came with the client's data."""
TRAIN_LOSS = "train-loss"
"""float, client to server: mean loss over the local steps."""
LOSS = "loss"
"""float, client to server: mean evaluation loss."""
ACCURACY = "accuracy"
"""float in [0, 100], client to server: accuracy in percent."""
LABEL_COUNTS = "label-counts"
"""list[int], client to server: number of examples of each class."""
NUM_STEPS = "num-steps"
"""int, client to server: optimiser steps taken."""

STALENESS = "staleness"
"""float, a metric of the server's, of asynchronous strategies: server steps that updates are behind."""
EPSILON = "epsilon"
"""float, client to server, in private runs: what the client has spent with this round, at the run's δ."""
NOISE_MULTIPLIER = "noise-multiplier"
"""float, client to server, in private runs: the noise of the round in clip norms."""

# Keys of `config`
CLIENT_ID = "client-id"
"""str, client to server, in every reply: the client's stable name."""
SERVER_ROUND = "server-round"
"""int from 1, server to client."""
ROUNDS = "rounds"
"""int from 1, server to client, with every message of a training: how many rounds the learning rate's
schedule lasts; missing: as many as the run config says."""
DROP_CLASSES = "drop-classes"
"""list[int], server to client: labels whose examples the client must leave out."""
DROP_INDICES = "drop-indices"
"""list[int], server to client: positions, in the client's own data, of examples it must leave out."""
GONE_CLASSES = "gone-classes"
"""list[int], server to client: labels that were forgotten before; their examples count neither way."""
GONE_INDICES = "gone-indices"
"""list[int], server to client: positions of examples that were forgotten before; they count neither way."""
FORGET_ALL = "forget-all"
"""bool, server to client, audits only: all of the client's data is the forget set."""
MASK = "mask"
"""bytes, server to client, if the model is pruned: which parameters stay zero (`strategies.models.mask`)."""
SEED = "seed"
"""int, server to client, in retrainings with another seed: seeds the client's work instead of the run's."""
LINEAGE = "course"
"""str, server to client, where clients keep models: which line of training the message belongs to, such as a
retraining; missing or empty: the run's own."""
MEASURE = "measure"
"""bool, server to client, in a round's second exchange: whether the client shall report its accuracy."""
PROJECT = "project"
"""str, server to client, in every message of a run with a project: what the hash of its code must be."""
PUBLIC_HASH = "public-hash"
"""str, server to client, where clients hold public data: the SHA-256 that theirs must have."""
NUM_GROUPS = "num-classes"
"""int, server to client, in every message once known: number of groups of the data, such as classes."""
TARGET_SCALE = "target-scale"
"""float, server to client, where numbers are predicted: the residual from which on the score is 0."""
CLASS_NAMES = "class-names"
"""list[str], server to client, in every message, where the classes are not called 0, 1, …: what labels they
have in people's data."""
COLUMNS = "columns"
"""str, server to client, in every message of a run on tables: their schema, a JSON object."""
SCALE = "scale"
"""list[float], server to client, once known: the means of a table's columns, then their deviations."""
INPUT_SHAPE = "input-shape"
"""list[int], server to client, in every message once known: shape of one input."""
STAYING = "staying"
"""str, server to client, in every message, where a part of the model does not travel: its fingerprint (see
`strategies.models.travelling`)."""
NUM_PARTITIONS = "num-partitions"
"""int, client to server: how many partitions the simulation has; 0 on a node with data of its own."""
RUN_CONFIG = "run-config"
"""str, server to client, where the grid was not started for the run: the run's own config, a JSON object."""
RUN_ID = "run-id"
"""str, server to client, on a grid of Flower's: names the training run, in all of Flower's runs about it."""
POSITIONS = "positions"
"""bytes, server to client, where a client trains a part of the model: which neurons (see `pack_kept`). Client
to server, where the client chose them."""
KEEP = "keep"
"""float, client to server: the share of the neurons that the client can train, if its node says. Server to
client, where the client chooses by its own data: the share of them that it is to choose now."""
KEEP_TAGS = "keep-tags"
"""int 1, server to client, with every message of a training: the client keeps tags of its data."""
DATA_STATE = "data-state"
"""str, client to server: whether its data are those of the run (`strategies.client.data_tags.DataState`)."""
FORGETS = "forgets"
"""bool, client to server, unless that is private: whether it holds an example that a request names."""
KEEPS = "keeps"
"""bool, client to server, unless that is private: whether a request leaves it an example to train on."""
PRIOR_ATTEMPTS = "prior-attempts"
"""int, server to client, in private runs: rounds in which the client was asked before, answered or not."""
LINK = "link"
"""str, server to client, where updates are compressed: the training that versions of the model belong to."""
VERSION = "version"
"""int, both ways, where updates are compressed: the version of the model that the client has now."""
BASE_VERSION = "base-version"
"""int, server to client: the version that coded differences start from; missing: the model itself travels."""
USED_VERSION = "used-version"
"""int, server to client, where updates are compressed: the version of the model that the client's last reply
which counted was an answer to; missing: none did."""
WITHHELD = "withheld"
"""bool, client to server, in place of an update: it was too small to be sent."""
REFUSED = "refused"
"""str, client to server, in place of a model: why the client does not train."""
HIDDEN = "hidden"
"""bool, client to server: it tells neither how many examples it has nor their labels; it claims one."""
SUM_BITS = "sum-bits"
"""int, server to client, under secure aggregation: b of the fixed point 2^-b of the sum."""
PAYLOAD = "payload"
"""list[bytes]. Of the record `coded`: one encoded vector after another, to be added up. Of `encrypted`: the
ciphertexts of one vector after another."""
KEY_ID = "key-id"
"""Of the record `encrypted`. str, both ways: which key the ciphertexts are of."""
SIZE = "size"
"""Of the record `encrypted`. int, server to client: entries of the vector that is to be decrypted."""
WEIGHT = "weight"
"""Of the record `encrypted`. int > 0, server to client: what the decrypted sum is to be divided by."""
MEAN = "mean"
"""Of the record `arrays`, in answers to `DECRYPT`. The mean update, shape [P]."""
DETAIL = "detail"
"""str, client to server: what the client wants to be shown in the run's summary."""

NOTHING_LEFT = "nothing is left to train on without what is forgotten"
"""Begins a client's reason, under `REFUSED`, not to train; no failure of the client's."""


MAX_EXAMPLES = 2**31
"""Examples that a client has at most."""

# Message types
TRAIN = "train"
EVALUATE = "evaluate"
DESCRIBE = "query.describe"
"""Asks a client who it is and what it holds."""
DECRYPT = "query.decrypt"
"""Asks a client for the mean of a sum of encrypted updates."""
SECAGG_KEYS, SECAGG_SHARES, SECAGG_UNMASK = "query.secagg_keys", "query.secagg_shares", "query.secagg_unmask"
"""The rounds of secure aggregation around the masked vectors (see `strategies.layers.secagg.client`)."""
HOLDINGS = "query.holdings"
"""Asks a client, before a request is served, what it holds of it, and whether its data are the run's."""
AUDIT = "query.audit"
"""Asks a client for its outputs on its forgotten and retained examples."""


_UNREAD = Array("float32", (), "numpy.ndarray", b"")
"""Stands in a record for an entry that nobody has looked at yet."""


class FlatArray(Array):
    """An `Array` that is a view of a float32 tensor and serialises itself only when asked to."""

    __qualname__ = Array.__qualname__  # What Flower writes into a message, and knows at the other end.

    def __init__(self, tensor: Tensor) -> None:
        view = tensor.detach().numpy()
        view.flags.writeable = False
        self.__dict__.update(dtype="float32", shape=tuple(tensor.shape), stype="numpy.ndarray", _view=view)

    def numpy(self) -> Any:
        """Return the array, read-only, without a copy."""
        return self.__dict__["_view"]

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The array in numpy's file format, made on first use."""
        if "_data" not in self.__dict__:
            buffer = BytesIO()
            np.save(buffer, self.__dict__["_view"], allow_pickle=False)
            self.__dict__["_data"] = buffer.getvalue()
        return bytes(self.__dict__["_data"])


R = TypeVar("R", bound=TypedDict[Any, Any])


def filled(record: R, entries: Mapping[str, Any]) -> R:
    """Give an empty record entries that are known to fit: Flower's check of each takes ten microseconds."""
    record.__dict__["_data"] = dict(entries)
    return record


class _Views(dict[str, Array]):  # noqa: PLW1641 (a dict has no hash)
    """The entries of a flat record, made when the first is looked at: most records are only passed on."""

    def __init__(self, flat: Tensor, layout: Layout) -> None:
        super().__init__(dict.fromkeys(layout.names, _UNREAD))
        self._flat: Tensor | None = flat
        self._layout = layout

    @property
    def was_read(self) -> bool:
        """Whether an entry was looked at."""
        return self._flat is None

    def _read(self) -> None:
        flat, self._flat = self._flat, None
        if flat is not None:
            super().update((n, FlatArray(t)) for n, t in self._layout.unflatten(flat).items())

    def __getitem__(self, key: str) -> Array:
        self._read()
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Array) -> None:
        self._read()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._read()
        super().__delitem__(key)

    def __eq__(self, other: object) -> bool:
        self._read()
        if isinstance(other, _Views):
            other._read()
        return super().__eq__(other)

    def __repr__(self) -> str:
        self._read()
        return super().__repr__()

    def values(self) -> Any:
        self._read()
        return super().values()

    def items(self) -> Any:
        self._read()
        return super().items()

    def copy(self) -> dict[str, Array]:
        self._read()
        return super().copy()


class FlatRecord(ArrayRecord):
    """An `ArrayRecord` whose entries are views of one flat float32 vector.

    Parameters
    ----------
    flat
        The vector, shape [layout.size]; it must not be changed afterwards.
    unshared
        Whether nobody else has the vector, so that who gets the record may `take` it.
    """

    __qualname__ = ArrayRecord.__qualname__  # As above.

    def __init__(self, flat: Tensor, layout: Layout, *, unshared: bool = False) -> None:
        super().__init__()
        self.__dict__.update(_data=_Views(flat, layout), _flat=flat, _layout=layout, _unshared=unshared)

    def take(self) -> Tensor | None:
        """Return the vector to be changed by the caller; the record holds no entry afterwards.

        None if others may have the vector, or have looked at its entries.
        """
        flat, views = self.flat, self.__dict__["_data"]
        unread = isinstance(views, _Views) and not views.was_read
        if flat is None or not unread or not self.__dict__.get("_unshared"):
            return None
        self.__dict__.update(_data={}, _flat=None, _unshared=False)
        return flat

    def __setitem__(self, key: str, value: Array) -> None:
        """Set an entry; the record is no longer flat then."""
        self.__dict__["_flat"] = None
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Delete an entry; the record is no longer flat then."""
        self.__dict__["_flat"] = None
        super().__delitem__(key)

    @property
    def flat(self) -> Tensor | None:
        """The vector, or None once an entry was replaced."""
        flat: Tensor | None = self.__dict__.get("_flat")
        return flat

    @property
    def layout(self) -> Layout:
        """Names and shapes of the entries."""
        layout: Layout | None = self.__dict__.get("_layout")  # A copy made by Flower has none.
        return layout or Layout(tuple(self), tuple(tuple(array.shape) for array in self.values()))


def record_around(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Return a record of the floating entries of a state, which must not be changed afterwards."""
    layout = Layout.of(state)
    return FlatRecord(layout.vector_of(state), layout)


def record_of(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Return a record of the floating entries of a state."""
    layout = Layout.of(state)
    return FlatRecord(layout.flatten(state), layout)


def flat_of(record: ArrayRecord, layout: Layout) -> Tensor:
    """Return a record's arrays as one flat vector, shape [layout.size], float32.

    Nothing is copied where the record is flat already; do not change the result.

    Raises
    ------
    ValueError
        If names or shapes differ from the layout, or an array is none of real numbers.
    """
    if isinstance(record, FlatRecord) and record.flat is not None and record.layout == layout:
        return record.flat
    if (difference := layout.difference(record)) is not None:
        raise ValueError(difference)
    parts = [floats_in(record[name]).reshape(-1) for name in layout.names]
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.zeros(0)


def layout_of(record: ArrayRecord) -> Layout:
    """Return the layout that a record's arrays have."""
    if isinstance(record, FlatRecord) and record.flat is not None:
        return record.layout
    return Layout(tuple(record), tuple(tuple(array.shape) for array in record.values()))


def state_of(record: ArrayRecord) -> State:
    """Return a record's arrays by name, as float32 tensors."""
    layout = layout_of(record)
    return layout.unflatten(flat_of(record, layout))


def update_since(received: ArrayRecord, trained: Mapping[str, Tensor]) -> Tensor:
    """Return a trained model's state minus the record that its training started from, shape [size]."""
    layout = layout_of(received)
    return layout.flatten(trained) - flat_of(received, layout)


@contextmanager
def lent(model: torch.nn.Module, flat: Tensor, layout: Layout) -> Iterator[torch.nn.Module]:
    """Have a model's entries lie in a flat vector for a while; a model on a device gets copies of them.

    Whoever uses the model changes none of them, as one does not who measures it. Its own memory is given up:
    afterwards its entries hold nothing that is defined.
    """
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: named[name] for name in layout.names if name in named}
    in_place = is_large(layout.size) and len(kept) == len(layout.names)
    if not in_place or any(t.device != flat.device or t.dtype != flat.dtype for t in kept.values()):
        load_flat(model, flat, layout)
        yield model
        return
    for name, entries in layout.unflatten(flat).items():
        kept[name].data = entries
    try:
        yield model
    finally:
        give_up(model, layout)


def give_up(model: torch.nn.Module, layout: Layout) -> None:
    """Free the memory of the entries that a layout names, where they are on the CPU and large.

    The model is of use only where they are `lent` then.
    """
    if is_large(layout.size):
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in layout.names and tensor.device.type == "cpu":
                tensor.data = torch.empty(1, dtype=tensor.dtype).expand(tensor.shape)


def load_flat(model: torch.nn.Module, flat: Tensor, layout: Layout) -> None:
    """Copy a flat vector into a model's parameters and floating buffers, in place."""
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in layout.unflatten(flat).items():
            state[name].copy_(tensor)


def reply_to(
    message: Message,
    client_id: str,
    metrics: Mapping[str, float | int | Sequence[float] | Sequence[int]],
    arrays: ArrayRecord | None = None,
    config: Mapping[str, ConfigValue] | None = None,
) -> Message:
    """Answer a message as this client.

    Parameters
    ----------
    metrics
        Numbers, under the keys of this module.
    config
        Small texts and settings besides the client-id.
    """
    brought = {} if arrays is None else {ARRAYS: arrays}
    return Message(RecordDict({**brought, **told(client_id, metrics, config or {})}), reply_to=message)


def told(
    client_id: str,
    metrics: Mapping[str, float | int | Sequence[float] | Sequence[int]],
    config: Mapping[str, ConfigValue],
) -> dict[str, RecordType]:
    """Return the records of a client's answer beside its arrays, by name; parameters as for `reply_to`.

    Raises
    ------
    TypeError
        If a record cannot hold a value, as a number cannot be a bool.
    """
    numbers = {key: list(v) if isinstance(v, Sequence) else v for key, v in metrics.items()}
    return {
        METRICS: _checked(MetricRecord, numbers, {int, float}),
        CONFIG: _checked(ConfigRecord, {CLIENT_ID: client_id, **config}, {bool, int, float, str, bytes}),
    }


def _checked(kind: Callable[..., R], entries: Mapping[str, Any], plain: Collection[type]) -> R:
    """Return a record of entries; those that are all of plain types need no check of Flower's."""
    return filled(kind(), entries) if all(type(v) in plain for v in entries.values()) else kind(entries)


def twin(message: Message, content: RecordDict | Error, **changed: int | str) -> Message:
    """Return a message like another, with other content and some fields of its metadata changed.

    Flower's own way checks each field again and takes five times as long.
    """
    metadata, made = Metadata.__new__(Metadata), Message.__new__(Message)
    metadata.__dict__.update(message.metadata.__dict__)
    metadata.__dict__.update({f"_{name}": value for name, value in changed.items()})
    failed = isinstance(content, Error)
    made.__dict__.update(
        _metadata=metadata, _content=None if failed else content, _error=content if failed else None
    )
    return made


def add_entries(message: Message, entries: Mapping[str, ConfigValue]) -> None:
    """Add entries to a message's record `config`; content that other messages share is not changed."""
    if entries:
        # A view by kind, as `config_records` is, would keep the content until the garbage is collected
        config = cast("ConfigRecord", message.content[CONFIG])
        message.content = RecordDict({**message.content, CONFIG: ConfigRecord({**config, **entries})})


class SharedEntries:
    """Adds entries to messages; those that shared their content, and are given the same, share it again."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, str], tuple[RecordDict, RecordDict]] = {}

    def add(self, message: Message, entries: Mapping[str, ConfigValue]) -> None:
        """Add entries to a message's record `config`; see `add_entries`."""
        key, before = (id(message.content), repr(entries)), message.content
        if key not in self._made:
            add_entries(message, entries)
            self._made[key] = before, message.content  # What was there is held, so that no other has its id
        message.content = self._made[key][1]


def client_id_in(content: RecordDict) -> str | None:
    """Return the client-id that a reply claims; None where it claims none."""
    config = content.get(CONFIG)
    client_id = config.get(CLIENT_ID) if isinstance(config, ConfigRecord) else None
    return client_id if isinstance(client_id, str) else None


def records_bytes(content: RecordDict) -> int:
    """Return the size of the arrays and numbers of a message, in bytes, as encoded without headers."""
    return sum(_record_bytes(record) for record in content.values())


def _record_bytes(record: Any) -> int:
    if isinstance(record, FlatRecord) and record.flat is not None:
        return record.flat.numel() * record.flat.element_size()
    if isinstance(record, ArrayRecord):
        return sum(_array_bytes(array) for array in record.values())
    return sum(len(key) + _value_bytes(value) for key, value in record.items())


def _array_bytes(array: Array) -> int:
    try:
        return math.prod(array.shape) * np.dtype(array.dtype).itemsize
    except TypeError:  # The sender may have written anything there
        return len(array.data)


def _value_bytes(value: Any) -> int:
    if isinstance(value, list):
        if value and isinstance(value[0], int | float):  # All are of one type
            return 8 * len(value)
        return sum(_value_bytes(v) for v in value)
    return len(value) if isinstance(value, str | bytes) else 8


def config_list(config: Mapping[str, Any], key: str) -> list[int]:
    """Return a list of whole numbers from a config record; empty where the key is missing."""
    value = config.get(key, [])
    return [int(v) for v in value]


def iter_numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the scalar entries of a metric record."""
    for key, value in metrics.items():
        if isinstance(value, int | float):
            yield key, float(value)
