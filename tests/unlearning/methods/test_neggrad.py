"""unlearning/methods/neggrad.py: rounds in which clients descend and ascend at once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
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
from unlearning.central.neggrad import NegGradSettings, neggrad
from unlearning.methods.neggrad import ACTION, COUNTS
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

BETA = 0.9


def weighted_loss(x: Tensor, y: Tensor, weight: Tensor) -> LossOf:
    """Return mean w ℓ of a batch."""
    return lambda model, batch: (weight[batch] * cross_entropies(model(x[batch]), y[batch])).mean()


def slow(federation: Federation, flat: Tensor, request: ForgetRequest, epochs: int) -> Tensor:
    """Return the model after passes written out: each client steps on Σ w_i ℓ_i, then the mean by n_k."""
    of_each = parts(federation, request)
    forgotten_, retained = (sum(len(part[i]) for part in of_each.values()) for i in (0, 1))
    total = forgotten_ + retained
    for number in range(LAST + 1, LAST + 1 + epochs):
        models = {}
        for client_id, (forget, retain) in of_each.items():
            x, y, gone = both(retain, forget)
            weight = torch.where(gone, -(1 - BETA) * total / forgotten_, BETA * total / retained)
            batches = epoch_of_batches(len(y), 8, draws(federation, client_id, number))
            model = descend(
                model_at(federation, flat), batches, weighted_loss(x, y, weight), rate=0.05, momentum=0.9
            )
            models[client_id] = (len(y), flat_of(federation, model))
        flat = mean_of(models)
    return flat


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_the_passes_written_out(run: TrainedRun, request_: ForgetRequest) -> None:
    federation = federation_of()
    found = forgotten("neggrad", run, federation, request_, epochs=2, beta=BETA)
    assert_same(found.flat, slow(federation, run.final, request_, 2))


def test_one_pass_of_one_client_is_the_central_form(tmp_path: Path) -> None:
    """Of a client that holds both sets; another has nothing to do with the request and no example left."""
    federation = federation_of({"0": DATA["0"]})
    run = finished(federation, tmp_path)
    request = ForgetRequest(classes=(1,))
    found = forgotten("neggrad", run, federation, request, epochs=1, beta=BETA)
    forget, retain = parts(federation, request)["0"]
    settings = NegGradSettings(epochs=1, learning_rate=0.05, momentum=0.9, batch_size=8, beta=BETA)
    central = neggrad(
        model_at(federation, run.final), retain, forget, settings, draws(federation, "0", LAST + 1)
    )
    assert_same(found.flat, flat_of(federation, central))


def test_the_loss_on_the_forgotten_rises_with_the_weight_of_ascent(run: TrainedRun) -> None:
    federation = federation_of()
    goes = part_of_all(federation, CLIENT)[0]
    losses = [
        loss_on(federation, forgotten("neggrad", run, federation, CLIENT, epochs=3, beta=b).flat, goes)
        for b in (1.0, 0.9, 0.7)
    ]
    assert losses[0] < losses[1] < losses[2]


def test_everyone_is_counted_once_and_asked_in_each_round(run: TrainedRun) -> None:
    federation = federation_of()
    found = forgotten("neggrad", run, federation, CLIENT, epochs=2)
    asked = [each for each in federation.asked if each[0] in {ACTION, COUNTS}]
    assert asked == [(COUNTS, i) for i in "0123"] + 2 * [(ACTION, i) for i in "0123"]
    assert found.details == {"rounds": 2, "learning_rate": 0.05}


def test_no_pass_is_no_change(run: TrainedRun) -> None:
    assert forgotten("neggrad", run, federation_of(), CLIENT, epochs=0).flat.equal(run.final)


def test_pruned_weights_stay_zero(run: TrainedRun) -> None:
    mask = torch.arange(run.layout.size) % 3 != 0
    pruned = replace(run, mask=mask, final=run.final * mask)
    found = forgotten("neggrad", pruned, federation_of(), CLIENT, epochs=1).flat
    assert not found[~mask].any()
    assert not found.equal(pruned.final)


def test_without_the_client_that_leaves_there_is_nothing_to_ascend_on(run: TrainedRun) -> None:
    federation = federation_of().but(failing={"2": (COUNTS, ACTION)})
    with pytest.raises(LetheError, match="no client answered usefully that holds what stays, or what is"):
        forgotten("neggrad", run, federation, CLIENT)


def test_a_model_that_is_not_finite_is_left_out(run: TrainedRun) -> None:
    """Of client 0, which lies: the others' mean is what it would be had the client failed."""

    def spoiled(client_id: str, kind: str, content: RecordDict) -> RecordDict:
        if client_id == "0" and kind == ACTION:
            content[wire.ARRAYS] = wire.FlatRecord(torch.full_like(run.final, torch.nan), run.layout)
        return content

    lies, fails = (
        forgotten("neggrad", run, federation, CLIENT, epochs=1)
        for federation in (federation_of().but(change=spoiled), federation_of().but(failing={"0": (ACTION,)}))
    )
    assert lies.flat.equal(fails.flat)
