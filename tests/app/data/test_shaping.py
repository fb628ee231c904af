"""app/data/shaping.py, and the partition by kinds: data sets made to fit each other."""

import re

import numpy as np
import pytest
import torch

from app.config.settings import DataSettings
from app.data.partition import partition_indices
from app.data.pool import DataSet, Pool, numbered
from app.data.shaping import disjoint, resized, shaped
from strategies.core.errors import BadInput


def made(n: int = 40, classes: int = 5, side: int = 8) -> DataSet:
    x = torch.arange(n * side * side, dtype=torch.int64).remainder(256).to(torch.uint8)
    pool = Pool(x.view(n, 1, side, side), torch.arange(n) % classes)
    return DataSet("made", pool, None, numbered(classes))


def test_classes_by_hand() -> None:
    """Of 0 1 2 3 4 in turn, class 3 becomes 0, and 0 and 4 together 1."""
    result = shaped(made(10), (("3",), ("0", "4")), 0)
    assert result.class_names == ("3", "0+4")
    assert result.train.y.tolist() == [1, 0, 1, 1, 0, 1]
    assert result.train.kind is not None
    assert result.train.kind.tolist() == [0, 3, 4, 0, 3, 4]


def test_all_classes_at_their_size_is_the_data_set() -> None:
    data = made()
    assert shaped(data, (), 0).train is data.train
    assert shaped(data, (), 8).train is data.train


def test_images_are_scaled_and_stay_bytes() -> None:
    grey = torch.full((2, 1, 28, 28), 200, dtype=torch.uint8)
    assert torch.equal(resized(grey, 14), torch.full((2, 1, 14, 14), 200, dtype=torch.uint8))
    assert resized(torch.rand(3, 3, 8, 8), 16).shape == (3, 3, 16, 16)
    assert shaped(made(), (), 16).input_shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((("0",),), (("1", "dog"),), True),
        ((("0",),), (("1", "0"),), False),
        ((("0",),), (("cat",),), False),
        ((), (("1",),), False),
    ],
)
def test_disjoint(first: tuple[tuple[str, ...]], second: tuple[tuple[str, ...]], expected: bool) -> None:
    assert disjoint(first, second, ("cat", "ant", "dog")) is expected


def test_each_client_has_one_kind_of_each_class() -> None:
    data = shaped(made(120, 6), (("0", "1", "2"), ("3", "4", "5")), 0).train
    assert data.kind is not None
    settings = DataSettings(classes="0+1+2, 3+4+5", partition="kinds")
    labels, kinds = data.y.numpy(), data.kind.numpy()
    for clients in (3, 4, 6):
        parts = partition_indices(labels, settings, clients, 0, kinds)
        assert sorted(np.concatenate(parts).tolist()) == list(range(120))
        for client, part in enumerate(parts):
            assert set(kinds[part].tolist()) == {client % 3, 3 + client % 3}
    parts = partition_indices(labels, settings, 2, 0, kinds)
    assert sorted(np.concatenate(parts).tolist()) == list(range(120))


def test_classes_and_sizes_that_are_not_there_are_refused() -> None:
    with pytest.raises(
        BadInput, match=re.escape("data.classes: given 7, 'made' has the classes 0, 1, 2, 3, 4")
    ):
        shaped(made(), (("7",),), 0)
    table = DataSet("table", Pool(torch.rand(4, 3), torch.arange(4)), None, numbered(4))
    with pytest.raises(BadInput, match=re.escape("data.size: given 8")):
        shaped(table, (), 8)


def test_every_second_client_is_blind_to_the_second_half() -> None:
    labels = np.arange(100) % 5
    parts = partition_indices(labels, DataSettings(partition="half-blind"), 4, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    seen = [set(labels[part].tolist()) for part in parts]
    assert seen == [{0, 1, 2, 3, 4}, {0, 1, 2}, {0, 1, 2, 3, 4}, {0, 1, 2}]


def test_classes_are_chosen_by_name_or_number() -> None:
    pool = Pool(torch.zeros(3, 1), torch.arange(3))
    data_set = DataSet("folder:/a", pool, None, ("cat", "dog", "eel"))
    assert shaped(data_set, (("eel",), ("0",)), 0).class_names == ("eel", "cat")
    assert shaped(data_set, (("eel",), ("0",)), 0).train.y.tolist() == [1, 0]
    with pytest.raises(BadInput, match=r"given 0, which is cat; wanted each class once"):
        shaped(data_set, (("cat",), ("0",)), 0)
    with pytest.raises(BadInput, match="given 3, 'folder:/a' has the classes cat, dog, eel"):
        shaped(data_set, (("3",),), 0)


def test_a_class_that_only_clients_hold_can_be_named_where_the_data_are_the_users_own() -> None:
    data_set = DataSet("npz:/a", Pool(torch.zeros(2, 1), torch.arange(2)), None, ("1", "3"))
    result = shaped(data_set, (("1",), ("2",), ("3",)), 0)
    assert result.class_names == ("1", "2", "3")
    assert result.train.y.tolist() == [0, 2]
    assert result.notes == ("data.classes: 'npz:/a' holds no example of 2",)
