"""A folder with a file or a folder of images for each client, named by its client-id."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from app.data.columns import Columns, target_of
from app.data.folder import class_folders, image_shape
from app.data.images import is_litter
from app.data.labels import joint_classes, notes_on, some, sorted_names, texts_of
from app.data.npz import read_npz
from app.data.own import kind_of
from app.data.reading import Reading
from app.data.tables import read_frame
from strategies.core import wire
from strategies.core.errors import BadInput

_SUFFIXES = (".npz", ".csv", ".parquet", ".pq")


@lru_cache(maxsize=4)
def clients_in(folder: Path) -> dict[str, Path]:
    """Return the file or folder of each client, by its client-id.

    Raises
    ------
    BadInput
        If there is no such folder, it holds none, a name is no client-id, or two have the same.
    """
    if not folder.is_dir():
        raise BadInput(f"data.folder-of-clients: given {folder}, no such folder on this machine")
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if is_litter(entry.name) or not (entry.is_dir() or entry.suffix.lower() in _SUFFIXES):
            continue
        client_id = entry.name if entry.is_dir() else entry.stem
        if fault := wire.client_id_fault(client_id):
            raise BadInput(f"data.folder-of-clients: {entry}: its name, the client-id, {fault}; rename it")
        if client_id in found:
            raise BadInput(
                f"data.folder-of-clients: {found[client_id]} and {entry} are both of client {client_id!r}"
            )
        found[client_id] = entry
    if not found:
        wanted = "a folder, or an npz, csv or parquet file, for each client"
        raise BadInput(f"data.folder-of-clients: {folder} holds no client's data; wanted {wanted}")
    return {client_id: found[client_id] for client_id in sorted(found, key=wire.client_sort_key)}


def path_of_client(folder: Path, client_id: str) -> Path:
    """Return the file or folder of a client.

    Raises
    ------
    BadInput
        If there is none.
    """
    known = clients_in(folder)
    if client_id not in known:
        raise BadInput(
            f"data.folder-of-clients: {folder} holds no data of client {client_id!r}; it holds those of "
            f"{some(list(known))}"
        )
    return known[client_id]


@dataclass(frozen=True)
class Survey:
    """What all clients' files together are like; their examples are not kept.

    `columns` is the schema of tables; `notes` tell how the labels were read.
    """

    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    columns: Columns | None = None
    notes: tuple[str, ...] = ()


@lru_cache(maxsize=2)
def survey(folder: Path, how: Reading) -> Survey:
    """Return what all clients' files are like together: their classes, shape and columns.

    Raises
    ------
    BadInput
        If they are of different kinds, or one is malformed.
    """
    paths = list(clients_in(folder).values())
    kinds = {"table" if (kind := kind_of(path)) in ("csv", "parquet") else kind: path for path in paths}
    if len(kinds) > 1:
        (first, one), (second, other) = list(kinds.items())[:2]
        raise BadInput(f"data.folder-of-clients: {one} is a {first} and {other} a {second}; wanted one kind")
    surveyed = {"folder": _images, "npz": _arrays, "table": _tables}[next(iter(kinds))]
    return surveyed(folder, paths, how)


def _images(folder: Path, paths: Sequence[Path], how: Reading) -> Survey:
    names: set[str] = set()
    for path in paths:
        names |= class_folders(path)
    return Survey(sorted_names(names), image_shape(paths, how.size))


def _arrays(folder: Path, paths: Sequence[Path], how: Reading) -> Survey:
    sets = [read_npz(path, targets=how.targets) for path in paths]
    for path, found in zip(paths, sets, strict=True):
        if found.input_shape != sets[0].input_shape:
            raise BadInput(
                f"data.folder-of-clients: inputs have shape {sets[0].input_shape} in {paths[0]} and "
                f"{found.input_shape} in {path}; wanted one shape"
            )
    shape = sets[0].input_shape
    if how.size and len(shape) == 3:
        shape = (shape[0], how.size, how.size)
    return Survey(sorted_names({name for found in sets for name in found.class_names}), shape)


def _tables(folder: Path, paths: Sequence[Path], how: Reading) -> Survey:
    import pandas as pd

    frames = [read_frame(path) for path in paths]
    targets = [target_of(frame, how.target, str(path)) for frame, path in zip(frames, paths, strict=True)]
    columns = (
        Columns.of(pd.concat(frames), how.target, str(folder))
        if how.schema is None
        else Columns.read(how.schema)
    )
    names: tuple[str, ...] = ()
    notes: list[str] = []
    if how.targets == "classes":
        texts = [texts_of(_texts(target.to_numpy())) for target in targets]
        wrong = next(((path, t) for path, t in zip(paths, texts, strict=True) if isinstance(t, str)), None)
        if wrong is not None:
            raise BadInput(f"{wrong[0]}: the target {how.target!r}: {wrong[1]}")
        found = [t for t in texts if not isinstance(t, str)]
        classes, names = joint_classes(found, (), str(folder), f"the target {how.target!r}")
        notes = notes_on(str(folder), names, np.concatenate([c.numpy() for c in classes]).tolist())
    return Survey(names, (len(columns.names),), columns, tuple(notes))


def _texts(values: np.ndarray) -> np.ndarray:
    return values.astype(str) if values.dtype.kind == "O" else values
