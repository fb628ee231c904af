"""app/data/adapting.py: whatever a user has becomes the same examples, and what is none is refused."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from app.data.adapting import Adapting, as_examples, texts_in
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples

X = torch.arange(12.0).view(4, 3)
Y = torch.tensor([0, 2, 1, 2])


class Items(Dataset[Any]):
    """A data set of the given items, which counts what is read."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.reads = items, 0

    def __getitem__(self, position: int) -> Any:
        self.reads += 1
        return self.items[position]

    def __len__(self) -> int:
        return len(self.items)


def pairs() -> list[Any]:
    """Return the four examples as items."""
    return [(x, int(y)) for x, y in zip(X, Y, strict=True)]


def plus_nothing(items: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Collate as a user's own function may."""
    return torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])


def the_same(tmp_path: Path) -> Iterator[Any]:
    """Yield the four examples in all forms that are known."""
    table = {"a": X[:, 0].numpy(), "b": X[:, 1].numpy(), "c": X[:, 2].numpy()}
    yield TensorExamples(X, Y)
    yield (X, Y)
    yield (X.numpy().astype(np.float64), Y.tolist())
    yield {"x": X, "label": Y}
    yield {"x": X.numpy(), "y": Y.numpy()}
    yield Items(pairs())
    yield Items([{"features": x.numpy(), "target": y} for x, y in pairs()])
    yield pairs()
    yield TensorDataset(X, Y)
    yield ConcatDataset([TensorDataset(X[:1], Y[:1]), Subset(TensorDataset(X, Y), [1, 2, 3])])
    yield DataLoader(Items(pairs()), batch_size=2, shuffle=True)
    yield DataLoader(Items(pairs()), batch_size=2, collate_fn=plus_nothing)
    yield pd.DataFrame({**table, "label": Y.numpy()})
    faces = datasets.Dataset.from_dict({"pixels": X.tolist(), "label": Y.tolist()})
    yield faces
    faces.save_to_disk(str(tmp_path / "faces"))
    yield tmp_path / "faces"


def test_all_forms_are_the_same_examples(tmp_path: Path) -> None:
    """Inputs, targets, groups and labels are the same, and so is a subset."""
    count = 0
    for thing in the_same(tmp_path):
        how = Adapting(target="label") if isinstance(thing, pd.DataFrame) else Adapting()
        examples = as_examples(thing, how)
        chosen = examples.subset([3, 0])
        inputs, targets = chosen.batch(torch.tensor([0, 1]))
        assert isinstance(inputs, torch.Tensor)
        assert inputs.equal(X[[3, 0]]), type(thing)
        assert targets.equal(Y[[3, 0]])
        assert chosen.groups().equal(Y[[3, 0]])
        assert texts_in(thing, how.target) == frozenset()
        count += 1
    assert count == 15


