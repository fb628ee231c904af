"""Nothing that fails ends a run: nodes that die, hang or lie, a server that dies, a SuperLink that restarts.

The one test takes the federation apart and puts it together again; the other files' tests find it whole.
"""

import json
import os
import stat
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.kept_state import read_state
from benchmarks.deployed.federation import Federation
from strategies.privacy.ledger import read_account
from strategies.run_folder import RunFolder
from strategies.settings import Scalar
from tests.deployed.conftest import SMALL, home, until

ROUND_TIMEOUT = 15.0
ROUNDS = 10
NAME = "shaky"


@pytest.mark.skipif(
    not os.environ.get("LETHE_FAULTS"), reason="takes minutes, mostly of waiting; LETHE_FAULTS=1 runs it"
)
def test_nothing_that_fails_ends_a_run(federation: Federation) -> None:
    """A node hangs, another claims a name that is taken, a third is killed in a round, and the server dies.

    The private run goes on with whoever answers, names the others, and is resumed to its end on a SuperLink
    that was restarted with its database. The client whose node was killed has written its account down.
    """
    run = federation.runs / NAME
    config: dict[str, Scalar] = {
        **SMALL,
        **home(federation),
        "run.name": NAME,
        "run.rounds": ROUNDS,
        "run.round-timeout": ROUND_TIMEOUT,
        "privacy.unit": "example",
        "privacy.noise-multiplier": 1.0,
        "privacy.accountant": "rdp",
    }
    federation.start_run(config, NAME)
    until(lambda: any("0" in clients for clients in _accepted(run)), federation, NAME)
    _hang(federation, "1")  # A round takes its whole timeout now, and leaves time for what follows
    federation.start_node("twin", client_id="0")
    federation.wait_for("twin")
    until(partial(_twin_is_named, run), federation, NAME)
    federation.kill("0")
    federation.kill("executor-0")  # Alone it would wait minutes for the rest of a message
    seen = len(_accepted(run))
    until(lambda: len(_accepted(run)) > seen, federation, NAME)
    federation.kill_server_app()
    federation.stop("twin")
    federation.kill("superlink")
    federation.kill(NAME)
    assert not (run / "model.safetensors").exists()
    _go_on(federation, "1")
    federation.start_superlink()
    until(partial(_is_back, federation, "0"), federation, "0")
    printed = federation.run({**config, "run.workflow": "resume", "request.run": NAME}, "resume")
    assert "run folder" in printed, printed
    _look_at(RunFolder.open(NAME, federation.runs), federation.folder / "state")


def _look_at(run: RunFolder, kept: Path) -> None:
    """Check that all rounds were completed, each fault has a name, and a client's account survived."""
    summary, accepted = run.read_summary(), _accepted(run.path)
    assert summary["completed-rounds"] == len(accepted) == ROUNDS
    faults = {(fault["client"], fault["reason"]) for fault in summary["faults"]}
    assert any(client == "1" for client, _ in faults)
    assert any(client == "0" and "claims a client-id that node" in reason for client, reason in faults)
    (path,) = kept.glob(f"0-{run.run_id}.*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rounds_of_0 = [number for number, clients in enumerate(accepted) if "0" in clients]
    assert len(rounds_of_0) >= 2
    assert rounds_of_0[-1] - rounds_of_0[0] >= len(rounds_of_0)  # It was away in between
    assert read_account(read_state(path)).attempts >= len(rounds_of_0)


def _hang(federation: Federation, client_id: str) -> None:
    """Have a client be there and answer nothing."""
    federation.pause(client_id)
    federation.pause(f"executor-{client_id}")


def _go_on(federation: Federation, client_id: str) -> None:
    federation.unpause(client_id)
    federation.unpause(f"executor-{client_id}")


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


def _twin_is_named(run: Path) -> bool:
    faults = [fault for line in _lines(run) for fault in line["faults"]]
    return any("claims a client-id that node" in fault["reason"] for fault in faults)
