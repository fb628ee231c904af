"""What a round keeps until it ends."""

import os
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import pytest

from strategies.core.errors import LetheError
from strategies.log.spool import Spool


def test_entries_come_back_in_every_round(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(3):
        contents = {str(i): bytes([number, i]) * (1 + 3000 * i) for i in range(5)}
        for name, content in contents.items():
            spool.write(name, content)
        assert {name: bytes(spool.read(name)) for name in contents} == contents
        spool.clear()
        with pytest.raises(KeyError):
            spool.read("0")
    spool.close()
    spool.close()


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: spool.write(str(i), bytes([i]) * 50_000), range(50)))
        found = list(threads.map(lambda i: spool.read(str(i)), range(50)))
    assert found == [bytearray([i]) * 50_000 for i in range(50)]
    spool.close()


def test_nothing_is_left_under_any_name(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write("a", b"content")
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_a_disk_that_does_not_take_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LetheError, match=r"absent/spool: cannot be written \(No such file or directory\)"):
        Spool(tmp_path / "absent").write("a", b"x")
    spool = Spool(tmp_path)
    monkeypatch.setattr("strategies.log.spool.TemporaryFile", lambda **_: FileIO("/dev/full", "r+"))
    with pytest.raises(LetheError, match="spool: the disk is full"):
        spool.write("a", os.urandom(10))
    spool.close()
