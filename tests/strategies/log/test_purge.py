"""strategies/log/purge.py: a purged client leaves tombstones and no number, and the others lose nothing."""

import hashlib
import json
import os
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.core.wire import Layout
from strategies.log import index as index_module, purge
from strategies.log.blobs import Blobs
from strategies.log.index import Index
from strategies.log.update_log import UpdateLog
from tests.strategies.update_logs import (
    HAND_WORKED,
    ONE,
    flip_byte,
    make_log,
    one,
    random_rounds,
    write_round,
)

SIZE = 64
WIDE = Layout(("w",), ((SIZE,),))
CLIENTS = ("0", "2", "hospital-a")
RETENTIONS = ("full", "interval:2", "sum")


def purged_log(path: Path, client_ids: Sequence[str]) -> UpdateLog:
    with UpdateLog.open(path, write=True) as log:
        log.purge(client_ids)
    return UpdateLog.open(path)


def wide_log(path: Path, retention: str = "full") -> UpdateLog:
    return make_log(path, random_rounds(4, CLIENTS, SIZE), retention, layout=WIDE)


def traces_of(client_id: str, log: UpdateLog) -> list[bytes]:
    """Return what would give a client's updates away: any four floats in a row, norms and hashes of files."""
    updates: list[Tensor] = [updates[client_id][1] for updates in random_rounds(4, CLIENTS, SIZE)]
    if log.retention.kind == "sum":
        updates.append(log.weighted_sum(client_id))
    windows = [u[i : i + 4].numpy().tobytes() for u in updates for i in range(len(u) - 3)]
    entries = log.entries(client_id=client_id)
    norms = [struct.pack(">d", entry.norm) for entry in entries]  # SQLite stores big-endian
    return [*windows, *norms, *(entry.sha256.encode() for entry in entries if entry.sha256)]


def found_in(folder: Path, traces: Sequence[bytes]) -> set[bytes]:
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {trace for trace in traces if any(trace in content for content in contents)}


# by hand


def test_two_clients_one_parameter_worked_by_hand(tmp_path: Path) -> None:
    """Purging b leaves that it had weight 3/4, then 1/2; a adds up to 2/4 + 1/2 = 1 as before."""
    before = make_log(tmp_path / "log", HAND_WORKED).sha256()
    log = purged_log(tmp_path / "log", ["b"])
    assert [(e.round, e.client_id, e.num_examples, e.weight, e.norm) for e in log.entries()] == [
        (1, "a", 1, 0.25, 2.0),
        (1, "b", 0, 0.75, 0.0),
        (2, "a", 1, 0.5, 1.0),
        (2, "b", 0, 0.5, 0.0),
    ]
    assert [e.sha256 for e in log.entries(client_id="b")] == [None, None]
    assert log.weighted_sum("a").tolist() == [1.0]
    assert (log.rounds(), log.clients(), log.verify()) == ([1, 2], ["a", "b"], {})
    (recorded,) = log.purges()
    assert (recorded.clients, recorded.sha256_before, recorded.sha256_after) == (("b",), before, log.sha256())
    assert log.purged() == {"b": recorded.time}


def test_the_hash_of_a_log_by_hand(tmp_path: Path) -> None:
    """The chain of the docstring, from SQLite's rows and Python's json alone."""
    log = make_log(tmp_path / "log", HAND_WORKED)

    def sha256(value: object) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    with sqlite3.connect(log.path / "index.sqlite") as connection:
        meta = dict(connection.execute("SELECT key, value FROM meta WHERE key NOT IN ('digest', 'head')"))
        rows = connection.execute("SELECT * FROM entries ORDER BY round, client_id").fetchall()
    connection.close()
    h = sha256({"description": meta})
    for number in (1, 2):
        h = sha256([h, number, True, [list(row) for row in rows if row[0] == number]])
    assert log.sha256() == h


# what is left of it


@pytest.mark.parametrize("retention", RETENTIONS)
def test_no_number_of_the_client_is_left_in_any_file(tmp_path: Path, retention: str) -> None:
    log = wide_log(tmp_path / "log", retention)
    traces = traces_of("2", log)
    assert len(found_in(tmp_path, traces)) > SIZE, "the search finds nothing even before"
    purged_log(log.path, ["2"])
    assert found_in(tmp_path, traces) == set()
    assert not list(log.path.rglob("2.safetensors"))
    assert {path.name for path in log.path.iterdir() if path.is_file()} == {"index.sqlite", "writer.lock"}


def test_files_are_overwritten_before_they_are_deleted(tmp_path: Path) -> None:
    """Whoever still holds the file open, as undelete tools in effect do, reads zeros."""
    log = wide_log(tmp_path / "log")
    with (log.path / "00003" / "2.safetensors").open("rb") as held:
        size = len(held.read())
        purged_log(log.path, ["2"])
        held.seek(0)
        assert held.read() == bytes(size)


