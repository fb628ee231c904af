"""app/report/evaluation_view.py and headline.py: the figures of any task, by class and by client."""

from typing import Any

from app.report.evaluation_view import views
from app.report.figures import learning_curve
from app.report.headline import Headline, headline_of, is_scored

NUMBERS: dict[str, Any] = {
    "evaluations": {
        "clients": {
            "examples": 1007,
            "task": "regression",
            "headline": "rmse",
            "higher-is-better": False,
            "figures": {"score": 97.61, "loss": 0.5, "rmse": 1.1239},
            "tables": {},
            "groups": [],
            "clients": {"10": {"examples": 1000, "rmse": 2.0}, "9": {"examples": 7}},
        }
    }
}
LABELS: dict[str, Any] = {
    "evaluations": {
        "server": {
            "examples": 3,
            "headline": "accuracy",
            "higher-is-better": True,
            "figures": {"accuracy": 66.66, "loss": 0.5, "f1": 0.6},
            "tables": {"confusion": [[1, 0], [1, 1]], "f1-each": [0.5, None]},
            "groups": [{"group": 0, "examples": 1, "score": 100.0}],
        }
    }
}


def test_a_regression_has_no_classes_and_no_accuracy() -> None:
    (view,) = views(NUMBERS, ["0"])
    assert view.title == (
        "After the last round, on what the clients hold out, added up exactly (1,007 examples)"
    )
    figures, clients = view.tables
    assert figures.caption == "The model is judged by root mean square residual: the lower, the better."
    assert [(row.label, *row.cells) for row in figures.rows] == [
        ("root mean square residual", "1.124"),
        ("score, of 100", "97.6"),
        ("loss", "0.500"),
    ]
    assert clients.columns == ("examples", "root mean square residual")
    assert [(row.label, *row.cells) for row in clients.rows] == [("9", "7", "–"), ("10", "1,000", "2.000")]
    assert is_scored(NUMBERS)


def test_classes_have_their_examples_their_score_and_what_is_known_of_each() -> None:
    """A confusion matrix is no column; a class without an example is shown where it has another figure."""
    (view,) = views(LABELS, ["cat"])
    figures, classes = view.tables
    assert figures.rows[0].label == "accuracy, %"
    assert classes.columns == ("examples", "accuracy, %", "F1")
    assert [(row.label, *row.cells) for row in classes.rows] == [
        ("cat", "1", "100.0", "0.500"),
        ("1", "–", "–", "–"),
    ]
    assert not is_scored(LABELS)


def test_the_headline_is_that_on_the_servers_test_data_if_it_has_some() -> None:
    both = {"evaluations": {**NUMBERS["evaluations"], **LABELS["evaluations"]}}
    assert headline_of(both) == Headline("accuracy", "test-accuracy", True)
    assert headline_of(NUMBERS) == Headline("rmse", "client-rmse", False)
    assert headline_of({}) is None
    assert views({}, []) == ()


def test_the_learning_curve_shows_the_headline_and_its_direction() -> None:
    rounds = [{"round": 1, "client-rmse": 2.5, "client-loss": 3.0}, {"round": 2, "client-rmse": 1.25}]
    picture = learning_curve(rounds, headline_of(NUMBERS))
    assert picture is not None
    assert picture.caption == (
        "Learning curve: root mean square residual (the lower, the better) 2.500 after round 1, "
        "1.250 after 2."
    )
    assert "residual, the lower, the better</text>" in str(picture.svg)
    assert "cross-entropy" not in str(picture.svg)
