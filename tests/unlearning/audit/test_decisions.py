"""unlearning/audit/decisions.py: what paired differences decide, and what they do not."""

import json

import numpy as np
import pytest

from unlearning.audit.decisions import Decisions, by_seed, decisions

NOTHING = {0: 10.0, 1: 12.0, 2: 11.0, 3: 30.0}
FLOOR = {0: 0.5, 1: 0.7, 2: 0.4, 3: 0.6}


def made(methods: dict[str, dict[int, float]], floor: dict[int, float] | None = None) -> Decisions:
    return decisions(methods, ("before", NOTHING), ("floor", FLOOR if floor is None else floor), 4)


def test_a_pair_by_hand() -> None:
    """a − b is 1 in each of four seeds but for ±0.1, though the seeds differ by 20: paired, it is decided."""
    a = {seed: value + 1.0 for seed, value in NOTHING.items()}
    b = {seed: value + d for (seed, value), d in zip(NOTHING.items(), (0.1, -0.1, 0.1, -0.1), strict=True)}
    (pair,) = made({"a": a, "b": b}).pairs
    assert (pair.method, pair.against, pair.outcome) == ("a", "b", "further")
    assert pair.difference == pytest.approx(1.0)
    assert pair.values == pytest.approx((0.9, 1.1, 0.9, 1.1))
    assert pair.high is not None
    assert pair.high - 1.0 == pytest.approx(3.1824 * np.std([0.9, 1.1, 0.9, 1.1], ddof=1) / 2, rel=1e-4)


def test_a_method_is_compared_with_nothing_and_with_the_floor() -> None:
    near = {0: 0.6, 1: 0.6, 2: 0.5, 3: 0.5}
    found = made({"near": near})
    assert [each.outcome for each in found.floor] == ["undecided"]
    (nothing,) = found.nothing
    assert (nothing.difference, nothing.outcome) == (pytest.approx(-15.2), "undecided")  # In two groups
    assert (nothing.low, nothing.p_value, nothing.in_two_groups) == (None, None, True)
    assert made({"near": near}, {}).floor == ()


def test_of_many_equal_methods_hardly_any_is_decided() -> None:
    """Ten methods that are all alike: Holm's correction keeps the chance of any mistake at 5 %."""
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        methods = {f"m{i}": dict(enumerate(generator.normal(5, 1, 6))) for i in range(6)}
        found = decisions(methods, ("before", dict(enumerate([5.0] * 6))), ("floor", {}), 6)
        wrong += any(each.outcome != "undecided" for each in found.nothing)
    assert wrong <= 12


def test_one_seed_decides_nothing() -> None:
    found = decisions({"a": {0: 1.0}, "b": {0: 90.0}}, ("before", {0: 50.0}), ("floor", {0: 1.0}), 1)
    assert {each.outcome for each in (*found.nothing, *found.floor, *found.pairs)} == {"undecided"}
    assert all(each.p_value is None for each in found.pairs)


def test_only_seeds_that_both_have_are_paired() -> None:
    found = made({"a": {0: 1.0, 1: 2.0}, "failed": {}, "b": {1: 1.0, 2: 2.0}})
    (pair,) = found.pairs
    assert pair.values == (1.0,)
    assert [each.method for each in found.nothing] == ["a", "b"]


def test_several_forgettings_count_once_per_seed() -> None:
    samples = {0: [{"x": 1.0}, {"x": 3.0}], 1: [{"x": None}], 2: [{"x": 4.0}, {"x": None}]}
    assert by_seed(samples, "x") == {0: 2.0, 2: 4.0}


def test_all_is_plain_data() -> None:
    document = made({"a": FLOOR, "b": NOTHING}).to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["floor"][0]["difference"] == 0.0
