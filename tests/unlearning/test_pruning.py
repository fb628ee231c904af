"""unlearning/pruning.py: the mask, and that every method keeps to it, on the server and on the clients."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.seeds import torch_generator
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.models.mask import flat_mask_of
from strategies.plan import Start
from strategies.rounds import train
from tests.unlearning.methods.federation import Federation, blobs
from tests.unlearning.runs import GLOBAL_METHODS
from unlearning.central.prune import PruneSettings, synflow_masks
from unlearning.forgetting import forget
from unlearning.methods import METHODS
from unlearning.methods.base import ForgetJob, Outcome
from unlearning.pruning import Pruning
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

CLIENT_B = ForgetRequest(clients=("b",))
DATA = {"a": blobs(24, 1), "b": blobs(16, 2), "c": blobs(20, 3)}
SETTINGS = ForgetSettings.stored(
    {
        "prune": "omp",
        "sparsity": 0.5,
        "epochs": 2,
        "fisher-examples": 8,
        "max-retain-drop": 100,
        "ssd": {"alpha": 1},
        "influence": {"alphas": "0.5,1"},
    }
)


class CarelessFederation(Federation):
    """Its clients ignore masks."""

    def _model(self, packed: object, arrays: ArrayRecord) -> nn.Module:
        return super()._model(None, arrays)


def mask_of(run: TrainedRun, clients: Federation, settings: ForgetSettings) -> Tensor:
    return Pruning(run, settings, (4,)).mask(clients.cohort(), lambda done, total, values: None)


def sparse(path: Path, clients: Federation, settings: ForgetSettings = SETTINGS) -> TrainedRun:
    """Return the run pruned and trained on its mask, as the workflow does it."""
    run = clients.trained(path / "dense")
    mask = mask_of(run, clients, settings)
    initial = run.initial * mask
    with UpdateLog.create(path / "sparse", run.layout) as log:
        start = Start(wire.FlatRecord(initial, run.layout))
        cohort = clients.cohort().masked(mask)
        final = wire.flat_of(
            train(run.plan, cohort, start, layer=lambda inner: LoggedStrategy(inner, log)), run.layout
        )
    log = UpdateLog.open(path / "sparse")
    return replace(run, initial=initial, final=final, log=log, mask=mask, public=blobs(12, 9))


def weights(layout: wire.Layout) -> Tensor:
    """Return which scalars can be pruned: those of weights, not of biases."""
    return torch.cat(
        [
            torch.full(shape, "weight" in name).reshape(-1)
            for name, shape in zip(layout.names, layout.shapes, strict=True)
        ]
    )


# the mask, by hand


def test_omp_is_a_direct_top_k(tmp_path: Path) -> None:
    """Of the 56 weights of 4→8→3 the 28 with the largest magnitude after training stay, and all biases."""
    clients = Federation(DATA)
    run = clients.trained(tmp_path)
    mask = mask_of(run, clients, SETTINGS)
    prunable = weights(run.layout)
    largest = run.final.abs().masked_fill(~prunable, -1.0).argsort(descending=True)[:28]
    expected = ~prunable
    expected[largest] = True
    assert mask.equal(expected)


def test_omp_and_synflow_ask_no_client(tmp_path: Path) -> None:
    clients = Federation(DATA)
    run = clients.trained(tmp_path)
    for kind in ("omp", "synflow"):
        settings = ForgetSettings.model_validate({"prune": kind, "sparsity": 0.5})
        cohort = clients.cohort()
        clients.asked.clear()
        assert Pruning(run, settings, (4,)).num_rounds == 0
        Pruning(run, settings, (4,)).mask(cohort, lambda done, total, values: None)
        assert clients.asked == []


def test_synflow_takes_the_initial_weights(tmp_path: Path) -> None:
    clients = Federation(DATA)
    run = clients.trained(tmp_path)
    settings = ForgetSettings(prune="synflow", sparsity=0.5, prune_iterations=10)
    expected = synflow_masks(run.model(run.initial), (4,), PruneSettings(rate=0.5, iterations=10))
    assert mask_of(run, clients, settings).equal(flat_mask_of(expected, run.layout))
    assert int((~mask_of(run, clients, settings)).sum()) == 28


def test_imp_prunes_in_rounds_of_training(tmp_path: Path) -> None:
    """To 0.36 in steps of 0.2: the run itself gives the first mask, a training on it the second."""
    clients = Federation(DATA)
    run = clients.trained(tmp_path)
    first = mask_of(run, clients, ForgetSettings(prune="omp", sparsity=0.2))
    start = Start(wire.FlatRecord(run.initial * first, run.layout))
    end = wire.flat_of(train(run.plan, clients.cohort().masked(first), start), run.layout)
    prunable = weights(run.layout)
    expected = ~prunable
    kept = 56 - round(0.36 * 56)
    expected[end.abs().masked_fill(~prunable, -1.0).argsort(descending=True)[:kept]] = True
    clients.asked.clear()
    settings = ForgetSettings(prune="imp", sparsity=0.36)
    assert Pruning(run, settings, (4,)).num_rounds == run.plan.rounds
    assert mask_of(run, clients, settings).equal(expected)
    assert clients.asked.count(("train", "a")) == run.plan.rounds
    assert not (expected & ~first).any()


def test_neutral_sparsity_prunes_nothing(tmp_path: Path) -> None:
    clients = Federation(DATA)
    run = clients.trained(tmp_path)
    for kind in ("omp", "imp", "synflow"):
        settings = ForgetSettings.model_validate({"prune": kind, "sparsity": 0.0})
        assert mask_of(run, clients, settings).all()


# every method keeps to the mask


@pytest.mark.parametrize("method", GLOBAL_METHODS)
def test_pruned_weights_stay_zero(method: str, tmp_path: Path) -> None:
    """In the method's own result, before it is projected, and without a client that was rejected."""
    clients = Federation(DATA)
    run = sparse(tmp_path, clients)
    assert run.mask is not None
    cohort = clients.cohort().masked(run.mask)
    job = ForgetJob(run, CLIENT_B, SETTINGS, cohort, lambda done, total, values: None)
    flat = METHODS[method].run(job).flat
    assert not flat[~run.mask].any()
    assert flat[run.mask].ne(run.final[run.mask]).any()
    assert cohort.faults == []


