"""Large updates are logged a piece at a time: the same files, bytes and sums as in one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.core import layout as layouts
from strategies.core.errors import LetheError, RunCorrupt
from strategies.core.wire import Layout
from strategies.log import blobs, reading
from strategies.log.pieces import Pieces, whole
from strategies.log.reading import by_parts
from strategies.log.update_log import UpdateLog
from strategies.runs import files
from tests.strategies.update_logs import flip_byte, random_rounds, write_round

WIDE = Layout(("weight", "bias"), ((29, 10), (10,)))
CLIENTS = ("0", "2", "10")


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every vector for a large one, in pieces of 64 entries."""
    monkeypatch.setattr(layouts, "LARGE_BYTES", 4)
    monkeypatch.setattr(blobs, "PIECE", 64)
    monkeypatch.setattr("strategies.log.round_writer.PIECE", 64)
    monkeypatch.setattr(reading, "PART", 64)
    monkeypatch.setattr(files, "_MAPPED", 64)


def test_pieces_of_one_size_are_the_same_bytes() -> None:
    """A head of three bytes, then pieces of four: abc, defg, hi."""
    content = Pieces(9, lambda: iter((b"ab", b"cdefghi")))
    assert [bytes(piece) for piece in content.of_size(4, first=3)] == [b"abc", b"defg", b"hi"]
    assert b"".join(content) == b"abcdefghi"
    assert [bytes(piece) for piece in whole(b"").of_size(4)] == [b""]


def logged(path: Path, retention: str, dtype: str, keys: Path | None = None) -> UpdateLog:
    """Return a log of three rounds; the weights of the second are not those that were expected."""
    with UpdateLog.create(path, WIDE, retention, dtype, keys) as log:
        for number, updates in enumerate(random_rounds(3, CLIENTS, WIDE.size), start=1):
            write_round(log, number, updates)
    with UpdateLog.open(path, write=True) as log:  # What another process wrote is checked
        write_round(log, 4, random_rounds(1, CLIENTS, WIDE.size, seed=1)[0])
    return UpdateLog.open(path)


@pytest.mark.parametrize(
    ("retention", "dtype"), [("full", "float32"), ("full", "bfloat16"), ("sum", "float32")]
)
def test_a_log_in_pieces_is_the_log_in_one(
    tmp_path: Path, retention: str, dtype: str, request: pytest.FixtureRequest
) -> None:
    plain = logged(tmp_path / "plain", retention, dtype)
    request.getfixturevalue("_large")
    pieces = logged(tmp_path / "pieces", retention, dtype)
    assert pieces.entries() == plain.entries()
    for client_id in CLIENTS:
        assert torch.equal(pieces.weighted_sum(client_id), plain.weighted_sum(client_id))
    assert pieces.verify() == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("_large")
def test_parts_of_updates_are_the_updates(tmp_path: Path, dtype: str) -> None:
    """300 entries in parts of 64: four, and one of 44."""
    log = logged(tmp_path / "log", "full", dtype)
    update = log.delta(2, "10")
    parts = [(part, of_part.size, of_part.delta(2, "10")) for part, of_part in log.parts()]
    assert [(part.start, size) for part, size, _ in parts] == [
        (0, 64),
        (64, 64),
        (128, 64),
        (192, 64),
        (256, 44),
    ]
    assert torch.equal(torch.cat([found for *_, found in parts]), update)
    assert torch.equal(by_parts(log, lambda of_part, part: of_part.delta(2, "10")), update)
    assert [len(parts) for parts in by_client(log)] == [5] * len(CLIENTS)


def by_client(log: UpdateLog) -> list[list[Tensor]]:
    """Return the updates of round 1 in parts."""
    parts = [dict(of_part.updates(1)) for _, of_part in log.parts()]
    return [[part[entry] for part in parts] for entry in log.entries(1)]


@pytest.mark.usefixtures("_large")
def test_a_file_that_was_not_compared_with_its_hash_is_not_read_in_parts(tmp_path: Path) -> None:
    log = logged(tmp_path / "log", "full", "float32")
    parts = log.parts()
    _, first = next(parts)
    flip_byte(tmp_path / "log" / "00001" / "2.safetensors", -1)
    with pytest.raises(RunCorrupt, match="its bytes do not match"):
        first.delta(1, "2")
    _, second = next(parts)
    with pytest.raises(RunCorrupt, match="written while the log was read"):
        second.delta(1, "0")


@pytest.mark.parametrize("retention", ["full", "sum"])
@pytest.mark.usefixtures("_large")
def test_an_encrypted_log_in_pieces_can_be_read(tmp_path: Path, retention: str) -> None:
    found = logged(tmp_path / "log", retention, "float32", tmp_path / "keys")
    plain = logged(tmp_path / "plain", retention, "float32")
    for client_id in CLIENTS:
        assert torch.equal(found.weighted_sum(client_id), plain.weighted_sum(client_id))
    assert found.verify() == {}


@pytest.mark.usefixtures("_large")
def test_a_flipped_byte_and_a_cut_file_are_noticed(tmp_path: Path) -> None:
    log = logged(tmp_path / "log", "full", "float32")
    first, second = sorted((tmp_path / "log" / "00001").iterdir())[:2]
    flip_byte(first, -1)
    second.write_bytes(second.read_bytes()[:-8])
    damaged = log.verify()
    assert set(damaged) == {f"log/00001/{path.name}" for path in (first, second)}
    for client_id in (first.stem, second.stem):
        with pytest.raises(RunCorrupt, match="its bytes do not match"):
            log.delta(1, client_id)


@pytest.mark.usefixtures("_large")
def test_an_entry_beyond_float16_is_refused_in_pieces_as_well(tmp_path: Path) -> None:
    with UpdateLog.create(tmp_path / "log", WIDE, "full", "float16") as log:
        log.begin_round(1)
        delta = torch.zeros(WIDE.size)
        delta[200] = 70_000.0
        with pytest.raises(LetheError, match="float16 cannot hold an entry beyond"):
            log.add(1, "0", 1.0, 1, delta, 70_000.0)
