"""The public data, which the server holds, and with some strategies every client as well.

They are a share of the training data or a data set of their own. All who hold them hold the same examples in
the same order, so that a position means the same everywhere; a hash shows whether that is so.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from app.config.settings import DataSettings
from app.data.pool import DataSet, Pool
from app.data.reading import Reading
from app.data.scale import Scale
from app.data.shaping import disjoint, shaped
from app.data.sources import open_data_set
from app.data.split import drawn, private_data, scale_of, split_of
from strategies.core.errors import BadInput
from strategies.core.examples import Examples

_AT_ONCE = 256
UNLABELLED = -1
"""Label of public examples that come from another data set, whose classes are not the run's."""


@dataclass(frozen=True, eq=False)
class PublicData:
    """Public examples as they were stored.

    The labels in `pool` are those of their own data set, from 0; `first_label` is what label 0 is among the
    model's classes, and `labelled` says whether the labels mean anything. `class_names` are the classes that
    the public data add to those of the clients' data.
    """

    pool: Pool
    class_names: tuple[str, ...] = ()
    labelled: bool = True
    first_label: int = 0

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.pool)

    @property
    def labels(self) -> Tensor:
        """Labels among the model's classes, shape [n]; `UNLABELLED` if they mean nothing."""
        return self.pool.y + self.first_label if self.labelled else torch.full((len(self),), UNLABELLED)

    def take(self, indices: Tensor) -> Examples:
        """Return the examples at the given positions."""
        return self._labelled.take(indices.numpy())

    @cached_property
    def _labelled(self) -> Pool:
        return Pool(self.pool.x, self.labels)

    def examples(self) -> Examples:
        """Return all examples."""
        return self.take(torch.arange(len(self)))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of shape, pixels and labels, in hexadecimal."""
        x = self.pool.x
        digest = hashlib.sha256(repr((tuple(x.shape), str(x.dtype))).encode())
        for index in torch.split(torch.arange(len(self)), _AT_ONCE):
            batch = x[index] if isinstance(x, Tensor) else x.read(index)
            digest.update(batch.contiguous().numpy().tobytes())
        digest.update(self.pool.y.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class OwnPublic:
    """Public examples that a project brings, in the form in which every side holds them."""

    held: Examples

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.held)

    def take(self, indices: Tensor) -> Examples:
        """Return the examples at the given positions."""
        return self.held.subset(indices)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of inputs and targets, in hexadecimal."""
        digest = hashlib.sha256()
        for index in torch.split(torch.arange(len(self)), _AT_ONCE):
            for part in self.held.fingerprint(index):
                digest.update(part)
        return digest.hexdigest()


@lru_cache(maxsize=4)
def load_public(data: DataSettings, seed: int) -> PublicData | None:
    """Load the public data, once per process; None if ``data.public`` is 0. The seed decides a share.

    Raises
    ------
    BadInput
        If the data set is unknown, missing or malformed, is that of the clients, has inputs of another shape,
        or has labels that are no classes of theirs although these are shared.
    """
    if data.only_clients_have_data and data.public_name is None:
        return None
    data_set = private_data(data)
    if data.public_name is None:
        positions = split_of(data, seed).public
        share = _scaled(_part(data_set.train, positions), scale_of(data, seed))
        return PublicData(share) if len(positions) else None
    opened = open_data_set(data.public_name, Reading.of(data), "data.public")
    public = shaped(opened, data.public_class_groups, data.size, key="data.public-classes")
    _check(data, data_set, public, opened.class_names)
    pool = public.train
    if 0 < data.public_limit < len(pool):
        everything = np.arange(len(pool))
        pool = _part(pool, drawn(everything, pool.y.numpy(), data.public_limit, seed, "public-limit"))
    return PublicData(
        _scaled(pool, scale_of(data, seed)),
        public.class_names if data.public_labels == "own" else (),
        data.public_labels != "none",
        len(data_set.class_names) if data.public_labels == "own" else 0,
    )


def _part(pool: Pool, positions: np.ndarray) -> Pool:
    index = torch.from_numpy(positions)
    return Pool(pool.x[index], pool.y[index])


def _scaled(pool: Pool, scale: Scale | None) -> Pool:
    return pool if scale is None else Pool(scale.apply(pool.stored), pool.y)


def _check(data: DataSettings, data_set: DataSet, public: DataSet, names: tuple[str, ...]) -> None:
    if public.name == data_set.name and not disjoint(data.class_groups, data.public_class_groups, names):
        raise BadInput(
            f"data.public: {public.name!r} is the clients' data; give a share of it, another data set, or "
            "other classes of it by data.classes and data.public-classes"
        )
    if public.input_shape != data_set.input_shape:
        raise BadInput(
            f"data.public: {public.name!r} has inputs of shape {public.input_shape}, "
            f"{data_set.name!r} of {data_set.input_shape}; they must be the same, see data.size"
        )
    if data.public_labels == "shared" and len(public.class_names) > len(data_set.class_names):
        raise BadInput(
            f"data.public-labels: 'shared', but {public.name!r} has {len(public.class_names)} classes and "
            f"{data_set.name!r} {len(data_set.class_names)}"
        )
