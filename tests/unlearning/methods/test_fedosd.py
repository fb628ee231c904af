"""unlearning/methods/fedosd.py: steps that leave the others' losses alone, recovery that does not go back."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.core.errors import LetheError
from strategies.core.examples import TensorExamples
from tests.unlearning.methods.federation import Federation
from tests.unlearning.methods.slow import (
    CLIENT,
    REQUESTS,
    assert_same,
    federation_of,
    forgotten,
    loss_on,
    model_at,
    part_of_all,
    parts,
)
from tests.unlearning.runs import logged_run
from unlearning.central.fedosd import unlearning_loss_each, unlearning_step
from unlearning.central.gradients import ExampleSum, Objective, gradient_sum
from unlearning.methods.fedosd import ACTION, FORGET, RETAIN, direction
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun


class TwoParameters(nn.Module):
    """Logits (u·x₁ + v·x₂, 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape [n, 2]."""
        first = x @ self.w
        return torch.stack([first, torch.zeros_like(first)], dim=1)


# by hand


def test_a_step_by_hand(tmp_path: Path) -> None:
    """At w = 0 both classes have p = 1/2; a stays, c is forgotten, η = 0.1.

    a holds ((1, 0), 0), so its gradient is (p − 1)·x = (−1/2, 0): A = (−1/2, 0). c holds ((3, 4), 0). Its
    loss −log(1 − p/2) has the slope p(1 − p)/2 / (1 − p/2) = (1/8)/(3/4) = 1/6 in the logit, so g_u is
    (1/2, 2/3). Without its part along A this is (0, 2/3), at its length, sqrt(1/4 + 4/9) = 5/6, (0, 5/6).
    So w goes to (0, −1/12).
    """
    data = {
        "a": TensorExamples(torch.tensor([[1.0, 0.0]]), torch.tensor([0])),
        "c": TensorExamples(torch.tensor([[3.0, 4.0]]), torch.tensor([0])),
    }
    zero = torch.zeros(2)
    rounds = [dict.fromkeys(data, (1, zero))]
    run = logged_run(tmp_path / "log", rounds, initial=zero, build_model=TwoParameters, clients=tuple(data))
    federation = Federation(data, TwoParameters, TrainSettings(local_epochs=1, momentum=0.0))
    found = forgotten(
        "fedosd",
        run,
        federation,
        ForgetRequest(clients=("c",)),
        unlearning_rounds=1,
        learning_rate=0.1,
        recovery_rounds=0,
    )
    assert found.flat.tolist() == pytest.approx([0.0, -1 / 12], abs=1e-7)
    assert found.details["distance"] == pytest.approx(1 / 12)


# against the slow reference


def slow_step(federation: Federation, flat: Tensor, request: ForgetRequest, rate: float) -> Tensor:
    """Return the model after a step, from the gradients of all data in one place."""
    model, (forget, _) = model_at(federation, flat), part_of_all(federation, request)
    rows = [gradient_sum(model, keep).mean for _, keep in parts(federation, request).values() if len(keep)]
    step = unlearning_step(gradient_sum(model, forget, Objective(loss=unlearning_loss_each)).mean, rows)
    return (flat.double() - rate * step).float()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_the_steps_of_pooled_gradients(run: TrainedRun, request_: ForgetRequest) -> None:
    federation, expected = federation_of(), run.final
    for _ in range(2):
        expected = slow_step(federation, expected, request_, 0.1)
    settings = {"unlearning_rounds": 2, "learning_rate": 0.1, "recovery_rounds": 0}
    assert_same(forgotten("fedosd", run, federation, request_, **settings).flat, expected)


# properties


def test_to_first_order_the_others_losses_stay(run: TrainedRun) -> None:
    """Each one's change is of second order in η, a quarter at half of it; the target's rises by the first.

    One step along g_u itself, of the same length, changes the others' losses by far more.
    """
    federation = federation_of()
    split = parts(federation, CLIENT)
    others = {i: keep for i, (_, keep) in split.items() if len(keep)}

    def changes(rate: float) -> dict[str, float]:
        settings = {"unlearning_rounds": 1, "learning_rate": rate, "recovery_rounds": 0}
        flat = forgotten("fedosd", run, federation, CLIENT, **settings).flat
        sets = {**others, "2": split["2"][0]}
        return {i: loss_on(federation, flat, s) - loss_on(federation, run.final, s) for i, s in sets.items()}

    full, half = changes(0.2), changes(0.1)
    for client_id in others:
        assert full[client_id] / half[client_id] == pytest.approx(4, rel=0.35)
    assert full["2"] > 10 * max(abs(full[i]) for i in others)
    assert full["2"] / half["2"] == pytest.approx(2, rel=0.2)


def test_recovery_does_not_go_back(run: TrainedRun) -> None:
    """The way from the original model does not get shorter, and the others' loss does not rise."""
    federation = federation_of()
    unlearning = {"unlearning_rounds": 3, "learning_rate": 0.3}
    gone = forgotten("fedosd", run, federation, CLIENT, **unlearning, recovery_rounds=0).flat
    back = forgotten("fedosd", run, federation, CLIENT, **unlearning, recovery_rounds=2).flat
    assert float((back - run.final).norm()) >= float((gone - run.final).norm()) - 1e-5
    stays = part_of_all(federation, CLIENT)[1]
    assert loss_on(federation, back, stays) < loss_on(federation, gone, stays)


def test_no_round_is_no_change(run: TrainedRun) -> None:
    settings = {"unlearning_rounds": 0, "recovery_rounds": 0}
    assert forgotten("fedosd", run, federation_of(), CLIENT, **settings).flat.equal(run.final)


def test_everyone_is_asked_to_unlearn_and_the_others_to_recover(run: TrainedRun) -> None:
    federation = federation_of()
    found = forgotten("fedosd", run, federation, CLIENT, unlearning_rounds=1, recovery_rounds=1)
    assert [i for kind, i in federation.asked if kind == ACTION] == list("0123")
    assert [i for kind, i in federation.asked if kind == "train"] == list("013")
    assert found.traffic.visits == 7


# errors


def test_without_a_sum_over_the_forgotten_data_there_is_no_step() -> None:
    nothing = {FORGET: ExampleSum(torch.zeros(2, dtype=torch.float64), 0)}
    some = {RETAIN: ExampleSum(torch.ones(2, dtype=torch.float64), 1)}
    with pytest.raises(LetheError, match="fedosd: no client answered usefully that holds what is"):
        direction({"a": {**nothing, **some}})


def test_the_client_to_forget_must_answer(run: TrainedRun) -> None:
    with pytest.raises(LetheError, match="fedosd: no client answered usefully that holds what is"):
        forgotten("fedosd", run, federation_of().but(failing={"2": (ACTION,)}), CLIENT, unlearning_rounds=1)


# a damaged answer


def test_the_plain_gradient_would_be_noticed(run: TrainedRun) -> None:
    """Without the projection the model ends elsewhere, by far more than the tolerance."""
    federation = federation_of()
    model, (forget, _) = model_at(federation, run.final), part_of_all(federation, CLIENT)
    plain = run.final.double() - 0.1 * gradient_sum(model, forget, Objective(loss=unlearning_loss_each)).mean
    expected = slow_step(federation, run.final, CLIENT, 0.1)
    assert not math.isclose(float((plain - expected).norm()), 0.0, abs_tol=1e-3)
