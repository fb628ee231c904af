"""app/data/public.py: the public data are the same on all sides, and labelled as the settings say."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.config.settings import DataSettings
from app.data import load_client_data, load_public, load_server_data
from app.data.public import UNLABELLED, OwnPublic
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples


@pytest.fixture
def letters(tmp_path: Path) -> Callable[..., str]:
    def write(name: str = "letters", classes: int = 3, side: int = 16) -> str:
        rng = np.random.default_rng(len(name))
        x = rng.integers(0, 256, (30, side, side), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(30) % classes)
        return f"npz:{tmp_path / name}.npz"

    return write


def test_further_classes_come_after_those_of_the_clients(letters: Callable[..., str]) -> None:
    data = DataSettings(public=letters(), public_labels="own", size=8)
    server = load_server_data(data, 0)
    assert (server.num_groups, server.class_names[9:]) == (13, ("9", "0", "1", "2"))
    assert server.public is not None
    assert sorted(set(server.public.y.tolist())) == [10, 11, 12]
    assert server.public.x.shape == (30, 1, 8, 8)


def test_shared_labels_and_none(letters: Callable[..., str]) -> None:
    shared = load_public(DataSettings(public=letters(), public_labels="shared", size=8), 0)
    unlabelled = load_public(DataSettings(public=letters(), size=8), 0)
    assert shared is not None
    assert unlabelled is not None
    assert sorted(set(shared.labels.tolist())) == [0, 1, 2]
    assert set(unlabelled.labels.tolist()) == {UNLABELLED}
    assert shared.hash == unlabelled.hash


def test_a_share_is_labelled_and_held_by_no_client() -> None:
    data = DataSettings(public="0.1", clients=3)
    public = load_public(data, 0)
    assert public is not None
    server = load_server_data(data, 0)
    assert server.public is not None
    assert torch.equal(public.examples().x, server.public.x)
    held = sum(len(load_client_data(data, 0, {"partition-id": i})) for i in range(3))
    assert held + len(public) == 1438


def test_positions_mean_the_same_on_all_sides(letters: Callable[..., str]) -> None:
    public = load_public(DataSettings(public=letters(), size=8, public_limit=10), 0)
    assert public is not None
    assert len(public) == 10
    index = torch.tensor([7, 2])
    assert torch.equal(public.take(index).x, public.examples().x[index])


def test_the_hash_tells_other_data(letters: Callable[..., str]) -> None:
    hashes = {
        load_public(DataSettings(public=name, size=size), 0).hash  # type: ignore[union-attr]
        for name, size in [(letters(), 8), (letters("others"), 8)]
    }
    assert len(hashes) == 2


def test_a_client_keeps_a_few_of_each_class() -> None:
    data = DataSettings(clients=4, per_class=3)
    for client in range(4):
        counts = load_client_data(data, 0, {"partition-id": client}).y.bincount()
        assert counts.tolist() == [3] * 10
    every = DataSettings(clients=4)
    assert len(load_client_data(every, 0, {"partition-id": 0})) > 100


def test_other_classes_of_the_same_data_set_are_public_data() -> None:
    data = DataSettings(public="digits", classes="0, 1", public_classes="5, 6, 7", public_labels="own")
    server = load_server_data(data, 0)
    assert server.class_names == ("0", "1", "5", "6", "7")
    assert server.test is not None
    assert sorted(set(server.test.y.tolist())) == [0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": "0, 1", "public_classes": "1, 2"}, "'digits' is the clients' data"),
        ({"public_classes": "1, 2"}, "'digits' is the clients' data"),
        ({"classes": "0, 1", "public_classes": "2, 3, 4", "public_labels": "shared"}, "has 3 classes"),
        ({"classes": "0, 1", "public_classes": "12"}, "data.public-classes: given 12"),
    ],
)
def test_public_data_that_do_not_fit_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        load_public(DataSettings(public="digits", **settings), 0)  # type: ignore[arg-type]


def test_examples_that_a_project_brings_have_a_hash_of_inputs_targets_and_order() -> None:
    x, y = torch.arange(12.0).view(4, 3), torch.tensor([0.5, 1.5, 2.5, 3.5])
    same, own = (OwnPublic(TensorExamples(x.clone(), y.clone())) for _ in range(2))
    assert len(own) == 4
    assert own.take(torch.tensor([3, 0])).targets().tolist() == [3.5, 0.5]
    assert own.hash == same.hash
    others = [(x + 1, y), (x, y + 1), (x.flip(0), y.flip(0)), (x[:3], y[:3]), (x.double(), y)]
    hashes = {own.hash, *(OwnPublic(TensorExamples(*other)).hash for other in others)}
    assert len(hashes) == 6
