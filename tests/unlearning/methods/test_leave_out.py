"""unlearning/methods/leave_out.py: what is left of a client's deviations goes, then a pass of the others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.errors import BadInput
from tests.unlearning.methods.slow import CLIENT, DATA, assert_same, federation_of, finished, forgotten
from tests.unlearning.runs import Rounds, linear_model, logged_run
from unlearning.forgetting import ForgetResult, forget
from unlearning.methods.finetune import ACTION
from unlearning.methods.leave_out import usual_alpha
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

FORGET_B = ForgetRequest(clients=("b",))


def one(value: float) -> Tensor:
    return torch.tensor([value])


def served(run: TrainedRun, *clients: str, alpha: float = 0.1) -> ForgetResult:
    chosen = ForgetSettings.of("leave-out", alpha=alpha, epochs=0)
    return forget(run, ForgetRequest(clients=clients), "leave-out", chosen)


@pytest.fixture
def three_rounds(tmp_path: Path) -> TrainedRun:
    """Return the run of the hand-worked case; b does not take part in its second round."""
    rounds: Rounds = [
        {"a": (1, one(2.0)), "b": (1, one(8.0))},
        {"a": (3, one(1.0))},
        {"a": (1, one(4.0)), "b": (1, one(2.0))},
    ]
    return logged_run(tmp_path / "log", rounds, initial=one(1.0))


# by hand


def test_the_deviation_by_hand(three_rounds: TrainedRun) -> None:
    """M_1 = 1, α = 0.1. M_F = 1 + 5 + 1 + 3 = 10.

    Round 1: u = ½(8 − 2) = 3. Round 2 without b: β = 1 − 0.1·1, u = 2.7. Round 3: β = 1 − 0.1·½, u = 0.95·2.7
    + ½(2 − 4) = 1.565. M' = 10 − 1.565.
    """
    assert three_rounds.final.tolist() == [10.0]
    result = served(three_rounds, "b")
    assert result.flat.tolist() == pytest.approx([8.435])
    assert result.details == {"alpha": 0.1}


def test_two_clients_deviate_from_the_mean_of_those_that_stay(tmp_path: Path) -> None:
    """Weights ¼ and ¼ of b and c, ½ of a, which sent 0: u = (4 + 8)/4 = 3, of M_F = 3.

    A round later, β = 0.9: a sent 2, so u = 2.7 + (4 − 2)/4 + (−4 − 2)/4 = 1.7, of M_F = 3 + ½·2 + 0 = 4.
    """
    rounds: Rounds = [
        {"a": (2, one(0.0)), "b": (1, one(4.0)), "c": (1, one(8.0))},
        {"a": (2, one(2.0)), "b": (1, one(4.0)), "c": (1, one(-4.0))},
    ]
    run = logged_run(tmp_path / "log", rounds, initial=one(0.0), clients=("a", "b", "c"))
    assert run.final.tolist() == [4.0]
    assert served(run, "b", "c", alpha=0.2).flat.tolist() == pytest.approx([2.3])


def test_a_round_of_the_target_alone_goes_as_a_whole(tmp_path: Path) -> None:
    rounds: Rounds = [{"b": (1, one(5.0))}, {"a": (1, one(1.0)), "b": (1, one(1.0))}]
    run = logged_run(tmp_path / "log", rounds, initial=one(0.0))
    assert served(run, "b", alpha=0.0).flat.tolist() == pytest.approx([1.0])


# against slow references, and neutral values

weights = st.integers(1, 50)
deltas = st.lists(st.floats(-4, 4, width=32), min_size=9, max_size=9).map(torch.tensor)
updates = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(weights, deltas), min_size=1)


def slow(run: TrainedRun, rounds: Rounds, target: str, alpha: float) -> list[float]:
    """Follow the formula number by number in Python floats."""
    estimate = [0.0] * 9
    for entry in rounds:
        total = sum(weight for weight, _ in entry.values())
        others = sum(weight for i, (weight, _) in entry.items() if i != target)
        for k in range(9):
            estimate[k] *= 1 - alpha * others / total
            if target in entry:
                weight, delta = entry[target]
                rest = sum(w * float(d[k]) for i, (w, d) in entry.items() if i != target)
                estimate[k] += weight / total * (float(delta[k]) - (rest / others if others else 0.0))
    return [m - u for m, u in zip(run.final.tolist(), estimate, strict=True)]


@settings(max_examples=15, deadline=None)
@given(rounds=st.lists(updates, min_size=1, max_size=4), alpha=st.floats(0, 1))
def test_equals_the_formula_followed_by_hand(
    tmp_path_factory: pytest.TempPathFactory, rounds: Rounds, alpha: float
) -> None:
    run = logged_run(
        tmp_path_factory.mktemp("run") / "log",
        rounds,
        initial=torch.arange(9.0),
        build_model=linear_model,
        clients=("a", "b", "c"),
    )
    found = served(run, "a", alpha=alpha).flat.tolist()
    assert found == pytest.approx(slow(run, rounds, "a", alpha), abs=1e-5)
    renormalised = forget(
        run, ForgetRequest(clients=("a",)), "subtract", ForgetSettings.of("subtract", form="renormalised")
    )
    assert served(run, "a", alpha=0.0).flat.tolist() == pytest.approx(renormalised.flat.tolist(), abs=1e-5)


def test_elsewhere_it_is_not_the_renormalised_subtraction(three_rounds: TrainedRun) -> None:
    assert not served(three_rounds, "b", alpha=0.3).flat.allclose(served(three_rounds, "b", alpha=0.0).flat)


def test_a_client_like_the_mean_of_the_others_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    rounds: Rounds = [{"a": (1, one(2.0)), "b": (2, one(2.0))}] * 3
    run = logged_run(tmp_path / "log", rounds, initial=one(0.5))
    assert served(run, "b").flat.equal(run.final)


def test_the_passes_are_those_of_finetuning_from_there(tmp_path: Path) -> None:
    """Two passes: what `finetune` makes of a run whose final model is M'."""
    federation = federation_of(DATA)
    run = finished(federation, tmp_path)
    start = served(run, *CLIENT.clients, alpha=usual_alpha(run.plan.rounds)).flat
    found = forgotten("leave-out", run, federation, CLIENT, epochs=2)
    assert_same(
        found.flat, forgotten("finetune", replace(run, final=start), federation, CLIENT, epochs=2).flat
    )
    asked = {client for kind, client in federation.asked if kind == ACTION}
    assert asked == DATA.keys() - set(CLIENT.clients)


