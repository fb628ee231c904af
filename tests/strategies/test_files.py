"""Files that are whole or the old ones."""

import errno
import math
import os
from pathlib import Path

import pytest

from strategies import files
from strategies.errors import LetheError, RunCorrupt


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "first")
    files.write_chunks(path, [b"sec", bytearray(b"on"), memoryview(b"d")])
    assert files.read_text(path) == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("failing", ["fsync", "flush"])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The disk may be full when the bytes are written, and when they are forced to the disk."""
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    if failing == "fsync":

        def refuse(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", refuse)
    else:
        (tmp_path / "a.txt.tmp").symlink_to("/dev/full")
    with pytest.raises(LetheError, match=r"a\.txt: the disk is full; free some space and resume"):
        files.write_text(path, "new" * 10_000)
    assert files.read_text(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_other_errors_of_the_disk_are_named(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"absent/a: cannot be written \(No such file or directory\)"):
        files.write_text(tmp_path / "absent" / "a", "x")
    with pytest.raises(RunCorrupt, match=r"cannot be read \(Is a directory\)"):
        files.read_bytes(tmp_path)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"x": [1.5, math.nan], "y": {"z": -math.inf}, "n": "ä"})
    assert files.read_json(tmp_path / "a.json") == {"x": [1.5, None], "y": {"z": None}, "n": "ä"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "damaged, not text"),
        (b'{"a": 1', r"damaged, not JSON \(line 1\)"),
        (b"[1]", "damaged, expected a JSON object, got list"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunCorrupt, match=message):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(RunCorrupt, match=r"b\.json: missing"):
        files.read_json(tmp_path / "b.json")
