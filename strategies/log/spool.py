"""Temporary storage on disk for one round's updates."""

from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

from strategies.log.pieces import Chunk, Pieces, whole
from strategies.log.sealing import sealed_pieces, unseal
from strategies.runs.files import not_written, read_all, write_all

_ALIGNMENT = 4096  # Of pages: no two entries share one


class Spool:
    """Byte strings by name, in an unnamed file that disappears with the process.

    The file is written over in every round, so its pages stay in the cache; fresh ones cost several times as
    much. It may be used from several threads.

    Parameters
    ----------
    key
        With which what lies on the disk is encrypted, 32 bytes of this process alone; None: it is not.
    """

    def __init__(self, folder: Path, key: bytes | None = None) -> None:
        self._folder = folder
        self._key = key
        self._file: FileIO | None = None
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._lock = Lock()

    def write(self, name: str, content: bytes | bytearray | Pieces) -> None:
        """Keep a byte string; LetheError if the disk is full or does not take it."""
        pieces: Iterable[Chunk] = content if isinstance(content, Pieces) else (content,)
        if self._key is not None:
            held = content if isinstance(content, Pieces) else whole(content)
            pieces = sealed_pieces(self._key, held, name.encode())
        with self._lock:
            try:
                if self._file is None:
                    self._file = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - until `close`
                self._file.seek(self._end)
                length = sum(write_all(self._file, piece) for piece in pieces)
            except OSError as error:
                raise not_written(self._folder / "spool", error) from error
            self._places[name] = (self._end, length)
            self._end += -(-length // _ALIGNMENT) * _ALIGNMENT

    def read(self, name: str) -> bytearray:
        """Return what was kept under a name; KeyError if nothing was."""
        start, length = self._places[name]
        content = bytearray(length)
        with self._lock:
            if self._file is None:
                raise RuntimeError("the spool holds entries but no file")
            self._file.seek(start)
            read_all(self._file, content)
        return content if self._key is None else unseal(self._key, content, name.encode())

    def pieces(self, name: str, size: int) -> Pieces:
        """Return what was kept under a name, in pieces of a size; KeyError if nothing was.

        RuntimeError if it is encrypted, and so can only be read as a whole.
        """
        if self._key is not None:
            raise RuntimeError("what is encrypted is read as a whole")
        start, length = self._places[name]
        return Pieces(length, lambda: self._parts(start, length, size))

    def _parts(self, start: int, length: int, size: int) -> Iterator[Chunk]:
        for offset in range(0, length, size):
            part = bytearray(min(size, length - offset))
            with self._lock:
                if self._file is None:
                    raise RuntimeError("the spool holds entries but no file")
                self._file.seek(start + offset)
                read_all(self._file, part)
            yield part

    def clear(self) -> None:
        """Forget everything; the file stays, to be written over."""
        self._places.clear()
        self._end = 0

    def close(self) -> None:
        """Give the disk its space back; a second close does nothing."""
        self.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
