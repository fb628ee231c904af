"""unlearning/methods/l1_sparse.py: rounds of fine-tuning under an L1 penalty that fades out."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.client.settings import TrainSettings
from strategies.core.examples import TensorExamples
from tests.unlearning.methods.federation import Federation
from tests.unlearning.methods.slow import (
    CLASS,
    CLIENT,
    LAST,
    REQUESTS,
    assert_same,
    draws,
    federation_of,
    flat_of,
    forgotten,
    mean_of,
    model_at,
    parts,
)
from tests.unlearning.runs import OneParameter, logged_run
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse
from unlearning.methods.l1_sparse import SHRINKAGE, default_gamma, settings_by_round
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

# by hand


def test_a_free_weight_by_hand(tmp_path: Path) -> None:
    """Logits (w·x, 0) with x = 0: the loss does not hold w. w = 1, E = 2, one step per pass, η = 1/2.

    Without momentum w moves by η·γ_e: γ_0 = γ = 0.4 takes 0.2, γ_1 = γ/2 takes 0.1; 0.7 is left.
    """
    data = {i: TensorExamples(torch.zeros((2, 1)), torch.tensor([0, 1])) for i in "ab"}
    still = dict.fromkeys(data, (1, torch.zeros(1)))
    run = logged_run(tmp_path / "log", [still], initial=torch.ones(1))
    federation = Federation(data, OneParameter, TrainSettings(local_epochs=1, momentum=0.0))
    unheld = TrainedRun(**{**run.__dict__, "train": federation.settings})
    found = forgotten(
        "l1-sparse",
        unheld,
        federation,
        ForgetRequest(clients=("b",)),
        epochs=2,
        learning_rate=0.5,
        gamma=0.4,
    )
    assert found.flat.tolist() == pytest.approx([0.7])


def test_the_penalty_of_each_pass_by_hand() -> None:
    """γ (1 − e/E): 0.8, 0.6, 0.4, 0.2."""
    settings = settings_by_round(L1SparseSettings(epochs=4, gamma=0.8))
    assert [each.gamma for each in settings] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert {each.epochs for each in settings} == {1}


@pytest.mark.parametrize(("epochs", "momentum", "steps"), [(10, 0.9, 4), (10, 0.9, 180), (3, 0.0, 7)])
def test_the_own_penalty_moves_a_free_weight_by_the_shrinkage(
    epochs: int, momentum: float, steps: int
) -> None:
    """Σ over all steps of η/(1 − μ)·γ_e."""
    settings = L1SparseSettings(epochs=epochs, learning_rate=0.05, momentum=momentum)
    gamma = default_gamma(settings, steps)
    each = settings_by_round(settings.model_copy(update={"gamma": gamma}))
    assert sum(0.05 / (1 - momentum) * p.gamma * steps for p in each) == pytest.approx(SHRINKAGE)


# against the slow reference


def slow(federation: Federation, flat: Tensor, request: ForgetRequest, settings: L1SparseSettings) -> Tensor:
    """Return the mean of centrally trained models, pass by pass, each at its γ_e."""
    for epoch in range(settings.epochs):
        gamma = settings.gamma * (1 - epoch / settings.epochs)
        one_pass = settings.model_copy(update={"epochs": 1, "gamma": gamma})
        models = {}
        for client_id, (_, retain) in parts(federation, request).items():
            if len(retain):
                generator = draws(federation, client_id, LAST + 1 + epoch)
                end = l1_sparse(model_at(federation, flat), retain, one_pass, generator)
                models[client_id] = (len(retain), flat_of(federation, end))
        flat = mean_of(models)
    return flat


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_central_passes_averaged(run: TrainedRun, request_: ForgetRequest) -> None:
    federation = federation_of()
    found = forgotten("l1-sparse", run, federation, request_, epochs=3, gamma=0.05)
    settings = L1SparseSettings(epochs=3, learning_rate=0.05, momentum=0.9, batch_size=8, gamma=0.05)
    assert_same(found.flat, slow(federation, run.final, request_, settings))


def test_the_own_penalty_counts_the_steps_that_stay(run: TrainedRun) -> None:
    """Of what is left of clients 0 to 3 without class 1, in batches of 8, the mean number of steps."""
    federation = federation_of()
    found = forgotten("l1-sparse", run, federation, CLASS, epochs=2)
    left = [len(retain) for _, retain in parts(federation, CLASS).values()]
    steps = sum(-(-n // 8) for n in left) / len(left)
    settings = L1SparseSettings(epochs=2, learning_rate=0.05, momentum=0.9)
    assert found.details["gamma"] == pytest.approx(default_gamma(settings, steps))


# identities


def test_no_penalty_is_finetune_to_the_bit(run: TrainedRun) -> None:
    federation = federation_of()
    without = forgotten("l1-sparse", run, federation, CLIENT, epochs=2, gamma=0).flat
    assert without.equal(forgotten("finetune", run, federation, CLIENT, epochs=2).flat)
    assert not without.equal(forgotten("l1-sparse", run, federation, CLIENT, epochs=2, gamma=0.01).flat)


def test_the_penalty_makes_weights_small(run: TrainedRun) -> None:
    """The sign of the penalty: more of it, and the sum of absolute weights is smaller."""
    federation = federation_of()
    sums = [
        float(forgotten("l1-sparse", run, federation, CLIENT, epochs=3, gamma=g).flat.abs().sum())
        for g in (0.0, 0.02, 0.1)
    ]
    assert sums[0] > sums[1] > sums[2]


def test_no_pass_is_no_change(run: TrainedRun) -> None:
    assert forgotten("l1-sparse", run, federation_of(), CLIENT, epochs=0).flat.equal(run.final)
