"""An encrypted update log: the same to its readers, noise on the disk, and unreadable without its keys."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from strategies.core.errors import BadInput, LetheError
from strategies.core.wire import Layout
from strategies.log import blobs as blobs_module
from strategies.log.update_log import UpdateLog
from tests.strategies.update_logs import Round, flip_byte, make_log, random_rounds, write_round

SIZE = 64
WIDE = Layout(("w",), ((SIZE,),))
CLIENTS = ("0", "2", "hospital-a")
RETENTIONS = ("full", "interval:2", "sum")


def encrypted(folder: Path, rounds: Sequence[Round], retention: str = "full") -> UpdateLog:
    with UpdateLog.create(folder / "log", WIDE, retention, keys=folder / "keys") as log:
        for number, updates in enumerate(rounds, start=1):
            write_round(log, number, updates)
    return UpdateLog.open(folder / "log")


def numbers(log: UpdateLog) -> list[list[float]]:
    if log.retention.kind == "sum":
        return [log.weighted_sum(i).tolist() for i in log.clients()]
    return [log.delta(t, i).tolist() for t in log.kept_rounds() for i in log.clients()]


def key_file(log: UpdateLog, client_id: str) -> Path:
    (path,) = log.path.parent.glob(f"keys/*/{client_id}.key")
    return path


@pytest.mark.parametrize("retention", RETENTIONS)
def test_readers_see_what_an_open_log_holds_and_the_disk_does_not(tmp_path: Path, retention: str) -> None:
    rounds = random_rounds(4, CLIENTS, SIZE)
    plain = make_log(tmp_path / "plain", rounds, retention, layout=WIDE)
    log = encrypted(tmp_path, rounds, retention)
    assert log.is_encrypted
    assert not plain.is_encrypted
    assert numbers(log) == numbers(plain)
    assert log.verify() == {}
    on_disk = b"".join(path.read_bytes() for path in log.path.rglob("*") if path.is_file())
    in_plain = b"".join(path.read_bytes() for path in plain.path.rglob("*") if path.is_file())
    seen = [plain.weighted_sum("2") if retention == "sum" else plain.delta(1, "2")]
    for update in seen:
        piece = update[:4].numpy().tobytes()
        assert piece in in_plain
        assert piece not in on_disk
    assert not list(log.path.rglob("*.safetensors"))


def test_it_can_be_gone_on_with_and_rewound(tmp_path: Path) -> None:
    rounds = random_rounds(4, CLIENTS, SIZE)
    for retention in RETENTIONS:
        whole = encrypted(tmp_path / retention.replace(":", ""), rounds, retention)
        cut = encrypted(tmp_path / f"cut-{retention.replace(':', '')}", rounds[:3], retention)
        with UpdateLog.open(cut.path, write=True) as log:
            log.rewind(2)
            for number in (3, 4):
                write_round(log, number, rounds[number - 1])
        assert numbers(UpdateLog.open(cut.path)) == numbers(whole)
        assert UpdateLog.open(cut.path).verify() == {}


def test_the_place_where_updates_wait_is_encrypted_too(tmp_path: Path) -> None:
    """Under `sum` they lie in a file without a name until the round ends."""
    with UpdateLog.create(tmp_path / "log", WIDE, "sum", keys=tmp_path / "keys") as log:
        log.begin_round(1)
        log.add(1, "a", 1.0, 1, torch.arange(float(SIZE)), 1.0)
        log._background.finish()
        file = log._spool._file
        assert file is not None
        file.seek(0)
        assert torch.arange(8.0).numpy().tobytes() not in file.read()
        log.commit_round(1, averaging=True)
        assert log.weighted_sum("a").tolist() == list(range(SIZE))


# a purge


@pytest.mark.parametrize("retention", RETENTIONS)
def test_a_purge_destroys_the_key_and_with_it_every_copy(tmp_path: Path, retention: str) -> None:
    log = encrypted(tmp_path, random_rounds(4, CLIENTS, SIZE), retention)
    shutil.copytree(log.path, tmp_path / "copy")
    others = [log.weighted_sum("0")] if retention != "interval:2" else []
    with key_file(log, "2").open("rb") as held, UpdateLog.open(log.path, write=True) as writer:
        writer.purge(["2"])
        assert held.read() == bytes(64)
    copy = UpdateLog.open(tmp_path / "copy")
    assert copy.unreadable() == ["2"]
    with pytest.raises(LetheError, match=r"2\.key: missing"):
        copy.weighted_sum("2") if retention == "sum" else copy.delta(1, "2")
    log = UpdateLog.open(log.path)
    assert (log.verify(), log.unreadable(), set(log.purged())) == ({}, [], {"2"})
    assert copy.verify() == {}
    for before in others:
        assert torch.equal(log.weighted_sum("0"), before)
    with UpdateLog.open(copy.path, write=True) as writer:
        writer.purge(["2"])  # The key is gone already
    assert UpdateLog.open(copy.path).verify() == {}


def test_the_key_goes_before_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = encrypted(tmp_path, random_rounds(2, CLIENTS, SIZE))

    def fails(path: Path) -> None:
        assert not list(tmp_path.glob("keys/*/2.key"))
        raise LetheError(f"{path}: cannot be written")

    monkeypatch.setattr(blobs_module, "erase", fails)
    with (
        UpdateLog.open(log.path, write=True) as writer,
        pytest.raises(LetheError, match="cannot be written"),
    ):
        writer.purge(["2"])
    monkeypatch.undo()
    with pytest.raises(BadInput, match="were purged"):
        log.delta(1, "2")
    UpdateLog.open(log.path, write=True).close()
    assert UpdateLog.open(log.path).verify() == {}


def test_keys_that_lie_elsewhere_cannot_be_destroyed_from_here(tmp_path: Path) -> None:
    log = encrypted(tmp_path, random_rounds(2, CLIENTS, SIZE))
    shutil.move(tmp_path / "keys", tmp_path / "elsewhere")
    with UpdateLog.open(log.path, write=True) as writer, pytest.raises(BadInput, match="keys are not here"):
        writer.purge(["2"])
    assert (log.purged(), log.unreadable(), log.verify()) == ({}, list(CLIENTS), {})
    flip_byte(log.path / "00002" / "0.enc", 70)
    assert "do not match the SHA-256" in log.verify()["log/00002/0.enc"]


# damage


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_flipped_byte_is_noticed(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = encrypted(Path(folder), random_rounds(1, ("0",), SIZE))
        blob = log.path / "00001" / "0.enc"
        path = data.draw(st.sampled_from([blob, key_file(log, "0")]))
        flip_byte(path, data.draw(st.integers(0, path.stat().st_size - 1)))
        assert set(log.verify()) == {"log/00001/0.enc"}
        with pytest.raises(LetheError):
            UpdateLog.open(log.path).delta(1, "0")


def test_a_file_in_the_place_of_another_is_noticed_even_with_its_hash(tmp_path: Path) -> None:
    """Whoever also rewrites the index has no key with which the file would be right."""
    log = encrypted(tmp_path, random_rounds(2, ("0",), SIZE))
    blobs = log._blobs
    shutil.copy(blobs.file(1, "0"), blobs.file(2, "0"))
    with pytest.raises(LetheError, match="cannot be decrypted, not what was encrypted with this key"):
        blobs.read(2, "0", None)
