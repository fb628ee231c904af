"""Which keys of the section ``data`` each source of data reads.

A key that no source of a run reads would have no effect. It is refused if it is not at its default; what only
says "none of it", such as ``data.public = 0``, is refused nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from app.config.settings import DataSettings
from app.data.clients import clients_in
from app.data.own import OWN_KINDS, kind_of
from app.data.sources import kind_of_name
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar


def _keys(names: str) -> frozenset[str]:
    return frozenset(f"data.{name}" for name in names.split())


@final
@dataclass(frozen=True)
class Reader:
    """Something that reads keys: `words` call it in messages."""

    words: str
    keys: frozenset[str]


_SPLIT = "train-limit test-limit test-share public public-classes public-labels public-limit"
_SPREAD = "partition alpha shards-per-client classes-per-client"
_TABLE = "target targets columns classes"
READERS: Mapping[str, Reader] = {
    "digits": Reader("digits", _keys("size classes")),
    "synthetic": Reader("synthetic", _keys("classes")),
    "torchvision": Reader("torchvision's data sets", _keys("root download size classes")),
    "npz": Reader("npz files", _keys("targets size classes")),
    "csv": Reader("csv files", _keys(_TABLE)),
    "parquet": Reader("parquet files", _keys(_TABLE)),
    "folder": Reader("folders of images", _keys("targets size classes lazy")),
    "project": Reader("a project's frames and images", _keys("columns size")),
    "split": Reader("data of the server's or given together", _keys(_SPLIT)),
    "spread": Reader("data that are spread over the clients", _keys(_SPREAD)),
    "kept": Reader("built-in data that are spread over the clients", _keys("per-class")),
}
"""What reads keys: sources, and what is done with data that lie in one place."""
_CHECKED = tuple(sorted(frozenset().union(*(reader.keys for reader in READERS.values()))))
_NEUTRAL: Mapping[str, Scalar] = {"data.public": "0", "data.test-share": 0.0}
_TOGETHER = {"split", "spread", "kept"}


@final
@dataclass(frozen=True)
class InUse:
    """What a run's data come from.

    Parameters
    ----------
    what
        Its words in messages.
    readers
        Names in `READERS`.
    without
        Keys in whose place something else stands, by its words.
    """

    what: str
    readers: frozenset[str]
    without: Mapping[str, str]


def in_use(data: DataSettings) -> InUse:
    """Return what the run config takes its data from.

    Without a number of clients, these are nodes, whose own files may be of any kind.
    """
    named = {kind_of_name(data.name)}
    if data.public_name is not None and not data.only_clients_have_data:
        named.add(kind_of_name(data.public_name, "data.public"))
    what = f"data.name = {shown(data.name)}"
    if not data.clients:
        return InUse(what, frozenset({*named, *OWN_KINDS, *_TOGETHER}), {})
    if not data.folder_of_clients:
        return InUse(what, frozenset({*named, *_TOGETHER}), {})
    files = clients_in(Path(data.folder_of_clients).expanduser()).values()
    kinds, what = {kind_of(path) for path in files}, f"data.folder-of-clients = {data.folder_of_clients}"
    if data.only_clients_have_data:
        all_files = "the classes of all files together"
        return InUse(what, frozenset(kinds), {"data.classes": all_files})
    return InUse(f"{what} beside data.name", frozenset({*kinds, *named, "split"}), {})


def check_keys(flat: Mapping[str, Scalar], defaults: Mapping[str, Scalar], used: InUse) -> None:
    """Refuse a key that nothing in use reads, if it was set to something.

    Raises
    ------
    BadInput
        Naming the key, what was given, and what reads it.
    """
    read = frozenset().union(*(READERS[name].keys for name in used.readers))
    for key in _CHECKED:
        if flat[key] in (defaults[key], _NEUTRAL.get(key, defaults[key])):
            continue
        if key in used.without:
            raise BadInput(
                f"{key}: given {shown(flat[key])}, but {used.without[key]} holds in its place ({used.what})"
            )
        if key not in read:
            by = ", ".join(reader.words for reader in READERS.values() if key in reader.keys)
            raise BadInput(
                f"{key}: given {shown(flat[key])}, which {used.what} does not read; it is read by {by}"
            )
