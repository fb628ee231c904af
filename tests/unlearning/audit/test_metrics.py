"""unlearning/audit/metrics.py: each figure by hand, against a slow loop, and where it has no meaning."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from strategies.core.seeds import torch_generator
from strategies.task import CLASSIFICATION
from unlearning.audit import metrics

seeds = st.integers(0, 2**32)
points = st.floats(-100, 100)


def random_logits(seed: int, n: int = 17, classes: int = 5, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(n, classes, generator=torch_generator(seed, "logits"))


def divergence(reference: Tensor, outputs: Tensor) -> Tensor:
    return metrics.output_divergence(outputs, reference)


def slow_softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in logits]
    return [e / sum(exponentials) for e in exponentials]


# by hand


def test_accuracy_and_unlearning_accuracy_by_hand() -> None:
    """3 of 4 right: accuracy 75 %, UA = 100 − 75 = 25 %."""
    correct = torch.tensor([1, 0, 1, 1], dtype=torch.uint8)
    assert metrics.accuracy(correct) == 75.0
    assert metrics.unlearning_accuracy(correct) == 25.0


def test_the_margin_by_hand() -> None:
    """Logits (ln 3, 0, 0): softmax (3/5, 1/5, 1/5); φ = ln(3/5 / 2/5) and ln(1/5 / 4/5)."""
    logits = torch.tensor([[math.log(3.0), 0.0, 0.0]] * 2)
    expected = [math.log(1.5), -math.log(4.0)]
    assert CLASSIFICATION.margins(logits, torch.tensor([0, 1])).tolist() == pytest.approx(expected)
    logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]])
    assert CLASSIFICATION.scores(logits, torch.tensor([0, 1])).tolist() == [100.0, 0.0]


def test_attack_success_rate_leaves_the_target_class_out() -> None:
    """Target 7, five triggered images of which two are sevens.

    The other three are predicted 7, 1, 1: ASR = 1/3. With the two sevens, both predicted 7, it would be 3/5.
    """
    predictions = torch.tensor([7, 7, 7, 1, 1])
    labels = torch.tensor([7, 7, 3, 3, 4])
    assert metrics.attack_success_rate(predictions, labels, target=7) == pytest.approx(100.0 / 3)


def test_a_clean_model_has_no_attack_success() -> None:
    """Ten classes, all predicted right: 0 %, not the 10 % that the target's own images would make."""
    labels = torch.arange(10).repeat(3)
    assert metrics.attack_success_rate(labels, labels, target=0) == 0.0


def test_kl_divergence_by_hand() -> None:
    """Reference (3/4, 1/4), model (1/2, 1/2): ¾·ln(3/2) + ¼·ln(1/2)."""
    reference, model = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(reference, model).item() == pytest.approx(expected, rel=1e-6)


def test_parameter_distance_by_hand() -> None:
    """θr = (0, 0), θo = (3, 4), θu = (0, 1): ‖θu − θr‖ = 1, ‖θo − θr‖ = 5, ratio 1/5."""
    retrained, original, unlearned = vector(0, 0), vector(3, 4), vector(0, 1)
    assert metrics.parameter_distance(unlearned, retrained, original) == pytest.approx(0.2)


def test_angle_by_hand() -> None:
    """(1, 0) and (2, 2): 45°; (1, 0) and (0, 1): 90°."""
    assert metrics.angle(vector(1, 0), vector(2, 2)) == pytest.approx(45.0)
    assert metrics.angle(vector(1, 0), vector(0, 1)) == pytest.approx(90.0)


def test_disparity_by_hand() -> None:
    """Gaps +2, −4, 0 and 6 points: mean of the absolute values 12/4 = 3."""
    assert metrics.disparity([2.0, -4.0, 0.0, 6.0]) == 3.0


def test_relearning_by_hand() -> None:
    """UA(θo) = 5: θu (40, 12, 6) is near after 2 rounds, θr (60, 30, 20, 9, 5.5) after 4; effort 2/4."""
    unlearned = metrics.rounds_to_relearn([40.0, 12.0, 6.0], original=5.0)
    retrained = metrics.rounds_to_relearn([60.0, 30.0, 20.0, 9.0, 5.5], original=5.0)
    assert (unlearned, retrained) == (2, 4)
    assert metrics.relearn_effort(unlearned, retrained) == 0.5


