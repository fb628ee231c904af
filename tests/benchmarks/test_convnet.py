"""The network for colour images, and its varied inputs against a slow reference."""

import pytest
import torch
from torch import Tensor

from benchmarks.central import CONVNET, Holder, HolderOptions
from benchmarks.convnet import convnet, crops_and_flips
from strategies.core.augmenting import Augmented


def slow_variations(image: Tensor) -> list[Tensor]:
    """Return all fifty: each of 25 moves with black borders, as it is and mirrored."""
    _, height, width = image.shape
    found = []
    for down in range(-2, 3):
        for right in range(-2, 3):
            for mirrored in (False, True):
                made = torch.zeros_like(image)
                for row in range(height):
                    for column in range(width):
                        source = width - 1 - column if mirrored else column
                        y, x = row + down, source + right
                        if 0 <= y < height and 0 <= x < width:
                            made[:, row, column] = image[:, y, x]
                found.append(made)
    return found


def test_a_varied_image_is_one_of_its_fifty_variations_and_each_is_drawn() -> None:
    images = torch.rand(1, 2, 5, 6, generator=torch.Generator().manual_seed(0)).expand(1000, 2, 5, 6)
    varied = crops_and_flips(images, torch.Generator().manual_seed(1))
    assert varied.shape == images.shape
    known = torch.stack(slow_variations(images[0]))  # [50, 2, 5, 6]
    which = (varied[:, None] == known[None]).flatten(2).all(dim=2)  # [1000, 50]
    assert which.any(dim=1).all()
    assert which.any(dim=0).all()  # Each is missed by 1,000 draws with a chance of 2e-9


def test_the_generator_decides() -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first, again, other = (crops_and_flips(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_several_parts_are_refused() -> None:
    with pytest.raises(TypeError, match="one tensor"):
        crops_and_flips({"image": torch.zeros(1, 3, 8, 8)}, torch.Generator())


def test_the_network_is_of_the_size_that_is_said() -> None:
    model = convnet(3, 10)
    assert sum(p.numel() for p in model.parameters()) == 386_554
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_holder_builds_it_and_varies_what_it_trains_on() -> None:
    options = HolderOptions(model=CONVNET, augment=True, train_examples=50, test_examples=20)
    holder = Holder.of(options, seed=0)
    assert sum(p.numel() for p in holder.model().parameters()) == 386_554 - 2 * 16 * 48  # One channel
    assert isinstance(holder.varied(holder.train), Augmented)
    plain = Holder.of(options.model_copy(update={"augment": False}), seed=0)
    assert plain.varied(plain.train) is plain.train
