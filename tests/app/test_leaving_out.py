"""data.without: the same partition less some clients, by which anyone can check that retraining is exact."""

from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.workflows import forget, train
from strategies.core.errors import BadInput
from strategies.runs.folder import MODEL, RunFolder
from tests.app.runs import flat_model
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "run.rounds=2",
    "run.workers=1",
    "data.clients=4",
    "data.train-limit=240",
    "data.test-limit=80",
    "model.name=mlp",
    "model.hidden=8",
    "log.enabled=false",
)
RETRAIN = ForgetSettings(method="retrain")


def trained(home: Path, name: str, *overrides: str) -> RunFolder:
    """Return a small run."""
    keys = (f"run.home={home}", f"run.name={name}", f"run.certificate-key={home / 'key.pem'}")
    return train(RunConfig().with_overrides([*keys, *SMALL, *overrides]))


@pytest.mark.parametrize(
    ("left_out", "more"),
    [
        ("3", ()),
        ("0,2", ("data.partition=dirichlet", "selection.fraction=0.7")),
        ("1", ("selection.min-clients=4",)),
    ],
    ids=["one", "two, the others drawn", "all must take part"],
)
def test_a_retrained_run_is_the_run_without_those_clients(
    left_out: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    """To the byte of the file, and only where they are left out."""
    run = trained(tmp_path, "all", *more)
    fewer = ("selection.min-clients=3",) if "selection.min-clients=4" in more else more
    never = trained(tmp_path, "never", f"data.without={left_out}", *fewer)
    name = forget(run, ForgetRequest(clients=tuple(left_out.split(","))), RETRAIN)
    assert (run.forget_folder(name) / MODEL).read_bytes() == (never.path / MODEL).read_bytes()
    assert not flat_model(never).equal(flat_model(run))
    assert set(never.read_summary()["clients"]) == {"0", "1", "2", "3"} - set(left_out.split(","))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.without=4", "data.without: no client '4'; known clients: 0, 1, 2, 3"),
        ("data.without=0,1,2,3", "which leaves no client of 4"),
        ("data.without=3,3", "without repetitions"),
    ],
)
def test_what_cannot_be_left_out_is_refused(override: str, message: str, tmp_path: Path) -> None:
    """In one line, and no folder is left."""
    with pytest.raises(BadInput, match=message):
        trained(tmp_path, "never", override)
    assert not (tmp_path / "never").exists()


def test_as_many_as_must_take_part_remain(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="which is 4 less 1 of data"):
        trained(tmp_path, "never", "data.without=3", "selection.min-clients=4")
