"""What the update log keeps, adds up, forgets and notices."""

import json
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.numpy import load_file

from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.core.seeds import numpy_generator, torch_generator
from strategies.core.wire import Layout
from strategies.log.update_log import UpdateLog
from tests.strategies.update_logs import (
    HAND_WORKED,
    KILLED_CLIENTS,
    ONE,
    flip_byte,
    kill_after,
    killed_update,
    make_log,
    one,
    random_rounds,
    write_round,
    write_until_killed,
)

SIZE = 300
WIDE = Layout(("weight", "bias"), ((29, 10), (10,)))
CLIENTS = ("0", "2", "10", "hospital-a")


def files_of(log: UpdateLog) -> set[str]:
    """Return the names of the log's blobs, from its folder on."""
    return {str(p.relative_to(log.path)) for p in log.path.rglob("*.safetensors")}


@pytest.mark.parametrize("retention", ["full", "interval:1", "sum"])
def test_two_clients_one_parameter_worked_by_hand(tmp_path: Path, retention: str) -> None:
    """Round 1: w = 1/4, 3/4 and δ = 2, 4. Round 2: w = 1/2, 1/2 and δ = 1, −1.

    Client a: 2/4 + 1/2 = 1. Client b: 3·4/4 − 1/2 = 2.5.
    """
    log = make_log(tmp_path / "log", HAND_WORKED, retention)
    assert log.weighted_sum("a").tolist() == [1.0]
    assert log.weighted_sum("b").tolist() == [2.5]
    assert [(e.round, e.client_id, e.num_examples, e.weight, e.norm) for e in log.entries()] == [
        (1, "a", 1, 0.25, 2.0),
        (1, "b", 3, 0.75, 4.0),
        (2, "a", 1, 0.5, 1.0),
        (2, "b", 1, 0.5, 1.0),
    ]
    assert log.rounds() == log.averaging_rounds() == [1, 2]
    assert log.clients() == ["a", "b"]


def test_updates_come_back_as_they_were(tmp_path: Path) -> None:
    rounds = random_rounds(3, CLIENTS, SIZE)
    log = make_log(tmp_path / "log", rounds, layout=WIDE)
    assert log.layout == WIDE
    for number, updates in enumerate(rounds, start=1):
        for client_id, (_, delta) in updates.items():
            assert torch.equal(log.delta(number, client_id), delta)


@pytest.mark.parametrize("retention", ["full", "sum"])
def test_sums_are_those_of_a_slow_reference(tmp_path: Path, retention: str) -> None:
    """Weights and updates read with SQLite and the safetensors library alone, added in float64."""
    rounds = random_rounds(10, CLIENTS, SIZE)
    full = make_log(tmp_path / "full", rounds, layout=WIDE)
    log = make_log(tmp_path / "tested", rounds, retention, layout=WIDE)
    with sqlite3.connect(full.path / "index.sqlite") as connection:
        rows = connection.execute("SELECT round, client_id, weight FROM entries").fetchall()
    connection.close()
    for client_id in CLIENTS:
        terms = [
            w * load_file(full.path / f"{t:05d}" / f"{c}.safetensors")["delta"].astype(np.float64)
            for t, c, w in rows
            if c == client_id
        ]
        # Each of the 10 additions in float32 errs by at most 2^-24 of the largest partial sum, and so does
        # each product and each weight: 3·10·2^-24·Σ|terms| bounds them all.
        bound = 3 * 10 * 2**-24 * sum(np.abs(term) for term in terms)
        assert (np.abs(log.weighted_sum(client_id).double().numpy() - sum(terms)) <= bound).all()


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(CLIENTS), retention=st.sampled_from(["full", "sum", "interval:2"]))
def test_the_order_of_replies_is_irrelevant(order: list[str], retention: str) -> None:
    rounds = random_rounds(3, CLIENTS, SIZE)
    shuffled = [{c: updates[c] for c in order} for updates in rounds]
    with tempfile.TemporaryDirectory() as folder:
        first = make_log(Path(folder) / "first", rounds, retention, layout=WIDE)
        second = make_log(Path(folder) / "second", shuffled, retention, layout=WIDE)
        assert first.entries() == second.entries()  # Hashes of the files included
        assert files_of(first) == files_of(second)


