"""unlearning/methods/fast_fedul.py: the skew estimate from the log, alone and as a start of distillation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from tests.unlearning.runs import Rounds, linear_model, logged_run
from unlearning.forgetting import ForgetResult, forget
from unlearning.methods.fast_fedul import round_shares
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

FORGET_B = ForgetRequest(clients=("b",))


def one(value: float) -> Tensor:
    return torch.tensor([value])


def served(run: TrainedRun, *clients: str, alpha: float = 0.1, theta: float = 1.0) -> ForgetResult:
    chosen = ForgetSettings.of("fast-fedul", alpha=alpha, theta=theta)
    return forget(run, ForgetRequest(clients=clients), "fast-fedul", chosen)


@pytest.fixture
def three_rounds(tmp_path: Path) -> TrainedRun:
    """Return the run of the hand-worked case."""
    rounds: Rounds = [
        {"a": (1, one(0.0)), "b": (1, one(8.0))},
        {"a": (3, one(1.0))},
        {"a": (1, one(4.0)), "b": (1, one(2.0))},
    ]
    return logged_run(tmp_path / "log", rounds, initial=one(1.0))


# by hand


def test_the_estimate_by_hand(three_rounds: TrainedRun) -> None:
    """M_1 = 1, α = 0.1. M_F = 1 + 4 + 1 + 3 = 9.

    Round 1: u = ½·8 = 4. Round 2 without b: β = 1 − 0.1·1, u = 3.6. Round 3: β = 1 − 0.1·½, u = 0.95·3.6 +
    ½·2 = 4.42. M' = 9 − 4.42 = 4.58; with θ = ½, 9 − 2.21 = 6.79.
    """
    assert three_rounds.final.tolist() == [9.0]
    assert served(three_rounds, "b").flat.tolist() == pytest.approx([4.58])
    assert served(three_rounds, "b", theta=0.5).flat.tolist() == pytest.approx([6.79])


def test_two_targets_by_hand(tmp_path: Path) -> None:
    """Weights ¼, ¼ and ½ in both rounds, targets b and c: β = 1 − 0.2·½ = 0.9.

    Round 1: u = (4 + 8)/4 = 3. Round 2: u = 0.9·3 + (4 − 4)/4 = 2.7. M_F = 0 + 3 + 0.
    """
    rounds: Rounds = [
        {"a": (2, one(0.0)), "b": (1, one(4.0)), "c": (1, one(8.0))},
        {"a": (2, one(0.0)), "b": (1, one(4.0)), "c": (1, one(-4.0))},
    ]
    run = logged_run(tmp_path / "log", rounds, initial=one(0.0), clients=("a", "b", "c"))
    assert served(run, "b", "c", alpha=0.2).flat.tolist() == pytest.approx([0.3])


def test_a_round_without_the_target_still_counts(three_rounds: TrainedRun) -> None:
    assert three_rounds.log is not None
    shares = list(round_shares(three_rounds.log, ("b",)))
    assert [share.remaining_weight for share in shares] == [0.5, 1.0, 0.5]
    assert [len(share.target) for share in shares] == [1, 0, 1]


# against the slow reference, and neutral values

weights = st.integers(1, 50)
deltas = st.lists(st.floats(-4, 4, width=32), min_size=9, max_size=9).map(torch.tensor)
updates = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(weights, deltas), min_size=1)


def slow(run: TrainedRun, rounds: Rounds, targets: Sequence[str], alpha: float) -> list[float]:
    """Follow the paper's box number by number in Python floats."""
    estimate = [0.0] * 9
    for entry in rounds:
        total = sum(weight for weight, _ in entry.values())
        others = sum(weight for i, (weight, _) in entry.items() if i not in targets) / total
        estimate = [(1 - alpha * others) * u for u in estimate]
        for i, (weight, delta) in entry.items():
            if i in targets:
                estimate = [u + weight / total * d for u, d in zip(estimate, delta.tolist(), strict=True)]
    return [m - u for m, u in zip(run.final.tolist(), estimate, strict=True)]


