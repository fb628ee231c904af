"""Makes data sets fit each other: some of their classes, several made one, images of one size."""

import torch
from torch import Tensor
from torch.nn import functional

from app.config.settings import is_integer, plain_label
from app.data.labels import some
from app.data.pool import WHITE, DataSet, Pool
from strategies.core.errors import BadInput

Groups = tuple[tuple[str, ...], ...]
"""The original labels of each class, by name or number; empty: all classes as they are."""
Labels = tuple[tuple[int, ...], ...]
"""The same by position in the data set's class names; from their number on, labels that it does not hold."""
_OWN = ("npz:", "folder:", "csv:", "parquet:")
"""Data sets that may have more classes at the clients than at the server."""


def shaped(data_set: DataSet, groups: Groups, size: int, key: str = "data.classes") -> DataSet:
    """Return a data set with the classes in `groups` and images of side `size`; neutral () and 0.

    `key` is the setting that holds the groups.

    Raises
    ------
    BadInput
        If there is no such class, or a size is given for inputs that are no images.
    """
    if size and len(data_set.input_shape) != 3:
        raise BadInput(f"data.size: given {size}, but {data_set.name!r} has inputs of {data_set.input_shape}")
    names, labels = _chosen(data_set, groups, key)
    pools = [
        None if pool is None else _sized(_regrouped(pool, labels), size)
        for pool in (data_set.train, data_set.test)
    ]
    if pools[0] is None or not len(pools[0]):
        raise BadInput(f"{key}: {data_set.name!r} has no training example of these classes")
    lacking = [
        name for name, group in zip(names, labels, strict=False) if min(group) >= len(data_set.class_names)
    ]
    notes = [f"{key}: {data_set.name!r} holds no example of {some(lacking)}"] if lacking else []
    return DataSet(data_set.name, pools[0], pools[1], names, (*data_set.notes, *notes), data_set.columns)


def resolved(groups: Groups, names: tuple[str, ...]) -> Labels:
    """Return the labels of each class.

    >>> resolved((("dog",), ("0", "eel")), ("cat", "dog"))
    ((1,), (0, 2))
    """
    known = {} if any(map(is_integer, names)) else {str(label): label for label in range(len(names))}
    known |= {plain_label(name): label for label, name in enumerate(names)}
    further = (text for text in sum(groups, ()) if text not in known)
    known |= {text: label for label, text in enumerate(further, start=len(names))}
    return tuple(tuple(known[text] for text in group) for group in groups)


def _chosen(data_set: DataSet, groups: Groups, key: str) -> tuple[tuple[str, ...], Labels]:
    """Return the names and the original labels of the chosen classes.

    A data set of the user's own may lack some of them, which clients hold.
    """
    names = data_set.class_names
    if not groups:
        return names, ()
    labels = resolved(groups, names)
    called: dict[int, str] = {}
    for label, text in zip(sum(labels, ()), sum(groups, ()), strict=True):
        of_one_kind = is_integer(text) == all(map(is_integer, names))
        if label >= len(names) and not (data_set.name.startswith(_OWN) and of_one_kind):
            raise BadInput(f"{key}: given {text}, {data_set.name!r} has the classes {some(names)}")
        if label in called:
            raise BadInput(f"{key}: given {text}, which is {called[label]}; wanted each class once")
        called[label] = names[label] if label < len(names) else text
    return tuple("+".join(called[label] for label in group) for group in labels), labels


def _regrouped(pool: Pool, groups: Labels) -> Pool:
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
    if not size or pool.input_shape[1:] == (size, size):
        return pool
    x = resized(pool.x, size) if isinstance(pool.x, Tensor) else pool.x.sized(size)
    return Pool(x, pool.y, pool.kind, pool.device)


def resized(images: Tensor, size: int, batch_size: int = 4096) -> Tensor:
    """Return images scaled to a square, bilinear with anti-aliasing; bytes stay bytes.

    `images` has shape [n, channels, height, width], uint8 or float32; `size` is in pixels; at most
    `batch_size` images are floats at a time.
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


def disjoint(first: Groups, second: Groups, names: tuple[str, ...]) -> bool:
    """Say whether two selections of classes of one data set are both given and share no class."""
    both = resolved((*first, *second), names)
    used, others = both[: len(first)], both[len(first) :]
    return bool(first and second) and not set(sum(used, ())) & set(sum(others, ()))
