"""unlearning/methods/finetune.py: rounds of local passes over what stays."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.client.settings import TrainSettings
from strategies.core.examples import TensorExamples
from tests.unlearning.methods.federation import Federation, blobs
from tests.unlearning.methods.slow import (
    CLIENT,
    DATA,
    LAST,
    REQUESTS,
    assert_same,
    draws,
    federation_of,
    finished,
    flat_of,
    forgotten,
    loss_on,
    mean_of,
    model_at,
    part_of_all,
    parts,
)
from tests.unlearning.runs import OneParameter, logged_run
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.methods.finetune import ACTION
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

# by hand


def test_a_round_by_hand(tmp_path: Path) -> None:
    """Logits (w·x, 0), w = 0, one full batch per client at η = 1; c is forgotten.

    At w = 0 both classes have probability 1/2. An example (x, 0) has gradient −x/2, (x, 1) has +x/2. So a,
    with (2, 0), goes to w = 1; b, with three of (2, 1), to w = −1; by examples, (1·1 + 3·(−1))/4 = −1/2.
    """
    data = {
        "a": TensorExamples(torch.full((1, 1), 2.0), torch.tensor([0])),
        "b": TensorExamples(torch.full((3, 1), 2.0), torch.tensor([1, 1, 1])),
        "c": TensorExamples(torch.full((9, 1), 5.0), torch.zeros(9, dtype=torch.int64)),
    }
    zero = torch.zeros(1)
    run = logged_run(tmp_path / "log", [dict.fromkeys(data, (1, zero))], initial=zero, clients=tuple(data))
    federation = Federation(data, OneParameter, TrainSettings(local_epochs=1, momentum=0.0))
    found = forgotten("finetune", run, federation, ForgetRequest(clients=("c",)), epochs=1, learning_rate=1.0)
    assert found.flat.tolist() == pytest.approx([-0.5])


# against the slow reference


def slow(federation: Federation, flat: Tensor, request: ForgetRequest, settings: FinetuneSettings) -> Tensor:
    """Return the mean of centrally fine-tuned models, pass by pass."""
    one_pass = settings.model_copy(update={"epochs": 1})
    for number in range(LAST + 1, LAST + 1 + settings.epochs):
        models = {}
        for client_id, (_, retain) in parts(federation, request).items():
            if len(retain):
                start, generator = model_at(federation, flat), draws(federation, client_id, number)
                end = finetune(start, retain, one_pass, generator)
                models[client_id] = (len(retain), flat_of(federation, end))
        flat = mean_of(models)
    return flat


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_central_passes_averaged(run: TrainedRun, request_: ForgetRequest) -> None:
    """Step size and batch size as given, momentum and weight decay as the run had them."""
    federation = federation_of(weight_decay=0.01)
    changed = {**run.__dict__, "train": federation.settings}
    found = forgotten(
        "finetune", TrainedRun(**changed), federation, request_, epochs=3, learning_rate=0.02, batch_size=4
    )
    settings = FinetuneSettings(epochs=3, learning_rate=0.02, batch_size=4, momentum=0.9, weight_decay=0.01)
    assert_same(found.flat, slow(federation, run.final, request_, settings))


def test_one_pass_of_one_client_is_the_central_form(tmp_path: Path) -> None:
    federation = federation_of({"0": DATA["0"], "1": DATA["1"]})
    run = finished(federation, tmp_path)
    found = forgotten("finetune", run, federation, ForgetRequest(clients=("1",)), epochs=1)
    settings = FinetuneSettings(epochs=1, learning_rate=0.05, momentum=0.9, batch_size=8)
    central = finetune(model_at(federation, run.final), DATA["0"], settings, draws(federation, "0", LAST + 1))
    assert_same(found.flat, flat_of(federation, central))


# properties


def test_no_pass_is_no_change(run: TrainedRun) -> None:
    federation = federation_of()
    assert forgotten("finetune", run, federation, CLIENT, epochs=0).flat.equal(run.final)
    assert federation.asked == [("query.describe", i) for i in "0123"]


def test_a_pass_is_a_visit_to_each_remaining_client(run: TrainedRun) -> None:
    federation = federation_of()
    found = forgotten("finetune", run, federation, CLIENT, epochs=2)
    assert [a for a in federation.asked if a[0] == ACTION] == [(ACTION, i) for _ in range(2) for i in "013"]
    assert (found.traffic.visits, found.details) == (6, {"rounds": 2, "learning_rate": 0.05})


def test_a_client_of_a_forgotten_class_alone_is_not_asked(run: TrainedRun) -> None:
    """It has nothing left to train on."""
    ones = TensorExamples(DATA["1"].x, torch.ones_like(DATA["1"].y))
    federation = federation_of({**DATA, "1": ones})
    found = forgotten("finetune", run, federation, ForgetRequest(classes=(1,)), epochs=1)
    assert [i for kind, i in federation.asked if kind == ACTION] == ["0", "2", "3"]
    assert found.notes == ()


def test_the_loss_on_what_stays_falls(run: TrainedRun) -> None:
    """And further with more passes."""
    federation = federation_of()
    stays = part_of_all(federation, CLIENT)[1]
    losses = [
        loss_on(federation, forgotten("finetune", run, federation, CLIENT, epochs=n).flat, stays)
        for n in (0, 2, 8)
    ]
    assert losses[0] > losses[1] > losses[2]


# a damaged answer


def test_the_reference_would_notice_the_forgotten_client(run: TrainedRun) -> None:
    """With client 2 among the others the slow way ends elsewhere, by far more than the tolerance."""
    federation = federation_of({**DATA, "2": blobs(28, seed=9)})
    settings = FinetuneSettings(epochs=1, learning_rate=0.05, momentum=0.9, batch_size=8)
    without, with_it = (
        slow(federation, run.final, request, settings) for request in (CLIENT, ForgetRequest(clients=("9",)))
    )
    assert not math.isclose(float((without - with_it).norm()), 0.0, abs_tol=1e-3)
