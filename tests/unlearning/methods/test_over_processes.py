"""The methods that ask clients, over worker processes: real messages, real workers, the digits."""

import json
from collections.abc import Iterator

import pytest

from app.config.run_config import RunConfig
from app.simulation import LocalGrid
from app.workflows import forget, train
from app.workflows.observer import Quiet
from app.workflows.session import Session
from strategies.runs.folder import RunFolder
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

CLIENT = ForgetRequest(clients=("2",))
SAMPLES = ForgetRequest(samples={"1": (0, 5, 6)})
DIGITS = (
    "run.rounds=3",
    "run.workers=2",
    "data.clients=4",
    "data.train-limit=200",
    "data.test-limit=60",
    "model.name=mlp",
    "model.hidden=8",
)


@pytest.fixture(scope="module")
def grid_and_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalGrid, RunFolder]]:
    """Return a grid of four clients and a run that was trained on it."""
    config = RunConfig().with_overrides([f"run.home={tmp_path_factory.mktemp('runs')}", *DIGITS])
    with Session.of(config).local_grid() as grid:
        yield grid, train(config, Quiet(), grid)


@pytest.mark.parametrize(
    ("method", "request_", "fixed", "per_product"),
    [
        ("federaser", CLIENT, 3, 0),  # round 3 of rounds 1 and 3; the first needs no visit
        ("fisher", CLIENT, 3, 0),
        ("fisher", SAMPLES, 4, 0),
        ("influence", CLIENT, 8, 3),
        ("influence", SAMPLES, 8, 4),
    ],
)
def test_methods_work_over_processes(
    grid_and_run: tuple[LocalGrid, RunFolder],
    method: str,
    request_: ForgetRequest,
    fixed: int,
    per_product: int,
) -> None:
    """Everyone that is asked answers, and is asked as often as the method says it costs."""
    grid, folder = grid_and_run
    lengths = "0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20"
    settings = ForgetSettings(method=method).with_own("influence", damping=0.1, alphas=lengths)
    name = forget(folder, request_, settings, Quiet(), grid)
    document = json.loads((folder.path / "forget" / name / "result.json").read_text())
    assert document["notes"] == []
    visits = fixed + per_product * document["details"].get("products", 0)
    assert document["traffic"]["visits"] == visits
