"""unlearning/methods/federaser.py: a run replayed without a client, logged lengths in fresh directions."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import RecordDict
from torch import Tensor

from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.registry import lookup
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.unlearning.methods.federation import Federation, blobs
from tests.unlearning.runs import OneParameter, Rounds, logged_run
from unlearning.forgetting import ForgetResult, forget
from unlearning.methods.base import ForgetJob
from unlearning.methods.federaser import ACTION, Replay, ReplayedRound, rounds_to_replay
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.traits.federaser import FedEraserSettings

FORGET_2 = ForgetRequest(clients=("2",))
FORGET_B = ForgetRequest(clients=("b",))
NOBODY = ForgetRequest(clients=("9",))
DATA = {str(i): blobs(20 + 4 * i, seed=i) for i in range(4)}
EVERY_ROUND = ForgetSettings.of("federaser", interval=1, ratio=1.0)


def erased(
    run: TrainedRun, federation: Federation, chosen: ForgetSettings, request: ForgetRequest = FORGET_2
) -> ForgetResult:
    return forget(run, request, "federaser", chosen, federation.cohort())


@pytest.fixture(scope="module")
def federation() -> Federation:
    return Federation(DATA)


@pytest.fixture(scope="module")
def run(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Return a run of five rounds of clients 0 to 3."""
    return federation.trained(tmp_path_factory.mktemp("run") / "log", rounds=5)


# by hand


def one(value: float) -> Tensor:
    return torch.tensor([value])


def ups(count: int) -> Examples:
    """Return inputs of 1 with label 0: a step of local training moves the one parameter up."""
    return TensorExamples(torch.ones((count, 1)), torch.zeros(count, dtype=torch.int64))


def downs(count: int) -> Examples:
    """Return the same with label 1: it moves down."""
    return TensorExamples(torch.ones((count, 1)), torch.ones(count, dtype=torch.int64))


def test_a_replay_by_hand(tmp_path: Path) -> None:
    """One parameter, M_1 = 0. Forgetting c, Δt = 2 of three rounds: rounds 1 and 3.

    Round 1 is added as logged, by weights 1 and 3: (1·4 + 3·2)/4 = 2.5. Round 3 has logged lengths 6 and 1;
    a's data push up and b's down, so (1·6 − 3·1)/4 = 0.75. M = 3.25; at twice the steps, for the rounds left
    out: 2·2.5 + 0.75 = 5.75.
    """
    rounds: Rounds = [
        {"a": (1, one(4.0)), "b": (3, one(2.0)), "c": (5, one(9.0))},
        {"a": (1, one(7.0)), "b": (3, one(7.0)), "c": (5, one(7.0))},
        {"a": (1, one(-6.0)), "b": (3, one(1.0)), "c": (5, one(9.0))},
    ]
    run = logged_run(tmp_path / "log", rounds, initial=one(0.0), clients=("a", "b", "c"))
    federation = Federation({"a": ups(2), "b": downs(2), "c": ups(2)}, OneParameter)
    request = ForgetRequest(clients=("c",))
    assert erased(run, federation, ForgetSettings.of("federaser", interval=2), request).flat.tolist() == [
        3.25
    ]
    doubled = ForgetSettings.of("federaser", interval=2, interval_factor=True)
    assert erased(run, federation, doubled, request).flat.tolist() == [5.75]


def test_which_rounds_are_replayed(tmp_path: Path) -> None:
    """Of seven rounds; with a target from round 3 on, the rounds up to that one are those of a clean run."""
    both, alone = {"a": (1.0, one(1.0)), "b": (1.0, one(1.0))}, {"a": (1.0, one(1.0))}
    run = logged_run(tmp_path / "log", [alone, alone, both, alone, both, both, both], initial=one(0.0))
    assert run.log is not None
    late, from_start = rounds_to_replay(run.log, 3, 3), rounds_to_replay(run.log, 1, 3)
    assert late == [
        ReplayedRound(1, 1, False),
        ReplayedRound(2, 1, False),
        ReplayedRound(3, 1, False),
        ReplayedRound(4, 3, True),
        ReplayedRound(7, 1, True),
    ]
    assert from_start == [ReplayedRound(1, 3, False), ReplayedRound(4, 3, True), ReplayedRound(7, 1, True)]


