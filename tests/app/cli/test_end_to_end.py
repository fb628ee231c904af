"""The installed command with real workflows: stdout is one JSON object."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SMALL = [
    "run.name=small",
    "run.rounds=1",
    "run.workers=1",
    "data.clients=3",
    "data.train-limit=200",
    "model.name=mlp",
]


def lethe(*arguments: str) -> tuple[dict[str, Any], str]:
    command = [str(Path(sys.executable).parent / "lethe"), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document, done.stderr


def test_train_forget_and_audit(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    trained, progress = lethe("train", *[word for key in SMALL for word in ("--set", key)], *home)
    assert trained["completed-rounds"] == 1
    assert list(trained["clients"]) == ["0", "1", "2"]
    assert "train small: round 1, accuracy" in progress
    forgotten, _ = lethe("forget", "small", "--client", "1", "--method", "subtract", "--audit", *home)
    assert forgotten["forgetting"] == "client-1-subtract"
    audit = forgotten["audit"]
    gap = audit["after"]["test_accuracy"] - audit["retrain"]["test_accuracy"]
    assert audit["gaps"]["test_accuracy"] == gap
    listed, _ = lethe("runs", *home)
    assert [(run["name"], run["forgettings"]) for run in listed["runs"]] == [
        ("small", ["client-1-retrain", "client-1-subtract"])
    ]
    assert "client 1, forgotten by subtract" in Path(forgotten["report"]).read_text().replace(
        "Client", "client"
    )
