"""unlearning/methods/redistill.py: the others digest what the log says without the target."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from strategies.client.evaluation import evaluate
from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import concatenated
from strategies.fedmd.server import initial_state
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.plan import Start
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.settings import StrategySettings
from tests.strategies.fakes import raises
from tests.strategies.fedmd.world import (
    CLASSES,
    PUBLIC,
    SMALL,
    TEST,
    Client,
    clients_of,
    connected,
    network,
    plan_of,
)
from unlearning.audit.evidence import decode_answer
from unlearning.audit.own_models import OwnModelQuestions, answer_about_own_model
from unlearning.forgetting import ForgetResult, forget
from unlearning.methods.redistill import kept_answers
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

CLIENT_1 = ForgetRequest(clients=("1",))
SETTINGS = StrategySettings(**SMALL, digest_epochs=4, keep_transferred=True)


@dataclass
class World:
    """A finished run, its clients, and who is connected."""

    run: TrainedRun
    clients: list[Client]
    cohort: Cohort

    def forget(self, method: str, request: ForgetRequest = CLIENT_1, **settings: Any) -> ForgetResult:
        given = ForgetSettings.of(method, **settings)
        return forget(self.run, request, method, given, self.cohort.on_lineage(method))

    def flats(self, lineage: str) -> list[torch.Tensor]:
        states = [c.model(lineage).state_dict() for c in self.clients if c.client_id != "1"]
        return [wire.Layout.of(state).flatten(state) for state in states]


def world(path: Path, rounds: int, settings: StrategySettings = SETTINGS, retention: str = "full") -> World:
    clients = clients_of(settings, 4)
    cohort = connected(clients)
    arrays = wire.record_of(initial_state(settings, len(PUBLIC), CLASSES))
    layout = wire.layout_of(arrays)
    plan = plan_of(settings, rounds)
    with UpdateLog.create(path / "log", layout, retention) as log:
        final = train(plan, cohort, Start(arrays), layer=lambda inner: LoggedStrategy(inner, log))
    run = TrainedRun(
        plan=plan,
        train=TrainSettings(),
        build_model=lambda: network(3),
        layout=layout,
        initial=wire.flat_of(arrays, layout).clone(),
        final=wire.flat_of(final, layout).clone(),
        log=UpdateLog.open(path / "log"),
        num_groups=CLASSES,
        public=PUBLIC.examples,
        test=TEST,
        clients=tuple(cohort.clients),
        client_models=True,
    )
    return World(run, clients, cohort)


# by hand


def test_the_consensus_is_that_of_the_others(tmp_path: Path) -> None:
    """Of four answers, the mean of the three that stay."""
    there = world(tmp_path, 2)
    assert there.run.log is not None
    answers = kept_answers(there.run.log, 2, frozenset({"1"}), CLASSES)
    assert sorted(answers) == ["0", "2", "3"]
    expected = (answers["0"] + answers["2"] + answers["3"]) / 3
    torch.testing.assert_close(there.forget("redistill").flat.view(-1, CLASSES), expected)


# reference


def test_one_round_is_retraining_to_the_bit(tmp_path: Path) -> None:
    """The answers of the first round come from models that heard of nobody else."""
    there = world(tmp_path, 1)
    redistilled, retrained = there.forget("redistill"), there.forget("retrain")
    assert torch.equal(redistilled.flat, retrained.flat)
    for after, reference in zip(there.flats("redistill"), there.flats("retrain"), strict=True):
        assert torch.equal(after, reference)


def test_without_a_kept_model_transfer_learning_makes_the_same_one(tmp_path: Path) -> None:
    kept, anew = (
        world(tmp_path / "a", 2),
        world(tmp_path / "b", 2, StrategySettings(**SMALL, digest_epochs=4)),
    )
    kept.forget("redistill")
    anew.forget("redistill")
    for one, other in zip(kept.flats("redistill"), anew.flats("redistill"), strict=True):
        assert torch.equal(one, other)


def test_later_rounds_are_not_exact(tmp_path: Path) -> None:
    there = world(tmp_path, 3)
    assert not torch.equal(there.forget("redistill").flat, there.forget("retrain").flat)


# what is left alone, and what is chosen


def test_the_run_and_its_models_are_not_altered(tmp_path: Path) -> None:
    there = world(tmp_path, 2)
    before, final = there.flats(""), there.run.final.clone()
    there.forget("redistill")
    assert all(torch.equal(a, b) for a, b in zip(there.flats(""), before, strict=True))
    assert torch.equal(there.run.final, final)


def test_forgetting_twice_equals_once(tmp_path: Path) -> None:
    there = world(tmp_path, 2)
    first = there.forget("redistill").flat
    models = there.flats("redistill")
    for c in there.clients:
        for name in [name for name in c.state if name.endswith("/redistill")]:
            del c.state[name]
    assert torch.equal(there.forget("redistill").flat, first)
    assert all(torch.equal(a, b) for a, b in zip(there.flats("redistill"), models, strict=True))


def test_a_replay_may_start_now_and_be_short(tmp_path: Path) -> None:
    there = world(tmp_path, 3)
    short = there.forget("redistill", start="now", rounds=1)
    assert short.details["rounds"] == 1
    assert short.traffic.visits == 3
    assert not torch.equal(there.flats("redistill")[0], there.flats("")[0])


def test_only_kept_rounds_are_replayed(tmp_path: Path) -> None:
    there = world(tmp_path, 4, retention="interval:2")
    result = there.forget("redistill")
    assert result.details["rounds"] == len(there.run.log.kept_rounds()) < 4  # type: ignore[union-attr]


def test_the_forgotten_client_is_not_asked(tmp_path: Path) -> None:
    there = world(tmp_path, 2)
    answered = len(there.clients[1].sent)
    there.forget("redistill")
    assert len(there.clients[1].sent) == answered


def test_a_client_that_never_took_part_changes_nothing(tmp_path: Path) -> None:
    there = world(tmp_path, 2)
    there.run = replace(there.run, clients=(*there.run.clients, "9"))
    result = there.forget("redistill", ForgetRequest(clients=("9",)))
    assert torch.equal(result.flat, there.run.final)
    assert "client 9 never took part" in result.notes[0]


# errors


def test_other_methods_and_other_runs_are_refused(tmp_path: Path) -> None:
    there = world(tmp_path, 1)
    with pytest.raises(BadInput, match="each has its own; use redistill or retrain"):
        there.forget("distill")
    with pytest.raises(BadInput, match="redistill does not serve a class request"):
        there.forget("redistill", ForgetRequest(classes=(1,)))
    plain = replace(there.run, client_models=False)
    with pytest.raises(BadInput, match="with fedmd all share one"):
        forget(plain, CLIENT_1, "redistill", ForgetSettings(), there.cohort)
    with pytest.raises(BadInput, match=re.escape("needs the update log")):
        forget(replace(there.run, log=None), CLIENT_1, "redistill", ForgetSettings(), there.cohort)


def test_if_nobody_answers_the_forgetting_fails(tmp_path: Path) -> None:
    there = world(tmp_path, 1)
    there.cohort.grid.answers = dict.fromkeys(range(1, 5), raises)  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="no client took part in redistill round 1"):
        there.forget("redistill")


# the audit's question about a client's own model


def test_others_answer_about_the_forgotten_clients_data(tmp_path: Path) -> None:
    """Client 0 answers about its 12 examples, which stay, and about the 13 of client 1, which must go."""
    there = world(tmp_path, 1)
    questions = OwnModelQuestions(CLIENT_1, there.cohort, "retrain", (), TEST)
    who = there.clients[0]
    there.forget("retrain")
    both = concatenated([who.examples, there.clients[1].examples])
    numbers, arrays = answer_about_own_model(questions("0"), both, TEST, who.model)
    reply = _reply(there, numbers, arrays)
    answer = questions.read("0", reply, len(who.examples))
    assert answer.forget.tolist() == [False] * 12 + [True] * 13
    accuracy = 100 * float(answer.correct[answer.forget].float().mean())
    assert accuracy == pytest.approx(evaluate(who.model(), there.clients[1].examples).accuracy)
    tested = questions.tested()
    assert 100 * float(tested.correct.float().mean()) == pytest.approx(evaluate(who.model(), TEST).accuracy)
    assert answer.divergence is not None
    assert answer.divergence.forget > 0


def _reply(there: World, numbers: dict[str, Any], arrays: Any) -> Any:
    message = there.cohort.grid.create_message(there.clients[0].state, "query.audit", 1, "")
    message.metadata.__dict__["_message_id"] = "1"
    return wire.reply_to(message, "0", numbers, arrays).content


def test_an_answer_without_test_data_is_refused(tmp_path: Path) -> None:
    there = world(tmp_path, 1)
    questions = OwnModelQuestions(ForgetRequest(classes=(1,)), there.cohort, None, (), TEST)
    who = there.clients[0]
    numbers, arrays = answer_about_own_model(questions("0"), who.examples, None, who.model)
    with pytest.raises(ValueError, match="no test data"):
        questions.read("0", _reply(there, numbers, arrays), len(who.examples))
    spec = questions._spec("0")
    assert decode_answer(_reply(there, numbers, arrays), spec, len(who.examples), False).forget.any()