@pytest.mark.parametrize(
    ("retention", "calibrated"),
    [("full", [False, True, True]), ("interval:3", [False, True, True]), ("sum", [True, True, True])],
)
def test_norms_are_all_that_calibration_reads(tmp_path: Path, retention: str, calibrated: list[bool]) -> None:
    """So every retention serves; without the updates of round 1, that one is calibrated as well."""
    rounds: Rounds = [{"a": (1, one(1.0)), "b": (1, one(1.0))}] * 5
    run = logged_run(tmp_path / "log", rounds, initial=one(0.0), retention=retention)
    assert run.log is not None
    found = rounds_to_replay(run.log, 1, 2)
    assert [(r.round, r.calibrated) for r in found] == list(zip((1, 3, 5), calibrated, strict=True))


# against the slow reference


def fresh_update(
    federation: Federation, flat: Tensor, client_id: str, server_round: int, steps: int
) -> Tensor:
    """Return the update that a client makes in a round, by its strategy's own client half."""
    model = federation.build_model()
    wire.load_flat(model, flat, federation.layout)
    settings = federation.settings.model_copy(update={"local_steps": steps})
    generator = torch_generator(federation.seed, "client", client_id, "round", server_round)
    place = (federation.strategy, client_id, server_round, generator)
    job = ClientJob(model, DATA[client_id], settings, *place, rounds=5)
    trained = lookup(federation.strategy.name).client(job).model
    return federation.layout.flatten(trained.state_dict()) - flat


def slow(run: TrainedRun, federation: Federation, targets: str, interval: int, ratio: float) -> Tensor:
    """Follow the paper round by round, with all updates of a round in lists."""
    assert run.log is not None
    model = run.initial
    for t in range(1, run.plan.rounds + 1, interval):
        entries = [e for e in run.log.entries(t) if e.client_id not in targets]
        logged = fresh = [run.log.delta(t, e.client_id) for e in entries]
        if t > 1:
            epoch = {e.client_id: math.ceil(len(DATA[e.client_id]) / 8) for e in entries}
            fresh = [
                fresh_update(federation, model, i, t, max(1, math.ceil(ratio * steps)))
                for i, steps in epoch.items()
            ]
        pairs = zip(entries, logged, fresh, strict=True)
        calibrated = [e.weight * old.norm() / new.norm() * new.double() for e, old, new in pairs]
        model = (model.double() + sum(calibrated) / sum(e.weight for e in entries)).float()
    return model


@pytest.mark.parametrize(("interval", "ratio"), [(1, 1.0), (2, 0.5), (3, 0.1)])
@pytest.mark.parametrize("strategy", [StrategySettings(), StrategySettings(name="fedprox", mu=0.5)])
@pytest.mark.parametrize("falling", [{"lr_decay": 0.8}, {"schedule": "cosine", "warm_up": 2.0}])
def test_equals_the_paper_followed_round_by_round(
    tmp_path: Path, strategy: StrategySettings, interval: int, ratio: float, falling: dict[str, Any]
) -> None:
    """Clients train as their strategy does, with the batches and the learning rates of that round."""
    settings = TrainSettings.model_validate({"local_epochs": 1, "batch_size": 8, "momentum": 0.9, **falling})
    federation = Federation(DATA, settings=settings, strategy=strategy)
    run = federation.trained(tmp_path / "log", rounds=5)
    found = erased(run, federation, ForgetSettings.of("federaser", interval=interval, ratio=ratio)).flat
    torch.testing.assert_close(found, slow(run, federation, "2", interval, ratio), rtol=1e-5, atol=1e-6)


