"""Spreads labelled examples over clients.

``iid`` deals them out at random. The others are flwr-datasets' partitioners over the labels: ``dirichlet``
spreads each class by a Dirichlet draw of concentration alpha (Yurochkin et al., arXiv 1905.12022),
``shards`` deals out label-sorted shards of one size (McMahan et al., arXiv 1602.05629), ``pathological``
gives each client a few classes, ``kinds`` one of the kinds that each class was made of (the non-IID case of
Li, Wang, arXiv 1910.03581: every client knows another sort of the same superclasses); with ``half-blind``
every second client lacks the second half of the classes, and with ``devices`` a client has the data of the
device with its number, where the data came with devices. Every example goes to one client and every client
gets at least one, or the partition is refused.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from app.config.settings import DataSettings
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.examples import Examples
from strategies.core.seeds import derive_seed, numpy_generator

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

OwnPartition = Callable[[Any, int, np.random.Generator], Any]
"""From (group or target of each example, number of clients, generator) to one array of positions a client."""

_SMALLEST_PARTITION = 1
_HINTS = {
    "dirichlet": "raise data.alpha (it is {0.alpha}) or lower data.clients",
    "shards": "lower data.shards-per-client (it is {0.shards_per_client}) or data.clients",
    "half-blind": "lower data.clients",
    "devices": "set data.clients to the number of devices of a data set that has some, such as synthetic",
    "kinds": "make classes of several kinds by data.classes = 'a+b, c+d', and lower data.clients",
    "pathological": "change data.classes-per-client (it is {0.classes_per_client}) or data.clients; fewer "
    "clients than classes reach clients + classes-per-client − 1 classes",
}


def partition_indices(
    labels: np.ndarray,
    settings: DataSettings,
    num_clients: int,
    seed: int,
    kinds: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return each client's positions in the labels.

    `labels` are class labels, shape [n], int64. `kinds` are the labels before several classes were made one,
    shape [n], or for ``devices`` the device of each example; these schemes need it.

    Returns
    -------
    list of ndarray
        One ascending int64 array per client; together they hold 0, …, n − 1 once each.

    Raises
    ------
    BadInput
        If there are more clients than examples, or the scheme leaves a client without an example or an
        example without a client.
    """
    if not 1 <= num_clients <= len(labels):
        raise BadInput(
            f"data.clients: {num_clients} clients cannot share {len(labels)} training examples, "
            f"allowed 1 to {len(labels)}"
        )
    # The partitioners cut each class in its order, which must not be the order of the data set's files.
    order = numpy_generator(seed, "data", "order").permutation(len(labels))
    if settings.partition == "iid":
        split = np.array_split(np.arange(len(labels)), num_clients)
    elif settings.partition == "kinds":
        split = _by_kind(labels[order], kinds, order, num_clients)
    elif settings.partition == "half-blind":
        split = _half_blind(labels[order], num_clients)
    elif settings.partition == "devices":
        split = _by_device(None if kinds is None else kinds[order], num_clients)
    else:
        split = _split_by_label(labels[order], settings, num_clients, seed)
    split = _with_owners(split, labels[order], settings, num_clients)
    sizes = [len(part) for part in split]
    if min(sizes) < _SMALLEST_PARTITION or sum(sizes) != len(labels):
        raise _refusal(labels, settings, num_clients)
    return [np.sort(order[part]) for part in split]


def _with_owners(
    split: list[np.ndarray], labels: np.ndarray, settings: DataSettings, num_clients: int
) -> list[np.ndarray]:
    """Return each client's positions, with the classes that one client alone holds moved to it."""
    for label, owner in settings.class_owners:
        if not (label in labels and owner < num_clients):
            missing = f"client {owner}" if label in labels else f"class {label}"
            raise BadInput(
                f"data.own-classes: given {shown(settings.own_classes)}, but there is no {missing}; "
                f"allowed clients 0 to {num_clients - 1}, classes 0 to {int(labels.max())}"
            )
        split = [part[labels[part] != label] for part in split]
        split[owner] = np.concatenate([split[owner], np.flatnonzero(labels == label)])
    return split