# against a slow reference


@given(seed=seeds)
def test_kl_divergence_equals_a_loop_over_classes(seed: int) -> None:
    reference, model = random_logits(seed), random_logits(seed + 1)
    slow = [
        sum(p * math.log(p / q) for p, q in zip(slow_softmax(r), slow_softmax(m), strict=True))
        for r, m in zip(reference.tolist(), model.tolist(), strict=True)
    ]
    assert divergence(reference, model).tolist() == pytest.approx(slow, rel=1e-9, abs=1e-12)


def test_margins_tell_apart_what_a_rounded_probability_does_not() -> None:
    """At logits (20, 0) and (30, 0), p rounds to 1 in float32 in both; φ is 20 and 30."""
    logits = torch.tensor([[20.0, 0.0], [30.0, 0.0]])
    assert logits.softmax(dim=1)[:, 0].tolist() == [1.0, 1.0]
    assert CLASSIFICATION.margins(logits, torch.tensor([0, 0])).tolist() == pytest.approx([20.0, 30.0])


@pytest.mark.parametrize("classes", [1, 2])
def test_a_margin_is_a_number_whatever_the_logits(classes: int) -> None:
    logits = torch.full((2, classes), -3e38)
    logits[0, 0] = 3e38
    assert bool(CLASSIFICATION.margins(logits, torch.tensor([0, 0])).isfinite().all())


@given(seed=seeds)
def test_margin_and_correctness_equal_a_loop(seed: int) -> None:
    logits = random_logits(seed)
    y = torch.randint(5, (len(logits),), generator=torch_generator(seed, "labels"))
    rows = list(zip(logits.tolist(), y.tolist(), strict=True))
    probabilities = [slow_softmax(row)[label] for row, label in rows]
    expected = [math.log(p / (1 - p)) for p in probabilities]
    assert CLASSIFICATION.margins(logits, y).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    right = [100.0 * (row[label] == max(row)) for row, label in rows]
    assert CLASSIFICATION.scores(logits, y).tolist() == right


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1), images=st.integers(0, 5))
def test_images_of_the_target_class_change_nothing(pairs: list[tuple[int, int]], images: int) -> None:
    hits = sum(1 for predicted, _ in pairs if predicted == 0)
    predicted, labels = (torch.tensor(c) for c in zip(*pairs, *[(0, 0)] * images, strict=True))
    assert metrics.attack_success_rate(predicted, labels, target=0) == pytest.approx(100 * hits / len(pairs))


@given(seed=seeds)
def test_parameter_distance_equals_scalar_sums(seed: int) -> None:
    unlearned, retrained, original = (random_vector(seed, which) for which in ("u", "r", "o"))
    moved = sum((u - r) ** 2 for u, r in zip(unlearned.tolist(), retrained.tolist(), strict=True))
    scale = sum((o - r) ** 2 for o, r in zip(original.tolist(), retrained.tolist(), strict=True))
    slow = math.sqrt(moved / scale)
    assert metrics.parameter_distance(unlearned, retrained, original) == pytest.approx(slow, rel=1e-6)


@given(seed=seeds)
def test_angle_equals_the_arc_cosine(seed: int) -> None:
    first, second = random_vector(seed, "a").tolist(), random_vector(seed, "b").tolist()
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    slow = math.degrees(math.acos(dot / (math.hypot(*first) * math.hypot(*second))))
    assert metrics.angle(vector(*first), vector(*second)) == pytest.approx(slow, abs=1e-3)


# properties and identities


@given(seed=seeds, shift=st.floats(-50, 50))
def test_divergence_is_never_negative_and_ignores_a_common_shift(seed: int, shift: float) -> None:
    logits = random_logits(seed)
    assert (divergence(logits, random_logits(seed + 1)) >= 0).all()
    assert divergence(logits, logits.double() + shift).max().item() < 1e-12