@settings(max_examples=15, deadline=None)
@given(rounds=st.lists(updates, min_size=1, max_size=4), alpha=st.floats(0, 1))
def test_equals_the_box_followed_by_hand(
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
    assert found == pytest.approx(slow(run, rounds, ["a"], alpha), abs=1e-5)
    plain = forget(run, ForgetRequest(clients=("a",)), "subtract", ForgetSettings()).flat
    assert served(run, "a", alpha=0.0).flat.tolist() == pytest.approx(plain.tolist(), abs=1e-5)


def test_elsewhere_it_is_no_subtraction(three_rounds: TrainedRun) -> None:
    plain = forget(three_rounds, FORGET_B, "subtract", ForgetSettings()).flat
    assert not served(three_rounds, "b").flat.allclose(plain)


def test_at_theta_zero_nothing_is_subtracted(three_rounds: TrainedRun) -> None:
    assert served(three_rounds, "b", theta=0.0).flat.equal(three_rounds.final)


# properties


def test_forgetting_twice_equals_once(three_rounds: TrainedRun) -> None:
    final = three_rounds.final.clone()
    assert served(three_rounds, "b").flat.equal(served(three_rounds, "b").flat)
    assert three_rounds.final.equal(final)


def test_order_of_clients_in_the_request_and_in_a_round_is_irrelevant(tmp_path: Path) -> None:
    entries = {"a": (1.0, one(0.1)), "b": (1.0, one(0.2)), "c": (1.0, one(0.3))}
    results = []
    for name, order in (("forwards", "abc"), ("backwards", "cba")):
        rounds: Rounds = [{i: entries[i] for i in order}] * 3
        run = logged_run(tmp_path / name, rounds, initial=one(0.7), clients=("a", "b", "c"))
        results += [served(run, "a", "c").flat, served(run, "c", "a").flat]
    assert all(result.equal(results[0]) for result in results)


def test_a_client_that_never_took_part_changes_nothing(tmp_path: Path) -> None:
    run = logged_run(tmp_path / "log", [{"a": (1, one(2.0))}], initial=one(1.0), clients=("a", "b"))
    result = served(run, "b")
    assert result.flat.equal(run.final)
    assert result.notes == (
        "client b never took part in a round: nothing to forget",
        "the model is unchanged",
    )


def test_the_result_says_with_what_it_was_made(three_rounds: TrainedRun) -> None:
    assert served(three_rounds, "b").details == {"alpha": 0.1, "theta": 1.0}


# as the start of distillation


@pytest.fixture
def with_public_data(three_rounds: TrainedRun) -> TrainedRun:
    """Return the run with inputs for the one-parameter model."""
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    return replace(three_rounds, public=TensorExamples(x, (x[:, 0] > 0).long()))


def test_distillation_of_no_epoch_is_its_start(with_public_data: TrainedRun) -> None:
    chosen = ForgetSettings.of("fast-fedul", alpha=0.1).with_own("distill", start="fast-fedul", epochs=0)
    result = forget(with_public_data, FORGET_B, "distill", chosen)
    assert result.flat.equal(served(with_public_data, "b").flat)


def test_distillation_depends_on_its_start(with_public_data: TrainedRun) -> None:
    plain, skewed = (
        ForgetSettings.of("fast-fedul", alpha=a).with_own("distill", start=s, epochs=1) for s, a in STARTS
    )
    assert not (
        forget(with_public_data, FORGET_B, "distill", plain).flat.allclose(
            forget(with_public_data, FORGET_B, "distill", skewed).flat
        )
    )


STARTS = (("subtract", 0.07), ("fast-fedul", 0.5))


# errors


@pytest.mark.parametrize("retention", ["sum", "interval:2"])
@pytest.mark.parametrize("method", ["fast-fedul", "distill"])
def test_every_round_is_needed(tmp_path: Path, retention: str, method: str) -> None:
    rounds: Rounds = [{"a": (1, one(2.0)), "b": (1, one(0.0))}] * 2
    run = logged_run(tmp_path / "log", rounds, initial=one(1.0), retention=retention)
    with pytest.raises(
        BadInput, match=rf"{method} needs log\.retention full, but the run kept '{retention}'"
    ):
        forget(run, FORGET_B, method, ForgetSettings.of("distill", start="fast-fedul"))


@pytest.mark.parametrize("request_", [ForgetRequest(classes=(1,)), ForgetRequest(samples={"a": (0,)})])
def test_other_requests_are_refused(three_rounds: TrainedRun, request_: ForgetRequest) -> None:
    with pytest.raises(BadInput, match=f"does not serve a {request_.kind} request: .*one update per client"):
        forget(three_rounds, request_, "fast-fedul", ForgetSettings())


# a damaged answer


def test_the_weights_of_the_target_in_beta_would_be_noticed(three_rounds: TrainedRun) -> None:
    """With β = 1 − α in every round, u = 4 → 3.6 → 0.9·3.6 + 1 = 4.24, not 4.42."""
    assert served(three_rounds, "b").flat.tolist() != pytest.approx([9.0 - 4.24])
