"""strategies/log/chain.py: a removed, reordered or changed entry is noticed even if it is whole in itself."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from strategies.log import chain
from strategies.log.update_log import UpdateLog
from tests.strategies.update_logs import make_log, random_rounds

CLIENTS = ("0", "2", "hospital-a")


def changed(log: UpdateLog, *statements: str) -> None:
    with sqlite3.connect(log.path / "index.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def swapped(table: str) -> list[str]:
    return [
        f"UPDATE {table} SET round = -1 WHERE round = 2",
        f"UPDATE {table} SET round = 2 WHERE round = 3",
        f"UPDATE {table} SET round = 3 WHERE round = -1",
    ]


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM entries WHERE round = 2 AND client_id = '2'"],
        ["DELETE FROM entries WHERE round = 2", "DELETE FROM rounds WHERE round = 2"],
        ["DELETE FROM entries WHERE round = 4", "DELETE FROM rounds WHERE round = 4"],
        ["DELETE FROM entries WHERE round = 1", "DELETE FROM rounds WHERE round = 1"],
        ["DELETE FROM entries", "DELETE FROM rounds"],
        [*swapped("entries"), *swapped("rounds")],
        ["UPDATE entries SET weight = weight + 1e-9 WHERE round = 1 AND client_id = '0'"],
        ["UPDATE entries SET client_id = '7' WHERE client_id = '2'"],
        ["UPDATE rounds SET averaging = 0 WHERE round = 3"],
        ["INSERT INTO entries SELECT round, '7', num_examples, weight, norm, sha256 FROM entries LIMIT 1"],
    ],
)
def test_entries_removed_reordered_changed_or_added(tmp_path: Path, statements: list[str]) -> None:
    log = make_log(tmp_path / "log", random_rounds(4, CLIENTS, 1))
    assert log.verify() == {}
    changed(log, *statements)
    assert "log/index.sqlite" in log.verify()


def test_rounds_that_fit_their_own_hash_but_not_their_place(tmp_path: Path) -> None:
    """Rows of another log of the same clients, hashes of the rounds included."""
    log = make_log(tmp_path / "log", random_rounds(3, CLIENTS, 1))
    other = make_log(tmp_path / "other", random_rounds(3, CLIENTS, 1, seed=1))
    changed(
        log,
        f"ATTACH '{other.path / 'index.sqlite'}' AS other",
        "DELETE FROM entries WHERE round = 2",
        "DELETE FROM rounds WHERE round = 2",
        "INSERT INTO rounds SELECT * FROM other.rounds WHERE round = 2",
        "INSERT INTO entries SELECT * FROM other.entries WHERE round = 2",
    )
    assert "round 2 does not match" in log.verify()["log/index.sqlite"]


def test_a_chain_made_anew_is_whole_but_another(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", random_rounds(3, CLIENTS, 1))
    head = log.sha256()
    with UpdateLog.open(log.path, write=True) as writer:
        writer.rewind(2)
    assert log.verify() == {}
    assert log.sha256() != head


@pytest.mark.parametrize(
    "other",
    [
        lambda: chain.link("b", 1, True, [(1, "x")]),
        lambda: chain.link("a", 2, True, [(1, "x")]),
        lambda: chain.link("a", 1, False, [(1, "x")]),
        lambda: chain.link("a", 1, True, [(1, "y")]),
        lambda: chain.link("a", 1, True, []),
    ],
)
def test_a_link_depends_on_everything(other: Callable[[], str]) -> None:
    assert chain.link("a", 1, True, [(1, "x")]) != other()


def test_what_changes_in_a_logs_life_is_no_part_of_its_start() -> None:
    assert chain.start({"format": "f", "head": "1", "purges": "[]"}) == chain.start({"format": "f"})
    assert chain.start({"format": "f", "keys": "k"}) != chain.start({"format": "f"})
