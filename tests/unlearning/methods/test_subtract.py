"""Subtraction of logged updates."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core.errors import BadInput
from tests.unlearning.runs import Rounds, linear_model, logged_run
from unlearning.forgetting import forget
from unlearning.methods.subtract import lazy, renormalised_step
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

LAZY = ForgetSettings.of("subtract", form="lazy")
RENORMALISED = ForgetSettings.of("subtract", form="renormalised")


def one(value: float) -> Tensor:
    """Return a vector of one entry."""
    return torch.tensor([value])


def subtract(run: TrainedRun, *clients: str, form: ForgetSettings = LAZY) -> Tensor:
    """Return the parameters after subtraction."""
    return forget(run, ForgetRequest(clients=clients), "subtract", form).flat


@pytest.fixture
def two_rounds(tmp_path: Path) -> TrainedRun:
    """Return the run of the hand-worked case."""
    rounds: Rounds = [{"a": (1, one(2.0)), "b": (3, one(4.0))}, {"a": (1, one(1.0)), "b": (1, one(-1.0))}]
    return logged_run(tmp_path / "log", rounds, initial=one(10.0))


def test_lazy_form_worked_by_hand(two_rounds: TrainedRun) -> None:
    """Two clients, one parameter, M_1 = 10.

    Round 1: weights 1/4 and 3/4, ΔM = 2/4 + 3·4/4 = 3.5. Round 2: weights 1/2, ΔM = 1/2 − 1/2 = 0. M_F =
    13.5. Forgetting b: 13.5 − (3/4·4 + 1/2·(−1)) = 13.5 − 2.5 = 11.
    """
    assert two_rounds.final.tolist() == [13.5]
    assert subtract(two_rounds, "b").tolist() == [11.0]


def test_renormalised_form_worked_by_hand(two_rounds: TrainedRun) -> None:
    """Forgetting b: 10 + (3.5 − 3)/(1 − 3/4) + (0 + 1/2)/(1 − 1/2) = 13: a alone, with weight 1."""
    assert subtract(two_rounds, "b", form=RENORMALISED).tolist() == [13.0]


def test_renormalised_step_is_the_papers_for_equal_weights() -> None:
    """With w = 1/N: N/(N−1)·ΔM − 1/(N−1)·ΔM^target, the paper's method 1 (N = 5, ΔM = 3, ΔM^t = 7)."""
    step = renormalised_step(one(3.0), one(7.0) / 5, 1 / 5)
    assert step.item() == pytest.approx(5 / 4 * 3.0 - 1 / 4 * 7.0)


def test_a_round_with_the_target_alone_contributes_nothing(tmp_path: Path) -> None:
    """Round 1 has only b: nobody else's update is known, so the renormalised form starts with round 2."""
    rounds: Rounds = [{"b": (3, one(4.0))}, {"a": (1, one(1.0)), "b": (1, one(5.0))}]
    run = logged_run(tmp_path / "log", rounds, initial=one(0.0))
    assert subtract(run, "b", form=RENORMALISED).tolist() == [1.0]


weights = st.integers(1, 50)
deltas = st.lists(st.floats(-4, 4, width=32), min_size=9, max_size=9).map(torch.tensor)
updates = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(weights, deltas), min_size=1)


@settings(max_examples=25, deadline=None)
@given(rounds=st.lists(updates, min_size=1, max_size=4))
def test_equals_the_sum_recomputed_from_the_log(
    tmp_path_factory: pytest.TempPathFactory, rounds: Rounds
) -> None:
    """Σ w·ΔM, entry by entry in Python floats, for `full` and `sum` retention alike."""
    initial = torch.arange(9.0)
    for retention in ("full", "sum"):
        path = tmp_path_factory.mktemp("log") / retention
        run = logged_run(
            path,
            rounds,
            initial=initial,
            build_model=linear_model,
            retention=retention,
            clients=("a", "b", "c"),
        )
        expected = run.final.tolist()
        for entry in rounds:
            if "a" in entry:
                share = entry["a"][0] / sum(weight for weight, _ in entry.values())
                expected = [e - share * d for e, d in zip(expected, entry["a"][1].tolist(), strict=True)]
        assert subtract(run, "a").tolist() == pytest.approx(expected, abs=1e-5)


