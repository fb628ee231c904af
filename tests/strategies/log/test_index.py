"""Rounds in SQLite."""

import sqlite3
from contextlib import closing
from pathlib import Path
from shutil import copy

import pytest

from strategies.core.errors import LetheError, RunCorrupt
from strategies.log.index import Entry, Index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Return an index of three rounds: a and 10 in the first, a in the second, 9 and a in the third."""
    index = Index.create(tmp_path / "index.sqlite", {"layout": "x"})
    index.commit(1, True, [entry(1, "a"), entry(1, "10")])
    index.commit(2, False, [entry(2, "a")])
    index.commit(3, True, [entry(3, "a"), entry(3, "9")])
    return index


def entry(number: int, client_id: str) -> Entry:
    """Return an entry whose norm tells round and client apart."""
    return Entry(number, client_id, 5, 0.1, number + len(client_id) / 3, None if number == 2 else "f" * 64)


def test_rows_come_back_exactly_in_order(index: Index) -> None:
    assert index.rounds() == {1: True, 2: False, 3: True}
    assert index.clients() == ["9", "10", "a"]
    expected = [entry(1, "10"), entry(1, "a"), entry(2, "a"), entry(3, "9"), entry(3, "a")]
    assert index.entries() == expected
    assert index.entries(3) == expected[3:]
    assert index.entries(client_id="a") == [expected[1], expected[2], expected[4]]
    assert index.entries(3, "9") == [expected[3]]
    assert index.entries(4) == []
    meta = index.meta()
    assert meta.pop("head") == index.head() == index.links()[3]
    assert meta == {"format": "lethe-update-log", "version": "2", "layout": "x"}
    assert index.damage() is None


def test_the_newest_entry_of_each_client(index: Index) -> None:
    assert index.newest() == {"9": entry(3, "9"), "10": entry(1, "10"), "a": entry(3, "a")}
    assert index.newest(3) == {"10": entry(1, "10"), "a": entry(2, "a")}
    assert index.newest(1) == {}


def test_rewinding_forgets_later_rounds(index: Index) -> None:
    index.rewind(1)
    assert (index.rounds(), index.clients(), index.damage()) == ({1: True}, ["10", "a"], None)


def test_a_round_that_fails_half_way_is_not_there(index: Index) -> None:
    with pytest.raises(RunCorrupt, match="UNIQUE constraint"):
        index.commit(4, True, [entry(4, "a"), entry(4, "a")])
    assert index.rounds() == {1: True, 2: False, 3: True}
    assert index.entries(4) == []


def test_a_reader_rolls_a_cut_off_transaction_back(index: Index, tmp_path: Path) -> None:
    """The files as a power loss leaves them: some rows changed, and the journal that knows the old ones."""
    index.commit(4, True, [entry(4, str(i)) for i in range(2000)])
    expected = index.entries()
    crashed = Index(tmp_path / "crashed.sqlite")
    with closing(sqlite3.connect(index.path)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # Changed pages go to the file before the commit
        connection.execute("UPDATE entries SET weight = 0.5, norm = 0")
        copy(index.path, crashed.path)
        copy(f"{index.path}-journal", f"{crashed.path}-journal")
        connection.rollback()
    assert crashed.path.read_bytes() != index.path.read_bytes()
    assert crashed.entries() == expected
    assert crashed.damage() is None


def test_every_flipped_byte_is_noticed_or_harmless(index: Index) -> None:
    """Whatever byte changes, the index reads as before, or says that it is damaged."""
    content = bytearray(index.path.read_bytes())
    expected = (index.rounds(), index.entries(), index.meta())
    noticed = 0
    for position in range(0, len(content), 37):
        content[position] ^= 0xFF
        index.path.write_bytes(content)
        try:
            if index.damage() is None:
                assert (index.rounds(), index.entries(), index.meta()) == expected
            else:
                noticed += 1
        except LetheError:
            noticed += 1
        content[position] ^= 0xFF
    assert noticed > 10
    index.path.write_bytes(content)
    assert index.damage() is None


@pytest.mark.parametrize(
    ("column", "value"),
    [("weight", -1e308), ("weight", 0.0), ("weight", 1e308), ("norm", -1.0), ("norm", float("inf"))],
)
def test_a_weight_or_norm_that_cannot_be_is_damage(index: Index, column: str, value: float) -> None:
    with closing(sqlite3.connect(index.path)) as connection, connection:
        connection.execute(f"UPDATE entries SET {column} = ? WHERE round = 1 AND client_id = 'a'", [value])
    for read in (index.entries, lambda: index.newest(2)):
        with pytest.raises(RunCorrupt, match=r"damaged, client 'a' cannot have weight .* in round 1"):
            read()


def test_an_index_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunCorrupt, match=r"absent\.sqlite: missing, or cannot be opened"):
        Index(tmp_path / "absent.sqlite").rounds()
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(RunCorrupt, match=r"empty\.sqlite: damaged \(no such table: meta\)"):
        Index(tmp_path / "empty.sqlite").meta()
