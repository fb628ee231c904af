"""The files of an update log: one safetensors file with one tensor, `delta`, per client and round.

    00003/7.safetensors      client 7's update of round 3, or under `sum` its running sum after round 3
    00003/7.enc              the same, encrypted with client 7's key

A file is written once, straight to its final name: it counts only when the index names it, so a process that
is killed leaves files that nobody reads. The hash is taken while the bytes are still in the cache. Writing
asks the kernel to start moving the file to the disk, and does not wait; the commit does (see
`strategies.log.update_log`).
"""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from strategies.core.errors import LetheError, RunCorrupt
from strategies.core.layout import is_large
from strategies.log.keys import LogKeys
from strategies.log.names import file_stem
from strategies.log.pieces import Pieces, whole
from strategies.log.sealing import sealed_pieces, unseal
from strategies.runs.files import (
    Chunk,
    Content,
    canonical_json,
    contents,
    erase,
    flush_around,
    not_written,
    read_all,
    sync_folder,
    write_all,
)
from strategies.runs.sealed import Place, header_of, sha256_of

if TYPE_CHECKING:  # a log is checked without torch
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    FloatVector = npt.NDArray[np.float32]

_DELTA = "delta"
PIECE = 1 << 18
"""Entries of a vector that are read or written at a time, a megabyte."""
_DAMAGED = "damaged, its bytes do not match the SHA-256 in the log's index"
_SMALL = 1 << 17
"""Bytes up to which it does not pay to ask the kernel to begin with a single file."""
_MANY = 32
"""Files from which on the disk is asked for all at once before it is asked for each."""
_PLAIN, _ENCRYPTED = ".safetensors", ".enc"
_ROUND_FOLDER = re.compile(r"\d{5,}")


