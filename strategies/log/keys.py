"""The keys of an encrypted log: one per client, in files of their own outside of the log's folder.

    <folder>/<log>/7.key      client 7's key: 32 random bytes, then the SHA-256 of them, mode 600

What can be destroyed is what lies in one place: a log is copied and backed up, its keys need not be.
Destroying a client's key makes every copy of its updates unreadable at once, wherever it lies (Boneh and
Lipton, "A Revocable Backup System", USENIX Security 1996), as long as no copy of the key was made.
"""

import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import final

from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.log.names import file_stem
from strategies.runs.files import erase, not_written, read_bytes, sync_folder

KEYS = "keys"
"""In a log's description: the folder of its keys; absent: it is not encrypted."""
_KEY_BYTES = 32
_FOLDER_MODE, _FILE_MODE, _OTHERS = 0o700, 0o600, 0o077


@final
class LogKeys:
    """The keys of one log; reading needs none of the others.

    Parameters
    ----------
    folder
        Of this log's keys alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, bytes] = {}

    @staticmethod
    def create(home: Path) -> "LogKeys":
        """Make the folder of a new log's keys, with a name that no other log has, below `home`.

        Raises
        ------
        LetheError
            If the disk does not take it.
        """
        folder = home.expanduser().absolute() / secrets.token_hex(16)
        try:
            folder.mkdir(mode=_FOLDER_MODE, parents=True)
            sync_folder(folder.parent)
        except OSError as error:
            raise not_written(folder, error) from error
        return LogKeys(folder)

    @property
    def log_id(self) -> str:
        """The log's name, which is bound into everything that its keys encrypt."""
        return self.folder.name

    def has(self, client_id: str) -> bool:
        """Say whether a client's key is here."""
        return os.path.exists(self._file(client_id))  # noqa: PTH110 # False where no file can have the name

    def check_here(self) -> None:
        """Make sure that this is where the log's keys lie.

        Raises
        ------
        BadInput
            If not: destroying a key that lies elsewhere would be a claim, not a deed.
        """
        if not os.path.isdir(self.folder):  # noqa: PTH112 # As above
            raise BadInput(f"{self.folder}: the log's keys are not here; purge where they are")

    def read(self, client_id: str) -> bytes:
        """Return a client's key.

        Raises
        ------
        RunCorrupt
            If it is missing or damaged.
        BadInput
            If others may read its file.
        """
        if client_id not in self._known:
            self._known[client_id] = self._read(self._file(client_id))
        return self._known[client_id]

    def read_or_make(self, client_id: str) -> bytes:
        """Return a client's key, made on first use and forced to the disk before anything is encrypted."""
        if client_id not in self._known and not self.has(client_id):
            self._make(self._file(client_id))
        return self.read(client_id)

    def destroy(self, client_id: str) -> None:
        """Overwrite and delete a client's key; `strategies.runs.files.erase` says what that does not promise.

        Raises
        ------
        LetheError
            If it cannot be overwritten.
        """
        self._known.pop(client_id, None)
        erase(self._file(client_id))

    def destroy_all(self) -> None:
        """Overwrite and delete all keys, and the folder; LetheError if one cannot be overwritten."""
        self._known.clear()
        try:
            for path in sorted(self.folder.glob("*.key*")):
                erase(path)
            self.folder.rmdir()
        except OSError as error:
            raise not_written(self.folder, error) from error

    def _file(self, client_id: str) -> Path:
        return self.folder / (file_stem(client_id) + ".key")

    def _read(self, path: Path) -> bytes:
        content = bytes(read_bytes(path))
        if os.name == "posix" and (mode := stat.S_IMODE(path.stat().st_mode)) & _OTHERS:
            raise BadInput(f"{path}: others may read the key (mode {mode:o}); chmod 600")
        key, digest = content[:_KEY_BYTES], content[_KEY_BYTES:]
        if hashlib.sha256(key).digest() != digest:
            raise RunCorrupt(f"{path}: damaged, the key does not match its SHA-256; restore it from a copy")
        return key

    def _make(self, path: Path) -> None:
        key = secrets.token_bytes(_KEY_BYTES)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key + hashlib.sha256(key).digest())
                file.flush()
                os.fsync(descriptor)
            sync_folder(path.parent)
        except FileExistsError as error:
            raise LetheError(f"{path}: another process makes the same key") from error
        except OSError as error:
            raise not_written(path, error) from error