def test_inputs_by_name() -> None:
    """Dicts of inputs stay dicts, in memory and item by item."""
    parts = {"image": torch.rand(4, 1, 2, 2), "age": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    items = [({"image": parts["image"][i], "age": float(parts["age"][i])}, int(Y[i])) for i in range(4)]
    for thing in ((parts, Y), {**parts, "y": Y}, Items(items)):
        inputs, targets = as_examples(thing).batch(torch.tensor([2, 1]))
        assert {name: part.tolist() for name, part in inputs.items()} == {
            name: part[[2, 1]].tolist() for name, part in parts.items()
        }
        assert targets.tolist() == [1, 2]


def test_listed_targets_spare_reading() -> None:
    """Where the data set lists its targets, groups read one item to compare; a list of others is not used."""
    for listed, reads in ((Y.tolist(), 1), ([5, 5, 5, 5], 5)):
        dataset = Items(pairs())
        dataset.targets = listed
        examples = as_examples(dataset)
        before = dataset.reads
        assert examples.groups().equal(Y)
        assert dataset.reads - before - (reads > 1) == reads  # One more to see how large an input is


def test_transformed_targets_are_read() -> None:
    """What torchvision's data sets list is not yet transformed."""
    dataset = Items([(x, 2 - y) for x, y in pairs()])
    dataset.targets, dataset.target_transform = [2 - int(y) for y in Y], lambda y: 2 - y
    assert as_examples(dataset).groups().equal(2 - Y)


def test_images_of_all_kinds() -> None:
    """Pixels become floats in [0, 1], channels first, of one size; grey ones become coloured."""
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    colour = as_examples(Items([(Image.new("L", (4, 4), 51), 0), (red, 1)]))
    x, _ = colour.batch(torch.tensor([0, 1]))
    assert x.shape == (2, 3, 4, 4)
    assert torch.allclose(x[0], torch.full((3, 4, 4), 0.2))
    assert x[1, :, 0, 0].tolist() == [1, 0, 0]
    grey = as_examples(Items([(Image.new("L", (4, 4), 51), 0)]))
    assert grey.input_shape == (1, 4, 4)
    bytes_last = np.full((2, 6, 5, 3), 255, dtype=np.uint8)
    assert as_examples((bytes_last, [0, 1])).input_shape == (3, 6, 5)
    assert as_examples(Items([(bytes_last[0], 0)])).batch(torch.tensor([0]))[0].max() == 1
    several = Items([(Image.new("L", (4, 6)), 0), (Image.new("L", (8, 8)), 1)])
    assert as_examples(several, Adapting(size=5)).input_shape == (1, 5, 5)
    assert as_examples((bytes_last, [0, 1]), Adapting(size=4)).input_shape == (3, 4, 4)
    tokens = as_examples((torch.tensor([[5, 7]]), [1]))
    assert tokens.x.dtype == torch.int64


def test_kinds_of_targets() -> None:
    """Classes may be texts and whole floats; numbers are float32; as given, they keep their kind."""
    named = Adapting(targets="classes", class_names=("cat", "dog"))
    assert as_examples((X[:2], np.array(["dog", "cat"])), named).y.tolist() == [1, 0]
    assert texts_in((X[:2], np.array(["dog", "cat"]))) == {"cat", "dog"}
    assert as_examples((X[:2], [1.0, 0.0]), Adapting(targets="classes")).y.dtype == torch.int64
    assert as_examples((X[:2], [1, 0]), Adapting(targets="numbers")).y.dtype == torch.float32
    assert as_examples((X[:2], np.ones((2, 4)))).y.dtype == torch.float32
    with pytest.raises(
        BadInput, match=r"^data: targets are texts, such as 'cat'; wanted numbers, or the names of all texts"
    ):
        as_examples((X[:2], np.array(["dog", "cat"])))
    with pytest.raises(BadInput, match=r"^data: targets: it holds 0.5; wanted one label per input"):
        as_examples((X[:2], [0.5, 1.0]), Adapting(targets="classes"))
    with pytest.raises(BadInput, match=r"^data: a target is not finite; remove its example"):
        as_examples((X[:2], [0.5, float("nan")]))
    with pytest.raises(BadInput, match=r"^data: targets are texts, such as 'dog'; wanted numbers"):
        as_examples((X[:2], np.array(["dog", "cat"])), Adapting(targets="numbers"))


class Endless(IterableDataset[Any]):
    """A stream."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class NoLength(Dataset[Any]):
    """A data set without a length."""

    def __getitem__(self, position: int) -> Any:
        return X[0], 0


def test_what_is_no_data_set(tmp_path: Path) -> None:
    """Streams, no length, no item, no pair, other shapes, another number: one line each."""
    refused = {
        "Endless can only be iterated; training, forgetting and the audit need examples by position: wanted "
        "a data set with __getitem__ and __len__": Endless(),
        "NoLength has no length; give it __len__, the number of its examples": NoLength(),
        "Items holds no example; wanted at least one": Items([]),
        "item 0 is a tuple of 3; wanted a pair (inputs, target), or a dict with the target": Items(
            [(1, 2, 3)]
        ),
        "item 0 is a Tensor; wanted a pair (inputs, target), or a dict with the target": Items([X[0]]),
        "item 0 has the keys a, b; wanted inputs and a "
        "target, one of label, labels, target, targets, y": Items([{"a": 1, "b": 2}]),
        "an input is str; wanted a tensor, an array, an image or numbers": Items([("text", 0)]),
        "4 inputs, but 3 targets; wanted as many": (X, Y[:3]),
        "4 inputs of b, but 3 targets; wanted as many": ({"a": X[:3], "b": X}, Y[:3]),
        "holds no example; wanted at least one": (X[:0], Y[:0]),
        "an input is not finite; replace or remove it": (X / 0, Y),
        "the DataLoader has a sampler of its own, but only its data set and collate_fn are used; choose "
        "examples by torch.utils.data.Subset": DataLoader(Items(pairs()), sampler=[0, 1]),
    }
    for line, thing in refused.items():
        with pytest.raises(BadInput) as error:
            as_examples(thing)
        assert str(error.value) == f"data: {line}"
    with pytest.raises(BadInput, match="holds no example; wanted at least one"):
        as_examples((X[:0], torch.zeros(0).long()), Adapting(targets="classes"))
    mixed = as_examples(Items([(X[0], 0), (X[0, :2], 1)]))
    with pytest.raises(BadInput) as error:
        mixed.batch(torch.tensor([0, 1]))
    assert str(error.value) == (
        "data: inputs differ in shape, such as (3,) and (2,); bring them to one shape in the data set, or "
        "images by data.size"
    )
    with pytest.raises(BadInput, match=r"^here: given int, allowed a pair"):
        as_examples(3, Adapting(where="here"))
    with pytest.raises(BadInput, match="no data set of Hugging Face lies there"):
        as_examples(tmp_path)


class Lines(Dataset[Any]):
    """Reads numbers from a file that it holds open."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")

    def __getitem__(self, position: int) -> Any:
        self.file.seek(2 * position)
        return torch.tensor([float(self.file.read(1))]), 0

    def __len__(self) -> int:
        return 9