def test_divergence_takes_the_reference_as_the_first_distribution() -> None:
    """KL is not symmetric: from (9/10, 1/10) to (1/2, 1/2) it is 0.368 nats, the other way 0.511."""
    sure, unsure = torch.tensor([[math.log(9.0), 0.0]]), torch.zeros(1, 2)
    there, back = divergence(sure, unsure).item(), divergence(unsure, sure).item()
    assert there == pytest.approx(0.9 * math.log(9 / 5) + 0.1 * math.log(1 / 5))
    assert back == pytest.approx(0.5 * math.log(5 / 9) + 0.5 * math.log(5 / 1))


def test_divergence_of_models_that_are_certain_is_finite() -> None:
    certain = torch.tensor([[2000.0, 0.0]])
    assert divergence(-certain, certain).item() == pytest.approx(2000.0)


@given(seed=seeds)
def test_the_ends_of_the_parameter_distance(seed: int) -> None:
    retrained, original = random_vector(seed, "r"), random_vector(seed, "o")
    assert metrics.parameter_distance(retrained, retrained, original) == 0.0
    assert metrics.parameter_distance(original, retrained, original) == 1.0


@given(seed=seeds, factor=st.floats(0.1, 10))
def test_the_angle_ignores_length_and_has_the_right_ends(seed: int, factor: float) -> None:
    layer = random_vector(seed, "u")
    assert metrics.angle(layer, layer) == 0.0
    assert metrics.angle(layer, factor * layer) == pytest.approx(0.0, abs=1e-4)
    assert metrics.angle(layer, -factor * layer) == pytest.approx(180.0, abs=1e-4)


@given(values=st.lists(points, min_size=4, max_size=4))
def test_identical_models_have_no_disparity(values: list[float]) -> None:
    assert metrics.disparity([metrics.gap(v, v) for v in values]) == 0.0


@given(values=st.lists(st.tuples(points, points), min_size=4, max_size=4))
def test_disparity_ignores_order_and_sign_of_the_gaps(values: list[tuple[float, float]]) -> None:
    forwards = metrics.disparity([metrics.gap(a, b) for a, b in values])
    assert forwards == pytest.approx(metrics.disparity([metrics.gap(b, a) for a, b in reversed(values)]))


def test_a_gap_is_the_model_minus_the_retrained_one() -> None:
    assert metrics.gap(90.0, 92.5) == -2.5


def test_knowing_the_data_better_than_at_first_counts_as_relearned() -> None:
    assert metrics.rounds_to_relearn([30.0, 1.0], original=5.0) == 1


# where a figure has no meaning


def test_nothing_to_average_is_an_error() -> None:
    with pytest.raises(ValueError, match="over 0 examples is not defined"):
        metrics.accuracy(torch.zeros(0))
    with pytest.raises(ValueError, match="over 0 examples"):
        metrics.attack_success_rate(torch.tensor([1]), torch.tensor([1]), target=1)


def test_what_was_not_measured_has_no_gap_and_no_disparity() -> None:
    assert metrics.gap(None, 3.0) is None
    assert metrics.gap(3.0, None) is None
    assert metrics.disparity([1.0, None, 1.0, 1.0]) is None
    assert metrics.disparity([]) is None


def test_a_ratio_without_a_scale_is_none() -> None:
    zero, other = vector(0, 0), vector(1, 1)
    assert metrics.parameter_distance(other, zero, zero) is None
    assert metrics.angle(zero, other) is None
    assert metrics.relearn_effort(None, 4) is None
    assert metrics.relearn_effort(2, None) is None
    assert metrics.relearn_effort(0, 0) is None
    assert metrics.rounds_to_relearn([50.0, 40.0], original=5.0) is None


# damage is noticed


def test_a_swapped_pair_of_arguments_would_be_noticed() -> None:
    """θu and θo exchanged: the distance of the hand-worked case is 5 instead of 1/5."""
    retrained, original, unlearned = vector(0, 0), vector(3, 4), vector(0, 1)
    assert metrics.parameter_distance(original, retrained, unlearned) == pytest.approx(5.0)


def vector(*values: float) -> Tensor:
    return torch.tensor([float(value) for value in values])


def random_vector(seed: int, which: str) -> Tensor:
    return torch.randn(7, generator=torch_generator(seed, which))