class Blobs:
    """The files below one log folder.

    Parameters
    ----------
    size
        Number of entries of an update.
    keys
        With which the files are encrypted; None: they are not.
    """

    def __init__(self, path: Path, size: int, keys: LogKeys | None = None) -> None:
        self.path = path
        self._folder = f"{path}{os.sep}"
        self.keys = keys
        self.size = size
        self._suffix = _PLAIN if keys is None else _ENCRYPTED

    def file(self, server_round: int, client_id: str) -> Path:
        """Return where the blob of a round and client lies."""
        return Path(self._name(server_round, client_id))

    def _name(self, server_round: int, client_id: str) -> str:
        """Return the same as text: to make a path of each takes longer than to open a file."""
        return f"{self._folder}{server_round:05d}{os.sep}{file_stem(client_id)}{self._suffix}"

    def label(self, server_round: int, client_id: str) -> str:
        """Return the name by which a message calls a blob, from the run's folder on."""
        return str(self.file(server_round, client_id).relative_to(self.path.parent))

    def write(self, server_round: int, client_id: str, content: bytearray | Pieces) -> str:
        """Write a packed vector, encrypted if the log is, and return the SHA-256 of its file.

        Raises
        ------
        LetheError
            If the disk is full or does not take the file.
        """
        path, pieces = self._name(server_round, client_id), content
        written: Iterable[Chunk] = content if isinstance(content, Pieces) else (content,)
        if self.keys is not None:
            key, context = self.keys.read_or_make(client_id), _context(self.keys, server_round, client_id)
            pieces = content if isinstance(content, Pieces) else whole(content)
            written = sealed_pieces(key, pieces, context)
        digest = hashlib.sha256()
        try:
            with _created(path) as file:
                for piece in written:
                    digest.update(piece)
                    write_all(file, piece)
                if len(content) > _SMALL:
                    _advise_unneeded(file.fileno())
        except OSError as error:
            raise not_written(Path(path), error) from error
        return digest.hexdigest()

    def read(self, server_round: int, client_id: str, sha256: str | None) -> "Tensor":
        """Return the vector in a file as it was stored, shape [size].

        Parameters
        ----------
        sha256
            What the file must hash to; None: not checked.

        Raises
        ------
        RunCorrupt
            If the file, or the key that it needs, is missing or damaged.
        """
        if self.keys is None and is_large(self.size):
            return self._read_large(self.file(server_round, client_id), sha256)
        content = self._checked(server_round, client_id, sha256)
        return unpack(content if isinstance(content, bytearray) else bytearray(content))

    def read_part(self, server_round: int, client_id: str, part: slice) -> "Tensor":
        """Return entries of the vector in a file as they were stored, shape [part.stop - part.start].

        Nothing is compared with a hash, which is that of the whole: see `check`. Files must not be encrypted.

        Raises
        ------
        RunCorrupt
            If the file is missing, or cut off.
        """
        import torch

        from strategies.runs.tensor_file import torch_type

        path = self.file(server_round, client_id)
        try:
            place = self._place_in(path, contents(path))
            values = torch.empty(part.stop - part.start, dtype=torch_type(place.dtype))
            into = values.view(torch.uint8).numpy().data
            with FileIO(path) as file:
                file.seek(place.start + part.start * values.element_size())
                complete = read_all(file, into) == len(into)
        except (ValueError, KeyError) as error:
            raise RunCorrupt(f"{path}: {_DAMAGED}") from error
        except OSError as error:
            raise RunCorrupt(f"{path}: cannot be read ({error.strerror})") from error
        if not complete:
            raise RunCorrupt(f"{path}: {_DAMAGED}")
        return values

    def _read_large(self, path: Path, sha256: str | None) -> "Tensor":
        """Return the vector in a file, which is read straight into its place."""
        import torch

        from strategies.core.shared_memory import new_vector
        from strategies.runs.tensor_file import torch_type

        try:
            place = self._place_in(path, contents(path))
        except (ValueError, KeyError) as error:
            raise RunCorrupt(f"{path}: {_DAMAGED}") from error
        dtype = torch_type(place.dtype)
        plain = dtype == torch.float32
        vector = new_vector(self.size) if plain else torch.empty(self.size, dtype=dtype)
        into = vector.view(torch.uint8).numpy().data
        try:
            with path.open("rb", buffering=0) as file:
                digest = hashlib.sha256(file.read(place.start))
                complete = read_all(file, into) == len(into)
                digest.update(into)
        except OSError as error:
            raise RunCorrupt(f"{path}: cannot be read ({error.strerror})") from error
        if not complete or (sha256 is not None and digest.hexdigest() != sha256):
            raise RunCorrupt(f"{path}: {_DAMAGED}")
        return vector

    def check(self, server_round: int, client_id: str, sha256: str | None) -> None:
        """Check that a file is as it was written; without the client's key only its hash is checked.

        Raises
        ------
        RunCorrupt
            If it is missing or damaged.
        """
        if self.keys is None or self.keys.has(client_id):
            self._checked(server_round, client_id, sha256)
        else:
            self._content(server_round, client_id, sha256)

    def _checked(self, server_round: int, client_id: str, sha256: str | None) -> Content:
        """Return the bytes of the file of tensors, which holds a vector of the right size."""
        path, content = self.file(server_round, client_id), self._content(server_round, client_id, sha256)
        if self.keys is not None:
            content = self._opened(self.keys, server_round, client_id, content)
        self._place_in(path, content)
        return content

    def _place_in(self, path: Path, content: Content) -> Place:
        """Return where the vector lies in a file of tensors, which is of the right size."""
        place = header_of(content).places[_DELTA]
        if place.shape != (self.size,):
            raise RunCorrupt(f"{path}: holds shape {place.shape}, expected ({self.size},)")
        return place

    def _content(self, server_round: int, client_id: str, sha256: str | None) -> Content:
        path = self.file(server_round, client_id)
        content = contents(path)
        if sha256 is not None and sha256_of(path, content) != sha256:
            raise RunCorrupt(f"{path}: {_DAMAGED}")
        return content

    def _opened(self, keys: LogKeys, server_round: int, client_id: str, content: Content) -> bytearray:
        try:
            return unseal(keys.read(client_id), content, _context(keys, server_round, client_id))
        except ValueError as error:
            path = self.file(server_round, client_id)
            raise RunCorrupt(
                f"{path}: cannot be decrypted, {error}: the file or its key was exchanged"
            ) from error

    def add_to(self, values: "FloatVector", server_round: int, client_id: str, sha256: str | None) -> None:
        """Add the vector in a float32 file to `values`, shape [size], in place and piece by piece.

        Raises
        ------
        RunCorrupt
            If the file is missing or damaged; see `read`.
        """
        if self.keys is not None:  # Authenticated anyway
            values += self.read(server_round, client_id, sha256).numpy()
            return
        for start, part in self.parts(server_round, client_id, sha256):
            values[start : start + len(part)] += part

    def parts(
        self, server_round: int, client_id: str, sha256: str | None
    ) -> "Iterator[tuple[int, FloatVector]]":
        """Yield where each piece of the vector in a float32 file begins, and the piece, in order.

        Raises
        ------
        RunCorrupt
            If the file is missing or damaged; see `read`.
        """
        import numpy as np

        path = self._name(server_round, client_id)
        if sha256 is not None:
            self._checked(server_round, client_id, sha256)
        try:
            with FileIO(path) as file:
                file.seek(8 + int.from_bytes(file.read(8), "little"))
                for start in range(0, self.size, PIECE):
                    count = min(PIECE, self.size - start)
                    part = np.fromfile(file, np.float32, count)
                    if len(part) < count:
                        raise ValueError("it is cut off")
                    yield start, part
        except (OSError, ValueError) as error:
            raise RunCorrupt(f"{path}: cannot be read ({error})") from error

    def sync(self, server_round: int, client_ids: list[str], *, keep_cached: bool) -> None:
        """Wait until the blobs of a round are on the disk, names included.

        Parameters
        ----------
        keep_cached
            Whether they will be read soon; otherwise they leave the cache to the training data.

        Raises
        ------
        LetheError
            If the disk is full or does not take a file.
        """
        if not (keep_cached and len(client_ids) > _MANY and flush_around(self.path)):
            for client_id in client_ids:
                path = self.file(server_round, client_id)
                try:
                    _sync_file(path, keep_cached)
                except OSError as error:
                    raise not_written(path, error) from error
        if client_ids:
            sync_folder(self.file(server_round, "").parent)
            sync_folder(self.path)

    def remove(self, blobs: Iterable[tuple[int, str]]) -> None:
        """Delete the blobs of these rounds and clients, and the rounds' folders where nothing is left.

        Raises
        ------
        LetheError
            If the disk does not let go of one.
        """
        listed = list(blobs)
        try:
            for server_round, client_id in listed:
                self.file(server_round, client_id).unlink(missing_ok=True)
            for folder in {self.file(number, "").parent for number in {number for number, _ in listed}}:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            raise LetheError(
                f"{self.path}: files that are no longer needed cannot be deleted ({error})"
            ) from error

    def erase(self, client_id: str) -> None:
        """Destroy a client's key, if there is one; then overwrite and delete its blobs, of whatever round."""
        if self.keys is not None:
            self.keys.destroy(client_id)
        for folder in self._folders():
            erase(folder / (file_stem(client_id) + self._suffix))
            if not any(folder.iterdir()):
                folder.rmdir()

    def remove_round(self, server_round: int) -> None:
        """Delete the blobs of a round."""
        path = self.file(server_round, "").parent
        if path.exists():
            shutil.rmtree(path)

    def keep_only(self, wanted: set[Path]) -> None:
        """Delete every blob that is not wanted, such as those of a killed writer; keep other files."""
        for path in list(self._files()):
            if path not in wanted:
                path.unlink()
        for folder in self._folders():
            if not any(folder.iterdir()):
                folder.rmdir()

    def _folders(self) -> list[Path]:
        candidates = (p for p in self.path.iterdir() if p.is_dir())
        return [p for p in candidates if _ROUND_FOLDER.fullmatch(p.name)]

    def _files(self) -> Iterator[Path]:
        for folder in self._folders():
            yield from folder.glob("*" + self._suffix)


