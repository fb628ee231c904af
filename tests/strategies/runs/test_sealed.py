"""A tensor file is checked without torch, and as strictly as where it is read."""

from pathlib import Path

import pytest
import torch

from strategies.core.errors import RunCorrupt
from strategies.runs.sealed import TYPES, Place, check_sealed, header_of
from strategies.runs.tensor_file import encode, read_sealed, write_sealed
from tests.strategies.update_logs import flip_byte

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True, False])}


def test_the_places_worked_by_hand() -> None:
    """Six floats of 4 bytes lie before two booleans, after the header."""
    content = b"".join(encode(STATE, {"note": "x"}))
    start = 8 + int.from_bytes(content[:8], "little")
    found = header_of(bytearray(content))
    assert found.places == {"a": Place("float32", (2, 3), start), "b": Place("bool", (2,), start + 24)}
    assert found.metadata == {"note": "x"}


def test_every_type_has_torchs_name_and_width() -> None:
    assert all(getattr(torch, name).itemsize == width for name, width in TYPES.values())


@pytest.mark.parametrize("position", [0, 20, 60, -1])
def test_a_flipped_byte_is_noticed_as_in_reading(tmp_path: Path, position: int) -> None:
    path = tmp_path / "m.safetensors"
    write_sealed(path, STATE)
    check_sealed(path)
    flip_byte(path, position)
    for look in (check_sealed, read_sealed):
        with pytest.raises(RunCorrupt, match="do not match its SHA-256"):
            look(path)


def test_a_sealed_file_whose_header_lies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    monkeypatch.setitem(TYPES, "F32", ("float32", 8))
    write_sealed(path, STATE)
    with pytest.raises(RunCorrupt, match="sealed, but no file of tensors: a tensor does not fill the place"):
        check_sealed(path)
