"""The tree of runs: which come from which."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.forgettings.lineage import Relative, parent_of, relatives, words_of
from app.workflows.listing import list_runs
from strategies.runs.home import expand


@dataclass(frozen=True)
class Branch:
    """A run in the tree of runs.

    Parameters
    ----------
    depth
        How many runs stand above it.
    said
        How it comes from the one above; empty for a run that comes from no other.
    """

    depth: int
    row: Mapping[str, Any]
    said: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the run as plain data."""
        return {**self.row, "depth": self.depth, "comes-from": self.said}


def tree_of_runs(home: Path | str) -> list[Branch]:
    """Return the runs under a home, each followed by those that come from it.

    A run whose parent is not under the home stands alone, and says where the parent was.
    """
    place = expand(home)
    rows = {row["name"]: row for row in list_runs(place)}
    everybody = relatives([place])
    children: dict[str, list[Relative]] = {}
    roots: list[Relative] = []
    for each in everybody:
        parent, _ = parent_of(each, everybody)
        inside = parent is not None and parent.path.absolute().parent == place.absolute()
        (children.setdefault(parent.run_id, []) if parent is not None and inside else roots).append(each)
    listed = list(_branches(roots, 0, children, everybody, rows))
    named = {branch.row["name"] for branch in listed}
    return [*listed, *(Branch(0, row) for name, row in rows.items() if name not in named)]


def _branches(
    of: Sequence[Relative],
    depth: int,
    children: Mapping[str, Sequence[Relative]],
    everybody: Sequence[Relative],
    rows: Mapping[str, Mapping[str, Any]],
) -> Iterator[Branch]:
    for each in of:
        if each.folder.name in rows:
            yield Branch(depth, rows[each.folder.name], _said(each, everybody))
            yield from _branches(children.get(each.run_id, ()), depth + 1, children, everybody, rows)


def _said(each: Relative, everybody: Sequence[Relative]) -> str:
    if each.origin is None:
        return ""
    _, said = parent_of(each, everybody)
    origin = each.origin
    return f"{words_of(origin)} {origin.place} after round {origin.rounds}" + (f"; {said}" if said else "")
