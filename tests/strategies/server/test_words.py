"""Where the words of an exact sum lie makes no difference to a bit of it."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.errors import LetheError
from strategies.core.seeds import torch_generator
from strategies.server import aggregation, words
from strategies.server.aggregation import ExactSum
from strategies.server.words import DeviceWords, FileWords, MemoryWords, Place, sums_kept

SIZE = words._BLOCK + 17
"""More than one block."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "SPILLED_BYTES", 4)
    monkeypatch.setattr(words, "_DEVICE_BLOCK", 1000)


def places(folder: Path) -> dict[type, Place]:
    return {
        MemoryWords: Place(),
        FileWords: Place(folder),
        DeviceWords: Place(folder, torch.device("cpu")),
    }


def updates(count: int) -> list[tuple[Tensor, float]]:
    """Return updates from 10^-6 to 100 with weights from 1 to 2·10^6."""
    generator = torch_generator(0, "updates")
    made = [torch.randn(SIZE, generator=generator) * 10.0 ** (i % 9 - 6) for i in range(count)]
    return [(delta, 1.0 + 10.0 ** (i % 7)) for i, delta in enumerate(made)]


def summed(place: Place, terms: list[tuple[Tensor, float]], bits: int = 52) -> ExactSum:
    with sums_kept(place):
        total = ExactSum(SIZE, bits)
    for delta, weight in terms:
        total.add(delta, weight)
    return total


@pytest.mark.parametrize("bits", [0, 20, 52])
def test_every_place_gives_the_same_bits(tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another order each, with a carry after three terms, and whole sums among the terms."""
    monkeypatch.setattr(aggregation, "_CARRY_EVERY", 3)
    terms, start = updates(7), torch.linspace(-1, 1, SIZE)
    found = []
    for turn, (kind, place) in enumerate(places(tmp_path).items()):
        total = summed(place, [*terms[turn:], *terms[:turn]], bits)
        total.add_sum(torch.arange(SIZE) - 3, 2.0, 0)
        assert type(total._words) is kind
        found.append((total.added_to(start), total.added_to(start, 5.0), total.mean()))
    for other in found[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found[0], other, strict=True))
    assert not torch.equal(found[0][0], start)


@given(st.lists(st.tuples(st.floats(-1024, 1024, width=32), st.floats(0.01, 1e6)), min_size=1, max_size=8))
@settings(max_examples=20)
def test_torch_computes_what_numpy_does(terms: list[tuple[float, float]]) -> None:
    """On a device as here, halves rounded to the even neighbour in both."""
    here, device = MemoryWords(1, 52), DeviceWords(1, 52, torch.device("cpu"))
    for delta, weight in terms:
        for each in (here, device):
            each.add(torch.tensor([delta], dtype=torch.float32), weight, abs(delta) * weight)
    (_, *mine), (_, *theirs) = next(here.pieces()), next(device.pieces())
    assert [int(word) for word in mine] == [int(word) for word in theirs]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bits() -> None:
    terms, start = updates(7), torch.linspace(-1, 1, SIZE)
    there = summed(Place(device=torch.device("cuda")), terms)
    assert torch.equal(there.added_to(start), summed(Place(), terms).added_to(start))


def test_small_sums_stay_in_memory_and_a_file_leaves_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summed(Place(tmp_path), updates(1))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(words, "SPILLED_BYTES", 2**25)
    assert type(summed(Place(tmp_path), updates(1))._words) is MemoryWords


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with sums_kept(Place(tmp_path / "gone")), pytest.raises(LetheError, match="gone: cannot be written"):
        ExactSum(SIZE)
