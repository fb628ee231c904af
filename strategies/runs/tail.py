"""Follows a file of JSON objects, one per line, that another process appends to."""

from pathlib import Path
from typing import Any

from strategies.runs.json_lines import parsed

_AT_ONCE = 16 << 20
"""Bytes that are read at a time: the file may be anybody's."""


class Tail:
    """Reads what was added to a file since the last look; the file need not exist yet.

    Parameters
    ----------
    path
        Of the file. If it is replaced or cut, as after an interruption, it is read anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file_id: tuple[int, int] | None = None
        self._offset = 0
        self._rest = b""

    def fresh(self) -> tuple[bool, list[dict[str, Any]]]:
        """Return whether the file begins anew, and the objects that are new; damaged lines are left out."""
        try:
            status = self.path.stat()
            file_id, size = (status.st_dev, status.st_ino), status.st_size
        except OSError:
            file_id, size = None, 0
        anew = self._offset > 0 and (file_id != self._file_id or size < self._offset)
        if anew or file_id != self._file_id:
            self._file_id, self._offset, self._rest = file_id, 0, b""
        return anew, self._read() if size > self._offset else []

    def _read(self) -> list[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read(_AT_ONCE)
        except OSError:
            return []
        self._offset += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [found for line in lines if (found := parsed(line)) is not None]
