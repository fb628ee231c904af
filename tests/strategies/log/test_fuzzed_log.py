"""Update logs in which one entry is another, resealed or not, or bytes are damaged: read, or refused.

As many cases as in `tests.test_fuzzing`.
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from strategies.core.errors import LetheError
from strategies.log.folder import INDEX
from strategies.log.index import Index, _digest
from strategies.log.update_log import UpdateLog
from tests.strategies.update_logs import HAND_WORKED, make_log
from tests.test_fuzzing import FUZZED, damage

VALUES = st.sampled_from(
    [None, 0, -1, 2, 2**62, 1.5, float("inf"), -1e308, "", "a", "../x", "[]", "{}", b"\xff"]
)
META = st.sampled_from(
    [
        *("", "[]", "{}", "3", "null", '"a"', "interval:0", "full:1", "sum", "float99", "../../x", "\x00"),
        *("[" * 9000, "9" * 5000, '{"names": 3, "shapes": 4}', '{"names": ["w"], "shapes": [[-1]]}'),
        *('{"names": ["w"], "shapes": [[4611686018427387904]]}', '{"names": [1], "shapes": [["a"]]}'),
        *('[{"clients": 3}]', '[{"clients": [], "time": 1, "sha256_before": 1}]'),
    ]
)
COLUMNS = {
    "rounds": ["round", "averaging", "digest"],
    "entries": ["round", "client_id", "num_examples", "weight", "norm", "sha256"],
}


@pytest.fixture(scope="module")
def log(memory_home: Path) -> Path:
    """Return the folder of a log of two rounds."""
    path = memory_home / "log"
    make_log(path, HAND_WORKED).close()
    return path


def ask_all(path: Path) -> None:
    """Ask a log for all that it can be asked; each question is answered or refused."""
    log = UpdateLog.open(path)
    questions: list[Callable[[], object]] = [
        log.summary,
        log.verify,
        log.unreadable,
        log.kept_rounds,
        log.averaging_rounds,
        lambda: log.delta(1, "a"),
        lambda: log.weighted_sum("b"),
    ]
    for question in questions:
        with suppress(LetheError):
            question()
    with suppress(LetheError), UpdateLog.open(path, write=True) as writer:
        writer.rewind(1)


def reseal(path: Path) -> None:
    """Make the hashes of an index those of what it holds now, where that is possible."""
    with closing(sqlite3.connect(path)) as connection, connection:
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        meta.pop("digest", None)
        with suppress(TypeError):
            connection.execute(
                "UPDATE meta SET value = ? WHERE key = 'digest'", [_digest(sorted(meta.items()))]
            )
    with suppress(LetheError, KeyError, TypeError, ValueError):
        links = Index(path).links()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany(
                "UPDATE rounds SET digest = ? WHERE round = ?", [(d, t) for t, d in links.items()]
            )
        Index(path).describe("head", list(links.values())[-1])


@pytest.mark.parametrize("is_sealed", [True, False])
@FUZZED
@given(table=st.sampled_from(sorted(COLUMNS)), which=st.integers(0, 5), row=st.integers(0, 3), value=VALUES)
def test_an_index_with_another_entry_is_read_or_refused(
    is_sealed: bool, table: str, which: int, row: int, value: Any, log: Path, memory_path: Path
) -> None:
    path = memory_path / "log"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(log, path)
    column = COLUMNS[table][which % len(COLUMNS[table])]
    order = "round, client_id" if table == "entries" else "round"
    with closing(sqlite3.connect(path / INDEX)) as connection, suppress(sqlite3.IntegrityError), connection:
        rows = connection.execute(f"SELECT {order} FROM {table} ORDER BY {order}").fetchall()
        key = rows[row % len(rows)]
        names = " AND ".join(f"{name} = ?" for name in order.split(", "))
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {names}", [value, *key])
    if is_sealed:
        reseal(path / INDEX)
    with suppress(LetheError):
        ask_all(path)


@pytest.mark.parametrize("is_sealed", [True, False])
@FUZZED
@given(
    key=st.sampled_from(["layout", "retention", "dtype", "keys", "purges", "head", "format", "version"]),
    value=META,
)
def test_an_index_with_another_description_is_read_or_refused(
    is_sealed: bool, key: str, value: str, log: Path, memory_path: Path
) -> None:
    path = memory_path / "log"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(log, path)
    with closing(sqlite3.connect(path / INDEX)) as connection, connection:
        if value:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, value])
        else:
            connection.execute("DELETE FROM meta WHERE key = ?", [key])
    if is_sealed:
        reseal(path / INDEX)
    with suppress(LetheError):
        ask_all(path)


@FUZZED
@given(change=damage(), file=st.sampled_from([INDEX, "00001/a.safetensors"]))
def test_a_log_with_damaged_bytes_is_read_or_refused(
    change: Callable[[bytes], bytes], file: str, log: Path, memory_path: Path
) -> None:
    """And a damage of an update is named."""
    path = memory_path / "log"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(log, path)
    whole = (path / file).read_bytes()
    (path / file).write_bytes(change(whole))
    if file != INDEX:
        assert bool(UpdateLog.open(path).verify()) == (change(whole) != whole)
    with suppress(LetheError):
        ask_all(path)