def pack(client_id: str, delta: "Tensor", dtype: str) -> bytearray:
    """Return the content of an update's file in the given precision, a copy of the numbers.

    Raises
    ------
    LetheError
        If an entry is beyond the range of float16.
    """
    import torch

    from strategies.runs.tensor_file import encode_one

    values = delta.detach().to("cpu", getattr(torch, dtype))
    if dtype == "float16":
        _check_finite(values)
    return bytearray().join(encode_one(_DELTA, values, {"client-id": client_id}))


def pack_pieces(client_id: str, delta: "Tensor", dtype: str) -> Pieces:
    """Return what `pack` returns in pieces, of which only one is there at a time.

    The vector must not be changed meanwhile.
    """
    import torch

    from strategies.runs.tensor_file import head_of_one

    values, kind = delta.detach(), getattr(torch, dtype)
    if dtype == "float16":
        _check_finite(torch.stack(torch.aminmax(values)).to(kind))
    head = head_of_one(_DELTA, values.shape, kind, {"client-id": client_id})

    def make() -> Iterator[Chunk]:
        yield head
        for part in torch.split(values, PIECE):
            yield part.to("cpu", kind).view(torch.uint8).numpy().data

    return Pieces(len(head) + len(values) * kind.itemsize, make)


def _check_finite(values: "Tensor") -> None:
    if len(values) and not math.isfinite(float(values.abs().max())):
        raise LetheError("log.dtype: float16 cannot hold an entry beyond ±65504; use bfloat16 or float32")


def values_in(content: bytearray, size: int) -> "FloatVector":
    """Return the vector in what `pack` has made in float32, as a view of it, shape [size]."""
    import numpy as np

    return np.frombuffer(content, np.float32, offset=len(content) - 4 * size) if size else np.empty(0, "f4")


def unpack(content: bytearray) -> "Tensor":
    """Return the vector in a file's content, as a view of it."""
    from strategies.runs.tensor_file import decode

    return decode(content).tensors[_DELTA]


def _context(keys: LogKeys, server_round: int, client_id: str) -> bytes:
    return canonical_json([keys.log_id, server_round, client_id])


def _created(path: str) -> FileIO:
    """Open a new file to be written without a buffer; its folder is made where it is missing."""
    try:
        return FileIO(path, "w")
    except FileNotFoundError:
        Path(path).parent.mkdir(exist_ok=True)
        return FileIO(path, "w")


def _sync_file(path: Path, keep_cached: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if not keep_cached:
            _advise_unneeded(descriptor)
    finally:
        os.close(descriptor)


def _advise_unneeded(descriptor: int) -> None:
    # Linux starts to write out what is not on the disk yet, and drops from the cache what is.
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