def test_clients_that_took_no_part_in_a_round_are_not_asked(tmp_path: Path) -> None:
    """Half of the clients are drawn in a round; the weights are those of the ones that were."""
    federation = Federation(DATA)
    run = federation.trained(tmp_path / "log", 6, drawn=SelectionSettings(fraction=0.5))
    assert run.log is not None
    found = erased(run, federation, EVERY_ROUND)
    first = run.log.entries(client_id="2")[0].round
    expected = [(ACTION, e.client_id) for e in run.log.entries() if e.round > first and e.client_id != "2"]
    assert [each for each in federation.asked if each[0] == ACTION] == expected
    assert found.details["calibrations"] == len(expected)


# identities


def test_without_a_target_the_logged_path_comes_back(federation: Federation, run: TrainedRun) -> None:
    """Δt = 1, r = 1, nobody left out: each Û is U, each step the logged one, and the end M_F."""
    assert run.log is not None
    replay = Replay(job_of(run, federation, NOBODY), FedEraserSettings(interval=1, ratio=1.0))
    flat = replay.run(rounds_to_replay(run.log, 1, 1))
    torch.testing.assert_close(flat, run.final, rtol=1e-5, atol=1e-6)
    assert replay.calibrations == 4 * len(DATA)


@pytest.mark.parametrize("client_id", list(DATA))
def test_logged_lengths_are_kept(federation: Federation, run: TrainedRun, client_id: str) -> None:
    """Replayed alone from the model of its round, a client's step has the logged length, and direction."""
    assert run.log is not None
    for model, entry in zip(models(run)[1:], run.log.entries(client_id=client_id)[1:], strict=False):
        step = lone_step(federation, run, model, entry.round, client_id)
        assert float(step.norm()) == pytest.approx(entry.norm, rel=1e-5)
        logged = run.log.delta(entry.round, client_id)
        torch.testing.assert_close(step, logged, rtol=1e-4, atol=1e-6)


def test_the_lengths_stay_where_directions_differ(federation: Federation, run: TrainedRun) -> None:
    """From another model and with one local step, the direction is new and the length is the logged one."""
    assert run.log is not None
    step = lone_step(federation, run, run.initial, 4, "1", ratio=0.01)
    logged = run.log.delta(4, "1")
    assert float(step.norm()) == pytest.approx(float(logged.norm()), rel=1e-5)
    assert not step.allclose(logged, rtol=0.1)


def test_any_retention_gives_the_same_at_full_work(tmp_path: Path) -> None:
    """Round 1 calibrated is round 1 as logged, as M_1 is the same; the others read norms."""
    federation = Federation(DATA)
    results = [
        erased(federation.trained(tmp_path / kept, 4, kept), federation, EVERY_ROUND).flat
        for kept in ("full", "interval:2", "sum")
    ]
    assert results[0].equal(results[1])
    torch.testing.assert_close(results[2], results[0], rtol=1e-5, atol=1e-6)


def job_of(run: TrainedRun, federation: Federation, request: ForgetRequest = FORGET_2) -> ForgetJob:
    return ForgetJob(run, request, EVERY_ROUND, federation.cohort(), lambda done, total, values: None)


def models(run: TrainedRun) -> list[Tensor]:
    """Return M_1, M_2, … as the log tells them."""
    assert run.log is not None
    flats = [run.initial]
    for t in run.log.rounds():
        step = sum(e.weight * run.log.delta(t, e.client_id).double() for e in run.log.entries(t))
        flats.append((flats[-1].double() + step).float())
    return flats