@settings(max_examples=8, deadline=None)
@given(
    weights=st.lists(st.integers(1, 1000), min_size=2, max_size=4), factor=st.sampled_from([2.0, 0.25, 64.0])
)
def test_weights_sum_to_one_and_scaling_all_is_irrelevant(weights: list[int], factor: float) -> None:
    updates = {str(i): (w, one(1.0)) for i, w in enumerate(weights)}
    scaled = {c: (w * factor, delta) for c, (w, delta) in updates.items()}
    with tempfile.TemporaryDirectory() as folder:
        first = make_log(Path(folder) / "first", [updates])
        second = make_log(Path(folder) / "second", [scaled])
        found = [e.weight for e in first.entries()]
        assert found == pytest.approx([w / sum(weights) for w in weights], rel=1e-15)
        assert sum(found) == pytest.approx(1.0, rel=1e-15)
        assert [e.weight for e in second.entries()] == found


def test_interval_keeps_the_updates_of_some_rounds_and_the_numbers_of_all(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [HAND_WORKED[0]] * 7, "interval:3")
    assert log.kept_rounds() == [1, 4, 7]
    assert files_of(log) == {f"0000{t}/{c}.safetensors" for t in (1, 4, 7) for c in "ab"}
    assert [e.weight for e in log.entries(client_id="b")] == [0.75] * 7
    assert [e.round for e in log.entries(client_id="b") if e.sha256 is not None] == [1, 4, 7]
    assert log.delta(4, "b").tolist() == [4.0]
    with pytest.raises(BadInput, match=r"log\.retention = 'interval:3' keeps no update of round 2"):
        log.delta(2, "b")
    with pytest.raises(BadInput, match=r"no update of client 'b' in round 2; .* needs 'full' or 'sum'"):
        log.weighted_sum("b")


@pytest.mark.parametrize("factor", [1.0, 0.5, 1000.0])
def test_an_expected_weight_changes_nothing_but_time(tmp_path: Path, factor: float) -> None:
    """Right or wrong: every hash is the one without it."""
    rounds = random_rounds(3, CLIENTS, SIZE)
    plain = make_log(tmp_path / "plain", rounds, "sum", layout=WIDE)
    with UpdateLog.create(tmp_path / "log", WIDE, "sum") as log:
        for number, updates in enumerate(rounds, start=1):
            total = sum(weight for weight, _ in updates.values())
            write_round(log, number, updates, expected_weight=factor * total)
        assert log.entries() == plain.entries()
        assert (files_of(log), log.verify()) == (files_of(plain), {})


def test_sum_is_one_file_per_client_whatever_the_rounds(tmp_path: Path) -> None:
    with UpdateLog.create(tmp_path / "log", WIDE, "sum") as log:
        for number, updates in enumerate(random_rounds(5, CLIENTS, SIZE), start=1):
            write_round(log, number, updates)
            assert len(files_of(log)) <= 2 * len(CLIENTS)
        log.compact()
        assert len(files_of(log)) == len(CLIENTS)
        assert log.verify() == {}
        with pytest.raises(BadInput, match=r"log\.retention = 'sum' keeps no update of round 5"):
            log.delta(5, "0")


def test_sum_of_clients_that_come_and_go(tmp_path: Path) -> None:
    """Weights are 1, 1/2 and 1/2, 1: a has 1·2 + 3/2 = 3.5, b has 1/2·8 + 1·5 = 9."""
    a, b = (1.0, one(2.0)), (1.0, one(8.0))
    rounds = [{"a": a}, {"a": (1.0, one(3.0)), "b": b}, {"b": (1.0, one(5.0))}]
    for retention in ("full", "sum"):
        log = make_log(tmp_path / retention, rounds, retention)
        assert (log.weighted_sum("a").tolist(), log.weighted_sum("b").tolist()) == ([3.5], [9.0])


