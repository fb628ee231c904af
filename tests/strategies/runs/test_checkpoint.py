"""A checkpoint is one value, in and out."""

from pathlib import Path

import pytest
import torch

from strategies.core.errors import BadInput, RunCorrupt
from strategies.runs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from strategies.runs.tensor_file import write_sealed
from tests.strategies.update_logs import flip_byte

CHECKPOINT = Checkpoint(
    round=3,
    state={"weight": torch.ones(2, 2), "steps": torch.tensor(5)},
    extra={"seconds": 1.5, "faults": [{"client": "a"}], "none": None},
    tensors={"moment|dict|weight": torch.full((2,), 0.1)},
    client_states={7: b"\x00\xff", "hospital/a": b"", "7": b"text"},
)


def test_everything_comes_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", CHECKPOINT)
    found = read_checkpoint(tmp_path / "c")
    assert (found.round, found.extra, found.client_states) == (3, CHECKPOINT.extra, CHECKPOINT.client_states)
    assert list(found.state) == ["weight", "steps"]
    assert torch.equal(found.state["weight"], torch.ones(2, 2))
    assert found.state["steps"].item() == 5
    assert list(found.tensors) == ["moment|dict|weight"]
    assert torch.equal(found.tensors["moment|dict|weight"], torch.full((2,), 0.1))


def test_the_least_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", Checkpoint(0, {}))
    found = read_checkpoint(tmp_path / "c")
    assert (found.round, found.state, found.extra, found.tensors, found.client_states) == (0, {}, {}, {}, {})


def test_damage_and_other_versions_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c", CHECKPOINT)
    flip_byte(tmp_path / "c", -3)
    with pytest.raises(RunCorrupt, match="c: damaged"):
        read_checkpoint(tmp_path / "c")
    write_sealed(tmp_path / "c", {}, {"version": "3", "checkpoint": "{}"})
    with pytest.raises(BadInput, match="c: checkpoint of version 3, this Lethe reads version 2"):
        read_checkpoint(tmp_path / "c")
