"""app/watching/state.py: the state of a run as its page shows it, and what is new of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.watching.state import Watched
from strategies.runs.folder import RunFolder
from strategies.runs.journal import Journal
from tests.app.report.run_folders import add_rounds, finish, new_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path)


@pytest.fixture
def journal(run: RunFolder) -> Iterator[Journal]:
    """Return the events of a training that goes on."""
    found = Journal.begin(run.path, "train", run.name)
    yield found
    found.close()


def now(watched: Watched) -> dict[str, Any]:
    found = watched.since(-1, -1, 0)
    assert found is not None
    return found


def test_only_what_is_new_is_told(run: RunFolder, journal: Journal) -> None:
    watched = Watched(run.path)
    first = now(watched)
    assert (first["state"], first["rounds"], first["rounds-planned"]) == ("running", [], 2)
    assert watched.since(first["version"], 0, 0) is None
    add_rounds(run, 1)
    second = watched.since(first["version"], 0, 0)
    assert second is not None
    assert [line["round"] for line in second["rounds"]] == [1]
    run.append_metrics({"round": 2, "test-accuracy": 50.0, "test-loss": 1.0})
    third = watched.since(second["version"], 0, 1)
    assert third is not None
    assert (third["first"], [line["round"] for line in third["rounds"]]) == (1, [2])


def test_rounds_that_are_taken_again_are_told_anew(run: RunFolder, journal: Journal) -> None:
    watched = Watched(run.path)
    add_rounds(run, 2)
    before = now(watched)
    run.rewind_metrics(1)
    after = watched.since(before["version"], before["generation"], 2)
    assert after is not None
    assert (after["first"], [line["round"] for line in after["rounds"]]) == (0, [1])
    assert after["generation"] == before["generation"] + 1


def test_how_far_it_is_and_how_long_it_takes(run: RunFolder, journal: Journal) -> None:
    """Four steps: two took 10 s together, so all four take 20 s."""
    journal.add("phase", title="train study", total=4)
    for _ in range(2):
        journal.add("step", message="round", values={"loss": 1.0})
    journal.add("answered", scope="round 3", done=1, total=5)
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    times = [100.0, 100.0, 105.0, 110.0, 111.0]
    moved = [{**line, "time": time} for line, time in zip(lines, times, strict=True)]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in moved))
    training = now(Watched(run.path))["training"]
    assert (training["done"], training["total"], training["ends"]) == (2, 4, 120.0)
    assert training["answered"] == {"scope": "round 3", "done": 1, "total": 5}


def test_the_kept_round_is_known_at_the_end_and_why_training_ended(run: RunFolder, journal: Journal) -> None:
    """Three rounds of two; a summary that is damaged says nothing."""
    watched = Watched(run.path)
    add_rounds(run, 2)
    assert now(watched)["kept"] is None
    judged = {"keep": "best", "by": "validation-loss", "round": 2, "trained": 5, "best": 2, "value": 0.5}
    finish(run, judged={**judged, "validation-examples": 90}, rounds=20)
    kept = now(watched)["kept"]
    assert kept["round"] == 2
    assert [said.partition(":")[0] for said in kept["said"]] == [
        "Round 2 of 5 is kept, the best by validation-loss",
        "Training ended after round 5 of 20",
    ]
    finish(run, judged={**judged, "trained": 20, "validation-examples": 90}, rounds=20)
    assert len(now(Watched(run.path))["kept"]["said"]) == 1
    finish(run, judged="round 2")
    assert now(Watched(run.path))["kept"] is None


def test_who_answered_and_who_did_not(run: RunFolder) -> None:
    fault = {"client": "<b>evil</b>", "scope": "round 2", "reason": "claims too much"}
    everybody = {"client": "all", "scope": "round 2", "reason": "no usable reply"}
    asked = ["0", "1", "<b>evil</b>"]
    run.append_metrics({"round": 1, "selected": asked, "accepted": asked})
    run.append_metrics({"round": 2, "selected": asked, "accepted": ["0"], "faults": [fault, everybody]})
    found = now(Watched(run.path))
    latest, last = found["latest"], found["rounds"][-1]
    assert (latest["round"], latest["answered"], latest["silent"]) == (2, ["0"], ["1"])
    assert latest["faults"][0] == ["<b>evil</b>", "round 2", "claims too much"]
    assert (last["asked"], last["answered"], last["failed"]) == (3, 1, 1)
    rows = {row[0]: row[1:] for row in found["clients"]["rows"]}
    assert rows["0"] == [2, 2, 0, ""]
    assert rows["<b>evil</b>"] == [2, 1, 1, "round 2: claims too much"]


def test_the_figure_that_counts(run: RunFolder) -> None:
    add_rounds(run)
    found = now(Watched(run.path))
    assert found["headline"] == {"key": "test-accuracy", "name": "accuracy, %"}
    assert found["loss"] == {"key": "test-loss", "name": "test loss"}
    assert [line["figures"]["test-accuracy"] for line in found["rounds"]] == [40.0, 50.0]


def test_states(run: RunFolder) -> None:
    watched = Watched(run.path)
    assert now(watched)["state"] == "unfinished"
    journal = Journal.begin(run.path, "train", run.name)
    assert now(watched)["state"] == "running"
    journal.close()  # As when it is killed: no end, no lock
    assert now(watched)["state"] == "interrupted"
    journal = Journal.begin(run.path, "train", run.name)
    assert now(watched)["state"] == "running"
    journal.add("end", outcome="failed", reason="no client")
    journal.close()
    assert (now(watched)["state"], now(watched)["reason"]) == ("failed", "no client")
    journal = Journal.begin(run.path, "train", run.name)
    journal.add("end", outcome="finished")
    journal.close()
    finish(run, notes=["run.track: MLflow tracks no further"])
    (run.path / "model.safetensors").touch()
    found = now(watched)
    assert (found["state"], found["notes"]) == ("finished", ["run.track: MLflow tracks no further"])
    shutil.rmtree(run.path)
    assert now(watched)["state"] == "deleted"


def test_a_run_made_before_there_were_events(run: RunFolder) -> None:
    add_rounds(run)
    finish(run)
    (run.path / "model.safetensors").touch()
    found = now(Watched(run.path))
    assert (found["state"], len(found["rounds"]), found["training"]) == ("finished", 2, None)


def test_forgettings_are_shown_the_latest_first(run: RunFolder, journal: Journal) -> None:
    watched = Watched(run.path)
    now(watched)
    for number in range(30):
        other = Journal.begin(run.path, "forget", f"client-{number}")
        other.add("phase", title="distill", total=3)
        other.add("note", text=f"note {number}")
        if number < 29:
            other.add("end", outcome="finished")
            other.close()
    found = now(watched)
    assert found["works"][0]["name"] == "client-29"
    assert found["works"][0]["state"] == "running"
    assert len(found["works"]) == 20
    assert found["training"]["name"] == run.name
    assert found["notes"][-1] == "note 29"
    other.close()


def test_damaged_files_show_what_is_left(run: RunFolder, journal: Journal) -> None:
    add_rounds(run, 1)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(
            '{"round": "x"}\nno JSON\n[1]\n{"round": 1, "test-loss": 7}\n{"round": 2, "seconds": "long"}\n'
        )
    with journal.path.open("a") as file:
        file.write('{"event": 5}\n{"event": "step"}\n{"event": "unheard of", "time": 1.0}\n')
    (run.path / "summary.json").write_text("[")
    (run.path / "config.toml").write_text("=")
    (run.path / "events" / "no-number.jsonl").write_text("{}")
    found = now(Watched(run.path))
    assert [line["round"] for line in found["rounds"]] == [1]
    assert (found["training"]["done"], found["rounds-planned"]) == (0, 0)


def test_many_clients_are_cut(run: RunFolder) -> None:
    names = [f"client-{number}" for number in range(1000)]
    fault = {"client": names[-1], "scope": "round 1", "reason": "late"}
    run.append_metrics({"round": 1, "selected": names, "accepted": names[:-1], "faults": [fault]})
    found = now(Watched(run.path))
    assert found["clients"]["rows"][0][0] == names[-1]
    assert (len(found["clients"]["rows"]), found["clients"]["more"]) == (300, 700)
    assert (len(found["latest"]["answered"]), found["latest"]["num-answered"]) == (300, 999)