@pytest.mark.parametrize(
    ("dtype", "relative", "absolute", "width"),
    [("float32", 0.0, 0.0, 4), ("float16", 2**-11, 2**-25, 2), ("bfloat16", 2**-8, 0.0, 2)],
)
def test_precision_costs_what_it_promises(
    tmp_path: Path, dtype: str, relative: float, absolute: float, width: int
) -> None:
    """Rounding to p bits errs by at most 2^-p; float16 has p = 11 from 2^-14 upwards, bfloat16 p = 8."""
    generator = torch_generator(0, "precision")
    delta = torch.randn(SIZE, generator=generator) * torch.logspace(-8, 2, SIZE)
    log = make_log(tmp_path / "log", [{"0": (1, delta)}], dtype=dtype, layout=WIDE)
    found = log.delta(1, "0")
    assert found.dtype == torch.float32
    assert bool(((found - delta).abs() <= relative * delta.abs() + absolute).all())
    assert torch.equal(found, delta) == (dtype == "float32")
    assert log.weighted_sum("0").equal(found)
    header = 8 + int.from_bytes((log.path / "00001" / "0.safetensors").read_bytes()[:8], "little")
    assert (log.path / "00001" / "0.safetensors").stat().st_size == header + width * SIZE


def test_norm_and_weight_are_those_of_the_update_not_of_its_rounding(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", [{"0": (1, one(1 / 3))}], dtype="float16")
    assert log.entries()[0].norm == float(one(1 / 3).norm())


def test_an_update_may_be_changed_once_it_was_added(tmp_path: Path) -> None:
    with UpdateLog.create(tmp_path / "log", ONE) as log:
        log.begin_round(1)
        delta = one(1.0)
        log.add(1, "0", 1, 1, delta, 1.0)
        delta.fill_(5.0)
        log.commit_round(1, averaging=True)
        assert log.delta(1, "0").tolist() == [1.0]


def test_a_round_that_is_no_average_is_marked(tmp_path: Path) -> None:
    with UpdateLog.create(tmp_path / "log", ONE) as log:
        write_round(log, 1, HAND_WORKED[0])
        write_round(log, 2, HAND_WORKED[1], averaging=False)
        assert (log.rounds(), log.averaging_rounds()) == ([1, 2], [1])


@pytest.mark.parametrize("retention", ["full", "sum"])
def test_an_abandoned_round_leaves_nothing(tmp_path: Path, retention: str) -> None:
    with UpdateLog.create(tmp_path / "log", ONE, retention) as log:
        write_round(log, 1, HAND_WORKED[0])
        before = files_of(log)
        log.begin_round(2)
        log.add(2, "a", 1, 1, one(9.0), 9.0)
        log.abandon()
        log.abandon()
        assert (log.rounds(), files_of(log)) == ([1], before)
        write_round(log, 2, HAND_WORKED[1])
        assert log.weighted_sum("a").tolist() == [1.0]


@pytest.mark.parametrize("retention", ["full", "sum", "interval:2"])
def test_rewound_log_is_the_log_that_never_went_further(tmp_path: Path, retention: str) -> None:
    rounds = random_rounds(4, CLIENTS, SIZE)
    expected = make_log(tmp_path / "expected", rounds, retention, layout=WIDE)
    make_log(tmp_path / "log", [*rounds[:2], rounds[0]], retention, layout=WIDE)
    with UpdateLog.open(tmp_path / "log", write=True) as log:
        log.rewind(2)
        assert log.rounds() == [1, 2]
        write_round(log, 3, rounds[2])
        write_round(log, 4, rounds[3])
        assert log.entries() == expected.entries()
        assert (files_of(log), log.verify()) == (files_of(expected), {})


@pytest.mark.parametrize("retention", ["full", "sum"])
def test_rewound_to_the_beginning(tmp_path: Path, retention: str) -> None:
    make_log(tmp_path / "log", HAND_WORKED, retention)
    with UpdateLog.open(tmp_path / "log", write=True) as log:
        log.rewind(0)
        assert (log.rounds(), log.clients(), files_of(log)) == ([], [], set())


def test_sums_go_back_by_one_round_only(tmp_path: Path) -> None:
    make_log(tmp_path / "log", [HAND_WORKED[0]] * 4, "sum")
    with UpdateLog.open(tmp_path / "log", write=True) as log:
        with pytest.raises(BadInput, match=r"cannot go back to round 2, log/00002/a\.safetensors is gone"):
            log.rewind(2)
        assert log.rounds() == [1, 2, 3, 4]
        log.rewind(3)
        assert log.weighted_sum("b").tolist() == [3 * 0.75 * 4]


def test_readers_see_complete_rounds_while_one_is_written(tmp_path: Path) -> None:
    with UpdateLog.create(tmp_path / "log", ONE) as log:
        write_round(log, 1, HAND_WORKED[0])
        reader = UpdateLog.open(tmp_path / "log")
        log.begin_round(2)
        log.add(2, "a", 1, 1, one(1.0), 1.0)
        assert (reader.rounds(), reader.delta(1, "b").tolist(), reader.verify()) == ([1], [4.0], {})
        log.commit_round(2, averaging=True)
        assert reader.rounds() == [1, 2]


@pytest.mark.parametrize("retention", ["full", "sum", "interval:2"])
def test_a_killed_writer_leaves_the_last_complete_round(tmp_path: Path, retention: str) -> None:
    """One log, one writer after the other, each killed at a random moment.

    Client c adds (t + c/8) / 3 in round t, so after n rounds its sum is (n (n + 1) / 2 + n c / 8) / 3.
    """
    path, seen = tmp_path / "log", 0
    generator = numpy_generator(0, "kill", retention)
    while seen < 10:
        kill_after(float(generator.uniform(0.05, 0.5)), write_until_killed, path, retention)
        if not (path / "index.sqlite").exists():
            continue
        reader = UpdateLog.open(path)  # Before anybody cleans up
        assert reader.verify() == {}
        with UpdateLog.open(path, write=True) as log:
            rounds = log.rounds()
            assert rounds == reader.rounds() == list(range(1, len(rounds) + 1))
            assert len(rounds) >= seen
            seen = len(rounds)
            for number in log.kept_rounds():
                for client_id in KILLED_CLIENTS:
                    assert torch.equal(log.delta(number, client_id), killed_update(number, client_id))
            expected = {f"{t:05d}/{c}.safetensors" for t in log.kept_rounds() for c in KILLED_CLIENTS}
            if retention == "sum" and seen:
                for client_id in KILLED_CLIENTS:
                    total = (seen * (seen + 1) / 2 + seen * int(client_id) / 8) / 3
                    assert log.weighted_sum(client_id)[0].item() == pytest.approx(total, rel=1e-6)
                log.compact()
                expected = {f"{seen:05d}/{c}.safetensors" for c in KILLED_CLIENTS}
            assert files_of(log) == expected


def test_what_a_killed_writer_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", HAND_WORKED)
    kept = files_of(log)
    (log.path / "00003").mkdir()
    (log.path / "00003" / "a.safetensors").write_bytes(b"torn")
    (log.path / "00001" / "zz.safetensors").write_bytes(b"")
    (log.path / "notes.txt").write_text("the user's own")
    assert log.verify() == {}
    UpdateLog.open(log.path, write=True).close()
    assert files_of(log) == kept
    assert (log.path / "notes.txt").exists()
    assert not (log.path / "00003").exists()


@pytest.mark.parametrize("position", [0, 10, -1])
def test_a_flipped_byte_is_named_and_nothing_else_is_lost(tmp_path: Path, position: int) -> None:
    log = make_log(tmp_path / "log", random_rounds(3, CLIENTS, SIZE), layout=WIDE)
    flip_byte(log.path / "00002" / "10.safetensors", position)
    assert list(log.verify()) == ["log/00002/10.safetensors"]
    with pytest.raises(RunCorrupt, match=r"log/00002/10\.safetensors: damaged, .* SHA-256"):
        log.delta(2, "10")
    with pytest.raises(RunCorrupt, match="log/00002/10"):
        log.weighted_sum("10")
    assert log.delta(1, "10").shape == log.weighted_sum("2").shape == (SIZE,)


def test_cut_off_and_missing_files_are_named(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", random_rounds(3, CLIENTS, SIZE), "sum", layout=WIDE)
    cut, missing = log.path / "00003" / "0.safetensors", log.path / "00003" / "hospital-a.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    missing.unlink()
    damage = log.verify()
    assert list(damage) == ["log/00003/0.safetensors", "log/00003/hospital-a.safetensors"]
    assert damage["log/00003/hospital-a.safetensors"].endswith("missing")
    with pytest.raises(RunCorrupt, match=r"hospital-a.safetensors: missing"):
        log.weighted_sum("hospital-a")


def test_a_damaged_sum_is_not_added_to(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", HAND_WORKED, "sum")
    flip_byte(log.path / "00002" / "a.safetensors", -1)
    with UpdateLog.open(log.path, write=True) as writer:
        with pytest.raises(RunCorrupt, match=r"log/00002/a.safetensors: damaged"):
            write_round(writer, 3, HAND_WORKED[0])
        assert writer.rounds() == [1, 2]
        assert writer.weighted_sum("b").tolist() == [2.5]


def test_a_number_changed_in_the_index_is_noticed(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", HAND_WORKED)
    with sqlite3.connect(log.path / "index.sqlite") as connection:
        connection.execute("UPDATE entries SET weight = 0.5 WHERE round = 1 AND client_id = 'a'")
    connection.close()
    assert log.verify() == {"log/index.sqlite": "round 1 does not match its link of the hash chain"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("retention", ["full", "sum"])
def test_a_full_disk_is_one_clear_line_and_costs_the_round_only(tmp_path: Path, retention: str) -> None:
    with UpdateLog.create(tmp_path / "log", ONE, retention) as log:
        write_round(log, 1, HAND_WORKED[0])
        (log.path / "00002").mkdir()
        (log.path / "00002" / "b.safetensors").symlink_to("/dev/full")
        with pytest.raises(
            LetheError, match=r"log/00002/b\.safetensors: the disk is full; free some space"
        ) as e:
            write_round(log, 2, HAND_WORKED[1])
        assert "\n" not in str(e.value)
        assert (log.rounds(), log.verify()) == ([1], {})
        write_round(log, 2, HAND_WORKED[1])
        assert log.weighted_sum("b").tolist() == [2.5]


def test_the_disk_may_be_full_for_the_index_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with UpdateLog.create(tmp_path / "log", ONE) as log:
        write_round(log, 1, HAND_WORKED[0])
        rounds = random_rounds(1, [str(i) for i in range(200)], 1)[0]
        real = sqlite3.connect

        def full(*args: str, **kwargs: bool) -> sqlite3.Connection:
            connection = real(*args, **kwargs)
            connection.execute("PRAGMA max_page_count = 1")  # Never below the present size
            return connection

        monkeypatch.setattr(sqlite3, "connect", full)
        with pytest.raises(LetheError, match=r"index\.sqlite: the disk is full"):
            write_round(log, 2, rounds)
        monkeypatch.undo()
        assert (log.rounds(), len(files_of(log)), log.verify()) == ([1], 2, {})


def test_float16_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with (
        UpdateLog.create(tmp_path / "log", ONE, dtype="float16") as log,
        pytest.raises(LetheError, match="float16 cannot hold an entry beyond ±65504; use bfloat16"),
    ):
        write_round(log, 1, {"a": (1, one(1e5))})


def test_calls_out_of_turn_are_refused(tmp_path: Path) -> None:
    with UpdateLog.create(tmp_path / "log", ONE) as log:
        with pytest.raises(LetheError, match="round 1 was not begun"):
            log.add(1, "a", 1, 1, one(1.0), 1.0)
        log.begin_round(1)
        with pytest.raises(LetheError, match="cannot begin round 2, round 1 is unfinished"):
            log.begin_round(2)
        with pytest.raises(LetheError, match=r"shape \(2,\), expected \(1,\)"):
            log.add(1, "a", 1, 1, torch.zeros(2), 0.0)
        with pytest.raises(LetheError, match="client 'a' has weight 0, expected a positive number"):
            log.add(1, "a", 0, 1, one(1.0), 1.0)
        log.add(1, "a", 1, 1, one(1.0), 1.0)
        with pytest.raises(LetheError, match="client 'a' occurs twice in round 1"):
            log.add(1, "a", 1, 1, one(1.0), 1.0)
        log.commit_round(1, averaging=True)
        with pytest.raises(LetheError, match="cannot begin round 1, round 1 is the last"):
            log.begin_round(1)
    with pytest.raises(LetheError, match="opened for reading, or is closed"):
        UpdateLog.open(tmp_path / "log").begin_round(2)


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with (
        UpdateLog.create(tmp_path / "log", ONE),
        pytest.raises(LetheError, match="another process is writing this log"),
    ):
        UpdateLog.open(tmp_path / "log", write=True)
    UpdateLog.open(tmp_path / "log", write=True).close()


def test_a_failed_opening_locks_nobody_out(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", HAND_WORKED)
    whole = (log.path / "index.sqlite").read_bytes()
    (log.path / "index.sqlite").write_bytes(b"")
    with pytest.raises(RunCorrupt, match="no such table: meta"):
        UpdateLog.open(log.path, write=True)
    (log.path / "index.sqlite").write_bytes(whole)
    UpdateLog.open(log.path, write=True).close()


def test_unknown_clients_and_rounds_are_named(tmp_path: Path) -> None:
    log = make_log(tmp_path / "log", HAND_WORKED)
    with pytest.raises(BadInput, match="no client 'zz'; it has a, b"):
        log.weighted_sum("zz")
    with pytest.raises(BadInput, match="client 'a' took no part in round 9"):
        log.delta(9, "a")


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="absent: no update log here"):
        UpdateLog.open(tmp_path / "absent")
    with pytest.raises(BadInput, match=r"no update log here; train with log.enabled = true"):
        UpdateLog.open(tmp_path)
    log = make_log(tmp_path / "log", HAND_WORKED)
    with pytest.raises(BadInput, match="holds '00001' already"):
        UpdateLog.create(log.path, ONE)
    index = log.path / "index.sqlite"
    index.rename(tmp_path / "saved")
    with pytest.raises(RunCorrupt, match=r"log/index\.sqlite: missing; the log is half written"):
        UpdateLog.open(log.path)
    index.write_bytes(b"no database" * 100)
    with pytest.raises(RunCorrupt, match=r"log/index\.sqlite: damaged \(file is not a database\)"):
        UpdateLog.open(log.path)


def test_a_log_that_was_half_created_can_be_created(tmp_path: Path) -> None:
    for name in ("writer.lock", "writer.lock-journal", "index.sqlite.tmp-journal"):
        (tmp_path / name).touch()
    (tmp_path / "index.sqlite.tmp").write_bytes(b"torn")
    with UpdateLog.create(tmp_path, ONE) as log:
        assert log.rounds() == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", "1", r"index\.sqlite: update log of version 1, this Lethe reads 2"),
        ("format", "other", "damaged, or not the index of an update log"),
        (
            "layout",
            json.dumps({"names": ["w"], "shapes": [[2]]}),
            "its description does not match its SHA-256",
        ),
    ],
)
def test_other_versions_and_changed_descriptions_are_refused(
    tmp_path: Path, key: str, value: str, message: str
) -> None:
    log = make_log(tmp_path / "log", HAND_WORKED)
    with sqlite3.connect(log.path / "index.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    connection.close()
    with pytest.raises(LetheError, match=message):
        UpdateLog.open(log.path)


def test_sums_are_float32_or_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"log\.dtype: got 'float16' with log\.retention = 'sum'"):
        UpdateLog.create(tmp_path / "log", ONE, "sum", "float16")
    assert not (tmp_path / "log").exists()


def test_weights_that_were_not_normalised_would_be_noticed(tmp_path: Path) -> None:
    """With raw weights the hand-worked sums would be 2·1 + 1·1 = 3 and 4·3 − 1 = 11."""
    log = make_log(tmp_path / "log", HAND_WORKED)
    raw = {"a": 3.0, "b": 11.0}
    assert all(log.weighted_sum(c).item() != raw[c] for c in raw)


def test_a_round_that_is_kept_can_be_gone_back_to(tmp_path: Path) -> None:
    """Under `sum`, by hand: a sends 1, 2, 3, 4; round 2 is kept, so its sum of 3 is there after round 4."""
    with UpdateLog.create(tmp_path / "log", ONE, "sum") as log:
        for server_round in (1, 2, 3, 4):
            log.begin_round(server_round)
            log.add(server_round, "a", 1.0, 1, one(float(server_round)), float(server_round))
            log.commit_round(server_round, True)
            if server_round <= 2:
                log.keep(server_round)  # Round 1 first, which round 2 replaces
        assert log.marked_round == 2
        log.begin_round(5)
        log.abandon()
        assert files_of(log) == {"00002/a.safetensors", "00004/a.safetensors"}
    with UpdateLog.open(log.path, write=True) as again:  # Deletes what nothing names
        assert "00002/a.safetensors" in files_of(again)
        head = again.sha256()
        again.rewind(2)
        again.compact()
        assert again.weighted_sum("a").tolist() == [3.0]
        assert again.verify() == {}
        assert head != again.sha256() == again._index.links()[2]
    with pytest.raises(LetheError, match="opened for reading"):
        UpdateLog.open(log.path).keep(1)
