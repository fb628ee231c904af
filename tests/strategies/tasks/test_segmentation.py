"""strategies/tasks/segmentation.py: by hand, and against a loop over pixels."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from strategies.core.seeds import torch_generator
from strategies.task import CLASSIFICATION, FULL_SCORE
from strategies.tasks.segmentation import Segmentation

TASK = Segmentation(ignore=9)


def test_by_hand() -> None:
    """Pixels of p = (¾, ¼), labels 0 and 1, and one that is ignored: ½ (ln 4⁄3 + ln 4); IoU ½ and 0."""
    outputs = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1).expand(1, 2, 1, 3)
    targets = torch.tensor([[[0, 1, 9]]])
    assert TASK.losses(outputs, targets).tolist() == pytest.approx([(math.log(4 / 3) + math.log(4)) / 2])
    assert TASK.predict(outputs).tolist() == [[[0, 0, 0]]]
    assert TASK.scores(outputs, targets).tolist() == [25.0]
    assert TASK.margins(outputs, targets).tolist() == pytest.approx([0.0], abs=1e-6)
    assert TASK.groups(targets) is None
    assert not TASK.vectors


def test_an_image_without_a_pixel_that_counts() -> None:
    outputs, targets = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 9)
    assert TASK.losses(outputs, targets).tolist() == [0.0]
    assert TASK.scores(outputs, targets).tolist() == [100.0]


@given(st.integers(0, 2**32))
def test_images_are_judged_as_a_loop_over_pixels_does(seed: int) -> None:
    generator = torch_generator(seed)
    outputs = torch.randn(3, 3, 2, 4, generator=generator)
    targets = torch.randint(4, (3, 2, 4), generator=generator)
    targets[targets == 3] = 9
    for loss, score, margin, image, labels in zip(
        TASK.losses(outputs, targets).tolist(),
        TASK.scores(outputs, targets).tolist(),
        TASK.margins(outputs, targets).tolist(),
        outputs,
        targets,
        strict=True,
    ):
        pixels = image.flatten(1).T[labels.flatten() != 9]
        truth = labels.flatten()[labels.flatten() != 9]
        assert score == pytest.approx(slow_score(pixels.argmax(1), truth), abs=1e-4)
        if len(truth):
            assert loss == pytest.approx(float(CLASSIFICATION.loss(pixels, truth)), abs=1e-5)
            assert margin == pytest.approx(float(CLASSIFICATION.margins(pixels, truth).mean()), abs=1e-5)


def slow_score(found: Tensor, truth: Tensor) -> float:
    """Return the mean over the classes that are there of intersection over union, in percent."""
    there = set(found.tolist()) | set(truth.tolist())
    shares = []
    for label in there:
        pairs = list(zip((found == label).tolist(), (truth == label).tolist(), strict=True))
        shares.append(sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs))
    return FULL_SCORE * sum(shares) / len(shares) if shares else FULL_SCORE


def test_divergence_is_the_mean_over_the_pixels() -> None:
    generator = torch_generator(0)
    ours, theirs = torch.randn(2, 2, 3, 2, 2, generator=generator, dtype=torch.float64)
    flat = [each.movedim(1, -1).reshape(-1, 3) for each in (ours, theirs)]
    slow = CLASSIFICATION.divergences(*flat, 2.0).view(2, 4).mean(dim=1)
    torch.testing.assert_close(TASK.divergences(ours, theirs, 2.0), slow)
