"""app/report/reading.py: a record holds what the folder holds, in whatever state the run is."""

from pathlib import Path

import pytest

from app.report.reading import read_run
from strategies.core.errors import RunCorrupt
from tests.app.report.run_folders import (
    ATTACK,
    CLIENT_1,
    add_forgetting,
    add_log,
    add_rounds,
    finish,
    new_run,
)


def test_contributions_by_hand(tmp_path: Path) -> None:
    """Two clients of equal weight with norms 3 and 4: lengths 3/2 and 4/2 in each of two rounds."""
    folder = new_run(tmp_path)
    add_log(folder)
    contributions = read_run(folder).contributions
    assert contributions is not None
    assert contributions.clients == ("0", "1")
    assert contributions.rounds == (1, 2)
    assert contributions.lengths == {("0", 1): 1.5, ("1", 1): 2.0, ("0", 2): 1.5, ("1", 2): 2.0}
    assert contributions.averaging


def test_rounds_that_do_not_average_are_told(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    add_log(folder, averaging=False)
    contributions = read_run(folder).contributions
    assert contributions is not None
    assert not contributions.averaging


def test_a_run_that_has_not_begun(tmp_path: Path) -> None:
    record = read_run(new_run(tmp_path))
    assert record.rounds == ()
    assert record.summary == {}
    assert record.forgettings == ()
    assert record.contributions is None
    assert record.problems == ()
    assert record.label_counts == {}


def test_marks(tmp_path: Path) -> None:
    folder = new_run(tmp_path, overrides=ATTACK)
    add_forgetting(folder)
    add_forgetting(folder, request={"kind": "sample", "clients": [], "classes": [], "samples": {"4": [0]}})
    record = read_run(folder)
    assert [record.marks(client) for client in ("0", "1", "4")] == ["", "attacker, forgotten", "forgotten"]


def test_label_counts_are_in_the_order_of_clients(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    finish(folder, ["10", "9", "a"])
    assert list(read_run(folder).label_counts) == ["9", "10", "a"]


def test_a_forgetting_without_audit(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    add_forgetting(folder, audited=False)
    (forgetting,) = read_run(folder).forgettings
    assert forgetting.audit is None
    assert forgetting.request == CLIENT_1
    assert forgetting.clients == ("1",)


def test_an_unfinished_forgetting_is_a_problem(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    folder.forget_folder("client-1-distill")
    assert read_run(folder).problems == (
        "forget/client-1-distill holds no result: that forgetting was not finished.",
    )


def test_a_damaged_log_is_a_problem_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    add_rounds(folder)
    add_log(folder)
    (folder.log_path / "index.sqlite").write_bytes(b"not a data base" * 100)
    record = read_run(folder)
    assert len(record.rounds) == 2
    assert record.contributions is None
    assert record.problems[0].startswith("The update log could not be read:")


def test_a_result_without_request_is_damage(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    (add_forgetting(folder) / "result.json").write_text("{}")
    with pytest.raises(RunCorrupt, match=r"result\.json: damaged at 'request'"):
        read_run(folder)
