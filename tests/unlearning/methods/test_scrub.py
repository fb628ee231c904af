"""unlearning/methods/scrub.py: rounds away from the old model's answers, and rounds back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

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
    mean_of,
    model_at,
    part_of_all,
    parts,
)
from tests.unlearning.plain import LossOf, cross_entropies, descend, epoch_of_batches, kl
from unlearning.central.scrub import ScrubSettings, max_epoch, min_epoch
from unlearning.methods.scrub import MAX, MIN
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

ALPHA, GAMMA = 0.3, 0.8


def away(x: Tensor, y: Tensor, teacher: nn.Module) -> LossOf:
    """Return −mean d."""
    return lambda model, batch: -kl(teacher(x[batch]), model(x[batch])).mean()


def back(x: Tensor, y: Tensor, teacher: nn.Module) -> LossOf:
    """Return the mean of α d + γ ℓ."""

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        out = model(x[batch])
        return (ALPHA * kl(teacher(x[batch]), out) + GAMMA * cross_entropies(out, y[batch])).mean()

    return loss


def slow(federation: Federation, flat: Tensor, request: ForgetRequest, epochs: int, ascents: int) -> Tensor:
    """Return the model after each client's epochs, written out, and means over clients."""
    teacher, number = model_at(federation, flat), LAST
    for epoch in range(epochs):
        for part, loss_of in ((0, away), (1, back)):
            if part == 0 and epoch >= ascents:
                continue
            number, models = number + 1, {}
            for client_id, both in parts(federation, request).items():
                if count := len(both[part]):
                    x, y = both[part].batch(torch.arange(count))
                    batches = epoch_of_batches(count, 8, draws(federation, client_id, number))
                    model = model_at(federation, flat)
                    descend(model, batches, loss_of(x, y, teacher), rate=0.05, momentum=0.9)
                    models[client_id] = (count, flat_of(federation, model))
            flat = mean_of(models)
    return flat


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_the_algorithm_written_out(run: TrainedRun, request_: ForgetRequest) -> None:
    """Three epochs, the first two with ascent before them."""
    federation = federation_of()
    weights = {"teacher_weight": ALPHA, "label_weight": GAMMA}
    found = forgotten("scrub", run, federation, request_, epochs=3, max_epochs=2, **weights)
    torch.testing.assert_close(found.flat, slow(federation, run.final, request_, 3, 2), rtol=1e-4, atol=1e-5)


def test_an_epoch_of_one_client_is_the_central_form(tmp_path: Path) -> None:
    federation = federation_of({"0": DATA["0"], "1": DATA["1"]})
    run = finished(federation, tmp_path)
    found = forgotten("scrub", run, federation, ForgetRequest(clients=("1",)), epochs=1)
    settings = ScrubSettings(epochs=1, learning_rate=0.05, momentum=0.9, batch_size=8)
    teacher = model_at(federation, run.final)
    up = max_epoch(teacher, DATA["1"], teacher, settings, draws(federation, "1", LAST + 1))
    central = min_epoch(up, DATA["0"], teacher, settings, draws(federation, "0", LAST + 2))
    assert_same(found.flat, flat_of(federation, central))


def test_who_is_asked_for_what(run: TrainedRun) -> None:
    """Two epochs with one of ascent: the client that leaves, the others, the others."""
    federation = federation_of()
    found = forgotten("scrub", run, federation, CLIENT, epochs=2, max_epochs=1)
    asked = [each for each in federation.asked if each[0] in {MAX, MIN}]
    assert asked == [(MAX, "2"), *2 * [(MIN, i) for i in "013"]]
    assert found.details == {"rounds": 3, "learning_rate": 0.05}


def test_no_epoch_is_no_change(run: TrainedRun) -> None:
    assert forgotten("scrub", run, federation_of(), CLIENT, epochs=0).flat.equal(run.final)


def test_without_teacher_and_ascent_it_is_finetune(run: TrainedRun) -> None:
    plain = {"max_epochs": 0, "teacher_weight": 0.0}
    found = forgotten("scrub", run, federation_of(), CLIENT, epochs=2, **plain)
    assert_same(found.flat, forgotten("finetune", run, federation_of(), CLIENT, epochs=2).flat)


def test_the_answers_on_the_forgotten_move_away(run: TrainedRun) -> None:
    federation = federation_of()
    goes = part_of_all(federation, CLIENT)[0]
    x = goes.batch(torch.arange(len(goes)))[0]
    teacher, distances = model_at(federation, run.final), []
    for ascents in (0, 2):
        flat = forgotten("scrub", run, federation, CLIENT, epochs=2, max_epochs=ascents).flat
        distances.append(float(kl(teacher(x), model_at(federation, flat)(x).detach()).mean()))
    assert distances[0] < distances[1]
