"""Data sets made to fit each other: some of their classes, several made one, images of one size."""

import torch
from torch import Tensor
from torch.nn import functional

from app.data.pool import WHITE, DataSet, Pool
from strategies.errors import BadInput

Groups = tuple[tuple[int, ...], ...]
"""The original labels of each class; empty: all classes as they are."""


def shaped(data_set: DataSet, groups: Groups, size: int, key: str = "data.classes") -> DataSet:
    """Return a data set with other classes and images of another size.

    Parameters
    ----------
    data_set
        Not changed.
    groups
        Which classes, see `Groups`.
    size
        Side of the images; neutral 0.
    key
        The setting that holds the groups.

    Raises
    ------
    BadInput
        If there is no such class, or a size is given for what are no images.
    """
    if size and len(data_set.input_shape) != 3:
        raise BadInput(f"data.size: given {size}, but {data_set.name!r} has inputs of {data_set.input_shape}")
    names = data_set.class_names
    if groups:
        if (highest := max(max(group) for group in groups)) >= len(names):
            raise BadInput(f"{key}: given {highest}, {data_set.name!r} has classes 0 to {len(names) - 1}")
        names = tuple("+".join(names[label] for label in group) for group in groups)
    pools = [
        None if pool is None else _sized(_regrouped(pool, groups), size)
        for pool in (data_set.train, data_set.test)
    ]
    if pools[0] is None or not len(pools[0]):
        raise BadInput(f"{key}: {data_set.name!r} has no training example of these classes")
    return DataSet(data_set.name, pools[0], pools[1], names)


def _regrouped(pool: Pool, groups: Groups) -> Pool:
    if not groups:
        return pool
    known = max([0, *pool.y.tolist(), *sum(groups, ())])
    new = torch.full((known + 1,), -1)
    for label, group in enumerate(groups):
        new[list(group)] = label
    labels = new[pool.y]
    kept = labels >= 0
    device = None if pool.device is None else pool.device[kept]
    return Pool(pool.x[kept], labels[kept], pool.y[kept], device)


def _sized(pool: Pool, size: int) -> Pool:
    if not size or tuple(pool.x.shape[2:]) == (size, size):
        return pool
    return Pool(resized(pool.x, size), pool.y, pool.kind, pool.device)


def resized(images: Tensor, size: int, batch_size: int = 4096) -> Tensor:
    """Return images scaled to a square, bilinear with anti-aliasing; bytes stay bytes.

    Parameters
    ----------
    images
        Shape [n, channels, height, width], uint8 or float32.
    size
        Pixels of a side.
    batch_size
        Images that are floats at a time.
    """
    parts = []
    for batch in torch.split(images, batch_size):
        scaled = functional.interpolate(
            batch.float(), (size, size), mode="bilinear", align_corners=False, antialias=True
        )
        parts.append(
            scaled.round().clamp(0, WHITE).to(torch.uint8) if images.dtype == torch.uint8 else scaled
        )
    return torch.cat(parts) if parts else images.new_zeros((0, images.shape[1], size, size))


def disjoint(first: Groups, second: Groups) -> bool:
    """Say whether two selections of classes of one data set are both given and have no class in common."""
    return bool(first and second) and not set(sum(first, ())) & set(sum(second, ()))