def lone_step(
    federation: Federation,
    run: TrainedRun,
    model: Tensor,
    server_round: int,
    client_id: str,
    ratio: float = 1.0,
) -> Tensor:
    """Return the step of one round, replayed from a model with one client only."""
    others = ForgetRequest(clients=tuple(i for i in DATA if i != client_id))
    job = job_of(replace(run, initial=model, forgotten=(others,)), federation, NOBODY)
    replay = Replay(job, FedEraserSettings(ratio=ratio))
    return replay.run([ReplayedRound(server_round, 1, True)]) - model


# properties


def test_arrival_does_not_matter(federation: Federation, run: TrainedRun) -> None:
    settings = ForgetSettings.of("federaser", interval=2, ratio=0.5)
    forwards, backwards = (
        erased(run, federation, settings),
        erased(run, federation.but(backwards=True), settings),
    )
    assert forwards.flat.equal(backwards.flat)


def test_forgetting_twice_equals_once_and_the_run_is_not_altered(
    federation: Federation, run: TrainedRun
) -> None:
    initial, final = run.initial.clone(), run.final.clone()
    first = erased(run, federation, EVERY_ROUND).flat
    assert erased(run, federation, EVERY_ROUND).flat.equal(first)
    assert run.initial.equal(initial)
    assert run.final.equal(final)


def test_the_target_is_never_asked(run: TrainedRun) -> None:
    federation = Federation(DATA)
    result = erased(run, federation, EVERY_ROUND, ForgetRequest(clients=("1", "2")))
    assert {i for kind, i in federation.asked if kind == ACTION} == {"0", "3"}
    assert result.details == {"rounds": 5, "calibrated_rounds": 4, "calibrations": 8, "left_out": {}}
    assert result.traffic.visits == 8


def test_a_client_that_never_took_part_changes_nothing(run: TrainedRun) -> None:
    federation = Federation({**DATA, "9": blobs(10, seed=9)})
    request = ForgetRequest(clients=("9",))
    result = erased(replace(run, clients=(*run.clients, "9")), federation, EVERY_ROUND, request)
    assert result.flat.equal(run.final)
    assert result.notes == (
        "client 9 never took part in a round: nothing to forget",
        "the model is unchanged",
    )
    assert all(kind == wire.DESCRIBE for kind, _ in federation.asked)


def test_batches_come_from_the_runs_seed_alone(federation: Federation, run: TrainedRun) -> None:
    first = erased(run, federation, EVERY_ROUND).flat
    torch.rand(3)
    assert erased(run, federation, EVERY_ROUND).flat.equal(first)
    assert not erased(run, federation.but(seed=1), EVERY_ROUND).flat.allclose(first)


# clients that fail


def test_a_client_that_is_offline_is_left_out(federation: Federation, run: TrainedRun) -> None:
    """Its update of round 1 is used, as that was made without the target; later ones were not."""
    result = erased(run, federation.but(offline=frozenset("1")), EVERY_ROUND)
    assert "client 1 was left out of 4 replayed rounds: not connected" in result.notes
    assert result.details["left_out"] == {"1": 4}
    assert run.log is not None
    weights = {e.client_id: e.weight for e in run.log.entries(1) if e.client_id != "2"}
    step = sum(w * run.log.delta(1, i).double() for i, w in weights.items()) / sum(weights.values())
    second = (run.initial.double() + step).float()
    rest = replace(run, initial=second, forgotten=(ForgetRequest(clients=("1",)),))
    replay = Replay(job_of(rest, federation), FedEraserSettings(interval=1, ratio=1.0))
    expected = replay.run([ReplayedRound(t, 1, True) for t in (2, 3, 4, 5)])
    torch.testing.assert_close(result.flat, expected, rtol=1e-6, atol=1e-7)


def test_a_client_that_fails_is_left_out_with_its_reason(federation: Federation, run: TrainedRun) -> None:
    result = erased(run, federation.but(failing={"3": (ACTION,)}), EVERY_ROUND)
    assert result.notes == ("client 3 was left out of 4 replayed rounds: error: out of memory",)
    offline = erased(run, federation.but(offline=frozenset("3")), EVERY_ROUND)
    assert result.flat.equal(offline.flat)


