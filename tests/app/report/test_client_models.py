"""app/report/client_models.py: each client before, after, and with all data."""

from typing import Any

from app.report.client_models import client_models

ROUNDS: list[dict[str, Any]] = [
    {"round": 1, "clients": {"0": {"accuracy": 50.0, "baseline-accuracy": 40.0, "upper-bound": 90.0}}},
    {
        "round": 2,
        "clients": {
            "10": {"accuracy": 80.0, "baseline-accuracy": 60.0, "upper-bound": 90.0},
            "9": {"accuracy": 70.0, "baseline-accuracy": 65.0, "upper-bound": 95.0},
            "3": {"train-loss": 1.0},
        },
    },
]


def test_the_last_figures_of_each_client_by_hand() -> None:
    """Client 0 was last measured in round 1. Means: (50+70+80)/3, (40+65+60)/3, (90+95+90)/3."""
    view = client_models(ROUNDS)
    assert view is not None
    rows = {row.label: row.cells for row in view.table.rows}
    assert list(rows) == ["client 0", "client 9", "client 10", "mean"]
    assert rows["client 9"] == ("65.0", "70.0", "+5.0", "95.0", "−25.0")
    assert rows["mean"] == ("55.0", "66.7", "+11.7", "91.7", "−25.0")
    assert "55.0 % before the first round" in view.picture.caption


def test_without_a_bound_its_cells_are_empty() -> None:
    lines = [{"round": 1, "clients": {"0": {"accuracy": 50.0}}}]
    view = client_models(lines)
    assert view is not None
    assert view.table.rows[0].cells == ("–", "50.0", "–", "–", "–")
    assert "all clients' data" not in view.picture.caption


def test_runs_with_one_model_have_no_such_part() -> None:
    assert client_models([{"round": 1, "test-accuracy": 50.0}]) is None
    assert client_models([{"round": 1, "clients": {"0": {"train-loss": 1.0}}}]) is None


def test_clients_that_personalise_one_model_by_hand() -> None:
    """Means (40 + 60)/2 and (90 + 80)/2; the worst tenth of two clients is one: 40 before, 80 after."""
    told = {
        "0": {"global-accuracy": 40.0, "personal-accuracy": 90.0},
        "1": {"global-accuracy": 60.0, "personal-accuracy": 80.0},
    }
    view = client_models([{"round": 1, "clients": told}])
    assert view is not None
    assert view.table.columns == ("before, %", "after, %", "gain")
    rows = {row.label: row.cells for row in view.table.rows}
    assert rows["client 0"] == ("40.0", "90.0", "+50.0")
    assert rows["mean"] == ("50.0", "85.0", "+35.0")
    assert rows["worst tenth"] == ("40.0", "80.0", "+40.0")
    assert "50.0 % with the model that all share, 85.0 % after personalisation" in view.picture.caption
