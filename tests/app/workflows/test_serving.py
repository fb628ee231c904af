"""app/workflows/serving.py: a request in the run config, over a grid that was started for another run."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.serverapp import Grid

from app import server_app
from app.config.run_config import RunConfig
from app.simulation import LocalGrid
from app.workflows import audit, forget, serve
from app.workflows.local_clients import CLIENT_APP
from app.workflows.serving import request_in
from app.workflows.session import config_for_clients, open_session
from strategies.core.errors import BadInput
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from tests.app.conftest import CLIENT_2
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

FINETUNE = ForgetSettings.of("finetune", epochs=2)


@pytest.fixture(scope="module")
def grid() -> Iterator[Grid]:
    """Yield the clients as `flwr run` starts them: with every key at its default, of another run's data."""
    with LocalGrid(CLIENT_APP, RunConfig().to_flat(), 3, workers=1) as started:
        yield started


def job(folder: RunFolder, workflow: str = "forget", **keys: str) -> RunConfig:
    """Return a job's config about a run; `keys` by their name with ``__`` for the dot."""
    given = {key.replace("__", ".").replace("_", "-"): value for key, value in keys.items()}
    what = {"request.clients": "2", "forget.method": "finetune", "forget.finetune.epochs": "2"} | given
    fixed = [f"run.workflow={workflow}", f"run.home={folder.path.parent}", f"request.run={folder.name}"]
    return RunConfig().with_overrides([*fixed, *(f"{key}={value}" for key, value in what.items())])


def model_in(folder: RunFolder, name: str = "client-2-finetune") -> bytes:
    return (folder.path / "forget" / name / "model.safetensors").read_bytes()


class Notes:
    """Keeps the remarks."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, title: str, total: int) -> None:
        pass

    def advance(self, message: str = "", values: Any = None) -> None:
        pass

    def answered(self, scope: str, done: int, total: int) -> None:
        """Take no note."""

    def note(self, text: str) -> None:
        self.said.append(text)


def test_it_is_what_the_command_line_gives(small: RunFolder, grid: Grid) -> None:
    """To the bit, although these clients were started with another config."""
    forget(small, CLIENT_2, FINETUNE)
    expected = model_in(small)
    (small.path / "forget" / "client-2-finetune" / "model.safetensors").unlink()
    assert serve(job(small), grid=grid).path == small.path
    assert model_in(small) == expected


def test_the_server_app_serves_it_and_then_audits(small: RunFolder, grid: Grid) -> None:
    """By Flower's own entry point; the audit is that of the command line."""
    for workflow in ("forget", "audit"):
        context = SimpleNamespace(run_config=job(small, workflow).to_flat())
        server_app.main(grid, context)  # type: ignore[arg-type]
    path = small.path / "forget" / "client-2-finetune" / "audit.json"
    served = read_json(path)
    audit(small, CLIENT_2, ["finetune"], AuditSettings())
    assert without_times(served) == without_times(read_json(path))
    assert "finetune" in (small.path / "report.html").read_text()


def without_times(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: without_times(value) for key, value in document.items() if "seconds" not in key}
    return document


def test_a_sequence(small: RunFolder, grid: Grid) -> None:
    keys = {"request__clients": "1", "request__after": "client-2-subtract"}
    serve(job(small, **keys), grid=grid)
    result = read_json(small.path / "forget" / "client-2-subtract+client-1-finetune" / "result.json")
    assert result["forgotten"] == [CLIENT_2.to_json()]


def test_the_runs_config_stands_and_what_is_idle_is_said(small: RunFolder, grid: Grid) -> None:
    notes, config = (
        Notes(),
        job(small, train__learning_rate="0.5", forget__finetune__epochs="0", model__name="mlp"),
    )
    serve(config, notes, grid)
    assert notes.said == ["without effect, the finished run keeps its config: train.learning-rate"]
    assert RunFolder(small.path / "forget" / "client-2-finetune").read_model().keys()


def test_clients_that_are_not_there_are_named(small: RunFolder) -> None:
    """Two nodes for the three clients of the run."""
    with LocalGrid(CLIENT_APP, RunConfig().to_flat(), 2, workers=1) as two:
        serve(job(small, request__clients="0"), grid=two)
    result = read_json(small.path / "forget" / "client-0-finetune" / "result.json")
    assert result["notes"] == ["client 2 of the run did not take part: not connected"]


def test_clients_are_told_what_decides_their_work_and_no_places(small: RunFolder) -> None:
    told = config_for_clients(open_session(small).config)
    assert {"run.seed", "data.train-limit", "model.name", "train.learning-rate", "attack.kind"} <= told.keys()
    assert not {"data.root", "data.path", "run.home", "run.device", "run.certificate-key"} & told.keys()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"request__clients": "2, hospital-a"}, ForgetRequest(clients=("2", "hospital-a"))),
        ({"request__clients": "", "request__classes": "7,3"}, ForgetRequest(classes=(3, 7))),
    ],
)
def test_requests(small: RunFolder, keys: dict[str, str], expected: ForgetRequest) -> None:
    assert request_in(job(small, **keys), small) == expected


def test_samples_come_from_a_file(small: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    path.write_text(json.dumps({"1": [4, 2]}))
    keys = {"request__clients": "", "request__samples": str(path)}
    assert request_in(job(small, **keys), small) == ForgetRequest(samples={"1": (2, 4)})


# errors


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"request__clients": ""},
            r"give request\.clients, request\.classes or request\.samples, exactly one",
        ),
        ({"request__classes": "1"}, "exactly one kind"),
        ({"request__clients": "9"}, "unknown client '9'; known clients: 0, 1, 2"),
        ({"request__after": "nothing"}, "no forgetting 'nothing'"),
        ({"request__run": "nothing"}, "run 'nothing': no such run"),
    ],
)
def test_what_cannot_be_served_is_refused(
    small: RunFolder, grid: Grid, keys: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        serve(job(small, **keys), grid=grid)


def test_a_class_is_one_of_the_runs(small: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"^unknown class x; the run has classes 0 to 9$"):
        request_in(job(small, request__clients="", request__classes="x"), small)
