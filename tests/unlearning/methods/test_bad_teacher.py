"""unlearning/methods/bad_teacher.py: rounds with two teachers that travel with each message."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.unlearning.methods.federation import Federation
from tests.unlearning.methods.slow import (
    CLIENT,
    LAST,
    REQUESTS,
    draws,
    federation_of,
    flat_of,
    forgotten,
    mean_of,
    model_at,
    parts,
)
from tests.unlearning.plain import LossOf, both, descend, epoch_of_batches, kl
from unlearning.methods.bad_teacher import ACTION, NAME
from unlearning.methods.base import ForgetJob
from unlearning.methods.federated import shuffled
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings


def incompetent(run: TrainedRun, request: ForgetRequest) -> Tensor:
    """Return the random teacher: the initial weights, each tensor's entries shuffled."""
    job = ForgetJob(run, request, ForgetSettings(), None, lambda done, total, values: None)
    return shuffled(run.initial, run.layout, job.generator(NAME))


def papers_loss(x: Tensor, gone: Tensor, good: nn.Module, bad: nn.Module) -> LossOf:
    """Return (1 − l) KL(T_s ‖ S) + l KL(T_d ‖ S), the mean over a batch."""

    def loss(student: nn.Module, batch: Tensor) -> Tensor:
        out, forgotten_ = student(x[batch]), gone[batch].double()
        each = (1 - forgotten_) * kl(good(x[batch]), out) + forgotten_ * kl(bad(x[batch]), out)
        return each.mean()

    return loss


def slow(federation: Federation, run: TrainedRun, request: ForgetRequest, epochs: int) -> Tensor:
    """Return the model after each client's passes, written out, and means by n_k."""
    good, bad = model_at(federation, run.final), model_at(federation, incompetent(run, request))
    flat = run.final
    for number in range(LAST + 1, LAST + 1 + epochs):
        models = {}
        for client_id, (forget, retain) in parts(federation, request).items():
            x, y, gone = both(retain, forget)
            model = model_at(federation, flat)
            batches = epoch_of_batches(len(y), 8, draws(federation, client_id, number))
            descend(model, batches, papers_loss(x, gone, good, bad), rate=0.05, momentum=0.9)
            models[client_id] = (len(y), flat_of(federation, model))
        flat = mean_of(models)
    return flat


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_the_passes_written_out(run: TrainedRun, request_: ForgetRequest) -> None:
    federation = federation_of()
    found = forgotten("bad-teacher", run, federation, request_, epochs=2)
    torch.testing.assert_close(found.flat, slow(federation, run, request_, 2), rtol=1e-4, atol=1e-5)


def test_the_random_teacher_has_the_initial_weights_in_another_order(run: TrainedRun) -> None:
    found = incompetent(run, CLIENT)
    assert not found.equal(run.initial)
    pairs = zip(*(torch.split(flat, list(run.layout.sizes)) for flat in (found, run.initial)), strict=True)
    assert all(a.sort().values.equal(b.sort().values) for a, b in pairs)


def test_everyone_is_asked_in_each_round_with_three_models(run: TrainedRun) -> None:
    federation, plain = federation_of(), federation_of()
    found = forgotten("bad-teacher", run, federation, CLIENT, epochs=2)
    assert [a for a in federation.asked if a[0] == ACTION] == 2 * [(ACTION, i) for i in "0123"]
    assert found.details == {"rounds": 2, "learning_rate": 0.05}
    other = forgotten("random-labels", run, plain, CLIENT, epochs=2)
    two_more = 2 * 4 * run.layout.size * found.traffic.visits
    assert found.traffic.bytes_down == other.traffic.bytes_down + two_more


def test_no_pass_is_no_change(run: TrainedRun) -> None:
    assert forgotten("bad-teacher", run, federation_of(), CLIENT, epochs=0).flat.equal(run.final)


def test_pruned_weights_stay_zero(run: TrainedRun) -> None:
    """In the student and in both teachers."""
    mask = torch.arange(run.layout.size) % 3 != 0
    pruned = replace(run, mask=mask, final=run.final * mask)
    found = forgotten("bad-teacher", pruned, federation_of(), CLIENT, epochs=1).flat
    assert not found[~mask].any()
    assert not found.equal(pruned.final)
