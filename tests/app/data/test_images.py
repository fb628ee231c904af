"""app/data/images.py, read lazily: the same bits as in memory, decoded when a batch is asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.data import folder as folders
from app.data.folder import read_client_folder, read_folder
from app.data.images import Headers, ImageFiles, find_images
from app.data.pool import Pixels
from strategies.client.data_tags import block_tags
from strategies.core.dataset_examples import DatasetExamples
from strategies.core.errors import BadInput
from strategies.core.examples import in_memory
from tests.app.data.test_folder import photo, save


def noisy(path: Path, size: tuple[int, int], seed: int, channels: int = 3) -> None:
    """Write a JPEG of random pixels; size is (width, height)."""
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", quality=90)


def six_photos(root: Path, sizes: tuple[tuple[int, int], ...]) -> None:
    """Write photos of the given sizes in turn: four to train on and two to test."""
    for i in range(4):
        noisy(root / "train" / str(i % 2) / f"{i}.jpg", sizes[i % len(sizes)], i)
    for i in range(4, 6):
        noisy(root / "test" / str(i % 2) / f"{i}.jpg", sizes[i % len(sizes)], i, channels=1 + 2 * (i % 2))


@pytest.mark.parametrize(("sizes", "size"), [(((12, 12),), 0), (((9, 14), (16, 8)), 10), (((12, 12),), 8)])
def test_the_same_bits_as_in_memory(tmp_path: Path, sizes: tuple[tuple[int, int], ...], size: int) -> None:
    """As they are, of several sizes scaled to one, and of one size scaled; grey and coloured mixed."""
    from app.data.shaping import shaped

    six_photos(tmp_path, sizes)
    memory, lazy = (shaped(read_folder(tmp_path, size, how), (), size) for how in ("false", "true"))
    assert (memory.notes, memory.class_names) == (lazy.notes, lazy.class_names)
    for stored, files in ((memory.train, lazy.train), (memory.test, lazy.test)):
        assert stored is not None
        assert files is not None
        assert isinstance(files.x, Pixels)
        assert files.input_shape == stored.input_shape
        everything, pixels = stored.all(), files.all()
        assert isinstance(pixels, DatasetExamples)
        assert in_memory(pixels).x.equal(in_memory(everything).x)
        assert in_memory(pixels).x.is_contiguous(memory_format=torch.channels_last)
        assert pixels.targets().equal(everything.targets())
        index = torch.tensor([1, 0])
        assert pixels.batch(index)[0].equal(everything.batch(index)[0])


def test_upright_sizes_from_headers_alone(tmp_path: Path) -> None:
    """Each of the eight orientations, as JPEG and TIFF, has the size of the upright image: 16×8."""
    for orientation in range(1, 9):
        for kind in ("JPEG", "TIFF"):
            photo(tmp_path / f"{orientation}.{kind.lower()}", orientation, kind)
    headers = Headers.of(find_images(tmp_path).files)
    assert list(headers.shapes) == [(8, 16)]
    assert (headers.grey, headers.stretched, headers.shape(0)) == (True, 16, (1, 8, 16))


def test_large_folders_are_lazy_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 images of 3·12·12 = 432 bytes: 1728 are in memory, 1727 would be too many; 6 with the test."""
    six_photos(tmp_path, ((12, 12),))
    assert isinstance(read_folder(tmp_path).train.x, torch.Tensor)
    monkeypatch.setattr(folders, "_SURELY_SMALL", 0)
    for most, is_lazy in ((6 * 432, False), (6 * 432 - 1, True)):
        monkeypatch.setattr(folders, "MOST_IN_MEMORY", most)
        assert isinstance(read_folder(tmp_path).train.x, ImageFiles) == is_lazy
        assert isinstance(read_client_folder(tmp_path, ("0", "1"))[0].x, ImageFiles) == is_lazy
        assert isinstance(read_folder(tmp_path, lazy="false").train.x, torch.Tensor)


def test_choosing_decodes_nothing(tmp_path: Path) -> None:
    """Classes, subsets and tags of examples read no pixels: here all files but one are gone or damaged."""
    six_photos(tmp_path, ((12, 12),))
    examples = read_folder(tmp_path, lazy="true").train.all()
    before = block_tags(examples, b"key", 4)
    files = sorted((tmp_path / "train").rglob("*.jpg"))
    content = files[0].read_bytes()
    files[0].write_bytes(b"damaged")
    assert examples.group_counts(2) == [2, 2]
    assert examples.subset([1, 3]).targets().tolist() == [0, 1]
    assert block_tags(examples, b"key", 4) != before
    with pytest.raises(BadInput, match=r"0\.jpg: cannot be read as an image; replace or remove it$"):
        examples.batch(torch.tensor([0]))
    files[0].write_bytes(content)
    assert block_tags(examples, b"key", 4) == before


def test_another_image_under_the_name(tmp_path: Path) -> None:
    """A file that was replaced by an image of another size or of colour is refused, not stretched."""
    save(tmp_path / "a" / "0.png", 0)
    save(tmp_path / "a" / "1.png", 0)
    examples = read_folder(tmp_path, lazy="true").train.all()
    save(tmp_path / "a" / "0.png", 0, size=(5, 3))
    save(tmp_path / "a" / "1.png", (0, 0, 0), "RGB")
    for position, said in ((0, r"0\.png: is 5×3 now, and was 4×3$"), (1, r"is coloured now, and was grey$")):
        with pytest.raises(BadInput, match=said):
            examples.batch(torch.tensor([position]))


def test_sizes_that_differ_need_one(tmp_path: Path) -> None:
    """As in memory, in the same words."""
    six_photos(tmp_path, ((9, 14), (16, 8)))
    lines = []
    for how in ("true", "false"):
        with pytest.raises(BadInput, match=r"^images differ in size ") as refused:
            read_folder(tmp_path, 0, how)
        lines.append(str(refused.value))
    assert lines[0] == lines[1]
