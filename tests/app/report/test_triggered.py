"""app/report/triggered.py: triggered images survive the way through their file."""

from pathlib import Path

import numpy as np
import pytest

from app.report.triggered import TRIGGERED, TriggeredImage, read_triggered, write_triggered
from strategies.core.errors import RunCorrupt


def image(value: float, shape: tuple[int, ...] = (1, 2, 2), **predictions: int) -> TriggeredImage:
    return TriggeredImage(np.full(shape, value, np.float32), 3, predictions or {"before": 0, "after": 3})


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (3, 2, 2)])
def test_what_is_written_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    written = [
        image(0.25, shape, before=0, after=3, retrain=2),
        image(1.0, shape, before=1, after=1, retrain=1),
    ]
    assert write_triggered(tmp_path, written) == tmp_path / TRIGGERED
    read = read_triggered(tmp_path)
    assert [list(i.predictions.items()) for i in read] == [list(i.predictions.items()) for i in written]
    assert [i.true_label for i in read] == [3, 3]
    for before, after in zip(written, read, strict=True):
        np.testing.assert_array_equal(before.pixels, after.pixels)


def test_no_file_is_no_image(tmp_path: Path) -> None:
    assert read_triggered(tmp_path) == ()


@pytest.mark.parametrize(
    "images", [[], [image(0.0), image(0.0, (1, 3, 3))], [image(0.0), image(0.0, before=1)]]
)
def test_images_that_do_not_fit_together_are_refused(tmp_path: Path, images: list[TriggeredImage]) -> None:
    with pytest.raises(ValueError, match="expected at least one image, all of one shape"):
        write_triggered(tmp_path, images)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_triggered(tmp_path, [image(0.5)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunCorrupt, match=r"triggered\.npz: damaged, not an npz file"):
        read_triggered(tmp_path)


def test_a_pickle_in_the_file_is_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / TRIGGERED, pixels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RunCorrupt, match="damaged, not an npz file of plain arrays"):
        read_triggered(tmp_path)


def test_arrays_of_different_lengths_are_damage(tmp_path: Path) -> None:
    np.savez(tmp_path / TRIGGERED, **{"pixels": np.zeros((2, 4, 4)), "true-labels": np.zeros(3, np.int64)})
    with pytest.raises(RunCorrupt, match="one label and prediction for each of 2 images"):
        read_triggered(tmp_path)


def test_a_missing_array_is_damage(tmp_path: Path) -> None:
    np.savez(tmp_path / TRIGGERED, pixels=np.zeros((2, 4, 4)))
    with pytest.raises(RunCorrupt, match="expected 'pixels' of 3 or 4 dimensions and 'true-labels'"):
        read_triggered(tmp_path)


@pytest.mark.parametrize("value", [1e300, np.inf, np.nan])
def test_pixels_that_no_float32_holds_are_damage(tmp_path: Path, value: float) -> None:
    arrays = {"pixels": np.full((2, 4, 4), value), "true-labels": np.zeros(2, np.int64)}
    np.savez(tmp_path / TRIGGERED, **arrays)
    with pytest.raises(RunCorrupt, match="'pixels' are not finite or too large for float32"):
        read_triggered(tmp_path)
