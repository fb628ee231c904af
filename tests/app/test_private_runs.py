"""A private run in real processes that are killed: what is spent is counted, and no more is spent.

Every private step is written down by a hook that stands outside of the code under test, in each process that
trains; so the steps that the accounts know can be held against those that were taken.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from app.client_app import app
from app.config.run_config import RunConfig
from app.models.built_in import build_model
from app.simulation.client import config_of
from app.simulation.grid import take_identity
from app.workflows import resume, train
from strategies.client.training import ClientJob, LocalResult
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.layers.privacy import client as private_client, training
from strategies.layers.privacy.accounting import Spend, epsilon_of
from strategies.layers.privacy.ledger import LedgerFile
from strategies.runs.folder import RunFolder
from tests.app.runs import in_a_process

DELTA, BUDGET, ROUNDS, STEPS = 1e-3, 3.0, 4, 3


def watch(folder: Path) -> None:
    """Have this process, and all that it forks, write down private steps; in two places they end badly."""
    present: dict[str, Any] = {}
    step, train_level = training._step, private_client._example_level

    def counted(*given: Any) -> None:
        with (folder / "steps").open("a") as lines:
            lines.write(present["client"] + "\n")
        step(*given)
        if present["client"] == "2" and present["round"] == 3 and not (folder / "killed").exists():
            (folder / "waiting").touch()
            while not (folder / "killed").exists():
                time.sleep(0.01)
            os._exit(1)

    def trained(half: Any, job: ClientJob, *given: Any) -> LocalResult:
        present.update(client=job.client_id, round=job.server_round)
        result = train_level(half, job, *given)
        if (job.client_id, job.server_round) == ("1", 2):
            os.kill(os.getpid(), signal.SIGKILL)  # Before the answer
        return result

    training._step, private_client._example_level = counted, trained


@pytest.fixture(scope="module", params=["state", "ledger"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run killed in round 3 and resumed; client 1's answer of round 2 was lost.

    With ``ledger`` the clients have files of their own, with ``state`` only what the run keeps for them.
    """
    folder = tmp_path_factory.mktemp(request.param)
    keys = [
        *(f"run.home={folder}", "run.name=cut", f"run.rounds={ROUNDS}", "run.workers=1", "data.clients=3"),
        *("data.train-limit=240", "data.test-limit=40", "model.name=mlp", "model.hidden=4"),
        *(f"train.local-steps={STEPS}", "privacy.unit=example", f"privacy.epsilon={BUDGET}"),
        *(f"privacy.delta={DELTA}", "privacy.accountant=rdp", "log.enabled=false"),
        *(["privacy.ledger=" + str(folder)] if request.param == "ledger" else []),
    ]
    config = RunConfig().with_overrides(keys)
    process = in_a_process(lambda: (watch(folder), train(config)))
    deadline = time.monotonic() + 900
    while not (folder / "waiting").exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    (folder / "killed").touch()
    process = in_a_process(lambda: (watch(folder), resume(RunFolder.open("cut", folder))))
    process.join(900)
    assert process.exitcode == 0
    return folder


def taken(folder: Path) -> Counter[str]:
    """Return the private steps of each client that were really taken."""
    return Counter((folder / "steps").read_text().split())


def summary_of(folder: Path) -> dict[str, Any]:
    """Return the run's summary."""
    told: dict[str, Any] = json.loads((folder / "cut" / "summary.json").read_text())
    return told


def test_the_run_was_killed_where_it_hurts(killed: Path) -> None:
    """Client 1's second answer was lost; client 0, 1 and 2 had 3, 3 and 1 steps of round 3 for nothing."""
    metrics = [json.loads(line) for line in (killed / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in metrics] == [1, 2, 3, 4]
    assert metrics[1]["accepted"] == ["0", "2"]
    assert "SIGKILL" in metrics[1]["faults"][0]["reason"]
    assert taken(killed)["2"] % STEPS == 1


def test_no_step_is_missing_from_the_accounts_and_none_is_beyond_the_budget(killed: Path) -> None:
    """The run's noise is solved for four rounds, and with the one that was undone there would be five."""
    counts, summary = taken(killed), summary_of(killed)
    for client_id, row in summary["privacy"]["clients"].items():
        noise, rate = row["noise-multiplier"], 32 / summary["clients"][client_id]["num-examples"]
        least = epsilon_of((Spend(noise, rate, counts[client_id]),), DELTA, "rdp")
        assert 0 < least <= row["epsilon"] <= BUDGET
        assert row["refused-rounds"] == 1
        assert "budget is spent" in row["reason"]
        assert STEPS * 3 < counts[client_id] <= STEPS * ROUNDS
        file = killed / f"{client_id}.json"
        assert LedgerFile(file).read() == ((Spend(noise, rate, STEPS * ROUNDS),) if file.exists() else ())
    assert (killed / "0.json").exists() == killed.name.startswith("ledger")


@pytest.mark.parametrize("missing", ["strategies.layers.privacy.training", "opacus.validators"])
def test_if_the_private_path_cannot_be_built_nothing_is_sent(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client on whose machine private training cannot be imported raises; it does not train without."""
    path = "strategies.layers.privacy."
    for name in [name for name in sys.modules if name in (path + "training", path + "models")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    keys = ["model.name=mlp", "model.hidden=4", "data.clients=2", "privacy.unit=example", "privacy.epsilon=8"]
    config = RunConfig().with_overrides([*keys, "privacy.accountant=rdp"])
    node = {"partition-id": 0, "num-partitions": 2}
    context = Context(1, 1, node, RecordDict(), config_of(config.to_flat()))
    take_identity()
    state = build_model(config.model, (1, 8, 8), 10, 0).state_dict()
    told = ConfigRecord({wire.SERVER_ROUND: 1, wire.NUM_GROUPS: 10, wire.INPUT_SHAPE: [1, 8, 8]})
    content = RecordDict({wire.ARRAYS: wire.record_of(state), wire.CONFIG: told})
    with pytest.raises(LetheError, match=r"^ModuleNotFoundError; the text stays in the log of the client"):
        app(Message(content, 1, wire.TRAIN), context)
