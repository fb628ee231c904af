import numpy as np
import torch

from app.data.pool import DataSet, Pool, channels_first, numbered


def test_bytes_become_numbers_from_zero_to_one_when_they_are_taken() -> None:
    pool = Pool(torch.tensor([[0], [51], [255]], dtype=torch.uint8), torch.tensor([7, 8, 9]))

    taken = pool.take(np.array([2, 1]))

    assert taken.x.tolist() == [[1.0], [torch.tensor(51 / 255).item()]]
    assert taken.x.dtype == torch.float32
    assert taken.y.tolist() == [9, 8]


def test_floats_are_taken_as_they_are() -> None:
    pool = Pool(torch.tensor([[-3.0], [300.0]]), torch.tensor([0, 1]))

    assert pool.take(np.array([0, 1])).x.tolist() == [[-3.0], [300.0]]


def test_what_is_taken_is_a_copy() -> None:
    for dtype in (torch.uint8, torch.float32):
        pool = Pool(torch.zeros(2, 1, dtype=dtype), torch.zeros(2, dtype=torch.int64))
        taken = pool.take(np.arange(2))
        taken.x.fill_(1)
        taken.y.fill_(1)

        assert pool.x.sum() == 0
        assert pool.y.sum() == 0


def test_channels_come_first_and_stay_last_in_memory() -> None:
    """Pixel (row 1, column 2) of channel 3 of a 2×4 image with 5 channels, counted up in storage order."""
    stored = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(1, 2, 4, 5)

    images = channels_first(stored)

    assert images.shape == (1, 5, 2, 4)
    assert images[0, 3, 1, 2] == (1 * 4 + 2) * 5 + 3
    taken = Pool(images, torch.zeros(1, dtype=torch.int64)).take(np.array([0]))
    assert taken.x.is_contiguous(memory_format=torch.channels_last)


def test_grey_images_get_a_channel() -> None:
    assert channels_first(np.zeros((3, 4, 5), dtype=np.uint8)).shape == (3, 1, 4, 5)


def test_the_input_shape_is_that_of_one_example() -> None:
    pool = Pool(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))

    assert DataSet("x", pool, None, numbered(2)).input_shape == (3, 8, 8)
    assert len(pool) == 4
