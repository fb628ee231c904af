"""A project's model, data and task are what the run works with; a node runs no other code than its own."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from app.config.run_config import RunConfig, parse_overrides
from app.data.terms import Terms
from app.project import LoadedProject, Node, Project, Workload, using
from app.report.page import write_report
from app.workflows import forget, train
from app.workflows.observer import Quiet
from app.workflows.session import open_session
from app.workflows.trained import open_trained_run
from benchmarks.inline import InlineGrid
from strategies.core.errors import BadInput, LetheError
from strategies.runs.folder import RunFolder
from strategies.task import Task
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = {"run.rounds": 2, "run.workers": 1, "data.clients": 3, "train.learning-rate": 0.5}


def of_node(node: Node) -> tuple[Tensor, Tensor]:
    inputs = torch.from_numpy(node.generator().normal(size=(40 + node.index, 4))).float()
    return inputs, (inputs[:, 0] > 0).long()


def linear(spec: Any) -> nn.Module:
    return nn.Linear(4, spec.num_outputs)


def loaded(project: Project) -> LoadedProject:
    return LoadedProject(project, "ward.project:project", "", "ab" * 32)


@pytest.fixture(autouse=True)
def _nothing_bound() -> Iterator[None]:
    with using(None):
        yield


def trained(home: Path, project: Project, **keys: Any) -> RunFolder:
    values = {
        "run.home": str(home),
        **SMALL,
        **{k.replace("__", ".").replace("_", "-"): v for k, v in keys.items()},
    }
    config = RunConfig.from_flat(values)
    with using(loaded(project)):
        return train(config, None, InlineGrid(config))


def test_a_projects_model_learns_from_its_nodes_data_and_a_client_is_forgotten(tmp_path: Path) -> None:
    test = of_node(Node(9, 0, "9", {}, 0))
    project = Project(model=linear, data=of_node, test=test, classes=("below", "above"))
    folder = trained(tmp_path, project)
    summary = folder.read_summary()
    assert summary["final"]["test-accuracy"] > 80
    assert {i: c["num-examples"] for i, c in summary["clients"].items()} == {"0": 40, "1": 41, "2": 42}
    assert summary["model"] == {"name": "linear", "parameters": 10}
    assert summary["data"]["class-names"] == ["below", "above"]
    with using(loaded(project)):
        request, settings = ForgetRequest(clients=("2",)), ForgetSettings(method="retrain")
        forget(folder, request, settings, None, InlineGrid(open_session(folder).config))
    alone = trained(tmp_path / "alone", project, data__without="2")
    gone = folder.path / "forget" / "client-2-retrain" / "model.safetensors"
    assert gone.read_bytes() == (alone.path / "model.safetensors").read_bytes()


def test_a_run_names_its_project_and_says_when_its_code_has_changed(tmp_path: Path) -> None:
    project = Project(model=linear, data=of_node, classes=("below", "above"))
    folder = trained(tmp_path, project)
    assert 'project = "ward.project:project"' in folder.read_config()
    with using(loaded(project)):
        assert not open_session(folder).notes
    with using(LoadedProject(project, "ward.project:project", "", "cd" * 32)):
        (note,) = open_session(folder).notes
    assert "is not what the run was made with (SHA-256 cdcdcdcdcdcd…, was abababababab…)" in note


def test_examples_given_together_are_split_and_spread_as_the_config_says(tmp_path: Path) -> None:
    inputs = torch.arange(100.0).reshape(100, 1)
    project = Project(model=lambda spec: nn.Linear(1, spec.num_outputs), data=(inputs, torch.arange(100) % 2))
    work = Workload(RunConfig.from_flat({"data.clients": 4, "data.public": "0.1"}), loaded(project))
    server = work.server_data()
    assert server.public is not None
    assert server.test is not None
    parts = [work.client_data({"partition-id": i, "num-partitions": 4}, Terms()).train for i in range(4)]
    everything = torch.cat([e.batch(torch.arange(len(e)))[0] for e in (server.public, server.test, *parts)])
    assert torch.equal(everything.flatten().sort().values, inputs.flatten())
    assert (len(server.public), len(server.test)) == (8, 20)
    assert server.num_groups == 2


def test_a_partition_of_the_users_own(tmp_path: Path) -> None:
    def by_order(groups: Any, count: int, generator: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(np.arange(len(groups)), count)

    inputs = torch.arange(10.0).reshape(10, 1)
    project = Project(data=lambda: (inputs, torch.zeros(10).long()), test=(inputs, torch.zeros(10).long()))
    project = Project(data=project.data, test=project.test, partition=by_order)
    config = RunConfig.from_flat({"data.clients": 2, "data.public": "0"})
    work = Workload(config, loaded(project))
    first = work.client_data({"partition-id": 0, "num-partitions": 2}, Terms()).train
    assert first.batch(torch.arange(len(first)))[0].flatten().tolist() == [0, 1, 2, 3, 4]


def test_data_keys_beside_the_projects_data_are_refused() -> None:
    project = Project(data=of_node)
    for key, value in {"data.name": "mnist", "data.target": "ill", "data.folder-of-clients": "there"}.items():
        with (
            using(loaded(project)),
            pytest.raises(BadInput, match=f"{key}: given '{value}', but the project"),
        ):
            Workload.of(RunConfig.from_flat({key: value}))


@pytest.mark.parametrize(
    ("project", "message"),
    [
        (Project(model=lambda spec: None, data=of_node), "its model returned nothing, wanted a torch.nn"),
        (Project(model=lambda spec: 1 / 0, data=of_node), "its model cannot be built: ZeroDivisionError"),
        (Project(model=linear, data=lambda node: {}["x"]), "data of client 0 cannot be read: KeyError: 'x'"),
    ],
)
def test_what_fails_in_the_users_code_is_said_in_one_line(
    project: Project, message: str, tmp_path: Path
) -> None:
    with pytest.raises(LetheError, match=message) as refused:
        trained(tmp_path, project)
    assert bool(getattr(refused.value, "__notes__", ())) == ("Error" in message)
    assert not list(tmp_path.glob("*/config.toml"))


def node_config_of(**more: object) -> Mapping[str, Any]:
    return {"partition-id": 0, "num-partitions": 3, **more}


def test_a_server_with_other_code_gets_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(model=linear, data=of_node, classes=("below", "above"))

    config = RunConfig.from_flat({"run.home": str(tmp_path), **SMALL})
    grid = InlineGrid(config)
    push = grid.push_messages

    def elsewhere(messages: Any) -> Any:
        with using(LoadedProject(project, "ward.project:project", "", "cd" * 32)):
            return push(messages)

    monkeypatch.setattr(grid, "push_messages", elsewhere)
    with using(loaded(project)), pytest.raises(LetheError, match="this node's code is not the server's"):
        train(config, None, grid)


def test_a_node_imports_nothing_that_a_server_names(tmp_path: Path) -> None:
    config = RunConfig.from_flat({"run.home": str(tmp_path), "run.project": "antigravity:project", **SMALL})
    from flwr.app import ConfigRecord, Context, Message, RecordDict

    from app.client.node import Node as ClientNode

    context = Context(1, 1, dict(node_config_of()), RecordDict(), config.to_flat())
    message = Message(RecordDict({"config": ConfigRecord({})}), 1, "query.describe")
    with pytest.raises(BadInput, match=r"run\.project: given 'antigravity:project', but a node runs"):
        ClientNode.of(message, context)


def test_examples_given_together_are_brought_to_the_scale_of_what_is_trained_on() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 2, generator=generator) * torch.tensor([3.0, 100.0]) + 7
    project = Project(data=(inputs, torch.arange(60) % 2))
    work = Workload(RunConfig.from_flat({"data.clients": 3, "data.scale": "standard"}), loaded(project))
    server = work.server_data()
    parts = [work.client_data({"partition-id": i, "num-partitions": 3}, Terms()).train for i in range(3)]
    assert server.public is not None
    assert server.test is not None
    trained = torch.cat([e.batch(torch.arange(len(e)))[0] for e in (server.public, *parts)]).double()
    assert torch.allclose(trained.mean(dim=0), torch.zeros(2).double(), atol=1e-6)
    assert torch.allclose(trained.std(dim=0, correction=0), torch.ones(2).double(), atol=1e-6)
    test, _ = server.test.batch(torch.arange(len(server.test)))
    assert float(test.abs().max()) < 5


@pytest.mark.parametrize(
    ("project", "scale", "message"),
    [
        (Project(data=of_node), "standard", "takes all data in one place, but the project gives each node"),
        (Project(data=of_node, transforms=lambda x: x), "federated", "varies its inputs by transforms"),
        (Project(data=(torch.zeros(9, 2, 2), torch.zeros(9).long())), "standard", "which is for tables"),
    ],
)
def test_a_scale_that_cannot_be_is_refused(project: Project, scale: str, message: str) -> None:
    config = RunConfig.from_flat({"data.scale": scale, "data.clients": 3})
    with using(loaded(project)), pytest.raises(BadInput, match=message):
        Workload.of(config).server_data()


@pytest.mark.parametrize("given", ["public", "share"])
def test_a_projects_public_data_serve_strategies_whose_clients_hold_them(given: str, tmp_path: Path) -> None:
    inputs = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    labels = (inputs[:, 0] > 0).long()
    if given == "share":
        project = Project(data=(inputs, labels))
    else:
        project = Project(data=of_node, public=(inputs, labels), test=(inputs, labels))
    keys = {"strategy.name": "fedmd", "strategy.models": "mlp-8", "run.rounds": 1}
    values = {"run.home": str(tmp_path), "run.workers": 1, "data.clients": 3, **keys}
    config = RunConfig.from_flat(values)
    with using(loaded(project)):
        folder = train(config, None, InlineGrid(config))
    final = folder.read_summary()["final"]
    assert any("accuracy" in name for name in final)
    assert not folder.read_summary()["faults"]


def test_the_report_names_the_projects_data_and_model(tmp_path: Path) -> None:
    folder = trained(tmp_path, Project(model=linear, data=of_node, classes=("below", "above")))
    page = write_report(folder).read_text(encoding="utf-8")
    assert "ward" in page
    assert "the model 'linear'" in page or "the model &#39;linear&#39;" in page
    assert "digits" not in page.split("<footer")[0].split("Every key")[0][:4000]


class Distance(Task):
    """A task of the user's, of which tests make mistakes."""

    name = "distance"

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).square()

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0]

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 100.0 / (1.0 + self.losses(outputs, targets))