class Held(Lines):
    """Holds what cannot be opened again."""

    def __init__(self, path: Path) -> None:
        self.file = os.fdopen(os.open(path, os.O_RDONLY), "rb")


class Reopening(Held):
    """Opens it itself."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def reopen(self) -> None:
        """Open the file anew."""
        self.file = self.path.open("rb")


def in_a_fork(examples: Examples) -> str:
    """Return what a forked process reads of example 3, having moved the place in its file."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = str(examples.batch(torch.tensor([3]))[0].tolist())
        except BadInput as error:
            answer = str(error)
        os.write(write, answer.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        return stream.read().decode()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_files_held_open_survive_a_fork(tmp_path: Path) -> None:
    """A fork reads through a file of its own: this process' place in the file stays; or it is said."""
    path = tmp_path / "numbers"
    path.write_text("\n".join(map(str, range(9))))
    for dataset in (Lines(path), Reopening(path)):
        with dataset.file:
            examples = as_examples(Subset(dataset, range(9)))
            dataset.file.seek(10)
            assert in_a_fork(examples) == "[[3.0]]"
            assert dataset.file.tell() == 10
    held = Held(path)
    with held.file:
        assert in_a_fork(as_examples(held)) == (
            "data: Held holds file open (BufferedReader), which worker processes cannot share; give it a "
            "method reopen(), or open it in __getitem__"
        )


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (
            Items([({"a": X[0], "b": X[0]}, 0), ({"a": X[1]}, 1)]),
            "item 0 has the inputs a, b and item 1 the inputs a;",
        ),
        (
            Items([{"a": X[0], "b": X[0], "y": 0}, {"a": X[1], "y": 1}]),
            "item 0 has the inputs a, b and item 1 one input without a name; wanted the same in all",
        ),
        (Items([(X[0], 0), (X[1] / 0, 1)]), "an input is not finite; replace or remove it"),
        (Items([(X[0], 0), (X[1] + 1j, 1)]), "inputs are torch.complex64; wanted real numbers"),
        (Items([(X[0], 0), (X[1], None)]), r"a target is missing \(None\); remove its example"),
        (Items([(X[0], 1), (X[1], "a")]), "targets are texts and numbers; wanted one kind"),
        ((X + 1j, Y), "inputs are torch.complex64; wanted real numbers"),
        ((X.to_sparse(), Y), "inputs are a tensor of kind torch.sparse_coo; wanted a dense one in memory"),
        ((X.to("meta"), Y), "inputs are a tensor of kind meta; wanted a dense one in memory"),
        ((X, torch.tensor(1)), "its targets are one number; wanted an array"),
        ((X[:3], [0, None, 1]), r"a target is missing \(None\)"),
        ((pd.DataFrame(X.numpy()), Y[:2]), r"4 rows, but targets of shape \(2,\); wanted one each"),
        ({"x": X, "w": X}, "its dict has the keys x, w; wanted inputs and a target"),
        ({"a": (X, Y)}, r"given a dict of a \(tuple\), allowed a pair"),
    ],
)
def test_what_would_go_wrong_later(thing: Any, said: str) -> None:
    """Each is said in one line when it is read, in place of a wrong result or an error of torch's."""
    with pytest.raises(BadInput, match=f"^data: .*{said}"):
        as_examples(thing).batch(torch.arange(2))


