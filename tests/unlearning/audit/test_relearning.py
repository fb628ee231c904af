"""unlearning/audit/relearning.py: how many rounds until what was forgotten is known again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Message
from torch import Tensor

from strategies.client.evaluation import evaluate
from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.examples import Examples, TensorExamples
from strategies.plan import Start
from strategies.rounds import train
from tests.unlearning.audit_world import loads_into
from tests.unlearning.methods.federation import Federation, blobs
from unlearning.audit.evidence import answer_question
from unlearning.audit.relearning import Relearning
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

CLIENT_B = ForgetRequest(clients=("b",))


class AuditedFederation(Federation):
    """Its clients answer audits as well."""

    def _reply(self, client_id: str, message: Message) -> Message:
        if message.metadata.message_type != wire.AUDIT:
            return super()._reply(client_id, message)
        self.asked.append((wire.AUDIT, client_id))
        metrics, arrays = answer_question(
            message.content, self.data[client_id], loads_into(self.build_model())
        )
        return wire.reply_to(message, client_id, metrics, arrays)


def relabelled(examples: Examples) -> Examples:
    """Return examples whose labels only a model that has seen them knows: the next class of three."""
    return TensorExamples(examples.x, (examples.y + 1) % 3)


@pytest.fixture
def clients() -> AuditedFederation:
    data = {"a": blobs(24, 1), "b": relabelled(blobs(60, 2)), "c": blobs(20, 3)}
    return AuditedFederation(data, settings=TrainSettings(batch_size=8, momentum=0.0, learning_rate=0.2))


def unlearning_accuracy(run: TrainedRun, clients: Federation, flat: Tensor) -> float:
    return 100.0 - evaluate(run.model(flat), clients.data["b"]).accuracy


def relearning(run: TrainedRun, clients: Federation, max_rounds: int) -> Relearning:
    original = unlearning_accuracy(run, clients, run.final)
    return Relearning(run, CLIENT_B, original, clients.cohort(), max_rounds)


def test_the_original_has_nothing_to_relearn(clients: AuditedFederation, tmp_path: Path) -> None:
    """Its UA is the original one: 0 rounds, and no client trains."""
    run = clients.trained(tmp_path, rounds=6)
    assert relearning(run, clients, 5).rounds(run.final) == 0
    assert not any(kind == wire.TRAIN for kind, _ in clients.asked)


def test_rounds_are_those_of_training_on_with_everyone(clients: AuditedFederation, tmp_path: Path) -> None:
    """Counted by hand: train on round by round, evaluate on the client's data, stop within a point."""
    run = clients.trained(tmp_path, rounds=8)
    original = unlearning_accuracy(run, clients, run.final)
    flat, by_hand = run.initial, 0
    while unlearning_accuracy(run, clients, flat) > original + 1.0:
        by_hand += 1
        plan = replace(run.plan, rounds=8 + by_hand)
        start = Start(wire.FlatRecord(flat, run.layout), completed_rounds=7 + by_hand)
        flat = wire.flat_of(train(plan, clients.cohort(), start), run.layout)
    assert by_hand > 1
    clients.asked.clear()
    assert relearning(run, clients, 50).rounds(run.initial) == by_hand
    assert clients.asked.count((wire.TRAIN, "b")) == by_hand


def test_a_model_that_does_not_relearn_in_time(clients: AuditedFederation, tmp_path: Path) -> None:
    run = clients.trained(tmp_path, rounds=8)
    assert relearning(run, clients, 1).rounds(run.initial) is None


def test_a_pruned_model_relearns_on_its_mask(clients: AuditedFederation, tmp_path: Path) -> None:
    """With every weight pruned but the last layer's bias, it can only ever say one class."""
    run = clients.trained(tmp_path, rounds=8)
    mask = torch.zeros(run.layout.size, dtype=torch.bool)
    mask[-3:] = True
    pruned = replace(run, mask=mask)
    original = unlearning_accuracy(run, clients, run.final)
    found = Relearning(pruned, CLIENT_B, original, clients.cohort(), 4).rounds(run.initial * mask)
    assert found is None


def test_the_run_and_the_rounds_of_others_stay_as_they_were(
    clients: AuditedFederation, tmp_path: Path
) -> None:
    """Relearning twice takes the same rounds: nothing of the first is left."""
    run = clients.trained(tmp_path, rounds=8)
    before = run.final.clone()
    work = relearning(run, clients, 50)
    assert work.rounds(run.initial) == work.rounds(run.initial)
    assert run.final.equal(before)


def test_what_was_forgotten_before_stays_out(clients: AuditedFederation, tmp_path: Path) -> None:
    run = clients.trained(tmp_path, rounds=8)
    earlier = replace(run, forgotten=(ForgetRequest(clients=("a",)),))
    relearning(earlier, clients, 2).rounds(run.initial)
    assert {client for kind, client in clients.asked if kind == wire.TRAIN} == {"b", "c"}