class MeanOfAll(Distance):
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().losses(outputs, targets).mean()


class Overscored(Distance):
    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.full((len(outputs),), 101.0)


class Unfinished(Distance):
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise RuntimeError("to be written")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            MeanOfAll(),
            r"its task's losses of two examples gives \(\), wanted one number for each, shape \(2,\)",
        ),
        (Overscored(), r"its task's scores: given \[101.0, 101.0\], allowed 0 to 100"),
        (Unfinished(), r"its task fails on two examples: RuntimeError: to be written \(test_workload.py:"),
    ],
)
def test_a_task_that_does_not_judge_examples_is_refused(task: Task, message: str, tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=message):
        trained(tmp_path, Project(model=linear, data=of_node, task=task))
    assert not list(tmp_path.glob("*"))
    assert trained(tmp_path, Project(model=linear, data=of_node, task=Distance())).read_summary()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("task.name=multi-label",),
            r"task.name: given 'multi-label', which does not judge the targets of 'digits': those of two "
            r"examples have shape \(2,\), the model's outputs \(2, 10\); a project brings targets",
        ),
        (("task.name=segmentation",), "task.name: given 'segmentation', which does not judge the targets of"),
        (("task.name=regression", "task.outputs=2"), "task.outputs: the model gives 2 numbers .* have 1"),
        (("task.class-weights=10=5",), "task.class-weights: given a weight of class 10, .* classes 0 to 9"),
    ],
)
def test_a_built_in_task_that_does_not_judge_built_in_data_is_refused_before_any_work(
    overrides: tuple[str, ...], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig.from_flat(parse_overrides([f"run.home={tmp_path}", "data.clients=2", *overrides]))
    with pytest.raises(BadInput, match=message):
        train(config)
    assert not list(tmp_path.glob("*"))
    assert "Traceback" not in capfd.readouterr().err


def test_a_built_in_model_that_does_not_take_the_projects_inputs_is_refused(tmp_path: Path) -> None:
    def by_name(node: Node) -> Any:
        inputs, targets = of_node(node)
        return {"x": inputs}, targets

    message = r"model.name: 'mlp' does not take inputs of shape x \(4,\)"
    with pytest.raises(LetheError, match=message):
        trained(tmp_path, Project(data=by_name, classes=("below", "above")), model__name="mlp")
    assert not list(tmp_path.glob("*"))


class Broken:
    """A data set of which one item cannot be read, and says what is in it."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 13:
            raise ValueError("HIV+")
        return torch.zeros(4), index % 2


def test_a_broken_item_is_named_at_once_but_not_its_content_under_privacy(
    tmp_path: Path,
) -> None:
    project = Project(model=linear, data=lambda node: Broken(), classes=("below", "above"))
    place = r"\(test_workload.py:\d+ in __getitem__\)"
    began = time.monotonic()
    with pytest.raises(LetheError, match=rf"its data cannot be read: ValueError: HIV\+ {place}"):
        trained(tmp_path, project)
    with pytest.raises(LetheError, match=rf"its data cannot be read: ValueError {place}"):
        trained(tmp_path, project, privacy__unit="example", privacy__noise_multiplier=1.0)
    assert time.monotonic() - began < 20  # No node is waited for as if it were starting
    assert not list(tmp_path.glob("*"))


def test_frames_of_nodes_follow_the_schema_that_the_server_alone_has(tmp_path: Path) -> None:
    """Each node has a category that the others lack; the server has no data, and names them all."""
    schema = tmp_path / "columns.json"
    column = {"name": "city", "kind": "category", "categories": ["Bonn", "Oslo", "Rome"]}
    schema.write_text(json.dumps({"columns": [column]}))

    def frames(node: Node) -> Any:
        return pd.DataFrame({"city": [["Bonn", "Oslo", "Rome"][node.index], "Rome"], "ill": [0, 1]})

    project = Project(data=frames, target="ill", classes=("no", "yes"))
    config = RunConfig.from_flat({**SMALL, "data.columns": str(schema)})
    with using(loaded(project)):
        server = Workload.of(config).server_data()
    at_node = Workload(RunConfig.from_flat(SMALL), loaded(project))
    ids = [{"client-id": str(i), "partition-id": i, "num-partitions": 3} for i in range(3)]
    found = [at_node.client_data(each, server.terms).train.batch(torch.arange(2))[0].tolist() for each in ids]
    assert server.input_shape == (3,)
    assert found == [[row, [0, 0, 1]] for row in ([1, 0, 0], [0, 1, 0], [0, 0, 1])]
    with pytest.raises(BadInput, match=r"column 'city' holds texts .*, and name it by data\.columns$"):
        at_node.client_data(ids[0], Terms())


class Notes(Quiet):
    """Keeps remarks."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_client_that_is_left_out_from_the_start_is_named(tmp_path: Path) -> None:
    def uneven(node: Node) -> tuple[Tensor, Tensor]:
        return torch.zeros(20, 5 if node.index == 2 else 4), torch.arange(20) % 2

    project = Project(model=linear, data=uneven, classes=("below", "above"))
    config, seen = RunConfig.from_flat({"run.home": str(tmp_path), **SMALL}), Notes()
    with using(loaded(project)):
        train(config, seen, InlineGrid(config))
    assert [note for note in seen.notes if note.startswith("client 2, connect: ") and "[5]" in note]


def test_a_regression_that_nobody_can_score_is_refused(tmp_path: Path) -> None:
    def amounts(node: Node) -> tuple[Tensor, Tensor]:
        inputs, _ = of_node(node)
        return inputs, inputs.sum(dim=1)

    project = Project(model=linear, data=amounts, task="regression")
    with pytest.raises(BadInput, match=r"task\.scale: given 0, and the server has no data to take it from"):
        trained(tmp_path, project, data__local_test_share=0.2)
    assert not list(tmp_path.glob("*"))
    share = trained(tmp_path, project, data__local_test_share=0.2, task__scale=2.0)
    assert "client-r2" in share.read_summary()["final"]


def test_a_run_whose_model_is_another_by_now_is_refused(tmp_path: Path) -> None:
    project = Project(model=linear, data=of_node, classes=("below", "above"))
    folder = trained(tmp_path, project)
    wider = Project(
        model=lambda spec: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)),
        data=of_node,
        classes=project.classes,
    )
    with using(loaded(project)):
        assert open_trained_run(folder, open_session(folder))
    with (
        using(loaded(wider)),
        pytest.raises(BadInput, match="its model is not that of the run any more: wrong"),
    ):
        open_trained_run(folder, open_session(folder))


