"""Answers to the strategies with exchanges of their own, with anything in the place of anything.

No answer of one client ends a round, keeps the others out, or makes the model something that is not finite.
As many cases as in `tests.test_fuzzing`.
"""

from contextlib import suppress

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from hypothesis import given, strategies as st

from strategies.analytics.asking import ANALYSE, Sharing, ask
from strategies.analytics.settings import AnalyticsSettings
from strategies.analytics.statistics import Question
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.fedmd.client import DIGEST, QUERY
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.analytics.test_asking import asking
from tests.strategies.coded_gd.test_coded_gd import coding
from tests.strategies.fakes import Answer, FakeGrid, flat_record, node_answer, spoiled
from tests.strategies.fedmd.world import CLASSES, PUBLIC, SMALL, plan_of
from tests.strategies.fedprox.test_fedprox import model
from tests.strategies.gossip.test_gossip import gossiping
from tests.test_fuzzed_messages import Spoil, spoils
from tests.test_fuzzing import FUZZED


def two_rounds(plan: TrainingPlan, answers: list[Answer], first: wire.State) -> list[RoundResult]:
    """Train two rounds and return them."""
    cohort = Cohort(FakeGrid(dict(enumerate(answers, start=1))), 5.0, 0.001)
    cohort.connect(1, 0.0)
    results: list[RoundResult] = []
    train(plan, cohort, Start(wire.record_of(first)), on_round=lambda result, _: results.append(result))
    for result in results:
        assert all(bool(each.isfinite().all()) for each in wire.state_of(result.arrays).values())
    return results


@FUZZED
@given(spoil=spoils())
def test_no_answer_to_gossip_keeps_another_out(spoil: Spoil) -> None:
    answers = [gossiping("0", 1.0), spoiled(gossiping("1", 2.0), spoil), gossiping("2", 3.0)]
    plan = TrainingPlan(StrategySettings(name="gossip"), SelectionSettings(), rounds=2, seed=0)
    rounds = two_rounds(plan, answers, {"w": torch.zeros(1)})
    assert all({"0", "2"} <= set(each.accepted) for each in rounds)


@FUZZED
@given(spoil=spoils())
def test_no_answer_to_coded_gd_keeps_another_out(spoil: Spoil) -> None:
    answers = [coding(str(i), 1) for i in range(4)]
    answers[2] = spoiled(answers[2], spoil)
    settings = StrategySettings(name="coded-gd", stragglers=1)
    rounds = two_rounds(TrainingPlan(settings, SelectionSettings(), 2, 0), answers, model().state_dict())
    assert all({"0", "1", "3"} <= set(each.accepted) for each in rounds)


def answering(client_id: str) -> Answer:
    """Return a client of FedMD that gives zeros for logits and measures nothing."""
    plain = node_answer(client_id, 10, lambda old, _: old)

    def answer(message: Message) -> Message | None:
        numbers = {wire.NUM_EXAMPLES: 10, wire.ACCURACY: 50.0}
        if message.metadata.message_type == QUERY:
            count = len(wire.config_list(message.content.config_records[wire.CONFIG], "alignment"))
            logits = wire.record_of({"logits": torch.zeros(count, CLASSES)})
            return wire.reply_to(message, client_id, numbers, logits)
        return (
            wire.reply_to(message, client_id, numbers)
            if message.metadata.message_type == DIGEST
            else plain(message)
        )

    return answer


@pytest.mark.parametrize("kind", [QUERY, DIGEST])
@FUZZED
@given(spoil=spoils())
def test_no_answer_to_fedmd_keeps_another_out(kind: str, spoil: Spoil) -> None:
    settings = StrategySettings(**SMALL)
    answers = [answering("0"), spoiled(answering("1"), spoil, kind), answering("2")]
    first = {"logits": torch.zeros(settings.alignment_size(len(PUBLIC)), CLASSES)}
    rounds = two_rounds(plan_of(settings), answers, first)
    assert all({"0", "2"} <= set(each.accepted) for each in rounds)


STEPS = [wire.SECAGG_KEYS, wire.SECAGG_SHARES, ANALYSE, wire.SECAGG_UNMASK]


@pytest.mark.parametrize("kind", STEPS)
@FUZZED
@given(spoil=spoils())
def test_an_answer_to_a_question_changes_it_or_there_is_none(kind: str, spoil: Spoil) -> None:
    """Whoever lies about its own vector changes the sum by that; nothing else comes of it."""
    settings = AnalyticsSettings(statistic="count")
    answers = [asking(str(i), settings, 0.5) for i in range(5)]
    answers[1] = spoiled(answers[1], spoil, kind)
    cohort = Cohort(FakeGrid(dict(enumerate(answers, start=1))), 5.0, 0.001)
    cohort.connect(5, 0.0)
    with suppress(LetheError):
        found = ask(cohort, Question(settings, 4), Sharing(0.5))
        assert 3 <= found["clients"] <= 5
        if found["clients"] == 4:
            assert found["count"] == 8


@FUZZED
@given(spoil=spoils(), size=st.sampled_from([0, 3, -1, 2**40, 4097]), weight=st.sampled_from([1, 0, 2**40]))
def test_a_question_for_a_decryption_is_answered_or_refused(spoil: Spoil, size: int, weight: int) -> None:
    pytest.importorskip("tenseal")
    from strategies.layers.encryption.client import decrypted_reply, encrypted_record
    from tests.strategies.layers.encryption.test_server import KEY

    FakeGrid({})
    if not _SENT:
        _SENT.append(encrypted_record(KEY, torch.ones(3), 1))
    record = ConfigRecord({**_SENT[0], wire.SIZE: size, wire.WEIGHT: weight})
    content = RecordDict({wire.ENCRYPTED: record})
    spoil(content)
    message = Message(content, 1, wire.DECRYPT)
    message.metadata.__dict__["_message_id"] = "1"
    assert decrypted_reply(message, "a", KEY).has_content()


_SENT: list[ConfigRecord] = []


@FUZZED
@given(spoil=spoils())
def test_no_decryption_ends_a_round_in_anything_but_the_mean_or_nothing(spoil: Spoil) -> None:
    """1 example adds 2 and 3 examples add 4; three clients are asked, and two of them tell the truth."""
    pytest.importorskip("tenseal")
    from tests.strategies.layers.encryption.test_server import ENCRYPTED, Client

    answers: list[Answer] = [Client("a", 1, 2.0), Client("b", 3, 4.0), Client("c", 4, 3.5)]
    answers[0] = spoiled(answers[0], spoil, wire.DECRYPT)
    cohort = Cohort(FakeGrid(dict(enumerate(answers, start=1))), 5.0, 0.001)
    cohort.connect(1, 0.0)
    plan = TrainingPlan(StrategySettings(), SelectionSettings(), 1, 0, privacy=ENCRYPTED)
    arrays = train(plan, cohort, Start(flat_record([0.0, 1.0])))
    torch.testing.assert_close(wire.state_of(arrays)["w"], torch.tensor([3.5, 4.5]), rtol=0, atol=1e-4)