def test_a_model_that_is_not_finite_is_refused(federation: Federation, run: TrainedRun) -> None:
    def spoil(client_id: str, kind: str, content: RecordDict) -> RecordDict:
        if (client_id, kind) == ("0", ACTION):
            flat = torch.full((federation.layout.size,), math.nan)
            content[wire.ARRAYS] = wire.FlatRecord(flat, federation.layout)
        return content

    result = erased(run, federation.but(change=spoil), EVERY_ROUND)
    assert result.notes == ("client 0 was left out of 4 replayed rounds: NaN in the parameters",)
    assert torch.isfinite(result.flat).all()


def test_a_length_beyond_what_can_be_averaged_is_refused(tmp_path: Path) -> None:
    rounds: Rounds = [
        {i: (1, one(v)) for i, v in (("a", 1.0), ("b", 2000.0 * t), ("c", 1.0))} for t in (0, 1)
    ]
    run = logged_run(tmp_path / "log", rounds, initial=one(0.0), clients=("a", "b", "c"))
    federation = Federation({i: ups(2) for i in "abc"}, OneParameter)
    result = erased(run, federation, EVERY_ROUND, ForgetRequest(clients=("c",)))
    assert result.flat.tolist() == [1.5]
    assert result.notes == (
        "client b was left out of 1 replayed rounds: an entry of the update is not within ±1024.0",
    )


def test_a_round_of_the_target_alone_is_skipped(tmp_path: Path) -> None:
    both = {"a": (1.0, one(2.0)), "b": (1.0, one(2.0))}
    run = logged_run(tmp_path / "log", [both, {"b": (1, one(4.0))}, both], initial=one(0.0))
    result = erased(run, Federation({"a": ups(2), "b": ups(2)}, OneParameter), EVERY_ROUND, FORGET_B)
    assert result.flat.tolist() == [4.0]
    assert result.notes == ("round 2 was not replayed: it has no usable update",)


# errors


def test_nobody_answers(federation: Federation, run: TrainedRun) -> None:
    failing = dict.fromkeys(DATA, (ACTION,))
    with pytest.raises(LetheError, match=r"no remaining client made an update \(client 0: error: out of mem"):
        erased(run, federation.but(failing=failing), EVERY_ROUND)


def test_clients_are_needed(run: TrainedRun) -> None:
    with pytest.raises(BadInput, match="federaser needs the remaining clients online"):
        forget(run, FORGET_2, "federaser", EVERY_ROUND)


def test_a_log_is_needed(run: TrainedRun) -> None:
    with pytest.raises(BadInput, match="federaser needs the update log, but the run was trained with"):
        forget(replace(run, log=None), FORGET_2, "federaser", EVERY_ROUND)


@pytest.mark.parametrize("request_", [ForgetRequest(classes=(1,)), ForgetRequest(samples={"0": (0,)})])
def test_other_requests_are_refused(federation: Federation, run: TrainedRun, request_: ForgetRequest) -> None:
    with pytest.raises(BadInput, match=f"does not serve a {request_.kind} request: .*length is that of all"):
        erased(run, federation, EVERY_ROUND, request_)


# a damaged answer


def test_pairing_with_the_next_global_model_would_be_noticed(run: TrainedRun) -> None:
    """The released code subtracts the *next* global model from the client's, which holds most of U."""
    assert run.log is not None
    for t, (model, after) in enumerate(itertools.pairwise(models(run)), start=1):
        entries = run.log.entries(t)
        sent = [model + run.log.delta(t, entry.client_id) for entry in entries]
        norms = [entry.norm for entry in entries]
        assert [float((each - model).norm()) for each in sent] == pytest.approx(norms, rel=1e-4)
        assert [float((each - after).norm()) for each in sent] != pytest.approx(norms, rel=0.1)