def test_rows_that_were_deleted_before_leave_nothing_in_free_pages(tmp_path: Path) -> None:
    """A rewind only marks the rows' pages as free, where SQLite was not built to overwrite them."""
    log = make_log(tmp_path / "log", random_rounds(300, CLIENTS, 1))
    norms = [struct.pack(">d", entry.norm) for entry in log.entries(client_id="2")]
    with sqlite3.connect(log.path / "index.sqlite") as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        for table in ("entries", "rounds"):
            connection.execute(f"DELETE FROM {table} WHERE round > 4")
    connection.close()
    Index(log.path / "index.sqlite").rewind(4)
    assert len(found_in(log.path, norms)) > 4
    purged_log(log.path, ["2"])
    assert found_in(log.path, norms) == set()


def test_the_journal_of_the_change_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the rows as they were, in case the change is cut off."""
    log, seen = wide_log(tmp_path / "log"), []
    traces = traces_of("2", log)
    real = index_module.erase

    def watched(path: Path) -> None:
        with path.open("rb") as held:
            content = held.read()
            seen.append(any(trace in content for trace in traces))
            real(path)
            held.seek(0)
            assert not any(held.read())

    monkeypatch.setattr(index_module, "erase", watched)
    purged_log(log.path, ["2"])
    assert seen == [True, False]


def test_replaced_sums_go_as_well(tmp_path: Path) -> None:
    """Before `compact`, the sum of the round before is still there."""
    with UpdateLog.create(tmp_path / "log", WIDE, "sum") as log:
        for number, updates in enumerate(random_rounds(4, CLIENTS, SIZE), start=1):
            write_round(log, number, updates)
        assert len(list(log.path.rglob("2.safetensors"))) == 2
        log.purge(["2"])
        assert list(log.path.rglob("2.safetensors")) == []
        log.compact()
        assert log.verify() == {}


# what stays


@settings(max_examples=10, deadline=None)
@given(gone=st.sets(st.sampled_from(CLIENTS)), retention=st.sampled_from(RETENTIONS))
def test_the_others_keep_everything(gone: set[str], retention: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = wide_log(Path(folder) / "whole", retention)
        log = purged_log(wide_log(Path(folder) / "log", retention).path, sorted(gone))
        assert log.verify() == {}
        assert [e.weight for e in log.entries()] == [e.weight for e in whole.entries()]
        for client_id in set(CLIENTS) - gone:
            assert log.entries(client_id=client_id) == whole.entries(client_id=client_id)
            for number in log.kept_rounds():
                assert torch.equal(log.delta(number, client_id), whole.delta(number, client_id))
            if retention != "interval:2":
                assert torch.equal(log.weighted_sum(client_id), whole.weighted_sum(client_id))


def test_clients_one_after_the_other_in_any_order_or_at_once(tmp_path: Path) -> None:
    logs = [wide_log(tmp_path / name) for name in "abc"]
    for log, orders in zip(logs, ([["0"], ["2"]], [["2"], ["0"]], [["2", "0"]]), strict=True):
        for client_ids in orders:
            purged_log(log.path, client_ids)
    assert len({log.sha256() for log in logs}) == 1
    assert [len(log.purges()) for log in logs] == [2, 2, 1]
    first, second = logs[0].purges()
    assert first.sha256_after == second.sha256_before


def test_purging_twice_equals_once_and_a_stranger_changes_nothing(tmp_path: Path) -> None:
    log = wide_log(tmp_path / "log")
    whole = log.sha256()
    assert purged_log(log.path, ["never-there"]).purges() == []
    assert log.sha256() == whole
    once = purged_log(log.path, ["2"]).sha256()
    assert purged_log(log.path, ["2"]).sha256() == once != whole
    assert len(log.purges()) == 1


def test_the_log_can_be_rewound_and_go_on_without_the_client(tmp_path: Path) -> None:
    rounds = random_rounds(4, CLIENTS, SIZE)
    for retention in ("full", "sum"):
        log = wide_log(tmp_path / retention, retention)
        with UpdateLog.open(log.path, write=True) as writer:
            writer.purge(["2"])
            writer.rewind(3 if retention == "full" else 4)
            others = {i: update for i, update in rounds[3].items() if i != "2"}
            write_round(writer, 5, others)
        assert log.verify() == {}
        assert log.purged().keys() == {"2"}


# killed


class KilledError(Exception):
    """Stands for a process that ends here."""


def killed(*_: object) -> None:
    raise KilledError


def killed_after_the_first_file(blobs: Blobs, client_id: str) -> None:
    (blobs.path / "00001" / f"{client_id}.safetensors").unlink()
    raise KilledError


def killed_in_a_file(blobs: Blobs, client_id: str) -> None:
    os.truncate(blobs.path / "00001" / f"{client_id}.safetensors", 100)
    raise KilledError


def kill_before_the_free_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail at the second connection that erases: the one that rebuilds the file."""
    real, calls = Index._erasing_connection, []

    def second_fails(index: Index) -> AbstractContextManager[sqlite3.Connection]:
        calls.append(index)
        if len(calls) == 2:
            raise KilledError
        return real(index)

    monkeypatch.setattr(Index, "_erasing_connection", second_fails)


def kill_before_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    real = purge._record

    def last_fails(index: Index, purges: Sequence[purge.Purge]) -> None:
        if purges[-1].sha256_after is not None:
            raise KilledError
        real(index, purges)

    monkeypatch.setattr(purge, "_record", last_fails)


