"""strategies/runs/journal.py: the events of a piece of work, and whether its writer lives."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from strategies.core.errors import LetheError
from strategies.runs import files
from strategies.runs.journal import Journal, is_written, journals
from strategies.runs.json_lines import parsed


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_there_at_once_and_files_are_numbered(tmp_path: Path) -> None:
    first = Journal.begin(tmp_path, "train", "study")
    first.add("step", message="round 1", values={"loss": float("nan")})
    begin, step = lines(first.path)
    assert begin.pop("time") == pytest.approx(step.pop("time"), abs=60)
    assert begin == {"event": "begin", "kind": "train", "name": "study"}
    assert step == {"event": "step", "message": "round 1", "values": {"loss": None}}
    second = Journal.begin(tmp_path, "forget", "client-3-distill")
    assert [path.name for path in journals(tmp_path)] == ["0001.jsonl", "0002.jsonl"]
    first.close()
    second.close()


def test_who_writes_holds_a_lock_that_readers_do_not_disturb(tmp_path: Path) -> None:
    journal = Journal.begin(tmp_path, "train", "study")
    assert is_written(journal.path)
    assert is_written(journal.path)
    journal.add("end", outcome="finished")
    journal.close()
    assert not is_written(journal.path)
    assert not is_written(tmp_path / "none.jsonl")


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from strategies.runs.journal import Journal;"
        "kept = Journal.begin(pathlib.Path(sys.argv[1]), 'train', 'study'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    (path,) = journals(tmp_path)
    assert len(lines(path)) == 1
    assert not is_written(path)


def test_what_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    kept = Journal.begin(tmp_path, "train", "study")
    kept.close()
    Journal.begin(tmp_path, "forget", "x").discard()
    assert journals(tmp_path) == [kept.path]
    kept.discard()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.begin(tmp_path, "train", "study")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(LetheError, match=r"0001\.jsonl: the disk is full"):
        journal.add("step")
    with pytest.raises(LetheError, match="the disk is full"):
        Journal.begin(tmp_path, "audit", "x")
    journal.close()


def test_damaged_lines() -> None:
    assert parsed(b'{"a": 1}') == {"a": 1}
    assert [parsed(each) for each in (b"[1]", b"", b"\xff", b"[" * 100_000)] == [None] * 4