def test_forgetting_all_but_one_leaves_that_ones_path(two_rounds: TrainedRun) -> None:
    """The renormalised form without b is a trained alone: 10 + 2 + 1."""
    assert subtract(two_rounds, "b", form=RENORMALISED) == one(13.0)


def test_forgetting_twice_equals_once(two_rounds: TrainedRun) -> None:
    """The run is not altered, so the same request gives the same answer."""
    assert subtract(two_rounds, "b").equal(subtract(two_rounds, "b"))


@pytest.mark.parametrize("form", [LAZY, RENORMALISED])
def test_one_after_the_other_equals_both_by_hand(tmp_path: Path, form: ForgetSettings) -> None:
    """Weights 1/4, 1/4, 1/2 with ΔM = 4, 8, 1 from 10: M_F = 13.5.

    Without a: 12.5, then without b: 10.5; renormalised, c alone remains: 11.
    """
    rounds: Rounds = [{"a": (1, one(4.0)), "b": (1, one(8.0)), "c": (2, one(1.0))}]
    run = logged_run(tmp_path / "log", rounds, initial=one(10.0), clients=("a", "b", "c"))
    first = subtract(run, "a", form=form)
    after = replace(run, final=first, forgotten=(ForgetRequest(clients=("a",)),))
    assert subtract(after, "b", form=form).tolist() == [10.5 if form is LAZY else 11.0]
    assert subtract(run, "a", "b", form=form).equal(subtract(after, "b", form=form))


def test_order_of_clients_in_the_request_is_irrelevant(tmp_path: Path) -> None:
    """Forgetting (a, c) and (c, a) gives the same bits."""
    rounds: Rounds = [{"a": (1, one(0.1)), "b": (1, one(0.2)), "c": (1, one(0.3))}]
    run = logged_run(tmp_path / "log", rounds, initial=one(0.7), clients=("a", "b", "c"))
    assert subtract(run, "a", "c").equal(subtract(run, "c", "a"))


def test_a_client_that_never_took_part_changes_nothing(tmp_path: Path) -> None:
    """The model comes back unchanged, with a note."""
    run = logged_run(tmp_path / "log", [{"a": (1, one(2.0))}], initial=one(1.0), clients=("a", "b"))
    result = forget(run, ForgetRequest(clients=("b",)), "subtract", LAZY)
    assert result.flat.equal(run.final)
    assert result.notes == (
        "client b never took part in a round: nothing to forget",
        "the model is unchanged",
    )


def test_sign_is_pinned() -> None:
    """Subtracting a positive contribution lowers the parameter."""
    assert lazy(one(1.0), [one(0.25)]).item() == 0.75


def test_the_renormalised_form_needs_every_round(tmp_path: Path) -> None:
    """Sums are not enough for it."""
    run = logged_run(
        tmp_path / "log", [{"a": (1, one(2.0)), "b": (1, one(0.0))}], initial=one(1.0), retention="sum"
    )
    with pytest.raises(BadInput, match=r"subtract needs log\.retention full, but the run kept 'sum'"):
        subtract(run, "b", form=RENORMALISED)


def test_interval_retention_is_refused(tmp_path: Path) -> None:
    """Half of the rounds are not the whole contribution."""
    rounds: Rounds = [{"a": (1, one(2.0)), "b": (1, one(0.0))}] * 2
    run = logged_run(tmp_path / "log", rounds, initial=one(1.0), retention="interval:2")
    with pytest.raises(BadInput, match=r"needs log\.retention full or sum, but the run kept 'interval:2'"):
        subtract(run, "b")


def test_a_strategy_that_does_not_average_is_refused(tmp_path: Path) -> None:
    """With FedAdam, Σ w·ΔM is not what moved the model."""
    run = logged_run(
        tmp_path / "log", [{"a": (1, one(2.0)), "b": (1, one(0.0))}], initial=one(1.0), averaging=False
    )
    with pytest.raises(BadInput, match="needs rounds that added the average of the clients' updates"):
        subtract(run, "b")


def test_a_dropped_weight_would_be_noticed(two_rounds: TrainedRun) -> None:
    """Plain Σ ΔM without weights is another number, so the hand-worked case tells the two apart."""
    assert two_rounds.log is not None
    unweighted = sum(two_rounds.log.delta(t, "b") for t in (1, 2))
    assert not (two_rounds.final - unweighted).allclose(subtract(two_rounds, "b"))
