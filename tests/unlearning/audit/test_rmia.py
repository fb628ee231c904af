"""RMIA against its definition, pair by pair, and where the answer is known."""

from typing import Any

import numpy as np
import pytest

from unlearning.audit.rmia import scores
from unlearning.audit.roc import auc


def test_the_definition_pair_by_pair() -> None:
    generator = np.random.default_rng(0)
    x, z = generator.random(5), generator.random(7)
    of_x, of_z = generator.random((2, 5)), generator.random((2, 7))
    found = scores(x, of_x, z, of_z, gamma=1.5, offline=0.4)
    for i in range(5):
        p_x = 0.5 * (1.4 * of_x[:, i].mean() + 0.6)
        wins = [(x[i] / p_x) / (z[j] / (0.5 * (1.4 * of_z[:, j].mean() + 0.6))) >= 1.5 for j in range(7)]
        assert found[i] == np.mean(wins)


def known(shift: float) -> tuple[Any, ...]:
    generator = np.random.default_rng(1)
    x, z = generator.uniform(0.1, 0.9, 300), generator.uniform(0.1, 0.9, 400)
    of_x, of_z = (np.clip(p + 0.05 * generator.normal(size=(2, len(p))), 0, 1) for p in (x, z))
    seen = np.clip(x[:150] + shift, 0, 1)
    return np.concatenate([seen, x[150:]]), of_x, z, of_z


def test_what_is_known_better_than_references_expect_is_found_and_else_nothing() -> None:
    for shift, least, most in ((0.3, 0.9, 1.0), (0.0, 0.4, 0.6)):
        found = scores(*known(shift))
        assert least < auc(found[:150], found[150:]) < most


def test_a_probability_of_nought_is_no_error() -> None:
    nought = np.zeros(2)
    assert scores(nought, np.zeros((1, 2)), nought, np.zeros((1, 2)), offline=1.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 0.5}, "gamma is 0.5, expected at least 1"),
        ({"references": np.zeros((0, 2))}, "got 0 reference models and a population of 3"),
        ({"probabilities": np.array([0.5, 1.5])}, "a probability is not within 0 and 1"),
        ({"probabilities": np.array([0.5, np.nan])}, "a probability is not within 0 and 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(change: dict[str, Any], message: str) -> None:
    given = {
        "probabilities": np.array([0.5, 0.5]),
        "references": np.full((1, 2), 0.5),
        "population": np.full(3, 0.5),
        "population_references": np.full((1, 3), 0.5),
    }
    with pytest.raises(ValueError, match=message):
        scores(**{**given, **change})
