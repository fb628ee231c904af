"""unlearning/methods/random_labels.py: rounds in which the forgotten data have wrong labels."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.tasks.regression import Regression
from tests.unlearning.methods.federation import Federation
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
from tests.unlearning.plain import LossOf, both, cross_entropies, descend, epoch_of_batches
from unlearning.central.random_labels import RandomLabelsSettings, random_labels
from unlearning.methods.random_labels import ACTION
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun


def mean_loss(x: Tensor, y: Tensor) -> LossOf:
    """Return the mean loss of a batch."""
    return lambda model, batch: cross_entropies(model(x[batch]), y[batch]).mean()


def slow(federation: Federation, flat: Tensor, request: ForgetRequest, epochs: int) -> Tensor:
    """Return the model after each client's passes over wrong and right labels, and means by n_k."""
    for number in range(LAST + 1, LAST + 1 + epochs):
        models = {}
        for client_id, (forget, retain) in parts(federation, request).items():
            x, y, gone = both(retain, forget)
            generator = draws(federation, client_id, number)
            if len(forget):
                y[gone] = (y[gone] + torch.randint(1, 3, (len(forget),), generator=generator)) % 3
            model = model_at(federation, flat)
            batches = epoch_of_batches(len(y), 8, generator)
            descend(model, batches, mean_loss(x, y), rate=0.05, momentum=0.9)
            models[client_id] = (len(y), flat_of(federation, model))
        flat = mean_of(models)
    return flat


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_the_passes_written_out(run: TrainedRun, request_: ForgetRequest) -> None:
    federation = federation_of()
    found = forgotten("random-labels", run, federation, request_, epochs=2)
    assert_same(found.flat, slow(federation, run.final, request_, 2))


def test_one_pass_of_one_client_is_the_central_form(tmp_path: Path) -> None:
    federation = federation_of({"0": DATA["0"]})
    run = finished(federation, tmp_path)
    request = ForgetRequest(classes=(1,))
    found = forgotten("random-labels", run, federation, request, epochs=1)
    forget, retain = parts(federation, request)["0"]
    settings = RandomLabelsSettings(epochs=1, learning_rate=0.05, momentum=0.9, batch_size=8)
    central = random_labels(
        model_at(federation, run.final), retain, forget, settings, draws(federation, "0", LAST + 1)
    )
    assert_same(found.flat, flat_of(federation, central))


def test_the_loss_on_the_forgotten_rises(run: TrainedRun) -> None:
    federation = federation_of()
    goes = part_of_all(federation, CLIENT)[0]
    found, tuned = (
        forgotten(method, run, federation, CLIENT, epochs=4).flat for method in ("random-labels", "finetune")
    )
    assert loss_on(federation, found, goes) > loss_on(federation, tuned, goes)


def test_everyone_is_asked_in_each_round(run: TrainedRun) -> None:
    federation = federation_of()
    found = forgotten("random-labels", run, federation, CLIENT, epochs=2)
    assert [a for a in federation.asked if a[0] == ACTION] == 2 * [(ACTION, i) for i in "0123"]
    assert found.details == {"rounds": 2, "learning_rate": 0.05}


def test_no_pass_is_no_change(run: TrainedRun) -> None:
    assert forgotten("random-labels", run, federation_of(), CLIENT, epochs=0).flat.equal(run.final)


def test_a_task_without_labels_is_refused_before_any_work(run: TrainedRun) -> None:
    federation = federation_of()
    with pytest.raises(BadInput, match=r"random-labels teaches wrong labels, but the targets of this run's"):
        forgotten("random-labels", replace(run, task=Regression(1.0)), federation, CLIENT)
    assert {kind for kind, _ in federation.asked} == {"query.describe"}
