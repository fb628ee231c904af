"""app/project/data.py: what a project gives becomes the right examples, or one line says what is wrong."""

import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from app.config.run_config import RunConfig
from app.data.labels import UnknownLabels
from app.data.terms import Terms
from app.project import LoadedProject, Node, Project, Workload
from app.project.data import parts_of
from strategies.core.errors import BadInput

CLIENTS = 3
X = torch.arange(48.0).reshape(24, 2)
Y = torch.arange(24) % 2
TEXTS = np.array(["no", "yes"])[Y.numpy()]
FRAME = pd.DataFrame(X.numpy(), columns=["a", "b"]).assign(ill=TEXTS)


def work(project: Project, **keys: Any) -> Workload:
    values = {f"data.{key.replace('_', '-')}": value for key, value in keys.items()}
    config = RunConfig.from_flat({"data.clients": CLIENTS, "data.public": "0", **values})
    return Workload(config, LoadedProject(project, "ward.project:project", "", "ab" * 32))


def targets_of(found: Workload, terms: Terms = Terms(), client: int = 0) -> list[int]:  # noqa: B008
    node = {"partition-id": client, "num-partitions": CLIENTS}
    return found.client_data(node, terms).train.targets().tolist()


def hugging_face() -> datasets.DatasetDict:
    rows = datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()})
    return datasets.DatasetDict({"train": rows.select(range(18)), "validation": rows.select(range(18, 24))})


def as_given(name: str, folder: Path) -> Any:
    """Return 18 examples to train on and 6 to test on, in one of the forms that a project may give."""
    train, test = (X[:18], Y[:18]), (X[18:], Y[18:])
    if name == "folder":
        hugging_face().save_to_disk(str(folder / "hf"))
        return str(folder / "hf")
    forms = {
        "pair": (train, test),
        "test": {"train": train, "test": test},
        "val": {"train": train, "val": test},
    }
    return forms[name] if name in forms else hugging_face()


@pytest.mark.parametrize("name", ["pair", "test", "val", "hugging face", "folder"])
def test_training_and_test_data(name: str, tmp_path: Path) -> None:
    """Given together, the test data are the server's; of one node, they are what it is measured on."""
    together = work(Project(data=as_given(name, tmp_path)))
    server = together.server_data()
    assert server.test is not None
    assert server.test.batch(torch.arange(len(server.test)))[0].tolist() == X[18:].tolist()
    assert sum(len(targets_of(together, client=i)) for i in range(CLIENTS)) == 18  # None is held out
    made = as_given(name, tmp_path)
    own = work(Project(data=lambda node: made)).client_data({"partition-id": 0, "num-partitions": 3}, Terms())
    assert own.test is not None
    assert (len(own.train), own.test.targets().tolist()) == (18, Y[18:].tolist())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            {"train": (X, Y), "test": (X, Y), "val": (X, Y)},
            "is a dict of train, test, val; allowed train alone",
        ),
        (
            {"training": (X, Y), "test": (X, Y)},
            "is a dict of training, test; allowed train alone, or with one of",
        ),
        ({"train": (X, Y), "unlabelled": (X, Y)}, "is a dict of train, unlabelled; allowed train alone"),
    ],
)
def test_parts_that_cannot_be_told_apart(made: Any, said: str) -> None:
    with pytest.raises(BadInput, match=f"^run.project: its data {said}"):
        parts_of(made)
    with pytest.raises(BadInput, match=said):
        work(Project(data=made)).server_data()


def test_test_data_twice() -> None:
    project = Project(data={"train": (X, Y), "test": (X, Y)}, test=(X, Y))
    with pytest.raises(BadInput, match=r"^lethe\.Project: test is given, and data has test data as well"):
        work(project).server_data()


class Listed(Dataset[Any]):
    """A data set that lists its targets, of which reading an item is counted."""

    def __init__(self, targets: list[Any]) -> None:
        self.targets, self.read = targets, 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        self.read += 1
        return X[index], self.targets[index]


def of_node(node: Node) -> pd.DataFrame:
    """Give the first client all that are ill, so that none knows both classes."""
    return FRAME[(FRAME["ill"] == "yes") == (node.index == 0)]


@pytest.mark.parametrize(
    "project",
    [
        Project(data=FRAME, target="ill"),
        Project(data=lambda: FRAME, target="ill"),
        Project(data=(FRAME[["a", "b"]], FRAME["ill"])),
        Project(data=(X, TEXTS)),
        Project(data=Listed(TEXTS.tolist())),
        Project(data=[(x, y) for x, y in zip(X, TEXTS.tolist(), strict=True)]),
        Project(data=of_node, target="ill"),
    ],
)
def test_text_labels_of_a_simulation_name_the_classes(project: Project) -> None:
    """All labels lie in the server's process; the clients number theirs as it says."""
    found = work(project)
    server = found.server_data()
    assert (server.class_names, server.num_groups) == (("no", "yes"), 2)
    for client in range(CLIENTS):
        inputs, targets = (
            found.client_data({"partition-id": client, "num-partitions": CLIENTS}, server.terms)
            .train.subset(torch.arange(2))
            .batch(torch.arange(2))
        )
        assert isinstance(inputs, Tensor)
        assert targets.tolist() == [int(x[0] / 2) % 2 for x in inputs]


