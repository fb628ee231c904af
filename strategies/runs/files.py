"""Files that are either the old ones or the new ones, never half of each.

Everything is written to a temporary file beside the target, forced to the disk, and renamed over it; the
folder is forced as well, so that the rename survives a power loss. A process killed in between leaves the
temporary file, which the next write of the same target replaces.
"""

import codecs
import ctypes
import errno
import fcntl
import json
import math
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from strategies.core.errors import LetheError, RunCorrupt

Chunk = bytes | bytearray | memoryview

TEMPORARY = ".tmp"
"""What is added to the name of a file while it is being written."""
LOCK = ".lock"
"""What is added to the name of a file for the one that is locked in its place."""
_ERASED_AT_ONCE = 1 << 20
_PIECE = 1 << 20
_MAPPED = 1 << 24
"""Bytes from which on a file is mapped in place of read."""
_FLUSHED_AT_ONCE = {"ext3", "ext4", "xfs", "f2fs", "tmpfs"}
_EVERYBODY = 0o666


def write_chunks(path: Path, chunks: Iterable[Chunk], mode: int = _EVERYBODY) -> None:
    """Replace a file by the given bytes, all of them or none.

    Parameters
    ----------
    mode
        Who may read and write it, less what the process's umask takes away.

    Raises
    ------
    LetheError
        If the disk is full or does not take the file; the old file is untouched.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        if mode != _EVERYBODY:
            temporary.unlink(missing_ok=True)  # One that was left behind would keep its own mode
        with open(temporary, "wb", opener=partial(os.open, mode=mode)) as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise not_written(path, error) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file against other processes that lock it; wait for one that has it.

    The lock is on a file beside it, as every write replaces the file itself. A killed holder loses it.

    Raises
    ------
    LetheError
        If it cannot be locked.
    """
    beside = path.with_name(path.name + LOCK)
    try:
        file = beside.open("ab")
    except OSError as error:
        raise not_written(beside, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise LetheError(f"{path}: cannot be locked: {error}") from error
        yield


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8), all of it or nothing; see `write_chunks`."""
    write_chunks(path, [text.encode()])


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file, all of it or nothing; see `write_chunks` and `to_json`."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_bytes(path: Path) -> bytearray:
    """Return a file's content; RunCorrupt if it is missing or cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            content = bytearray(os.fstat(file.fileno()).st_size)
            length = read_all(file, content)
    except FileNotFoundError:
        raise RunCorrupt(f"{path}: missing") from None
    except OSError as error:
        raise RunCorrupt(f"{path}: cannot be read ({error.strerror})") from error
    return content[:length] if length < len(content) else content


Content = bytearray | mmap.mmap
"""Of a file that was read, or of a large one that is mapped: what is changed in it stays in this process."""


def contents(path: Path) -> Content:
    """Return a file's content; a large file is mapped, and so in memory as far as it is looked at.

    It must not be written over in place while the content is there; that it is replaced does no harm.

    Raises
    ------
    RunCorrupt
        If it is missing or cannot be read.
    """
    try:
        if path.stat().st_size < _MAPPED:
            return read_bytes(path)
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise RunCorrupt(f"{path}: missing") from None
    except OSError as error:
        raise RunCorrupt(f"{path}: cannot be read ({error.strerror})") from error


def pieces_of(path: Path) -> Iterator[memoryview]:
    """Yield a file's content by megabytes, each valid until the next; raises as `read_bytes`."""
    buffer = memoryview(bytearray(_PIECE))
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                yield buffer[:count]
    except FileNotFoundError:
        raise RunCorrupt(f"{path}: missing") from None
    except OSError as error:
        raise RunCorrupt(f"{path}: cannot be read ({error.strerror})") from error