def _half_blind(labels: np.ndarray, num_clients: int) -> list[np.ndarray]:
    """Return each client's positions; clients 1, 3, … have none of the second half of the classes."""
    late = labels >= (int(labels.max()) + 2) // 2
    shared = np.array_split(np.flatnonzero(~late), num_clients)
    seeing = np.array_split(np.flatnonzero(late), (num_clients + 1) // 2)
    return [
        np.concatenate([part, seeing[client // 2]]) if client % 2 == 0 else part
        for client, part in enumerate(shared)
    ]


def _by_device(devices: np.ndarray | None, num_clients: int) -> list[np.ndarray]:
    """Return each client's positions: those of its device; none if the data have no devices."""
    return [
        np.zeros(0, dtype=np.int64) if devices is None else np.flatnonzero(devices == client)
        for client in range(num_clients)
    ]


def _by_kind(
    labels: np.ndarray, kinds: np.ndarray | None, order: np.ndarray, num_clients: int
) -> list[np.ndarray]:
    """Return each client's positions: of each class, the kind with the client's number, in turn.

    Clients of the same kind share its examples evenly; with fewer clients than kinds, a client has several.
    """
    parts: list[list[np.ndarray]] = [[] for _ in range(num_clients)]
    kind = labels if kinds is None else kinds[order]
    for label in np.unique(labels):
        of_class = np.unique(kind[labels == label])
        turns = max(num_clients, len(of_class))
        for number, one in enumerate(of_class):
            holders = sorted({t % num_clients for t in range(number, turns, len(of_class))})
            positions = np.flatnonzero((labels == label) & (kind == one))
            for client, part in zip(holders, np.array_split(positions, len(holders)), strict=True):
                parts[client].append(part)
    return [np.concatenate(part) if part else np.zeros(0, dtype=np.int64) for part in parts]


def _split_by_label(
    labels: np.ndarray, settings: DataSettings, num_clients: int, seed: int
) -> list[np.ndarray]:
    """Return each client's positions; `labels` are in random order."""
    from datasets import Dataset

    names = numpy_generator(seed, "data", "classes").permutation(int(labels.max()) + 1)
    dataset = Dataset.from_dict({"label": names[labels], "position": np.arange(len(labels))})
    try:
        partitioner = _partitioner(
            names[labels], settings, num_clients, derive_seed(seed, "data", "partition")
        )
        partitioner.dataset = dataset
        with warnings.catch_warnings():
            # They warn of repeated draws and unused classes; the caller checks the result.
            warnings.simplefilter("ignore")
            parts = [partitioner.load_partition(client) for client in range(num_clients)]
    except ValueError as error:
        raise _refusal(labels, settings, num_clients) from error
    return [part.with_format("numpy")["position"][:] for part in parts]


def _partitioner(labels: np.ndarray, settings: DataSettings, num_clients: int, seed: int) -> "Partitioner":
    from flwr_datasets import partitioner as flwr

    if settings.partition == "dirichlet":
        smallest = _SMALLEST_PARTITION
        return flwr.DirichletPartitioner(
            num_clients, "label", settings.alpha, min_partition_size=smallest, shuffle=False, seed=seed
        )
    if settings.partition == "shards":
        # Rounded down: the examples left over make further shards, which some clients get in addition.
        shard_size = len(labels) // (num_clients * settings.shards_per_client)
        return flwr.ShardPartitioner(
            num_clients, "label", shard_size=shard_size, keep_incomplete_shard=True, shuffle=False, seed=seed
        )
    # With fewer clients than classes, only consecutive classes make sure that each class has a client.
    few = num_clients < len(np.unique(labels))
    return flwr.PathologicalPartitioner(
        num_clients,
        "label",
        settings.classes_per_client,
        "deterministic" if few else "first-deterministic",
        shuffle=False,
        seed=seed,
    )


def _refusal(labels: np.ndarray, settings: DataSettings, num_clients: int) -> BadInput:
    hint = _HINTS.get(settings.partition, "give fewer classes to data.own-classes").format(settings)
    return BadInput(
        f"data.partition: {settings.partition!r} over {num_clients} clients leaves a client without an "
        f"example, or an example without a client, of {len(labels)} training examples in "
        f"{len(np.unique(labels))} classes (every client needs at least {_SMALLEST_PARTITION}); {hint}"
    )


def partitioned(
    examples: Examples,
    groups: Tensor | None,
    settings: DataSettings,
    num_clients: int,
    seed: int,
    own: OwnPartition | None = None,
) -> list[np.ndarray]:
    """Return each client's positions in any examples, which are not read for it.

    Parameters
    ----------
    groups
        Group of each example, such as its class, shape [n]; None where there is none.
    own
        The user's own way to spread them, in place of ``data.partition``.

    Returns
    -------
    list of ndarray
        One ascending int64 array per client; no position is in two.

    Raises
    ------
    BadInput
        If the scheme needs classes and there are none, leaves a client without an example, or gives a
        position twice or one that is none.
    """
    if own is not None:
        known = examples.targets() if groups is None else groups
        made = own(known.numpy(), num_clients, numpy_generator(seed, "data", "own partition"))
        return _checked(made, num_clients, len(examples))
    if settings.partition != "iid" and (groups is None or groups.dim() != 1):
        kind = "no classes" if groups is None else "several classes each"
        raise BadInput(
            f"data.partition: given {settings.partition!r}, which spreads examples by their class, but these "
            f'have {kind}; allowed "iid", or a partition function of a project'
        )
    plain = groups is not None and groups.dim() == 1
    labels = groups.numpy() if groups is not None and plain else np.zeros(len(examples), dtype=np.int64)
    return partition_indices(labels, settings, num_clients, seed)


def _checked(made: object, num_clients: int, count: int) -> list[np.ndarray]:
    """Return the parts that a user's function made, sorted, if they are parts of `count` examples."""
    parts = [_positions(part) for part in _in_order(made, num_clients)]
    if len(parts) != num_clients:
        raise BadInput(f"{_OWN} gives {len(parts)} parts for {num_clients} clients; wanted one for each")
    for client, part in enumerate(parts):
        if not part.size:
            raise BadInput(f"{_OWN} leaves client {client} without an example; wanted at least one for each")
        if part.ndim != 1 or part.dtype.kind not in "iu":
            raise BadInput(
                f"{_OWN} gives client {client} {part.dtype} of shape {part.shape}; wanted positions, an "
                "array of whole numbers"
            )
    every = np.concatenate(parts).astype(np.int64)
    if wrong := every[(every < 0) | (every >= count)].tolist():
        raise BadInput(f"{_OWN} names example {wrong[0]}; allowed 0 to {count - 1}")
    positions, times = np.unique(every, return_counts=True)
    if twice := positions[times > 1].tolist():
        raise BadInput(f"{_OWN} gives example {twice[0]} more than once; wanted each at most once")
    return [np.sort(part.astype(np.int64)) for part in parts]


def _positions(part: object) -> np.ndarray:
    try:
        return np.asarray(part)
    except ValueError:
        raise BadInput(
            f"{_OWN} gives parts that are no plain array; wanted positions, whole numbers"
        ) from None


def _in_order(made: object, num_clients: int) -> Iterable[Any]:
    if isinstance(made, Mapping):
        by_id = {str(client): part for client, part in made.items()}
        if unknown := [client for client in by_id if client not in map(str, range(num_clients))]:
            raise BadInput(f"{_OWN} names client {unknown[0]!r}; known clients: 0 to {num_clients - 1}")
        return [by_id.get(str(client), ()) for client in range(num_clients)]
    if not isinstance(made, Iterable):
        raise BadInput(f"{_OWN} gives {type(made).__name__}; wanted one array of positions for each client")
    return made


_OWN = "lethe.Project: partition"
