"""Run folders made by hand, for tests of the report and of the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from app.config.run_config import RunConfig
from strategies.core.wire import Layout
from strategies.log.update_log import UpdateLog
from strategies.runs.files import read_json, write_json
from strategies.runs.folder import RunFolder

ATTACK = ("attack.kind=backdoor", "attack.clients=1", "attack.target=0")
LAYOUT = Layout(("w",), ((2,),))

BEFORE = {
    "test_accuracy": 97.0,
    "retain_accuracy": 99.0,
    "unlearning_accuracy": 1.0,
    "mia_efficacy": 3.0,
    "attack_success_rate": 61.0,
    "seconds": 2.0,
    "mia_attacker_accuracy": 57.25,
    "mia_meaningful": True,
    "client_accuracy": {"0": 99.0},
    "output_distance_forget": 0.5,
    "output_distance_retain": None,
    "num_forget": 1200,
    "novel_figure": 0.125,
}
AFTER = BEFORE | {
    "test_accuracy": 95.0,
    "unlearning_accuracy": 7.5,
    "attack_success_rate": 1.0,
    "seconds": 0.5,
}
RETRAIN = BEFORE | {"test_accuracy": 96.0, "unlearning_accuracy": 6.0, "attack_success_rate": 0.5}
GAPS = {
    "test_accuracy": -1.0,
    "retain_accuracy": 0.0,
    "unlearning_accuracy": 1.5,
    "mia_efficacy": 0.0,
    "attack_success_rate": 0.5,
}
CLIENT_1 = {"kind": "client", "clients": ["1"], "classes": [], "samples": {}}


def new_run(home: Path, name: str = "study", overrides: Sequence[str] = ()) -> RunFolder:
    """Return a run of two rounds that has not begun."""
    config = RunConfig().with_overrides([f"run.name={name}", "run.rounds=2", *overrides])
    return RunFolder.create(home, name, config.to_toml())


def add_rounds(folder: RunFolder, rounds: int = 2, **metrics: float) -> None:
    """Add evaluated rounds; accuracy is 40 after the first and 10 more after each."""
    for number in range(1, rounds + 1):
        line = {"round": number, "test-accuracy": 30.0 + 10 * number, "test-loss": 2.0 / number}
        sizes = {"seconds": 0.5, "bytes-up": 1000, "bytes-down": 2000, "faults": []}
        folder.append_metrics({**line, **sizes, **metrics})


def add_log(folder: RunFolder, clients: Sequence[str] = ("0", "1"), *, averaging: bool = True) -> None:
    """Add an update log of two rounds: client i's update has norm 3 + i and an equal weight in both."""
    with UpdateLog.create(folder.log_path, LAYOUT) as log:
        for number in (1, 2):
            log.begin_round(number)
            for position, client in enumerate(clients):
                norm = 3.0 + position
                log.add(number, client, 10.0, 10, torch.tensor([norm, 0.0]), norm)
            log.commit_round(number, averaging)


def finish(folder: RunFolder, client_ids: Sequence[str] = ("0", "1"), **summary: Any) -> None:
    """Add the summary of a finished run; client i holds 10 + i examples of class 0 and none of class 1."""
    described = {
        c: {"num-examples": 10 + i, "label-counts": [10 + i, 0, 5]} for i, c in enumerate(client_ids)
    }
    folder.write_summary(
        {
            "name": folder.name,
            "strategy": "fedavg",
            "rounds": 2,
            "completed-rounds": 2,
            "data": {"name": "digits", "num-classes": 3, "input-shape": [1, 8, 8], "test-examples": 360},
            "model": {"name": "cnn", "parameters": 52138},
            "clients": described,
            "final": {"test-accuracy": 50.0, "test-loss": 1.0},
            "seconds": 1.25,
            "traffic": {"bytes-up": 31_000_000, "bytes-down": 2000, "visits": 4},
            "faults": [],
            "log": {"retention": "full", "dtype": "float32", "bytes": 4096},
            "notes": [],
            **summary,
        }
    )


def add_forgetting(
    folder: RunFolder, method: str = "distill", request: Mapping[str, Any] = CLIENT_1, *, audited: bool = True
) -> Path:
    """Add an answered request, by default that of client 1, and its audit."""
    names = request["clients"] or request["classes"] or request["samples"]
    path = folder.forget_folder(f"{request['kind']}-{'-'.join(map(str, names))}-{method}")
    result = {"request": dict(request), "method": method, "settings": {}, "seconds": 0.5}
    result |= {"notes": ["a note of the method"], "traffic": {"bytes-up": 0, "bytes-down": 0, "visits": 0}}
    write_json(path / "result.json", result)
    if audited:
        add_audit(path, method, request)
    return path


VERDICT = {
    "outcome": "worse",
    "text": "the forgetting left the model further from retraining than doing nothing would have: …",
    "disparity": 0.75,
    "before": 0.25,
    "floor": 0.125,
    "counts_mia": False,
}


def judged(path: Path) -> None:
    """Add a verdict, and the spread of MIA-efficacy, to the audit of an answered request."""
    audit = read_json(path / "audit.json")
    for model in ("before", "after", "retrain"):
        audit[model] |= {"mia_efficacy_std": 1.25, "mia_draws": 10}
    write_json(path / "audit.json", {**audit, "verdict": VERDICT})


def add_audit(path: Path, method: str, request: Mapping[str, Any] = CLIENT_1) -> None:
    """Add the audit of an answered request to its folder."""
    figures = {"before": BEFORE, "after": AFTER, "retrain": RETRAIN}
    audit = {"request": dict(request), "method": method, **figures, "gaps": GAPS, "disparity": 0.625}
    audit["comparison"] = {"gaps": GAPS, "disparity": 0.625, "parameter_distance": 0.75}
    audit["scale"] = {"retrain-seed-1": {"disparity": 0.5, "parameter_distance": 0.25}}
    write_json(path / "audit.json", {**audit, "notes": ["the backdoor did not take: no conclusion"]})
