"""What clients keep lies in files of its own: a run that was cut short goes on with the same bits."""

from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.workflows import resume, train
from strategies.runs.folder import RunFolder
from tests.app.runs import StopAfter, Stopped, flat_model

_SMALL = (
    "run.rounds=4",
    "data.clients=6",
    "data.train-limit=300",
    "data.test-limit=60",
    "model.name=mlp",
    "model.hidden=16",
    "train.local-steps=2",
    "train.momentum=0",
    "selection.fraction=0.34",
    "log.enabled=false",
)


@pytest.mark.parametrize("strategy", ["ditto"])
def test_a_run_with_states_is_resumed(tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of six clients take part in a round; the states of all are the uninterrupted run's."""
    monkeypatch.setattr("strategies.runs.checkpoint._FEW_BYTES", 1_000)
    chosen = (*_SMALL, f"strategy.name={strategy}", f"run.home={tmp_path}")
    whole = train(RunConfig().with_overrides([*chosen, "run.name=whole"]))
    with pytest.raises(Stopped):
        train(RunConfig().with_overrides([*chosen, "run.name=cut"]), StopAfter(2))
    cut = RunFolder.open("cut", tmp_path)
    assert list((cut.path / "states").iterdir())
    assert flat_model(resume(cut)).equal(flat_model(whole))
    first, second = cut.read_checkpoint(), whole.read_checkpoint()
    assert first is not None
    assert second is not None
    assert first.client_states.keys() == second.client_states.keys()
    sizes = [{i: len(s) for i, s in found.client_states.items()} for found in (first, second)]
    assert sizes[0] == sizes[1]
