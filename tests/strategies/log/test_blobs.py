"""The files of updates."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from strategies.core.errors import RunCorrupt
from strategies.log.blobs import Blobs, pack, unpack
from strategies.log.names import file_stem


@given(ids=st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_every_client_has_a_file_of_its_own_in_the_folder(ids: list[str]) -> None:
    stems = [file_stem(client_id) for client_id in ids]
    assert stems[0].lower() != stems[1].lower()
    assert all(set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-%") for stem in stems)
    assert all(len(stem) <= 200 for stem in stems)


def test_names_that_would_lead_elsewhere_stay_in_the_folder(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "log", 1)
    for client_id in ("../../x", "/etc/passwd", "..", "", "a\0b", "%%" + "0" * 64, "x" * 500):
        assert blobs.file(1, client_id).parent == tmp_path / "log" / "00001"
        (tmp_path / "log").mkdir(exist_ok=True)
        blobs.write(1, client_id, pack(client_id, torch.ones(1), "float32"))
        assert blobs.read(1, client_id, None).tolist() == [1.0]


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, 3)
    digest = blobs.write(12, "a", pack("a", torch.arange(3.0), "float32"))
    path = tmp_path / "00012" / "a.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert blobs.read(12, "a", digest).tolist() == [0.0, 1.0, 2.0]
    assert blobs.label(12, "a") == f"{tmp_path.name}/00012/a.safetensors"


def test_a_vector_of_another_length_is_refused(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, 2)
    digest = blobs.write(1, "a", pack("a", torch.zeros(3), "float32"))
    with pytest.raises(RunCorrupt, match=r"holds shape \(3,\), expected \(2,\)"):
        blobs.read(1, "a", digest)


def test_a_packed_vector_is_a_copy() -> None:
    delta = torch.ones(4)
    content = pack("a", delta, "float32")
    delta.zero_()
    assert unpack(content).tolist() == [1.0] * 4
    assert pack("a", torch.zeros(0), "float16")


def test_removing_the_last_file_removes_the_folder(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, 1)
    for client_id in "ab":
        blobs.write(1, client_id, pack(client_id, torch.ones(1), "float32"))
    blobs.remove([(1, "a")])
    assert blobs.file(1, "b").exists()
    blobs.remove([(1, "a"), (1, "b"), (7, "c")])
    assert not (tmp_path / "00001").exists()