def read_text(path: Path) -> str:
    """Return a text file's content; RunCorrupt if it is missing, cannot be read or is not UTF-8."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError:
        raise RunCorrupt(f"{path}: damaged, not text") from None


def text_of(content: bytes) -> str:
    r"""Decode text from an editor: UTF-8, or UTF-16 with a byte order mark; the mark is removed.

    Raises
    ------
    UnicodeDecodeError
        If it is neither.

    Examples
    --------
    >>> text_of(b"\xef\xbb\xbfrun.seed = 1"), text_of("é".encode("utf-16"))
    ('run.seed = 1', 'é')
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; RunCorrupt if it is missing or holds something else."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise RunCorrupt(f"{path}: damaged, not JSON (line {error.lineno})") from None
    except (ValueError, RecursionError):  # A number of thousands of digits, thousands of brackets
        raise RunCorrupt(f"{path}: damaged, no JSON that can be read") from None
    if not isinstance(value, dict):
        raise RunCorrupt(f"{path}: damaged, expected a JSON object, got {type(value).__name__}")
    if _is_deep(value):
        raise RunCorrupt(f"{path}: damaged, nested more than {_DEEPEST} deep")
    return value


_DEEPEST = 50
"""Of what is read: what can be read must be small enough to be walked and written again."""


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
    return bool(level)


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that any reader takes: numbers that are not finite become null, JSON has no word for them.

    Examples
    --------
    >>> to_json({"loss": float("nan"), "round": 1})
    '{"loss": null, "round": 1}'
    """
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """Return the one form in which a value is hashed or signed: JSON in ASCII, keys sorted, no whitespace.

    A float is written with the fewest digits that read back as the same float, so the bytes are the same on
    every machine; reading them and writing them again gives the same bytes.

    Examples
    --------
    >>> canonical_json({"b": 0.1, "a": [1, None, float("nan")]})
    b'{"a":[1,null,null],"b":0.1}'
    """
    plain = json.loads(json.dumps(_finite(value), allow_nan=False))  # Keys are texts before they are sorted
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def erase(path: Path) -> None:
    """Overwrite a file with zeros, force them to the disk, and delete it; a missing file is erased already.

    On a disk that writes in place nothing of the content is left. Flash memory (SSDs, cards) promises less:
    it writes the zeros elsewhere and collects the old cells when it sees fit. File systems that copy on write
    (Btrfs, ZFS, APFS), snapshots, journals of data, and backups keep old blocks, too. Where that matters, the
    disk must have been encrypted, and its key destroyed.

    Raises
    ------
    LetheError
        If the file cannot be overwritten, or is a link, whose target is nobody's to destroy.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return
    except OSError as error:
        raise not_written(path, error) from error
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            left = os.fstat(descriptor).st_size
            while left > 0:
                left -= file.write(bytes(min(left, _ERASED_AT_ONCE)))
            os.fsync(descriptor)
        path.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise not_written(path, error) from error


def write_all(file: FileIO, content: Chunk) -> int:
    """Write a byte string to an unbuffered file, in as few pieces as it takes; return its length."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    return len(content)


def read_all(file: FileIO, content: bytearray | memoryview) -> int:
    """Fill a buffer from an unbuffered file, and return how many bytes there were."""
    left = memoryview(content)
    while left and (count := file.readinto(left)):
        left = left[count:]
    return len(content) - len(left)


def sync_folder(path: Path) -> None:
    """Force a folder's entries to the disk: names that were created, renamed or removed in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_around(path: Path) -> bool:
    """Force the whole file system that a folder is on to the disk; return whether that is done.

    One call for thousands of files. It is made for Linux's own file systems on a disk or in memory, of which
    it is known that all is on the disk then (syncfs(2)); elsewhere, and where it fails, nothing is promised.
    """
    if _kind_of_file_system(path) not in _FLUSHED_AT_ONCE:
        return False
    call = getattr(ctypes.CDLL(None), "syncfs", None)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return call is not None and call(descriptor) == 0
    finally:
        os.close(descriptor)


def _kind_of_file_system(path: Path) -> str:
    """Return the name of the file system that a folder is on; empty if that is not told."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ""
    for line in mounts.splitlines():
        fields, _, described = line.partition(" - ")
        if fields.split()[2] == wanted:
            return described.split()[0]
    return ""


def not_written(path: Path, error: OSError) -> LetheError:
    """Return the error of a file that could not be written, in one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LetheError(f"{path}: the disk is full; free some space and resume")
    return LetheError(f"{path}: cannot be written ({error.strerror or error})")
