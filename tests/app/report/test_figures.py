"""app/report/figures.py: what the captions, which are the text alternatives too, say of the numbers."""

import dataclasses
from pathlib import Path

from app.report import figures
from app.report.reading import RunRecord, read_run
from tests.app.report.run_folders import AFTER, BEFORE, GAPS, RETRAIN, add_log, finish, new_run


def record(home: Path, counts: dict[str, list[int]]) -> RunRecord:
    folder = new_run(home)
    add_log(folder, list(counts))
    clients = {c: {"num-examples": sum(row), "label-counts": row} for c, row in counts.items()}
    finish(folder, clients=clients)
    return read_run(folder)


def test_learning_curve_in_words() -> None:
    rounds = [
        {"round": 1, "test-accuracy": 40.0, "test-loss": 2.0, "train-loss": 2.5},
        {"round": 2, "train-loss": 2.25},
        {"round": 3, "test-accuracy": 62.5, "test-loss": 1.0625},
    ]
    picture = figures.learning_curve(rounds)
    assert picture is not None
    assert picture.caption == (
        "Learning curve: test accuracy 40.0 % after round 1, 62.5 % after round 3; "
        "test loss from 2.000 to 1.062."
    )
    assert picture.caption in picture.svg


def test_training_loss_alone_is_drawn() -> None:
    picture = figures.learning_curve([{"round": 1, "train-loss": 2.5}])
    assert picture is not None
    assert picture.caption == "Learning curve: the clients' training loss by round."


def test_rounds_without_figures_have_no_curve() -> None:
    assert figures.learning_curve([]) is None
    assert figures.learning_curve([{"round": 1, "test-accuracy": None}]) is None


def test_comparison_in_words() -> None:
    audit = {"before": BEFORE, "after": AFTER, "retrain": RETRAIN, "gaps": GAPS}
    picture = figures.comparison(audit, "one")
    assert picture is not None
    assert "TA −1.0, RA 0.0, UA +1.5, MIA 0.0 and ASR +0.5." in picture.caption


def test_comparison_of_nothing() -> None:
    assert figures.comparison({"before": {}, "after": None, "gaps": {}}, "one") is None


def test_comparison_without_an_attack_leaves_its_row_out() -> None:
    audit = {
        m: {**figures_, "attack_success_rate": None} for m, figures_ in (("before", BEFORE), ("after", AFTER))
    }
    picture = figures.comparison(audit, "one")
    assert picture is not None
    assert "ASR" not in picture.svg
    assert "TA" in picture.svg


def test_contributions_in_words(tmp_path: Path) -> None:
    """Norms 3, 4 and 5: the last client moved the model most, the first least."""
    run = record(tmp_path, {"a": [1], "b": [1], "c": [1]})
    assert run.contributions is not None
    picture = figures.contribution_map(run, run.contributions)
    assert picture.caption.startswith(
        "3 clients in 2 rounds: over all rounds client c moved the model most and"
    )
    assert "client a least" in picture.caption
    sent = dataclasses.replace(run.contributions, averaging=False)
    caption = figures.contribution_map(run, sent).caption
    assert "client c sent most by length and client a least" in caption
    assert "moved the model" not in caption


def test_labels_in_words(tmp_path: Path) -> None:
    """Clients with 3 and 9 examples of one and of two classes out of three."""
    run = record(tmp_path, {"a": [3, 0, 0], "b": [4, 5, 0]})
    picture = figures.label_map(run, ["zero", "$x$", "a long name of a class"])
    assert picture is not None
    assert picture.caption.startswith(
        "2 clients hold 3 to 9 examples each, 12 in all; each sees 1 to 2 of the 3"
    )
    assert "$x$" in picture.svg


def test_equal_clients_are_not_a_range(tmp_path: Path) -> None:
    picture = figures.label_map(record(tmp_path, {"a": [1, 2], "b": [2, 1]}), [])
    assert picture is not None
    assert picture.caption.startswith(
        "2 clients hold 3 examples each, 6 in all; each sees 2 of the 2 classes."
    )


def test_clients_that_tell_nothing_are_not_drawn(tmp_path: Path) -> None:
    assert figures.label_map(record(tmp_path, {"a": []}), []) is None


def test_a_kept_round_is_marked_and_said() -> None:
    rounds = [{"round": i, "test-accuracy": 40.0 + i, "validation-accuracy": 50.0} for i in (1, 2, 3)]
    judged = {"by": "validation-loss", "round": 3, "best": 1}
    picture = figures.learning_curve(rounds, None, judged)
    assert picture is not None
    assert "whose model is kept, 3; the best by validation-loss was 1." in picture.caption
    assert ">kept: round 3</text>" in picture.svg
    assert ">validation accuracy</text>" in picture.svg
    assert ">kept" not in str(figures.learning_curve(rounds))


def test_every_point_tells_its_value_and_stands_in_the_table() -> None:
    rounds = [{"round": 1, "test-accuracy": 40.25, "test-loss": 2.0}, {"round": 2, "test-accuracy": 50.0}]
    picture = figures.learning_curve(rounds)
    assert picture is not None
    assert picture.svg.count("<title>test accuracy, round 1: 40.2 %</title>") == 3
    assert picture.svg.count(">0</text>") >= 3  # the axis of a rate goes from 0 to 100, whatever is on it
    assert picture.svg.count(">100</text>") == 3
    assert picture.table is not None
    assert picture.table.columns == ("test accuracy, %", "test data")
    assert [(row.label, row.cells) for row in picture.table.rows] == [
        ("1", ("40.2", "2.000")),
        ("2", ("50.0", "–")),
    ]


def test_confusion_in_words() -> None:
    """Two of 12 examples are wrong, both a 1 taken for a 0."""
    picture = figures.confusion_map([[5, 0], [2, 5]], ["zero", "<one>"], "c")
    assert picture.caption.startswith(
        "2 of 12 examples are taken for another class; most often <one> for zero, 2 times."
    )
    assert "true class &lt;one&gt;, predicted class zero: 2</title>" in picture.svg
    assert picture.table is not None
    assert [row.cells for row in picture.table.rows] == [("5", "–"), ("2", "5")]
    assert (
        "most often <one> for zero, once."
        in figures.confusion_map([[5, 0], [1, 5]], ["zero", "<one>"], "c").caption
    )
    assert "most often" not in figures.confusion_map([[5, 0], [0, 5]], [], "c").caption
