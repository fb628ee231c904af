"""Files that are whole or the old ones."""

import errno
import json
import math
import os
from pathlib import Path

import pytest

from strategies.core.errors import LetheError, RunCorrupt
from strategies.runs import files


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
        (b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}", "damaged, nested more than 50 deep"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(RunCorrupt, match=message):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(RunCorrupt, match=r"b\.json: missing"):
        files.read_json(tmp_path / "b.json")


def test_the_canonical_form_is_one_form() -> None:
    """Order of keys and type of sequences make no difference; read and written again it is the same."""
    value = {"b": [0.1, 1e300, -0.0, math.nan], "a": {"é": True, "Z": None}, 10: 1, 9: "\ud800"}
    other = {9: "\ud800", 10: 1, "a": {"Z": None, "é": True}, "b": (0.1, 1e300, -0.0, math.inf)}
    form = files.canonical_json(value)
    assert form == files.canonical_json(other) == files.canonical_json(json.loads(form))
    assert form == (rb'{"10":1,"9":"\ud800","a":{"Z":null,"\u00e9":true},"b":[0.1,1e+300,-0.0,null]}')


def test_an_erased_file_is_overwritten_first(tmp_path: Path) -> None:
    """Longer than what is written at once."""
    path = tmp_path / "a"
    path.write_bytes(b"secret" * 400_000)
    with path.open("rb") as held:
        files.erase(path)
        assert held.read() == bytes(2_400_000)
    assert list(tmp_path.iterdir()) == []
    files.erase(path)


def test_what_cannot_be_overwritten_is_not_called_erased(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("another's")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("link", "."):
        with pytest.raises(LetheError, match="cannot be written"):
            files.erase(tmp_path / name)
    assert (tmp_path / "target").read_text() == "another's"
