"""Attacks on single examples without shadows: what is still known is found; what cannot be tried is None."""

import numpy as np
import pytest

from strategies.task import CLASSIFICATION
from strategies.tasks.regression import Regression
from unlearning.audit.margins import Margins
from unlearning.audit.single_examples import SingleExamples, attack_single_examples, rmia_areas

NAMES = ("before", "after", "retrain")
COUNT = 300


def model(known: float, seed: int, unseen: int = COUNT) -> Margins:
    """Each example has a difficulty that all models share; those that were seen are known better."""
    difficulty, own = np.random.default_rng(0), np.random.default_rng(seed)
    base = [2.0 * difficulty.normal(size=COUNT) for _ in range(3)]
    noise = [0.3 * own.normal(size=COUNT) for _ in range(3)]
    forgotten, retained, test = (each + part for each, part in zip(base, noise, strict=True))
    places = {"3": np.arange(COUNT, dtype=np.int64)}
    return Margins({"3": forgotten + known}, retained + 2.0, test[:unseen], places)


def attacked(after: float, others: int = 1) -> SingleExamples:
    models = {"before": model(2.0, 1), "after": model(after, 2), "retrain": model(0.0, 3)}
    names = [f"retrain-seed-{k}" for k in range(others)]
    references = {name: model(0.0, 4 + k) for k, name in enumerate(names)}
    found = attack_single_examples({**models, **references}, NAMES, names, CLASSIFICATION, 0)
    assert found is not None
    return found


def test_one_reference_model_tells_what_is_still_known() -> None:
    forgotten, kept = attacked(0.0), attacked(2.0)
    assert None not in (forgotten.area, kept.area, kept.before, kept.retrained)
    assert abs((forgotten.area or 0) - 0.5) < 0.08
    assert abs((kept.retrained or 0) - 0.5) < 0.08
    assert (kept.area or 0) > 0.75
    assert kept.area == pytest.approx(kept.before, abs=0.05)


def test_the_pair_of_models_tells_who_was_forgotten() -> None:
    """Where the model is as before, retained and forgotten look alike: two of three are told apart."""
    forgotten, kept = attacked(0.0), attacked(2.0)
    assert (forgotten.told_apart or 0) > 65 > (kept.told_apart or 0)
    assert forgotten.told_apart_retrained == kept.told_apart_retrained


def test_without_references_or_labels_rmia_is_not_tried_and_the_pair_is() -> None:
    alone = attacked(0.0, others=0)
    assert (alone.area, alone.before, alone.retrained, alone.references) == (None, None, None, 0)
    assert alone.told_apart is not None
    models = {
        "before": model(2.0, 1),
        "after": model(0.0, 2),
        "retrain": model(0.0, 3),
        "other": model(0.0, 4),
    }
    numbers = attack_single_examples(models, NAMES, ["other"], Regression(1.0), 0)
    assert numbers is not None
    assert numbers.area is None


def test_what_is_not_comparable_gives_nothing() -> None:
    models: dict[str, Margins | None] = {name: model(0.0, 1) for name in NAMES}
    assert attack_single_examples({**models, "after": None}, NAMES, [], CLASSIFICATION, 0) is None
    fewer = Margins({}, np.zeros(COUNT), np.zeros(COUNT), {})
    assert attack_single_examples({**models, "after": fewer}, NAMES, [], CLASSIFICATION, 0) is None
    untested: dict[str, Margins | None] = {name: model(0.0, 1, unseen=5) for name in NAMES}
    assert attack_single_examples(untested, NAMES, [], CLASSIFICATION, 0) is None


def test_areas_of_all_models_are_those_of_the_attack_and_no_model_is_its_own_reference() -> None:
    models: dict[str, Margins | None] = {
        "before": model(2.0, 1),
        "after": model(0.5, 2),
        "retrain": model(0.0, 3),
        "other-1": model(0.0, 4),
        "other-2": model(0.0, 5),
    }
    others = ["other-1", "other-2"]
    found = rmia_areas(models, others, CLASSIFICATION)
    alone = attack_single_examples(models, NAMES, others, CLASSIFICATION, 0)
    assert alone is not None
    assert (found["before"], found["after"], found["retrain"]) == (alone.before, alone.area, alone.retrained)
    without = rmia_areas({n: models[n] for n in ("other-1", "other-2")}, ["other-2"], CLASSIFICATION)
    assert found["other-1"] == without["other-1"] is not None
    assert without["other-2"] is None


def test_areas_are_none_where_nothing_can_be_compared() -> None:
    models: dict[str, Margins | None] = {"after": model(0.0, 1), "other": model(0.0, 2)}
    nothing = {"after": None, "other": None}
    assert rmia_areas({**models, "other": None}, ["other"], CLASSIFICATION) == nothing
    assert rmia_areas(models, ["other"], Regression(1.0)) == nothing
    assert rmia_areas(models, [], CLASSIFICATION) == nothing
    untested: dict[str, Margins | None] = {name: model(0.0, 1, unseen=5) for name in models}
    assert rmia_areas(untested, ["other"], CLASSIFICATION) == nothing
