"""app/workflows/recording.py: what a run leaves for lethe watch and for trackers."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.config.run_config import RunConfig
from app.tracking import tracker as trackers
from app.tracking.tracker import Tracked
from app.workflows import audit, forget, resume, train
from app.workflows.observer import Quiet
from app.workflows.recording import of_everybody, recorded, shared_config
from strategies.core.errors import BadInput, LetheError
from strategies.runs import files
from strategies.runs.folder import RunFolder
from strategies.runs.journal import journals
from tests.app.conftest import CLIENT_2, SMALL, SUBTRACT
from tests.app.report.run_folders import new_run
from tests.app.runs import StopAfter, Stopped
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings


def events(folder: RunFolder, number: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journals(folder.path)[number].read_text().splitlines()]


class Heard(Quiet):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Shelf:
    """Trackers that keep in memory what they are told; one in `broken` raises."""

    def __init__(self) -> None:
        self.told: dict[str, list[Any]] = {}
        self.begun: list[Tracked] = []
        self.broken = False
        self.missing = False

    def maker(self, name: str) -> Any:
        return None if self.missing else self.make

    def make(self, tracked: Tracked) -> Any:
        self.begun.append(tracked)
        return _Told(self, self.told.setdefault(tracked.id, []))


class _Told:
    def __init__(self, shelf: Shelf, told: list[Any]) -> None:
        self._shelf, self._told = shelf, told

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        if self._shelf.broken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._told.append((step, dict(values)))

    def end(self, outcome: str, summary: Mapping[str, Any]) -> None:
        self._told.append((outcome, dict(summary)))


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    found = Shelf()
    monkeypatch.setattr(trackers, "maker", found.maker)
    return found


def config(home: Path, *more: str) -> RunConfig:
    key = f"run.certificate-key={home / 'keys' / 'certificate.pem'}"
    return RunConfig().with_overrides([f"run.home={home}", key, *SMALL, "run.track=tensorboard", *more])


def test_what_a_training_and_a_forgetting_leave(small: RunFolder) -> None:
    trained, forgotten = events(small, 0), events(small, 1)
    assert trained[0]["kind"] == "train"
    assert [e["message"] for e in trained if e["event"] == "step"] == ["round 1", "round 2", "round 3"]
    answers = [e for e in trained if e["event"] == "answered"]
    assert all(0 <= e["done"] <= e["total"] == 3 for e in answers)
    assert {e["scope"] for e in answers} == {"round 1", "round 2", "round 3"}
    assert (trained[-1]["event"], trained[-1]["outcome"]) == ("end", "finished")
    assert (forgotten[0]["kind"], forgotten[0]["name"]) == ("forget", "client-2-subtract")
    assert forgotten[-1]["outcome"] == "finished"


def test_what_is_refused_leaves_no_events(small: RunFolder) -> None:
    before = journals(small.path)
    with pytest.raises(BadInput):
        forget(small, ForgetRequest(clients=("nobody",)), SUBTRACT)
    assert journals(small.path) == before


def test_a_tracker_is_told_of_rounds_config_and_results(shelf: Shelf, tmp_path: Path) -> None:
    folder = train(config(tmp_path, "attack.kind=backdoor", "attack.clients=1"))
    (tracked,) = shelf.begun
    assert (tracked.id, tracked.name, tracked.kind) == (folder.run_id, "small", "train")
    assert tracked.config["train.learning-rate"] == 0.05
    assert "attack.clients" not in tracked.config
    *rounds, (outcome, summary) = shelf.told[folder.run_id]
    lines = folder.read_metrics()
    assert [step for step, _ in rounds] == [1, 2, 3]
    for (_, told), line in zip(rounds, lines, strict=True):
        assert {key: told[key] for key in ("test-accuracy", "test-loss", "seconds", "bytes-up")} == {
            key: line[key] for key in ("test-accuracy", "test-loss", "seconds", "bytes-up")
        }
        assert told["clients-asked"] == told["clients-answered"] == 3
        assert told["clients-failed"] == 0
        assert all(isinstance(value, float) for value in told.values())
    assert outcome == "finished"
    assert summary["final/test-accuracy"] == lines[-1]["test-accuracy"]
    assert summary["report"] == str(folder.path / "report.html")


def test_forgettings_and_audits_are_work_on_the_run(shelf: Shelf, tmp_path: Path) -> None:
    folder = train(config(tmp_path))
    forget(folder, CLIENT_2, SUBTRACT)
    audit(folder, CLIENT_2, ["subtract"], AuditSettings(seeds=0))
    _, forgot, audited = shelf.begun
    assert (forgot.kind, forgot.name) == ("forget", "forget client-2-subtract")
    assert (audited.kind, audited.name) == ("audit", "audit client-2")
    assert forgot.parent == audited.parent == folder.run_id
    assert len({each.id for each in shelf.begun}) == 3
    outcome, results = shelf.told[forgot.id][-1]
    assert (outcome, results["method"]) == ("finished", "subtract")
    *steps, (_, results) = shelf.told[audited.id]
    assert any(name.startswith("retrain/") for _, values in steps for name in values)
    assert isinstance(results["subtract/after/test_accuracy"], float)
    assert not [name for name in results if "/client_accuracy" in name]


def test_a_resumed_run_goes_on_in_the_same_place(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(config(tmp_path), StopAfter(2))
    folder = resume(RunFolder.open(tmp_path / "small"))
    first, second = shelf.begun
    assert first.id == second.id == folder.run_id
    assert (first.completed, second.completed) == (0, 2)
    steps = [step for step, _ in shelf.told[folder.run_id]]
    assert steps == [1, 2, "failed", 3, "finished"]
    assert events(folder, 0)[-1]["outcome"] == "failed"
    assert [e["message"] for e in events(folder, 1) if e["event"] == "step"] == ["round 3"]


@pytest.mark.parametrize("how", ["missing", "broken"])
def test_a_tracker_that_fails_is_said_once_and_ends_nothing(how: str, shelf: Shelf, tmp_path: Path) -> None:
    setattr(shelf, how, True)
    heard = Heard()
    folder = train(config(tmp_path), heard)
    (note,) = [note for note in heard.notes if note.startswith("run.track: TensorBoard ")]
    said = {"missing": "not installed: pip install 'lethe-fl[tracking]'; the run goes on without it"}
    assert said.get(how, "No space left on device") in note
    assert [text for text in folder.read_summary()["notes"] if "run.track" in text] == [note]
    assert len(folder.read_metrics()) == 3


def test_the_model_has_the_same_bits(shelf: Shelf, small: RunFolder, tmp_path: Path) -> None:
    tracked = train(config(tmp_path / "tracked"))
    assert (tracked.path / "model.safetensors").read_bytes() == (
        small.path / "model.safetensors"
    ).read_bytes()


def test_events_that_the_disk_does_not_take_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, heard = new_run(tmp_path), Heard()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with recorded(folder, RunConfig(), "train", "study", heard) as recorder:
        recorder.phase("train study", 2)
        monkeypatch.setattr(files, "write_all", full)
        recorder.advance("round 1", {})
        recorder.advance("round 2", {})
    assert len(heard.notes) == 1
    assert "the disk is full" in heard.notes[0]
    with recorded(folder, RunConfig(), "audit", "x", heard):
        pass
    assert "lethe watch cannot show this work" in heard.notes[1]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (LetheError("no use"), "failed"),
        (ZeroDivisionError("by zero"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_how_it_ended(error: BaseException, outcome: str, tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with pytest.raises(type(error)), recorded(folder, RunConfig(), "train", "study", Quiet()):
        raise error
    end = events(folder)[-1]
    assert (end["event"], end["outcome"]) == ("end", outcome)
    assert str(error) in end["reason"]


def test_a_flood_of_notes_and_answers_is_bounded(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with recorded(folder, RunConfig(), "train", "study", Quiet()) as recorder:
        for number in range(2000):
            recorder.note(f"note {number}")
            recorder.answered("round 1", number, 2000)
            recorder.aside("said elsewhere")
    kinds = [event["event"] for event in events(folder)]
    assert kinds.count("note") == 1000
    assert kinds.count("answered") < 100


def test_nothing_of_a_single_client_is_shared() -> None:
    line = {
        "round": 2,
        "test-loss": 0.5,
        "train-loss": None,
        "clients": {"a": {"personal-accuracy": 9.0}},
        "selected": ["a", "b"],
        "accepted": ["a"],
        "faults": [{"client": "b", "scope": "round 2", "reason": "secret"}, {"client": "all", "reason": "x"}],
        "epsilons": {"a": 0.5, "b": 0.25},
    }
    assert of_everybody(line) == {
        "test-loss": 0.5,
        "clients-asked": 2.0,
        "clients-answered": 1.0,
        "clients-failed": 1.0,
        "epsilon-most": 0.5,
    }
    overrides = ["attack.kind=backdoor", "attack.clients=ann", "data.without=bob", "run.home=/secret/place"]
    shared = shared_config(RunConfig().with_overrides(overrides))
    assert not {"ann", "bob"} & set(map(str, shared.values()))
    assert not [value for value in shared.values() if "/" in str(value)]


def test_unknown_trackers_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"run\.track: given .mlflow, excel., allowed some of tensorboard, mlflow"
    ):
        RunConfig().with_overrides(["run.track=mlflow, excel"])
    with pytest.raises(BadInput, match=r"run\.track: .*without repetitions"):
        RunConfig().with_overrides(["run.track=mlflow,mlflow"])