def test_what_every_client_says_is_bad_input_said_once(tmp_path: Path) -> None:
    def mixed(node: Node) -> list[tuple[Tensor, int]]:
        return [(torch.zeros(4 + i % 2), i % 2) for i in range(10)]

    project = Project(model=linear, data=mixed, classes=("below", "above"))
    with pytest.raises(BadInput, match=r"^every client says: .*inputs differ in shape") as refused:
        trained(tmp_path, project)
    assert str(refused.value).count("differ in shape") == 1
    assert not list(tmp_path.glob("*"))


def test_a_run_that_nobody_can_measure_says_so(tmp_path: Path) -> None:
    project = Project(model=linear, data=of_node, classes=("below", "above"))
    for share, said in (0.0, True), (0.2, False):
        keys = {"run.home": str(tmp_path / str(share)), "data.local-test-share": share, **SMALL}
        config, seen = RunConfig.from_flat(keys), Notes()
        with using(loaded(project)):
            train(config, seen, InlineGrid(config))
        assert any("there are no test data" in note for note in seen.notes) == said


@pytest.mark.parametrize("task", [None, "regression"])
def test_examples_given_together_are_read_once_for_all_clients(task: str | None) -> None:
    read: list[int] = []

    def everything() -> tuple[Tensor, Tensor]:
        read.append(1)
        inputs = torch.arange(40.0).reshape(40, 1)
        return inputs, torch.arange(40) % 2 if task is None else inputs[:, 0]

    one = loaded(Project(data=everything, task=task))
    config = RunConfig.from_flat({"data.clients": 3})
    for client in range(3):  # As each message makes a workload anew
        Workload(config, one).client_data({"partition-id": client, "num-partitions": 3}, Terms())
    Workload(config, one).server_data()
    assert len(read) == 1


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda x: x[:2], r"lethe\.Project\(transforms=\): the model does not take inputs of shape \(2,\)"),
        (lambda x: x * float("nan"), r"lethe\.Project\(transforms=\): an input is not finite"),
        (lambda x: 1 / 0, "its transforms fail on two inputs: ZeroDivisionError"),
        (lambda x: x.numpy(), "transform: gives ndarray for an input; wanted a tensor"),
    ],
)
def test_transforms_are_tried_before_any_round(transform: Any, said: str, tmp_path: Path) -> None:
    project = Project(model=linear, data=of_node, classes=("below", "above"), transforms=transform)
    with pytest.raises(BadInput, match=f"^every client says: .*{said}"):
        trained(tmp_path, project)
    assert not list(tmp_path.glob("*"))


def test_whole_numbers_for_a_model_of_floats(tmp_path: Path) -> None:
    def counts(node: Node) -> tuple[Tensor, Tensor]:
        inputs, labels = of_node(node)
        return (inputs * 10).int(), labels

    with pytest.raises(BadInput, match="are whole numbers, as tokens are: give quantities as floats"):
        trained(tmp_path, Project(model=linear, data=counts, classes=("below", "above")))
