"""unlearning/central/data.py: batches are as good as examples to every central function."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from unlearning.central.ascent import AscentSettings, ProjectedAscentSettings, ascend, projected_ascent
from unlearning.central.data import Data, gathered
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.fisher import fisher_forget
from unlearning.central.influence import InfluenceSettings, influence
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse
from unlearning.central.parameters import flat_parameters
from unlearning.central.prune import PruneSettings, imp
from unlearning.central.training import SgdSettings
from unlearning.traits.fisher import FisherSettings

Forget = Callable[[nn.Module, Data, Data, Generator], nn.Module]

ONCE = {"epochs": 2, "batch_size": 8}
FUNCTIONS: dict[str, Forget] = {
    "finetune": lambda m, r, f, g: finetune(m, r, FinetuneSettings(**ONCE), g),
    "l1_sparse": lambda m, r, f, g: l1_sparse(m, r, L1SparseSettings(**ONCE), g),
    "ascend": lambda m, r, f, g: ascend(m, f, AscentSettings(**ONCE), g),
    "projected_ascent": lambda m, r, f, g: projected_ascent(
        m, f, flat_parameters(m), 0.5, ProjectedAscentSettings(**ONCE), g
    ),
    "fisher_forget": lambda m, r, f, g: fisher_forget(m, r, FisherSettings(), g),
    "influence": lambda m, r, f, g: influence(m, r, f, InfluenceSettings(), g).model,
    "imp": lambda m, r, f, g: imp(m, r, SgdSettings(learning_rate=0.3), PruneSettings(rate=0.5), g).model,
}


def loader(examples: Examples, batch_size: int = 7) -> "DataLoader[tuple[Tensor, ...]]":
    return DataLoader(TensorDataset(examples.x, examples.y), batch_size=batch_size)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loader_gives_what_its_examples_give(
    name: str, build_net: Callable[..., nn.Module], make_blobs: Callable[..., Examples]
) -> None:
    """To the bit: a batch of the loader is no batch of the method, and batches may come from anywhere."""
    model, retain, forget = build_net(4, 6, 3), make_blobs(40), make_blobs(10, seed=1)
    expected = flat_parameters(FUNCTIONS[name](model, retain, forget, torch_generator(0)))
    found = FUNCTIONS[name](model, loader(retain), iter(loader(forget, 3)), torch_generator(0))
    assert flat_parameters(found).equal(expected)
    fewer = FUNCTIONS[name](model, loader(make_blobs(33)), loader(make_blobs(9, seed=1)), torch_generator(0))
    assert not flat_parameters(fewer).equal(expected)


def test_examples_come_back_as_they_are(make_blobs: Callable[..., Examples]) -> None:
    examples = make_blobs(5)
    assert gathered(examples) is examples
    assert len(gathered([])) == 0


def test_labels_of_any_whole_type_are_taken() -> None:
    assert gathered([(torch.zeros(2, 1), torch.tensor([1, 0], dtype=torch.int32))]).y.dtype == torch.int64


def test_what_is_no_batch_is_refused() -> None:
    x, y = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"a batch is a pair \(inputs, labels\); got 3 parts"):
        gathered([(x, y, y)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"the labels of a batch have shape \[n\]; got \[2, 3\]"):
        gathered([(x, torch.zeros(2, 3))])
    with pytest.raises(ValueError, match="2 inputs but 1 targets"):
        gathered([(x, y[:1])])
