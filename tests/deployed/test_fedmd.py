"""FedMD over a SuperLink: models that differ stay with their clients, also between runs."""

import json
from pathlib import Path
from typing import Any

import torch

from app.workflows.opened import OpenedRun
from benchmarks.deployed.federation import Federation
from strategies.core.settings import Scalar
from strategies.runs.folder import RunFolder
from tests.deployed.conftest import CLIENTS, SMALL, home, in_one_process
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

CONFIG: dict[str, Scalar] = {
    **{key: value for key, value in SMALL.items() if not key.startswith("model.")},
    "run.name": "unlike",
    "data.public": "0.3",
    "strategy.name": "fedmd",
    "strategy.models": "mlp-16,mlp-24",
    "strategy.public-epochs": 2,
}
NAME = "client-1-redistill"


def test_clients_keep_their_models_and_digest_again(federation: Federation, tmp_path: Path) -> None:
    """Training, and forgetting from the present models in a run of its own, are those of one process."""
    printed = federation.run({**CONFIG, **home(federation)}, "unlike")
    assert "run folder" in printed, printed
    run = RunFolder.open("unlike", federation.runs)
    local = in_one_process(tmp_path, CONFIG)
    assert torch.equal(run.read_model()["logits"], local.read_model()["logits"])
    kept = list((federation.folder / "state").glob(f"*-{run.run_id}.*"))
    assert sorted(path.name.split("-")[0] for path in kept) == list(CLIENTS)

    request: dict[str, Scalar] = {
        "run.workflow": "forget",
        "request.run": "unlike",
        "request.clients": "1",
        "forget.method": "redistill",
        "forget.redistill.start": "now",
    }
    federation.run({**CONFIG, **home(federation), **request}, "digest")
    opened = OpenedRun.of(local, None)
    with opened.session.local_grid() as grid, opened.session.cohort(grid) as cohort:
        settings = ForgetSettings.of("redistill", start="now")
        opened.forget(ForgetRequest(clients=("1",)), "redistill", settings, cohort)
    assert _figures(run) == _figures(local)


def _figures(run: RunFolder) -> dict[str, Any]:
    """Return what the others' models, which the server never sees, came to by digesting again."""
    result = json.loads((run.path / "forget" / NAME / "result.json").read_text())
    found = {key: result["details"][key] for key in ("train-loss", "test-accuracy")}
    assert all(value > 0 for value in found.values())
    return found
