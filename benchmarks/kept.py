"""Measurements that are kept piece by piece, so that a long benchmark can be made in several calls.

A piece is a JSON file in a folder. A call makes the pieces that are missing and reads the others; one that
was interrupted goes on where it stopped, and calls for single seeds add up to the whole.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from strategies.core.errors import BadInput
from strategies.runs.files import read_json, write_json
from strategies.runs.home import expand

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Kept:
    """A folder of pieces that were all measured with the same settings."""

    path: Path
    """The folder."""

    @staticmethod
    @contextmanager
    def under(folder: str, settings: Mapping[str, Any]) -> Iterator["Kept"]:
        """Use a folder, or one that is gone afterwards.

        Parameters
        ----------
        folder
            Where pieces are kept; made if it is missing. Empty: nowhere.
        settings
            What a piece depends on besides its name.

        Raises
        ------
        BadInput
            If the folder holds pieces that were measured with other settings.
        """
        if not folder:
            with TemporaryDirectory() as home:
                yield Kept(Path(home))
            return
        path = expand(folder)
        path.mkdir(parents=True, exist_ok=True)
        known = read_json(path / SETTINGS) if (path / SETTINGS).exists() else dict(settings)
        if differing := [name for name in settings if known.get(name) != settings[name]]:
            name = differing[0]
            raise BadInput(
                f"keep: {folder} holds measurements with {name}={known.get(name)!r}, got {settings[name]!r}; "
                "give another folder"
            )
        write_json(path / SETTINGS, dict(settings))
        yield Kept(path)

    def piece(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a piece by its name; it is made if it is not there."""
        path = self.path / f"{name}.json"
        if not path.exists():
            write_json(path, {"measured": make()})
        return read_json(path)["measured"]
