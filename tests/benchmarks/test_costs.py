"""The costs of runs: what was measured is kept, written down and drawn, as the documented pictures show."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from app.workflows.observer import Quiet
from benchmarks import costs
from benchmarks.costs import COSTS, Options, pictures
from benchmarks.jobs import Task
from benchmarks.log_plot import Panel, plot
from strategies.runs.files import read_json

DOCUMENTED = Path(__file__).parents[2] / "docs" / "costs"


def test_runs_are_measured_once_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of n clients, r rounds and h units is said to take n, r and h seconds, and n bytes."""
    asked: list[tuple[int, int, int]] = []

    def measured(name: str, task: Task) -> dict[str, Any]:
        asked.append((task.job.clients, task.job.rounds, task.hidden))
        return {
            "startup-seconds": 1.0,
            "round-seconds": [5.0, float(task.job.clients)],
            "seconds": float(task.job.rounds),
            "server-seconds": [0.5, 0.25],
            "processor-seconds": 9.0,
            "peak-mb": float(task.hidden),
            "parameters": 10 * task.hidden,
        }

    monkeypatch.setattr(costs, "contend", measured)
    given = {"clients": "2,4", "rounds": "1", "hidden": "8", "keep": str(tmp_path / "kept")}
    drawn = {"pictures": str(tmp_path / "drawn")}
    first = costs.run(Options.of("costs", given), Quiet())
    assert asked == [(2, 2, 48), (4, 2, 48), (100, 1, 48), (100, 2, 8)]
    again = costs.run(Options.of("costs", {**given, **drawn, "hidden": "8,16"}), Quiet())
    assert asked[4:] == [(100, 2, 16)]
    assert list(again["parameters"]) == ["80", "160"]
    assert again["clients"] == first["clients"]
    assert (first["clients"]["4"]["round-seconds"], first["rounds"]["1"]["all-rounds-seconds"]) == (4.0, 1.0)
    assert read_json(tmp_path / "drawn" / COSTS)["clients"] == again["clients"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        "clients.svg",
        COSTS,
        "parameters.svg",
        "rounds.svg",
    ]


def test_a_decade_is_as_wide_as_the_next() -> None:
    """1, 10 and 100 lie at equal distances, across and upright; a picture names its numbers."""
    svg = plot([Panel("seconds", "clients", {"a round": {1.0: 0.1, 10.0: 1.0, 100.0: 10.0}})], "Costs <1>")
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "Costs <1>"
    space = "{http://www.w3.org/2000/svg}"
    marks = [group.find(f"{space}circle") for group in root.iter(f"{space}g")]
    places = [(float(m.get("cx", "")), float(m.get("cy", ""))) for m in marks if m is not None]
    (a, b), (c, d), (e, f) = places
    assert c - a == pytest.approx(e - c, abs=0.02)
    assert b - d == pytest.approx(d - f, abs=0.02)
    assert [title.text for title in root.iter(f"{space}title")][-1] == "a round, 100 clients: 10"


def test_the_documented_pictures_show_the_numbers_beside_them() -> None:
    for path, svg in pictures(DOCUMENTED).items():
        assert path.read_text(encoding="utf-8") == svg, f"{path}: stale; run lethe bench costs"
