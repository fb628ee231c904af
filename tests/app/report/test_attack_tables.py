"""Tables of what attacks on single examples found: every figure is in its place, and none is made up."""

import json

import numpy as np

from app.report.attack_tables import attack_tables
from tests.unlearning.audit.test_shadow_attack import found
from unlearning.audit.shadow_attack import combined

SINGLE = {
    "references": 1,
    "area": 0.514,
    "before": 0.7,
    "retrained": 0.48,
    "told_apart": 60.2,
    "told_apart_retrained": None,
}


def test_without_an_attack_there_is_no_table() -> None:
    assert attack_tables({}) == ()
    assert attack_tables({"single-examples": None, "shadows": None}) == ()


def test_single_examples_by_hand() -> None:
    (table,) = attack_tables({"single-examples": SINGLE})
    assert table.columns == ("before", "after", "retrained")
    assert [row.cells for row in table.rows] == [("0.70", "0.51", "0.48"), ("–", "60.2", "–")]
    untried = {**SINGLE, "area": None, "before": None, "retrained": None}
    (table,) = attack_tables({"single-examples": untried})
    assert [row.label for row in table.rows] == ["the pair of models, balanced accuracy, % (guessing: 33.3)"]


def test_what_clients_found_by_themselves_has_a_row_each() -> None:
    told = combined({"3": found(0, before=6.0, after=6.0), "7": found(1, before=6.0, after=0.0)})
    assert told is not None
    _, alone, *_ = attack_tables({"shadows": json.loads(json.dumps(told.to_json()))})
    assert [row.label for row in alone.rows] == ["client 3", "client 7"]
    assert [row.cells[0] for row in alone.rows] == ["40", "40"]
    assert [row.cells[-1] for row in alone.rows] == ["fails", "passes"]
    area = told.by_client["3"].area
    assert alone.rows[0].cells[1] == f"{area.value:.2f} ({area.low:.2f} to {area.high:.2f})"


def test_every_figure_of_the_shadows_stands_in_a_table() -> None:
    findings = found(0, before=6.0, after=6.0)
    shadows = json.loads(json.dumps(findings.to_json()))
    attacks, divergences, exposed = attack_tables({"shadows": shadows})
    area = findings.forgotten.area
    assert attacks.rows[0].cells[0] == f"{area.value:.2f} ({area.low:.2f} to {area.high:.2f})"
    assert [row.label for row in attacks.rows] == [
        "forgotten, after the method",
        "forgotten, doing nothing",
        "forgotten, retrained against retrained",
        "retained, after the method",
        "never seen by any, after the method",
    ]
    forget = findings.divergences["forget"]
    assert forget is not None
    assert divergences.rows[0].cells[0] == f"{forget.unlearned[95]:.2f}"
    assert divergences.rows[0].cells[3] == f"{forget.floor[99]:.2f}"
    assert {row.cells[1] for row in exposed.rows[:8]} == {"known"}
    assert exposed.rows[0].label.endswith("of client 3")


def test_what_too_few_models_cannot_say_is_left_out() -> None:
    shadows = json.loads(json.dumps(found(0, before=6.0, after=6.0, pairs=3).to_json()))
    assert shadows["divergences"]["forget"] is None
    attacks, _ = attack_tables({"shadows": shadows})
    assert len(attacks.rows) == 4
    assert np.all([cell for row in attacks.rows for cell in row.cells])


def test_rounds_to_relearn_by_hand() -> None:
    (table,) = attack_tables({"relearned": {"after": 0, "retrained": None, "most": 5}})
    assert (table.columns, table.rows[0].cells) == (("after", "retrained"), ("0", "> 5"))
