"""Nothing that fails ends a run: nodes that die, hang or lie, a server that dies, a SuperLink anew."""

import json
import stat
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from app.client.kept_state import read_state
from benchmarks.deployed.federation import Federation
from strategies.core.settings import Scalar
from strategies.layers.privacy.ledger import read_account
from strategies.runs.folder import RunFolder
from tests.deployed.conftest import CLIENTS, SMALL, home, in_one_process, until

LEAST_PATIENCE = 20.0
TAKEN = "claims a client-id that node"


def patience(trained: RunFolder) -> float:
    """Return seconds that a node which works needs for no round: four times the slowest round of a run."""
    return max(LEAST_PATIENCE, 4 * max(float(line["seconds"]) for line in trained.read_metrics()))


def test_a_run_goes_on_while_a_node_hangs_another_lies_and_a_third_is_killed(
    federation: Federation, trained: RunFolder
) -> None:
    """Each is named, and the killed one comes back into the same run with what it has spent on its disk.

    While it is away it pays for nothing; the account that it comes back with holds the rounds before.
    """
    name = "shaky"
    config: dict[str, Scalar] = {
        **SMALL,
        **home(federation),
        "run.name": name,
        "run.rounds": 200,  # It is ended when all has been seen
        "run.round-timeout": patience(trained),
        "privacy.unit": "example",
        "privacy.noise-multiplier": 4.0,
        "privacy.accountant": "rdp",
    }
    path = federation.runs / name
    federation.start_run(config, name)
    until(lambda: any("0" in clients for clients in _accepted(path)), federation, name)
    federation.pause("1")  # With its executor: it is there, and answers nothing
    federation.pause("executor-1")
    federation.start_node("twin", client_id="0")
    federation.wait_for("twin")
    until(lambda: any(TAKEN in reason for reason in _reasons(path, "0")), federation, name)
    until(lambda: bool(_reasons(path, "1")), federation, name)
    federation.kill("0")
    federation.kill("executor-0")
    until(lambda: "0" not in _accepted(path)[-1], federation, name)
    before = sum("0" in clients for clients in _accepted(path))
    federation.stop("twin")
    federation.unpause("1")
    federation.unpause("executor-1")
    until(partial(_is_back, federation, "0"), federation, name)
    until(lambda: {"0", "1"} <= set(_accepted(path)[-1]), federation, name)
    until(partial(_have_been_asked, federation, len(_accepted(path)) + 1), federation, name)
    federation.kill_server_app()
    federation.kill(name)
    assert all(_accepted(path)), "a round without any client"
    rounds = sum("0" in clients for clients in _accepted(path))
    assert rounds > before
    (kept,) = (federation.folder / "state").glob(f"0-{RunFolder.open(name, federation.runs).run_id}.*")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert read_account(read_state(kept)).attempts >= rounds


def test_a_run_whose_server_dies_is_resumed_on_a_superlink_that_was_restarted(
    federation: Federation, tmp_path: Path
) -> None:
    """It ends with the model that it would have had, and a client-id stays with the node that had it."""
    name = "mortal"
    config: dict[str, Scalar] = {
        **SMALL,
        **home(federation),
        "run.name": name,
        "run.rounds": 5,
        "run.round-timeout": 1800.0,  # Nobody is late
        "selection.min-clients": len(CLIENTS),
    }
    path = federation.runs / name
    federation.start_run(config, name)
    until(lambda: len(_accepted(path)) == 2, federation, name)
    until(partial(_have_been_asked, federation, 3), federation, name)
    federation.kill_server_app()
    federation.kill("superlink")
    federation.kill(name)
    assert not (path / "model.safetensors").exists()
    federation.start_superlink()
    federation.start_node("twin", client_id="0")
    federation.wait_for("twin")
    printed = federation.run({**config, "run.workflow": "resume", "request.run": name}, "resume")
    federation.stop("twin")
    assert "run folder" in printed, printed
    run = RunFolder.open(name, federation.runs)
    assert _accepted(path) == [list(CLIENTS)] * 5
    assert {(fault["client"], TAKEN in fault["reason"]) for fault in run.read_summary()["faults"]} == {
        ("0", True)
    }
    elsewhere = {key: value for key, value in config.items() if key not in home(federation)}
    expected = in_one_process(tmp_path, elsewhere).read_model()
    for key, tensor in run.read_model().items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=1e-6)


def _have_been_asked(federation: Federation, server_round: int) -> bool:
    """Say whether all nodes have a round's message: what is half sent they would wait for, minutes long."""
    told = f"ROUND {server_round}]"
    parts = [federation.output(name).rpartition(told) for name in CLIENTS]
    return all(found and "Received successfully" in after for _, found, after in parts)


def _is_back(federation: Federation, client_id: str) -> bool:
    """Start a node again that the SuperLink refused, as systemd does, until it is taken back."""
    if not federation.is_running(client_id):
        federation.start_node(client_id, warm=True)
    time.sleep(1)
    return "SuperNode ID" in federation.output(client_id)


def _lines(run: Path) -> list[dict[str, Any]]:
    """Return the rounds that are complete."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def _accepted(run: Path) -> list[list[str]]:
    return [line["accepted"] for line in _lines(run)]


def _reasons(run: Path, client_id: str) -> list[str]:
    """Return what the rounds say of a client's faults."""
    faults = [fault for line in _lines(run) for fault in line["faults"]]
    return [fault["reason"] for fault in faults if fault["client"] == client_id]
