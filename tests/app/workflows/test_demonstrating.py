"""app/workflows/demonstrating.py: both halves of the demo, on a run that takes no time."""

from pathlib import Path

from app.workflows import demo

SMALL = (
    "run.rounds=1",
    "run.workers=1",
    "data.clients=6",
    "data.train-limit=300",
    "data.test-limit=60",
    "model.name=mlp",
    "model.hidden=8",
    "hard.examples=10",
    "audit.seeds=0",
)


def test_one_run_forgets_a_poisoned_and_an_honest_client(tmp_path: Path) -> None:
    """With their poisoned, or hard, and their clean examples apart, and the request of each in its audit."""
    done = demo(overrides=[*SMALL, f"run.home={tmp_path}"])
    poisoned, honest = done.audits.values()
    assert [found["request"]["clients"] for found in (poisoned, honest)] == [["3"], ["5"]]
    assert done.folder.read_summary()["rounds"] == 1
    assert done.report.exists()
    for audit, kind, count in ((poisoned, "poisoned", 36), (honest, "hard", 10)):
        for model in ("before", "after", "retrain"):
            apart = audit[model]["apart"]
            assert list(apart) == [kind, "clean"]
            assert apart[kind]["num_forget"] == count
            assert apart["clean"]["num_forget"] == 45 - count
    assert any("poisoned is known only because the run stages it" in note for note in poisoned["notes"])