def test_a_listing_that_lies_is_found_out() -> None:
    """Item 2 is of class 1 and listed as 2: examples are spread and forgotten by the listing."""
    dataset = Items([(X[i], int(y)) for i, y in enumerate(Y)])
    dataset.targets = Y.tolist()
    as_examples(dataset).groups()
    honest = as_examples(dataset)
    assert honest.groups() is not None
    honest.batch(torch.arange(4))
    dataset.targets = [0, 2, 2, 2]
    lying = as_examples(dataset)
    lying.groups()
    with pytest.raises(BadInput, match=r"^data: item 2 has another target than the data set lists"):
        lying.batch(torch.arange(4))


def test_frames_and_series_beside_each_other() -> None:
    """Targets beside a frame are its rows' in order, whatever the index; a column of their name stays."""
    frame = pd.DataFrame({"a": X[:, 0].numpy(), "targets": X[:, 1].numpy()}, index=[9, 8, 7, 6])
    for targets in (Y, Y.tolist(), pd.Series(Y.numpy(), index=[1, 2, 3, 4])):
        examples = as_examples((frame, targets), Adapting(targets="classes"))
        assert examples.batch(torch.arange(4))[0].tolist() == X[:, :2].tolist()
        assert examples.targets().tolist() == Y.tolist()
    found = as_examples((X, pd.Series(Y.numpy(), index=[1, 2, 3, 4])), Adapting(targets="classes"))
    assert found.targets().tolist() == Y.tolist()


def test_numbers_of_any_kind_in_memory() -> None:
    """Big-endian, read-only and reversed arrays, and tensors with gradients, are read as they mean."""
    reference = X.numpy()
    locked = reference.copy()
    locked.setflags(write=False)
    big, reverse = reference.astype(">f4"), reference[::-1]
    for inputs, wanted in ((big, X), (locked, X), (reverse, X.flip(0)), (X.clone().requires_grad_(), X)):
        found = as_examples((inputs, Y.numpy().astype(">i8")), Adapting(targets="classes"))
        x, y = found.batch(torch.arange(4))
        assert isinstance(x, torch.Tensor)
        assert x.equal(wanted)
        assert not x.requires_grad
        assert y.equal(Y)
