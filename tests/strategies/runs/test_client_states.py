"""Of what clients keep, a checkpoint writes what has changed, and is whole whenever it is cut short."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from strategies.core.errors import LetheError, RunCorrupt
from strategies.core.seeds import numpy_generator
from strategies.runs.checkpoint import Checkpoint, read_checkpoint
from strategies.runs.client_states import FOLDER, StateFiles, delete_others, read_states
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import write_sealed

SIZE = 300_000
"""Bytes of a state: four of them are more than a checkpoint takes itself."""


def _state(client: int, version: int) -> bytes:
    return numpy_generator(version, "state", client).bytes(SIZE)


def _run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run", "")


def _write(folder: RunFolder, server_round: int, versions: Mapping[int, int]) -> int:
    """Write a checkpoint of clients' states with these versions; return how many bytes are new."""
    before = {path: path.stat().st_mtime_ns for path in (folder.path / FOLDER).glob("*")}
    states = {client: _state(client, version) for client, version in versions.items()}
    model = {"w": torch.full((3,), float(server_round))}
    folder.write_checkpoint(Checkpoint(server_round, model, {}, {}, states, versions))
    files = [path for path in (folder.path / FOLDER).glob("*") if before.get(path) != path.stat().st_mtime_ns]
    return sum(path.stat().st_size for path in files)


def _is(folder: RunFolder, server_round: int, versions: Mapping[int, int]) -> None:
    found = folder.read_checkpoint()
    assert found is not None
    assert found.round == server_round
    assert found.client_states == {client: _state(client, version) for client, version in versions.items()}


def test_what_has_changed_is_written(tmp_path: Path) -> None:
    """Ten clients, of which two change, then one, then none; then one is gone and one comes."""
    folder, versions = _run(tmp_path), dict.fromkeys(range(10), 0)
    written = [_write(folder, 1, versions)]
    for number, changed in ((2, (3, 4)), (3, (3,)), (4, ())):
        versions |= dict.fromkeys(changed, number)
        written.append(_write(folder, number, versions))
        _is(folder, number, versions)
    del versions[0]
    versions[11] = 1
    written.append(_write(folder, 5, versions))
    _is(RunFolder.open(folder.path), 5, versions)
    assert [round(size / SIZE) for size in written] == [10, 2, 1, 0, 1]


def test_what_is_outdated_does_not_pile_up(tmp_path: Path) -> None:
    """Five clients of which two change per round: never more than twice the states lies there."""
    folder, versions, written = _run(tmp_path), dict.fromkeys(range(5), 0), 0
    for number in range(1, 31):
        versions |= {number % 5: number, (number + 2) % 5: number}
        written += _write(folder, number, versions)
        _is(folder, number, versions)
        on_disk = sum(path.stat().st_size for path in (folder.path / FOLDER).iterdir())
        assert on_disk < 2 * 5 * SIZE + 10_000
    assert written < 1.6 * 30 * 2 * SIZE


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=8))
def test_any_changes_read_back(tmp_path_factory: pytest.TempPathFactory, rounds: list[set[int]]) -> None:
    """The slow reference is the dictionary itself."""
    folder = tmp_path_factory.mktemp("states") / FOLDER
    files, states, versions = StateFiles(folder), dict.fromkeys(range(7), b"0"), dict.fromkeys(range(7), 0)
    for number, changed in enumerate(rounds, start=1):
        states |= {client: f"{client} {number}".encode() for client in changed}
        versions |= dict.fromkeys(changed, number)
        table = json.loads(json.dumps(files.write(states, versions)))
        delete_others(folder, [table])
        assert read_states(folder, table) == states


def test_a_state_without_a_version_is_always_written(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / FOLDER)
    files.write({1: b"a", 2: b"b"}, {1: 1})
    table = files.write({1: b"x", 2: b"c"}, {1: 1})
    assert read_states(tmp_path / FOLDER, table) == {1: b"a", 2: b"c"}


def test_killed_before_the_checkpoint_the_last_one_stands(tmp_path: Path) -> None:
    """The new states are on the disk, the checkpoint is not; the next process resumes and cleans up."""
    folder, versions = _run(tmp_path), dict.fromkeys(range(5), 0)
    _write(folder, 1, versions)
    (folder.path / "checkpoint.safetensors.tmp").symlink_to("/dev/full")
    with pytest.raises(LetheError, match="the disk is full"):
        _write(folder, 2, versions | {1: 2})
    assert len(list((folder.path / FOLDER).iterdir())) == 2
    again = RunFolder.open(folder.path)
    _is(again, 1, versions)
    _write(again, 2, versions | {1: 2})
    _is(again, 2, versions | {1: 2})
    assert len(list((folder.path / FOLDER).iterdir())) == 1


def test_the_kept_round_keeps_its_states(tmp_path: Path) -> None:
    folder, versions = _run(tmp_path), dict.fromkeys(range(5), 0)
    _write(folder, 1, versions)
    folder.keep_checkpoint()
    _write(folder, 2, dict.fromkeys(range(5), 2))
    kept = folder.read_kept()
    assert kept is not None
    assert kept.client_states == {client: _state(client, 0) for client in range(5)}
    folder.drop_kept()
    _is(folder, 2, dict.fromkeys(range(5), 2))
    assert len(list((folder.path / FOLDER).iterdir())) == 1


def test_little_is_in_the_checkpoint_itself(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    folder.write_checkpoint(Checkpoint(1, {}, client_states={1: b"a", 2: b""}))
    assert not (folder.path / FOLDER).exists()
    found = folder.read_checkpoint()
    assert found is not None
    assert found.client_states == {1: b"a", 2: b""}


def test_all_of_it_is_erased(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    _write(folder, 1, dict.fromkeys(range(5), 0))
    folder.erase_checkpoint()
    assert folder.read_checkpoint() is None
    assert not (folder.path / FOLDER).exists()


def test_damage_is_noticed(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    _write(folder, 1, dict.fromkeys(range(5), 0))
    (path,) = (folder.path / FOLDER).iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunCorrupt, match=r"states/00000001\.safetensors: damaged"):
        folder.read_checkpoint()
    StateFiles(tmp_path / "other").write({1: b"x"}, {})
    path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    with pytest.raises(RunCorrupt, match="not the file that the checkpoint names"):
        folder.read_checkpoint()
    path.unlink()
    with pytest.raises(RunCorrupt, match="missing"):
        folder.read_checkpoint()


def test_a_checkpoint_of_the_first_version_is_read(tmp_path: Path) -> None:
    """It held a tensor for each client."""
    first, second = torch.tensor([1, 2], dtype=torch.uint8), torch.empty(0, dtype=torch.uint8)
    described = json.dumps({"round": 3, "extra": {"a": 1}, "clients": [7, "b"]})
    tensors = {"state/w": torch.ones(2), "client/0": first, "client/1": second}
    write_sealed(tmp_path / "c", tensors, {"version": "1", "checkpoint": described})
    found = read_checkpoint(tmp_path / "c")
    assert (found.round, found.extra, found.client_states) == (3, {"a": 1}, {7: b"\1\2", "b": b""})
