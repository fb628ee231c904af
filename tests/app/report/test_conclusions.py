"""app/report/conclusions.py: what a comparison decides, in sentences."""

from typing import Any

from app.report.conclusions import conclusions


def decision(method: str, outcome: str, against: str = "before", **changes: Any) -> dict[str, Any]:
    found = {"method": method, "against": against, "outcome": outcome, "difference": -2.0, "low": -3.0}
    return {**found, "high": -1.0, "p_value": 0.01, "values": [-2.0, -2.0], **changes}


def document(**changes: Any) -> dict[str, Any]:
    return {"seeds": 3, "nothing": [], "floor": [decision("a", "undecided")], "pairs": [], **changes}


def test_methods_of_an_outcome_stand_in_one_sentence_with_their_intervals() -> None:
    nothing = [decision("a", "closer"), decision("b", "undecided"), decision("c", "closer", difference=-4.0)]
    said = conclusions(document(nothing=nothing))
    assert said[0] == (
        "Closer to retraining than doing nothing: a (by −2.0, 95 %: −3.0 to −1.0, p = 0.01) and c (by −4.0, "
        "95 %: −3.0 to −1.0, p = 0.01)."
    )
    assert said[1].startswith("Not decided against doing nothing: b (")
    assert said[2].startswith("Not decided against a retraining with another seed: a (")
    assert said[-1].startswith("Decided means: a paired t-test over 3 training seeds, by Holm's correction")


def test_who_is_better_than_whom_is_said_whichever_way_the_pair_stands() -> None:
    pairs = [
        decision("a", "closer", "b"),
        decision("a", "undecided", "c"),
        decision("b", "further", "c"),
    ]
    said = conclusions(document(pairs=pairs))
    assert "a is closer to retraining than b." in said
    assert "c is closer to retraining than b." in said
    assert "Decided are 2 of 3 pairs of methods." in said
    undecided = conclusions(document(pairs=[decision("a", "undecided", "b")]))
    assert "No method is decidedly closer to retraining than another." in undecided


def test_one_seed_is_said_to_decide_nothing() -> None:
    said = conclusions(document(seeds=1))
    assert said == ["One training seed decides nothing: lethe compare --seeds 5 trains on four more."]


def test_differences_in_two_groups_are_listed_and_a_missing_floor_is_said() -> None:
    two = decision("a", "undecided", low=None, high=None, values=[-80.0, -1.0])
    said = conclusions(document(nothing=[two], floor=[]))
    assert said[0] == "Not tested against doing nothing: a (in two groups: −80.0 and −1.0)."
    assert "There is no floor: audit.seeds = 1 would retrain with another seed." in said


def test_of_many_methods_the_last_are_counted() -> None:
    many = [decision(f"m{i}", "closer", f"n{i}") for i in range(15)]
    assert "and 3 more." in conclusions(document(nothing=many))[0]
