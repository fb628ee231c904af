"""Lines that only grow, up to a writer that was killed."""

import errno
import os
from pathlib import Path

import pytest

from strategies.core.errors import LetheError, RunCorrupt
from strategies.runs.json_lines import append_line, read_lines, rewind_lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with a line on the start and three rounds."""
    path = tmp_path / "metrics.jsonl"
    for line in ({"event": "start"}, {"round": 1, "loss": 0.5}, {"round": 2}, {"round": 3}):
        append_line(path, line)
    return path


def test_lines_come_back_in_order(path: Path, tmp_path: Path) -> None:
    assert read_lines(path) == [{"event": "start"}, {"round": 1, "loss": 0.5}, {"round": 2}, {"round": 3}]
    assert path.read_text().splitlines()[1] == '{"round": 1, "loss": 0.5}'
    assert read_lines(tmp_path / "absent") == []


@pytest.mark.parametrize("torn", [b"{", b'{"round": 4}', b'{"n": "\xc3'])
def test_a_line_without_its_newline_does_not_count(path: Path, torn: bytes) -> None:
    """Even one that looks whole: `1` may be the start of `10`."""
    with path.open("ab") as file:
        file.write(torn)
    assert len(read_lines(path)) == 4
    append_line(path, {"round": 4, "new": True})
    assert read_lines(path)[3:] == [{"round": 3}, {"round": 4, "new": True}]


def test_rewinding_drops_later_rounds_and_the_torn_line(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"round"')
    rewind_lines(path, 2)
    assert path.read_text() == '{"event": "start"}\n{"round": 1, "loss": 0.5}\n{"round": 2}\n'
    rewind_lines(path, 0)
    assert read_lines(path) == [{"event": "start"}]


def test_a_damaged_line_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"round": 1', b'"round": '))
    with pytest.raises(RunCorrupt, match=r"metrics\.jsonl: line 2 is damaged, expected a JSON object"):
        read_lines(path)


def test_a_full_disk_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(LetheError, match=r"metrics\.jsonl: the disk is full"):
        append_line(path, {"round": 4})
