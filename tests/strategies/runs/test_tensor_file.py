"""Tensors come back as they were, or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from strategies.core.errors import RunCorrupt
from strategies.core.wire import Layout
from strategies.runs.tensor_file import decode, encode, read_sealed, write_sealed
from tests.strategies.update_logs import flip_byte

STATE = {
    "z.weight": torch.arange(6.0).view(2, 3),
    "z.count": torch.tensor(7),
    "a.half": torch.tensor([1.5, -2.0, 3.0], dtype=torch.float16),
    "a.brain": torch.tensor([0.5], dtype=torch.bfloat16),
    "a.flags": torch.tensor([True, False, True]),
    "a.empty": torch.zeros(0, 4),
    "a.bytes": torch.arange(5, dtype=torch.uint8),
    "a.wide": torch.tensor([1e300], dtype=torch.float64),
}


def test_the_bytes_of_one_number_worked_by_hand() -> None:
    """Header of 62 bytes, filled up to 64; its length in 8 bytes, little end first; 1.0 is 00 00 80 3f."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    assert len(header) == 54
    expected = bytes([56, 0, 0, 0, 0, 0, 0, 0]) + header + b"  " + bytes([0, 0, 0x80, 0x3F])
    assert b"".join(encode({"w": torch.ones(1)}, {})) == expected


def test_what_was_written_is_read_in_the_same_order(tmp_path: Path) -> None:
    write_sealed(tmp_path / "m.safetensors", STATE, {"note": "ä"})
    found = read_sealed(tmp_path / "m.safetensors")
    assert list(found.tensors) == list(STATE)
    assert found.metadata == {"note": "ä"}
    assert Layout.of(found.tensors) == Layout.of(STATE)
    for name, tensor in STATE.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_the_safetensors_library_reads_the_same(tmp_path: Path) -> None:
    seal = write_sealed(tmp_path / "m.safetensors", STATE)
    found = load_file(tmp_path / "m.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert file.metadata() == {"sha256": seal}


def test_views_and_parameters_are_written_as_they_look(tmp_path: Path) -> None:
    state = {"t": torch.arange(6.0).view(2, 3).T, "p": torch.nn.Parameter(torch.ones(2))}
    write_sealed(tmp_path / "m", state)
    found = read_sealed(tmp_path / "m").tensors
    assert torch.equal(found["t"], state["t"])
    assert torch.equal(found["p"], torch.ones(2))


def test_the_same_tensors_have_the_same_seal(tmp_path: Path) -> None:
    first = write_sealed(tmp_path / "a", STATE)
    assert write_sealed(tmp_path / "b", STATE) == first
    assert write_sealed(tmp_path / "c", STATE | {"z.count": torch.tensor(8)}) != first


def test_every_single_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_sealed(path, {"w": torch.arange(3.0), "n": torch.tensor([1])}, {"round": "1"})
    for position in range(path.stat().st_size):
        flip_byte(path, position)
        with pytest.raises(RunCorrupt, match=r"m\.safetensors: damaged, its bytes do not match its SHA-256"):
            read_sealed(path)
        flip_byte(path, position)
    read_sealed(path)


@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_file_that_was_cut_off_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.safetensors"
    write_sealed(path, STATE)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RunCorrupt, match="damaged"):
        read_sealed(path)
    path.unlink()
    with pytest.raises(RunCorrupt, match=r"m\.safetensors: missing"):
        read_sealed(path)


def test_bytes_without_a_whole_header_are_refused() -> None:
    with pytest.raises(ValueError, match="its header is cut off"):
        decode(bytearray(b"\xff\0\0\0\0\0\0\0{}"))
