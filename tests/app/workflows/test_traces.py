"""app/workflows/traces.py: what a run's folder says of a client goes with its updates; the others' stays."""

import json
from pathlib import Path

import torch

from app.config.run_config import RunConfig
from app.simulation.kept_models import CLIENTS
from app.workflows.observer import Quiet
from app.workflows.recording import recorded
from app.workflows.traces import ERASED, Traces, erase_traces
from strategies.runs import files
from strategies.runs.folder import CONFIG, RunFolder
from strategies.runs.tensor_file import read_sealed, write_sealed

SECRET = "0.13579"
"""A figure of client 2's, as it would stand in a file."""
FAULTS = [
    {"client": "2", "scope": "round 1", "reason": f"norm {SECRET}"},
    {"client": "1", "scope": "round 1", "reason": "as client 2, too late"},
    {"client": "1", "scope": "round 2", "reason": "too late"},
]


def filled(small: RunFolder) -> RunFolder:
    """Put figures and words about client 2, and of client 1, into every file that may hold some."""
    summary = small.read_summary()
    own = {"1": {"accuracy": 50.0}, "2": {"accuracy": float(SECRET)}}
    summary["client-models"] = own
    summary["evaluations"]["server"]["clients"] = own
    summary["faults"] = FAULTS
    summary["notes"] = [f"client 2: {SECRET} of it", "round 2 took long"]
    small.write_summary(summary)
    lines = small.read_metrics()
    lines[0] |= {"clients": own, "faults": FAULTS}
    lines[2] |= {"accepted": ["2"], "train-loss": float(SECRET), "test-accuracy": 61.0}
    path = small.path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with recorded(small, RunConfig.from_toml(small.path / CONFIG), "train", "small", Quiet()) as recorder:
        recorder.phase("train small", 3)
        recorder.advance("round 3", {"train-loss": float(SECRET), "test-accuracy": 61.0})
        recorder.advance("round 1", {"train-loss": 0.5})
        recorder.note(f"clients 0, 2: {SECRET}")
        recorder.note("client 12: late")
    held = small.path / "track" / "tensorboard" / "train"
    held.mkdir(parents=True)
    (held / "events").write_text(SECRET)
    nodes = {str(node): torch.tensor([int(client)]) for client, node in small.read_nodes().items()}
    write_sealed(small.path / "forget" / "client-2-subtract" / CLIENTS, nodes)
    return small


def files_with(folder: Path, text: str) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()}


def test_no_file_has_a_figure_of_the_client_left(small: RunFolder) -> None:
    filled(small)
    assert files_with(small.path, SECRET) == {"summary.json", "metrics.jsonl", "0003.jsonl", "events"}
    erase_traces(small, ["2"])
    assert files_with(small.path, SECRET) == set()
    assert not (small.path / "track").exists()
    assert not list(small.path.rglob("*.former"))


def test_what_is_said_of_the_others_stays(small: RunFolder) -> None:
    erase_traces(filled(small), ["2"])
    summary, lines = small.read_summary(), small.read_metrics()
    assert summary["client-models"] == lines[0]["clients"] == {"1": {"accuracy": 50.0}}
    assert [fault["reason"] for fault in summary["faults"]] == [ERASED, ERASED, "too late"]
    assert summary["notes"] == ["round 2 took long"]
    assert (lines[2]["accepted"], lines[2]["test-accuracy"]) == (["2"], 61.0)
    assert "train-loss" in lines[1]
    assert "train-loss" not in lines[2]
    assert "train-loss" not in summary["final"]
    path = small.path / "events" / "0003.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["values"] for event in events if event["event"] == "step"] == [
        {"test-accuracy": 61.0},
        {"train-loss": 0.5},
    ]
    assert [event["text"] for event in events if event["event"] == "note"] == ["client 12: late"]
    left = read_sealed(small.path / "forget" / "client-2-subtract" / CLIENTS).tensors
    assert sorted(int(tensor) for tensor in left.values()) == [0, 1]


def test_what_a_file_held_is_overwritten(small: RunFolder) -> None:
    """A second name of the old summary, as an interrupted purge leaves it, shows what became of its bytes."""
    path = filled(small).path / "summary.json"
    other = small.path.parent / "other"
    other.hardlink_to(path)
    size = other.stat().st_size
    erase_traces(small, ["2"])
    assert other.read_bytes() == bytes(size)


def test_twice_is_as_once_also_where_it_was_interrupted(small: RunFolder) -> None:
    filled(small)
    former = small.path / "summary.json.former"
    former.hardlink_to(small.path / "summary.json")
    erase_traces(small, ["2"])
    first = files.read_bytes(small.path / "summary.json"), files.read_bytes(small.path / "metrics.jsonl")
    assert not former.exists()
    erase_traces(small, ["2"])
    assert first == (
        files.read_bytes(small.path / "summary.json"),
        files.read_bytes(small.path / "metrics.jsonl"),
    )


def test_a_round_is_the_clients_alone_only_where_nobody_else_was_used() -> None:
    lines = [
        {"round": 1, "accepted": ["2"]},
        {"round": 2, "accepted": ["1", "2"]},
        {"round": 3, "accepted": []},
        {"round": 4, "accepted": ["2", "3"]},
    ]
    assert Traces.of(["2", "3"], lines).alone == {1, 4}