PLACES: Mapping[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the first file": lambda patch: patch.setattr(Blobs, "erase", killed),
    "after the first file": lambda patch: patch.setattr(Blobs, "erase", killed_after_the_first_file),
    "in a file": lambda patch: patch.setattr(Blobs, "erase", killed_in_a_file),
    "after the files": lambda patch: patch.setattr(Index, "bury", killed),
    "before the free pages": kill_before_the_free_pages,
    "before it is done": kill_before_it_is_done,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_purge_is_completed_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    expected = purged_log(wide_log(tmp_path / "expected").path, ["2"])
    log = wide_log(tmp_path / "log")
    traces = traces_of("2", log)
    PLACES[place](monkeypatch)
    with pytest.raises(KilledError):
        purged_log(log.path, ["2"])
    monkeypatch.undo()
    if place in ("before the free pages", "before it is done"):
        assert found_in(log.path, traces) == set()
    assert (log.verify(), list(log.purged())) == ({}, ["2"])
    with pytest.raises(BadInput, match="the updates of client '2' were purged"):
        UpdateLog.open(log.path).weighted_sum("2")
    UpdateLog.open(log.path, write=True).close()
    assert found_in(log.path, traces) == set()
    assert log.entries() == expected.entries()
    assert log.purges()[0].sha256_after == log.sha256() == expected.sha256()


def test_a_purge_that_was_cut_off_before_it_was_recorded_never_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = wide_log(tmp_path / "log")
    before = log.sha256()
    monkeypatch.setattr(Index, "describe", killed)
    with pytest.raises(KilledError):
        purged_log(log.path, ["2"])
    monkeypatch.undo()
    UpdateLog.open(log.path, write=True).close()
    assert (log.sha256(), log.purges(), log.verify()) == (before, [], {})


# errors


@pytest.mark.parametrize("retention", ["full", "sum"])
def test_reading_a_purged_client_says_so(tmp_path: Path, retention: str) -> None:
    log = purged_log(wide_log(tmp_path / "log", retention).path, ["2"])
    with pytest.raises(BadInput, match=r"the updates of client '2' were purged, \d{4}-\d\d-\d\dT[\d:]+Z"):
        log.weighted_sum("2")
    if retention == "full":
        with pytest.raises(BadInput, match="the updates of client '2' were purged"):
            log.delta(1, "2")


def test_a_purged_client_is_logged_no_more(tmp_path: Path) -> None:
    make_log(tmp_path / "log", HAND_WORKED)
    with UpdateLog.open(tmp_path / "log", write=True) as log:
        log.purge(["b"])
        with pytest.raises(LetheError, match="client 'b' was purged; its updates are logged no more"):
            write_round(log, 3, HAND_WORKED[0])
        log.abandon()
        write_round(log, 3, {"a": (1, one(2.0))})


def test_a_purge_out_of_turn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match="opened for reading, or is closed"):
        make_log(tmp_path / "log", HAND_WORKED).purge(["b"])
    with UpdateLog.open(tmp_path / "log", write=True) as log:
        log.begin_round(3)
        with pytest.raises(LetheError, match="cannot purge, round 3 is unfinished"):
            log.purge(["b"])


def test_a_damaged_index_is_not_covered_up(tmp_path: Path) -> None:
    """New hashes over changed rows would make them look sound."""
    log = make_log(tmp_path / "log", HAND_WORKED)
    with sqlite3.connect(log.path / "index.sqlite") as connection:
        connection.execute("UPDATE entries SET weight = 0.5 WHERE round = 1 AND client_id = 'a'")
    connection.close()
    with pytest.raises(RunCorrupt, match=r"round 1 does not match .* before anything is purged"):
        purged_log(log.path, ["b"])
    assert (log.path / "00001" / "b.safetensors").exists()


def test_the_target_of_a_link_is_not_destroyed(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", HAND_WORKED, layout=ONE)
    blob = log.path / "00001" / "b.safetensors"
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    size = (tmp_path / "elsewhere").stat().st_size
    with pytest.raises(LetheError, match=r"00001/b\.safetensors: cannot be written"):
        purged_log(log.path, ["b"])
    assert (tmp_path / "elsewhere").read_bytes() != bytes(size)


# a damaged answer


def test_damage_to_the_others_is_still_noticed(tmp_path: Path) -> None:
    log = purged_log(wide_log(tmp_path / "log").path, ["2"])
    flip_byte(log.path / "00002" / "0.safetensors", -1)
    assert list(log.verify()) == ["log/00002/0.safetensors"]


def test_a_changed_tombstone_is_noticed_and_changes_the_hash(tmp_path: Path) -> None:
    log = purged_log(make_log(tmp_path / "log", HAND_WORKED).path, ["b"])
    before = log.sha256()
    with sqlite3.connect(log.path / "index.sqlite") as connection:
        connection.execute("UPDATE entries SET weight = 0.5 WHERE round = 1 AND client_id = 'b'")
    connection.close()
    assert log.sha256() != before
    assert log.verify() == {"log/index.sqlite": "round 1 does not match its link of the hash chain"}
