"""app/workflows/pruning.py: a sparse run is made once, is a run of its own, and goes on where it was cut."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.serverapp import Grid
from torch import Tensor

from app.config.run_config import RunConfig
from app.workflows import audit, forget, train
from app.workflows.pruning import Preparation
from app.workflows.session import Session, open_session
from app.workflows.trained import open_trained_run
from strategies.client.evaluation import evaluate
from strategies.core.errors import BadInput
from strategies.models.mask import flat_mask_of
from strategies.runs.files import read_json
from strategies.runs.folder import PRUNING, RunFolder
from strategies.runs.tensor_file import read_sealed
from unlearning.pruning import sparse_path
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings, ForgetSettings

SMALL = (
    "run.name=dense",
    "run.rounds=3",
    "run.workers=1",
    "data.clients=3",
    "data.train-limit=240",
    "data.test-limit=80",
    "model.name=mlp",
    "model.hidden=16",
)
CLIENT_2 = ForgetRequest(clients=("2",))
OMP = ForgetSettings(method="subtract", prune="omp", sparsity=0.5)


class Phases:
    """Notes what is done; ends the work after some steps, as a crash would."""

    def __init__(self, steps: int = 0) -> None:
        self.titles: list[str] = []
        self.steps = steps

    def phase(self, title: str, total: int) -> None:
        self.titles.append(title)

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt

    def answered(self, scope: str, done: int, total: int) -> None:
        """Take no note."""

    def note(self, text: str) -> None:
        pass


def opened(folder: RunFolder) -> TrainedRun:
    return open_trained_run(folder, open_session(folder))


def weights(run: TrainedRun) -> Tensor:
    """Return which scalars can be pruned: matrices, not biases and scales."""
    shapes = run.layout.shapes
    return torch.cat([torch.full(shape, len(shape) > 1).reshape(-1) for shape in shapes])


@pytest.fixture(scope="module")
def grid() -> Iterator[Grid]:
    with Session.of(RunConfig().with_overrides(SMALL)).local_grid() as started:
        yield started


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, grid: Grid) -> RunFolder:
    home = tmp_path_factory.mktemp("runs")
    folder = train(RunConfig().with_overrides([f"run.home={home}", *SMALL]), grid=grid)
    forget(folder, CLIENT_2, OMP, grid=grid)
    return folder


def test_the_sparse_run_is_trained_on_its_mask(dense: RunFolder) -> None:
    """Half of the weights are zero in every model of it, and its log holds no update of them."""
    run = opened(RunFolder.open(sparse_path(dense, OMP)))
    prunable, parent = weights(run), opened(dense)
    assert run.mask is not None
    assert int((~run.mask).sum()) == round(0.5 * int(prunable.sum()))
    assert run.initial.equal(parent.initial * run.mask)
    assert not run.final[~run.mask].any()
    assert run.log is not None
    assert run.log.rounds() == [1, 2, 3]
    assert not any(run.log.delta(e.round, e.client_id)[~run.mask].any() for e in run.log.entries())
    assert parent.mask is None


def test_it_says_how_it_was_pruned(dense: RunFolder) -> None:
    described = read_json(sparse_path(dense, OMP) / PRUNING)
    assert (described["prune"], described["sparsity"], described["visits"]) == ("omp", 0.5, 0)
    assert described["kept"] < described["parameters"]


def test_the_request_that_it_was_made_for_counts_it(dense: RunFolder) -> None:
    """Three rounds of three clients on all data, at request time; a later request finds it there."""
    sparse = RunFolder.open(sparse_path(dense, OMP))
    took, trained = Preparation.of(sparse), sparse.read_summary()
    first = read_json(sparse.path / "forget" / "client-2-subtract" / "result.json")
    assert took.seconds >= trained["seconds"] > 0
    assert first["details"]["preparation-seconds"] == took.seconds
    assert first["seconds"] > took.seconds
    assert first["traffic"] == trained["traffic"]
    assert first["traffic"]["visits"] == 9
    assert "into pruning and into training on the mask, on all data" in first["notes"][-1]
    later = forget(dense, CLIENT_2, OMP.model_copy(update={"method": "fast-fedul"}))
    second = read_json(sparse.path / "forget" / later / "result.json")
    assert second["traffic"]["visits"] == 0
    assert "preparation-seconds" not in second["details"]
    assert "not counted here" in second["notes"][-1]


def test_the_answer_lies_in_the_sparse_run(dense: RunFolder) -> None:
    sparse = RunFolder.open(sparse_path(dense, OMP))
    assert "client-2-subtract" in sparse.forget_requests()
    assert dense.forget_requests() == []


def test_it_is_made_once(dense: RunFolder) -> None:
    phases = Phases()
    forget(dense, CLIENT_2, OMP.model_copy(update={"method": "fast-fedul"}), phases)
    assert phases.titles == []


def test_retraining_is_on_the_same_mask(dense: RunFolder, grid: Grid) -> None:
    sparse = RunFolder.open(sparse_path(dense, OMP))
    report = audit(sparse, CLIENT_2, ["subtract"], AuditSettings(seeds=1), grid=grid)
    run = opened(sparse)
    for name in ("client-2-retrain/model", "client-2-retrain/retrain-seed-1"):
        flat = run.layout.flatten(read_sealed(sparse.path / "forget" / f"{name}.safetensors").tensors)
        assert run.mask is not None
        assert flat[run.mask].any()
        assert not flat[~run.mask].any()
    assert report.comparisons["retrain"].disparity == 0.0
    assert any("the mask (omp) was chosen by weights that had seen" in note for note in report.notes)


def test_an_interrupted_training_on_the_mask_goes_on(dense: RunFolder, grid: Grid, tmp_path: Path) -> None:
    """To the bit what it would have been."""
    settings = OMP.model_copy(update={"sparsity": 0.4})
    whole = RunConfig().with_overrides([f"run.home={tmp_path}", *SMALL])
    other = train(whole, grid=grid)
    forget(other, CLIENT_2, settings, grid=grid)
    with pytest.raises(KeyboardInterrupt):
        forget(dense, CLIENT_2, settings, Phases(steps=2), grid)
    cut = RunFolder.open(sparse_path(dense, settings))
    assert not (cut.path / "model.safetensors").exists()
    phases = Phases()
    forget(dense, CLIENT_2, settings, phases, grid)
    assert phases.titles == ["train omp-0.4"]
    ends = [opened(RunFolder.open(sparse_path(folder, settings))).final for folder in (other, dense)]
    assert ends[0].equal(ends[1])


def test_what_cannot_be_served_is_refused_before_pruning(dense: RunFolder) -> None:
    settings = ForgetSettings(method="subtract", prune="omp", sparsity=0.9)
    with pytest.raises(BadInput, match="subtract does not serve a class request"):
        forget(dense, ForgetRequest(classes=(3,)), settings)
    assert not sparse_path(dense, settings).exists()


def test_a_pruned_run_is_not_pruned_again(dense: RunFolder) -> None:
    sparse = RunFolder.open(sparse_path(dense, OMP))
    with pytest.raises(BadInput, match=r"forget\.prune: run 'omp-0\.5' is pruned already"):
        forget(sparse, CLIENT_2, OMP)


def guaranteed(sparse: RunFolder, name: str) -> str:
    """Return the guarantee that a certificate states."""
    certificate = read_json(sparse.path / "forget" / name / "certificate.json")["certificate"]
    assert f"{certificate['method']['name']}, {certificate['method']['guarantee']}" in certificate["limits"]
    return str(certificate["method"]["guarantee"])


@pytest.mark.parametrize("prune", ["omp", "imp"])
def test_pruning_anew_is_what_pruning_without_the_data_gives(
    dense: RunFolder, grid: Grid, tmp_path: Path, prune: str
) -> None:
    """To the bit, mask and weights; retraining on the old mask is something else, and not called exact."""
    settings = ForgetSettings(method="reprune", prune=prune, sparsity=0.5, prune_round_share=0.4)
    forget(dense, CLIENT_2, settings, grid=grid)
    forget(dense, CLIENT_2, settings.model_copy(update={"method": "retrain"}), grid=grid)
    sparse = RunFolder.open(sparse_path(dense, settings))
    never = train(RunConfig().with_overrides([f"run.home={tmp_path}", *SMALL, "data.without=2"]), grid=grid)
    forget(never, ForgetRequest(clients=("1",)), settings.model_copy(update={"method": "retrain"}), grid=grid)
    expected = RunFolder.open(sparse_path(never, settings))
    found = sparse.path / "forget" / "client-2-reprune"
    assert (found / "model.safetensors").read_bytes() == (expected.path / "model.safetensors").read_bytes()
    masks, wanted = read_sealed(found / "mask.safetensors").tensors, expected.read_mask()
    assert wanted is not None
    assert all(masks[name].equal(mask) for name, mask in wanted.tensors.items())
    assert not opened(sparse).final.equal(opened(expected).final)
    assert guaranteed(sparse, "client-2-reprune") == "exact"
    assert guaranteed(sparse, "client-2-retrain").startswith("not exact: ")


def test_a_mask_that_was_chosen_without_data_leaves_retraining_exact(dense: RunFolder, grid: Grid) -> None:
    settings = ForgetSettings(method="retrain", prune="synflow", sparsity=0.5)
    forget(dense, CLIENT_2, settings, grid=grid)
    assert guaranteed(RunFolder.open(sparse_path(dense, settings)), "client-2-retrain") == "exact"
    with pytest.raises(BadInput, match="reprune needs a run that was pruned by imp or omp"):
        forget(dense, CLIENT_2, settings.model_copy(update={"method": "reprune"}), grid=grid)


def test_what_follows_pruning_anew_is_on_the_new_mask(dense: RunFolder, grid: Grid) -> None:
    """And an audit measures the model with all weights that it kept, outside of the old mask as well."""
    sparse = RunFolder.open(sparse_path(dense, OMP))
    reprune, finetune = (
        OMP.model_copy(update={"method": m, "prune": "none"}) for m in ("reprune", "finetune")
    )
    first = forget(sparse, CLIENT_2, reprune, grid=grid)
    name = forget(sparse, ForgetRequest(classes=(3,)), finetune, grid=grid, after=first)
    run, folder = opened(sparse), sparse.path / "forget"
    mask = flat_mask_of(read_sealed(folder / first / "mask.safetensors").tensors, run.layout)
    flat = run.layout.flatten(read_sealed(folder / name / "model.safetensors").tensors)
    assert run.mask is not None
    assert not flat[~mask].any()
    assert flat[mask & ~run.mask].any()
    report = audit(sparse, CLIENT_2, ["reprune"], AuditSettings(), grid=grid)
    model = run.layout.flatten(read_sealed(folder / first / "model.safetensors").tensors)
    measured = report.measurements["reprune"].test_accuracy
    assert run.test is not None
    assert measured == evaluate(replace(run, mask=None).model(model), run.test).accuracy


def test_nothing_is_pruned_to_follow_a_forgetting_that_is_not_there(dense: RunFolder) -> None:
    settings = ForgetSettings(method="retrain", prune="omp", sparsity=0.9)
    with pytest.raises(BadInput, match="no forgetting 'client-1-retrain'; known: none so far"):
        forget(dense, CLIENT_2, settings, after="client-1-retrain")
    assert not sparse_path(dense, settings).exists()
