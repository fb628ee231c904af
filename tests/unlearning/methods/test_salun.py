"""unlearning/methods/salun.py: the saliency of all D_f, and rounds of the salient weights."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from strategies.core.errors import BadInput, LetheError
from strategies.tasks.regression import Regression
from tests.unlearning.methods.federation import Federation
from tests.unlearning.methods.slow import (
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
    part_of_all,
    parts,
)
from tests.unlearning.plain import LossOf, both, cross_entropies, descend, epoch_of_batches
from unlearning.central.parameters import split_like
from unlearning.methods.salun import ACTION, GRADIENT
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun


def mean_loss(x: Tensor, y: Tensor) -> LossOf:
    """Return the mean loss of a batch."""
    return lambda model, batch: cross_entropies(model(x[batch]), y[batch]).mean()


def saliency(federation: Federation, run: TrainedRun, request: ForgetRequest) -> Tensor:
    """Return which weights are salient, from the gradient over D_f in one place, written out."""
    forget, _ = part_of_all(federation, request)
    model = model_at(federation, run.final)
    x, y = forget.batch(torch.arange(len(forget)))
    gradients = torch.autograd.grad(cross_entropies(model(x), y).mean(), list(model.parameters()))
    sizes = torch.cat([g.reshape(-1) for g in gradients]).abs()
    return sizes >= sizes.sort(descending=True).values[(len(sizes) + 1) // 2 - 1]


def slow(federation: Federation, run: TrainedRun, request: ForgetRequest, epochs: int) -> Tensor:
    """Return the model after each client's passes, written out, and means by n_k."""
    m, flat = saliency(federation, run, request), run.final
    for number in range(LAST + 1, LAST + 1 + epochs):
        models = {}
        for client_id, (forget, retain) in parts(federation, request).items():
            x, y, gone = both(retain, forget)
            generator, model = draws(federation, client_id, number), model_at(federation, flat)
            if len(forget):
                y[gone] = (y[gone] + torch.randint(1, 3, (len(forget),), generator=generator)) % 3
            batches, where = epoch_of_batches(len(y), 8, generator), list(split_like(m, model).values())
            descend(model, batches, mean_loss(x, y), rate=0.05, momentum=0.9, where=where)
            models[client_id] = (len(y), flat_of(federation, model))
        flat = mean_of(models)
    return flat


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_the_paper_written_out(run: TrainedRun, request_: ForgetRequest) -> None:
    federation = federation_of()
    found = forgotten("salun", run, federation, request_, epochs=2)
    assert_same(found.flat, slow(federation, run, request_, 2))
    m = saliency(federation, run, request_)
    assert found.flat[~m].equal(run.final[~m])
    assert found.details["salient"] == int(m.sum())


def test_with_all_weights_it_is_random_labels_to_the_bit(run: TrainedRun) -> None:
    found = forgotten("salun", run, federation_of(), CLIENT, epochs=2, salient_share=1.0)
    assert found.flat.equal(forgotten("random-labels", run, federation_of(), CLIENT, epochs=2).flat)


def test_who_is_asked_for_what(run: TrainedRun) -> None:
    federation = federation_of()
    forgotten("salun", run, federation, CLIENT, epochs=1)
    asked = [each for each in federation.asked if each[0] in {GRADIENT, ACTION}]
    assert asked == [(GRADIENT, "2"), *((ACTION, i) for i in "0123")]


def test_no_pass_is_no_change(run: TrainedRun) -> None:
    assert forgotten("salun", run, federation_of(), CLIENT, epochs=0).flat.equal(run.final)


def test_pruned_weights_stay_zero_and_count_for_nothing(run: TrainedRun) -> None:
    mask = torch.arange(run.layout.size) % 3 != 0
    pruned = replace(run, mask=mask, final=run.final * mask)
    found = forgotten("salun", pruned, federation_of(), CLIENT, epochs=1)
    assert not found.flat[~mask].any()
    assert found.details["salient"] == -(-int(mask.sum()) // 2)


def test_without_the_client_that_leaves_nothing_is_salient(run: TrainedRun) -> None:
    failing = federation_of().but(failing={"2": (GRADIENT, ACTION)})
    with pytest.raises(LetheError, match="salun: no client answered usefully that holds what is to be"):
        forgotten("salun", run, failing, CLIENT)


def test_a_task_without_labels_is_refused_before_any_work(run: TrainedRun) -> None:
    with pytest.raises(BadInput, match=r"salun teaches wrong labels, but the targets of this run's task"):
        forgotten("salun", replace(run, task=Regression(1.0)), federation_of(), CLIENT)