def test_classes_of_clients_that_are_apart_are_asked_for() -> None:
    """A deployment's server has no labels; a node without names of classes says what to give."""
    found = work(Project(data=of_node, target="ill"), clients=0)
    assert found.server_data().class_names == ()
    with pytest.raises(BadInput, match=r"give the names of all classes by lethe\.Project\(classes=\)"):
        targets_of(found)
    assert targets_of(found, Terms(("no", "yes"))) == [1] * 12
    with pytest.raises(
        UnknownLabels, match=r"its data: label yes is .* lethe\.Project\(classes=\) can name all"
    ):
        targets_of(found, Terms(("no", "maybe")))


def test_labels_of_a_listing_are_learned_without_reading_the_items() -> None:
    listed = Listed(TEXTS.tolist())
    work(Project(data=listed, test=(X, Y), classes=("no", "yes"))).server_data()
    few = listed.read
    assert work(Project(data=listed, test=(X, TEXTS))).server_data().class_names == ("no", "yes")
    assert listed.read - few < len(listed)


def test_test_data_of_built_in_classes(tmp_path: Path) -> None:
    """Texts in the project's test data are the classes of the data that the run config names."""
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    keys = {"name": f"csv:{tmp_path / 't.csv'}", "target": "ill"}
    server = work(Project(test=FRAME.iloc[:3], target="ill"), **keys).server_data()
    assert server.test is not None
    assert server.test.targets().tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("project", "keys", "said"),
    [
        (
            Project(data=FRAME, target="sick"),
            {},
            r"Project\(target=\): given 'sick', allowed .*, 'a', 'b', 'ill'$",
        ),
        (Project(data=(X, Y), target="ill"), {}, r"Project\(target=\): given 'ill', but its data is a pair"),
        (Project(data=lambda node: (X[:0], Y[:0])), {}, "^client 0: run.project: its data: holds no example"),
        (
            Project(data=(X, Y * 2 - 1)),
            {},
            r"given label -1, allowed 0 to 65535, .* lethe\.Project\(classes=\)",
        ),
        (Project(data=(X, Y), classes=("a",)), {}, "given label 1, allowed 0 to 0"),
        (Project(data=(X, nn.functional.one_hot(Y))), {}, r"each target has shape \(2,\); wanted one label"),
        (
            Project(data=(X, Y), test=(X[:, :1], Y)),
            {},
            r"Project\(test=\): inputs have shape \(1,\), other .* \(2,\)",
        ),
        (Project(test=(X, Y)), {}, r"Project\(test=\): inputs have shape \(2,\), other .* \(1, 8, 8\)"),
        (Project(data=(X, Y)), {"columns": "{schema}"}, "^data.columns: .* its data is of type tuple"),
        (Project(data=lambda: 1 / 0), {}, "its data cannot be read: ZeroDivisionError"),
        (Project(data=lambda node: sys.exit(3)), {}, "data of client 0 cannot be read: SystemExit: 3"),
        (Project(data=(X, Y), partition=lambda y, n, g: 1 / 0), {}, "its partition fails: ZeroDivisionError"),
        (Project(data=(X, Y), partition=lambda y, n, g: [[0, [1]]] * n), {}, "parts that are no plain array"),
        (Project(data=Listed([0] * 12 + [None] * 12)), {}, r"a target is missing \(None\)"),
        (Project(data=(X, Y.float() / 2)), {}, "it holds 0.5; wanted one label per input"),
    ],
)
def test_what_is_refused(project: Project, keys: dict[str, str], said: str, tmp_path: Path) -> None:
    schema = tmp_path / "s.json"
    schema.write_text('{"columns": [{"name": "a", "kind": "number"}]}')
    with pytest.raises(BadInput, match=said):
        work(project, **{key: value.format(schema=schema) for key, value in keys.items()}).server_data()


def test_a_column_of_labels_is_taken_as_scikit_learn_takes_it() -> None:
    found = work(Project(data=(X, Y[:, None]), test=(X, Y)))
    every = [label for i in range(CLIENTS) for label in targets_of(found, client=i)]
    assert sorted(every) == [0] * 12 + [1] * 12


def test_classes_without_an_example_are_noted() -> None:
    """Labels 0 and 3 make four classes; with names there is nothing to say."""
    (note,) = work(Project(data=(X, Y * 3))).server_data().notes
    assert note.startswith("no example is of class 1, 2: labels count the classes from 0")
    assert not work(Project(data=(X, Y * 3), classes=("0", "3"))).server_data().notes
    assert not work(Project(data=(X, Y))).server_data().notes
