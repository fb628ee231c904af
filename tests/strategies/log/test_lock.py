"""One writer at a time."""

from pathlib import Path

import pytest

from strategies.core.errors import LetheError
from strategies.log.lock import WriterLock


def test_the_second_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first = WriterLock(tmp_path)
    with pytest.raises(LetheError, match="another process is writing this log"):
        WriterLock(tmp_path)
    first.release()
    first.release()
    WriterLock(tmp_path).release()


def test_a_lock_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "writer.lock").write_bytes(b"no database" * 100)
    with pytest.raises(LetheError, match="cannot be locked"):
        WriterLock(tmp_path)
    with pytest.raises(LetheError, match="cannot be locked"):
        WriterLock(tmp_path / "absent")