# properties


def test_order_of_clients_in_the_request_and_in_a_round_is_irrelevant(tmp_path: Path) -> None:
    entries = {"a": (1.0, one(0.1)), "b": (1.0, one(0.2)), "c": (1.0, one(0.3))}
    results = []
    for name, order in (("forwards", "abc"), ("backwards", "cba")):
        rounds: Rounds = [{i: entries[i] for i in order}] * 3
        run = logged_run(tmp_path / name, rounds, initial=one(0.7), clients=("a", "b", "c"))
        results += [served(run, "a", "c").flat, served(run, "c", "a").flat]
    assert all(result.allclose(results[0]) for result in results)


def test_a_client_that_never_took_part_changes_nothing(tmp_path: Path) -> None:
    run = logged_run(tmp_path / "log", [{"a": (1, one(2.0))}], initial=one(1.0), clients=("a", "b"))
    result = served(run, "b")
    assert result.flat.equal(run.final)
    assert result.notes[-1] == "the model is unchanged"


@pytest.mark.parametrize(("rounds", "alpha"), [(40, 0.05), (2, 1.0), (1, 1.0)])
def test_the_usual_share_depends_on_the_length_of_the_run(rounds: int, alpha: float) -> None:
    assert usual_alpha(rounds) == alpha


# errors


@pytest.mark.parametrize("retention", ["sum", "interval:2"])
def test_every_round_is_needed(tmp_path: Path, retention: str) -> None:
    rounds: Rounds = [{"a": (1, one(2.0)), "b": (1, one(0.0))}] * 2
    run = logged_run(tmp_path / "log", rounds, initial=one(1.0), retention=retention)
    with pytest.raises(
        BadInput, match=rf"leave-out needs log\.retention full, but the run kept '{retention}'"
    ):
        served(run, "b")


def test_only_a_pass_needs_clients(three_rounds: TrainedRun) -> None:
    with pytest.raises(BadInput, match="leave-out needs the remaining clients online"):
        forget(three_rounds, FORGET_B, "leave-out", ForgetSettings.of("leave-out", epochs=1))
    assert served(three_rounds, "b").flat.isfinite().all()
