"""What clients keep between messages, in files beside a run's checkpoint: only what has changed is written.

    states/00000012.safetensors      the states that changed before the twelfth such file was written

The checkpoint says which clients' states lie in which file, with the seal of each, so that it and the files
are whole together: new files are written before the checkpoint that names them, and files that none names any
more are deleted after it. A process killed in between leaves files that nobody reads; the next checkpoint
deletes them. When more than half of what lies there is outdated, all states are written to one new file.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from strategies.core.errors import RunCorrupt
from strategies.runs.files import TEMPORARY, erase
from strategies.runs.tensor_file import read_sealed, write_sealed_bytes

FOLDER = "states"
"""Beside the checkpoint."""

Key = int | str
"""A node id, or a client-id."""
Table = list[list[Any]]
"""Of each file that holds states that count: its number, its seal, and whose they are."""

_SUFFIX = ".safetensors"
_WASTE = 2
"""How many times the bytes of the states that count may lie on the disk."""


@dataclass
class _Segment:
    """A file: its seal, its bytes, and whose states in it count."""

    seal: str
    size: int
    keys: set[Key] = field(default_factory=set)


@final
class StateFiles:
    """The files of states of one run, written by this process.

    The first call writes all states; what another process has written is not built upon.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments: dict[int, _Segment] = {}
        self._versions: dict[Key, tuple[int | None, int]] = {}

    def write(self, states: Mapping[Key, bytes], versions: Mapping[Key, int]) -> Table:
        """Write the states that have changed since the last call; return where all of them lie.

        Parameters
        ----------
        versions
            A number that differs if a client's state has changed; missing: it has.

        Raises
        ------
        LetheError
            If the disk does not take the file; what was there is untouched.
        """
        changed = [k for k in states if k not in versions or self._known(k) != versions[k]]
        if self._wasteful(states, changed):
            changed = list(states)
        if changed:
            number = self._next_number()
            seal = self._write(number, {key: states[key] for key in changed})
            self._forget(changed)
            self._segments[number] = _Segment(seal, sum(len(states[k]) for k in changed), set(changed))
            self._versions |= {key: (versions.get(key), number) for key in changed}
        self._forget([key for key in self._versions if key not in states])
        return [[n, s.seal, sorted(s.keys, key=str)] for n, s in self._segments.items()]

    def _known(self, key: Key) -> int | None:
        return self._versions[key][0] if key in self._versions else None

    def _wasteful(self, states: Mapping[Key, bytes], changed: Collection[Key]) -> bool:
        """Say whether too much of what would lie on the disk would be outdated."""
        gone = set(changed)
        held = sum(s.size for s in self._segments.values() if not s.keys <= gone)
        new = sum(len(states[key]) for key in changed)
        return held + new > _WASTE * sum(map(len, states.values()))

    def _forget(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if (known := self._versions.pop(key, None)) is not None:
                segment = self._segments[known[1]]
                segment.keys.discard(key)
                if not segment.keys:
                    del self._segments[known[1]]

    def _next_number(self) -> int:
        return max([0, *self._segments, *numbers_in(self._folder)]) + 1

    def _write(self, number: int, states: Mapping[Key, bytes]) -> str:
        self._folder.mkdir(exist_ok=True)
        described = {"keys": list(states), "sizes": [len(state) for state in states.values()]}
        return write_sealed_bytes(
            path_of(self._folder, number), list(states.values()), {"states": json.dumps(described)}
        )


def path_of(folder: Path, number: int) -> Path:
    """Return where the file with a number lies."""
    return folder / f"{number:08d}{_SUFFIX}"


def numbers_in(folder: Path) -> list[int]:
    """Return the numbers of the files that are there."""
    names = (path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
    return [int(name) for name in names if name.isdecimal()]


def delete_others(folder: Path, tables: Iterable[Table]) -> None:
    """Delete the files that none of the tables names, and the folder if nothing is left in it."""
    named = {number for table in tables for number, *_ in table}
    for number in numbers_in(folder):
        if number not in named:
            path_of(folder, number).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def erase_all(folder: Path) -> None:
    """Overwrite and delete all files, half written ones included; LetheError if one cannot be overwritten."""
    if not folder.is_dir():
        return
    for path in (*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"*{_SUFFIX}{TEMPORARY}")):
        erase(path)
    if not any(folder.iterdir()):
        folder.rmdir()


def read_states(folder: Path, table: Table) -> dict[Key, bytes]:
    """Return the states that a table names.

    Raises
    ------
    RunCorrupt
        If a file is missing, damaged, or not the one that the table means.
    """
    found: dict[Key, bytes] = {}
    for number, seal, keys in table:
        path = path_of(folder, number)
        held = _read(path, seal)
        if missing := [key for key in keys if key not in held]:
            raise RunCorrupt(f"{path}: holds no state of client {missing[0]}; restore it from a copy")
        found |= {key: held[key] for key in keys}
    return found


def _read(path: Path, seal: str) -> dict[Key, bytes]:
    file = read_sealed(path)
    if file.seal != seal:
        raise RunCorrupt(f"{path}: not the file that the checkpoint names; restore both from one copy")
    described = json.loads(file.metadata["states"])
    return dict(
        zip(
            described["keys"],
            split_bytes(file.tensors["bytes"].numpy().data, described["sizes"]),
            strict=True,
        )
    )


def split_bytes(content: memoryview, sizes: Sequence[int]) -> list[bytes]:
    """Return consecutive pieces of these sizes."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(bytes(content[start : start + size]))
        start += size
    return pieces