@pytest.mark.parametrize(
    ("method", "request_"), [("ascent", ForgetRequest(classes=(1,))), ("fedosd", CLIENT_B)]
)
def test_steps_until_a_goal_leave_pruned_weights(
    method: str, request_: ForgetRequest, tmp_path: Path
) -> None:
    """Whatever clients send of them."""
    settings = ForgetSettings.stored({"prune": "omp", "sparsity": 0.5, "recovery-rounds": 0})
    run = replace(sparse(tmp_path, Federation(DATA), settings), public=blobs(40, 9))
    assert run.mask is not None
    cohort = CarelessFederation(DATA).cohort().masked(run.mask)
    outcome = METHODS[method].run(
        ForgetJob(run, request_, settings, cohort, lambda done, total, values: None)
    )
    assert outcome.details["steps"] > 0
    assert not outcome.flat[~run.mask].any()


@pytest.mark.parametrize("method", GLOBAL_METHODS)
def test_a_mask_that_keeps_all_changes_nothing(method: str, tmp_path: Path) -> None:
    clients = Federation(DATA)
    dense = replace(clients.trained(tmp_path), public=blobs(12, 9))
    masked = replace(dense, mask=torch.ones(dense.layout.size, dtype=torch.bool))
    flats = [forget(run, CLIENT_B, method, SETTINGS, clients.cohort()).flat for run in (dense, masked)]
    assert flats[0].equal(flats[1])


def test_retraining_on_the_mask_is_training_without_the_client_on_it(tmp_path: Path) -> None:
    clients = Federation(DATA)
    run = sparse(tmp_path, clients)
    retrained = forget(run, CLIENT_B, "retrain", SETTINGS, clients.cohort()).flat
    others = clients.but(data={i: d for i, d in DATA.items() if i != "b"})
    start = Start(wire.FlatRecord(run.initial, run.layout))
    expected = train(run.plan, others.cohort().masked(run.mask), start)
    assert retrained.equal(wire.flat_of(expected, run.layout))


# what goes wrong


def test_a_client_that_ignores_its_mask_is_rejected_and_named(tmp_path: Path) -> None:
    run = sparse(tmp_path, Federation(DATA))
    careless = CarelessFederation(DATA)
    with pytest.raises(LetheError, match=r"no client took part .*client a: pruned weights were changed"):
        forget(run, CLIENT_B, "finetune", SETTINGS, careless.cohort())


def test_what_a_server_moves_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that moves every weight, as noise does, is projected onto the mask."""
    run = sparse(tmp_path, Federation(DATA))
    noise = torch.rand(run.layout.size, generator=torch_generator(0)) + 1.0
    moved = replace(METHODS["subtract"], run=lambda job: Outcome(noise))
    monkeypatch.setitem(METHODS, "subtract", moved)
    assert run.mask is not None
    assert forget(run, CLIENT_B, "subtract", SETTINGS).flat.equal(noise * run.mask)
