"""From Python: objects of a notebook are trained, forgotten from and audited, in processes that fork."""

import copy
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lethe
from app.project import bound, loaded_from, using


@pytest.fixture(autouse=True)
def _nothing_bound() -> Iterator[None]:
    with using(None):
        yield


def notebook() -> lethe.Project:
    """Return a project of functions that no other process could import."""
    offset = torch.tensor(0.5)

    def data(node: lethe.Node) -> tuple[Tensor, Tensor]:
        inputs = torch.from_numpy(node.generator().normal(size=(60, 4))).float()
        return inputs, (inputs[:, 0] > offset).long()

    return lethe.Project(
        model=lambda spec: nn.Linear(4, spec.num_outputs),
        data=data,
        test=data(node_of()),
        classes=("no", "yes"),
    )


def node_of() -> lethe.Node:
    return lethe.Node(9, 0, "9", {}, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lethe.Run:
    home = tmp_path_factory.mktemp("runs")
    keys = {"run.home": str(home), "run.certificate-key": str(home / "key.pem"), "train.learning-rate": 0.5}
    with using(None):
        return lethe.train(notebook(), rounds=3, clients=3, strategy="fedprox", config=keys, progress=False)


def test_the_clients_of_a_run_are_ranked(run: lethe.Run) -> None:
    found = run.suspects(level=0.01)
    assert (found["level"], found["standing-out"]) == (0.01, [])
    assert sorted(each["client"] for each in found["clients"]) == ["0", "1", "2"]


def test_a_run_of_a_notebooks_objects(run: lethe.Run) -> None:
    assert run.summary["strategy"] == "fedprox"
    assert run.config["run.project"] == "python:project"
    assert list(run.metrics.index) == [1, 2, 3]
    assert run.metrics["test-accuracy"].iloc[-1] == run.summary["final"]["test-accuracy"] > 70
    assert run.model()(torch.zeros(2, 4)).shape == (2, 2)
    assert run.report().is_file()
    assert repr(run) == f"<lethe.Run {run.name} in {run.path.parent}>"


def test_a_client_is_forgotten_audited_and_certified(run: lethe.Run) -> None:
    gone = run.forget(client="2", method="finetune", config={"forget.finetune.epochs": 1})
    assert gone.name == "client-2-finetune"
    assert "disparity" in gone.audit(config={"audit.seeds": 0})
    assert gone.certificate["certificate"]["request"]["clients"] == ["2"]
    before, after = (torch.cat([p.flatten() for p in m.parameters()]) for m in (run.model(), gone.model()))
    assert not torch.equal(before, after)
    assert [each.name for each in run.forgettings()] == ["client-2-finetune", "client-2-retrain"]


def test_new_inputs_are_predicted_before_and_after_a_forgetting(run: lethe.Run, tmp_path: Path) -> None:
    """The sign of the first number decides, after a fashion; names are those of the project's classes."""
    inputs = torch.tensor([[3.0, 0, 0, 0], [-3.0, 0, 0, 0]])
    found = run.predict(inputs)
    assert [row["prediction"] for row in found] == ["yes", "no"]
    assert found[0]["p(no)"] + found[0]["p(yes)"] == pytest.approx(1)
    gone = run.forget(client="1", method="retrain")
    assert [row["prediction"] for row in gone.predict(inputs)] == ["yes", "no"]
    assert gone.predict(inputs) != found
    assert (gone.export(tmp_path / "weights", "safetensors") / "certificate.json").is_file()
    assert not (run.export(tmp_path / "other", "safetensors") / "certificate.json").exists()
    with pytest.raises(lethe.BadInput, match=r"have shape \(3,\), and the run's have \(4,\)"):
        run.predict(torch.zeros(2, 3))


def test_examples_of_a_client_are_forgotten_and_then_another_client(run: lethe.Run) -> None:
    first = run.forget(samples={"1": [0, 3]}, method="retrain")
    second = run.forget(client="0", method="retrain", after=first.name)
    assert second.result["after"] == first.name


def test_a_run_goes_on_with_its_project_after_a_client_was_forgotten(run: lethe.Run) -> None:
    gone = run.forget(client="1", method="subtract")
    longer = run.go_on(1, after=gone.name)
    assert longer.name == f"{run.name}-to-4"
    assert longer.metrics["accepted"].iloc[-1] == ["0", "2"]
    with pytest.raises(lethe.BadInput, match="client 1 was forgotten before"):
        longer.forget(client="1", method="subtract")


def test_a_run_is_opened_again_with_its_project_only(run: lethe.Run) -> None:
    again = lethe.open_run(run.name, notebook(), home=run.path.parent)
    assert torch.equal(again.model().weight, run.model().weight)  # type: ignore[arg-type, call-overload]
    with pytest.raises(lethe.BadInput, match=r"handed over in Python .*open_run\(run, project\)"):
        lethe.open_run(run.path)
    with pytest.raises(lethe.BadInput, match="run 'nothing': no such run"):
        lethe.open_run("nothing", home=run.path.parent)


def test_bad_requests_are_refused(run: lethe.Run, tmp_path: Path) -> None:
    with pytest.raises(lethe.BadInput, match="exactly one of them"):
        run.forget()
    with pytest.raises(lethe.BadInput, match="exactly one of them"):
        run.forget(client="1", label="yes")
    with pytest.raises(lethe.BadInput, match="unknown class maybe"):
        run.forget(label="maybe")
    with pytest.raises(lethe.BadInput, match=r"run\.round: unknown key"):
        lethe.train(config={"run.round": 3})
    with pytest.raises(lethe.BadInput, match=r"nowhere\.toml: cannot be read"):
        lethe.train(config=tmp_path / "nowhere.toml")


def test_a_projects_apps_are_flowers() -> None:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    project = notebook()
    assert isinstance(lethe.server_app(project), ServerApp)
    assert isinstance(lethe.client_app(project), ClientApp)


def test_the_client_app_binds_its_project_in_a_process_that_has_it_not(tmp_path: Path) -> None:
    from flwr.app import ConfigRecord, Context, Message, RecordDict

    from app.simulation.grid import take_identity

    (tmp_path / "carried.py").write_text(
        "import torch, lethe\n"
        "def data(node):\n    return torch.zeros(5, 2), torch.zeros(5).long()\n"
        "project = lethe.Project(model=torch.nn.Linear(2, 2), data=data)\n",
        encoding="utf-8",
    )
    take_identity()
    app = lethe.client_app(loaded_from("carried:project", str(tmp_path)).project)
    message = Message(RecordDict({"config": ConfigRecord({})}), 1, "query.describe")
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 2}, RecordDict(), {})
    with using(None):
        reply = copy.deepcopy(app)(message, context)
        assert reply.content["metrics"]["num-examples"] == 5
        assert bound() is not None


_NAMED = re.compile(r"\blethe\.([A-Za-z]\w*)((?:\.\w+)*)(?:\((\w+)=)?")


def test_what_messages_and_pages_name_of_lethe_exists() -> None:
    """Names, their members and the first argument, wherever a text of the house says ``lethe.Something``."""
    root, seen = Path(lethe.__file__).parent, set[str]()
    wings = ("app", "strategies", "unlearning", "docs")
    files = [
        root / "lethe.py",
        root / "README.md",
        *(f for wing in wings for f in (root / wing).rglob("*.py")),
    ]
    for file in [*files, *(root / "docs").glob("*.md")]:
        for name, members, argument in _NAMED.findall(file.read_text(encoding="utf-8")):
            if name in ("py", "toml") or (file.suffix == ".md" and members.startswith(".git")):
                continue  # A file's name
            found = getattr(lethe, name)
            assert name in lethe.__all__, (file, name)
            for member in filter(None, members.split(".")):
                found = getattr(found, member)
            if argument:
                assert argument in inspect.signature(found).parameters, (file, name, argument)
            seen.add(f"{name}{members}")
    assert {"Columns.of", "Project", "train"} <= seen
