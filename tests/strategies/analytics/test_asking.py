"""Questions over a grid without processes: whose answer counts, and how much noise the sum has."""

import json
import math

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from strategies.analytics.asking import ANALYSE, ASKED, Sharing, answer_analytics, ask
from strategies.analytics.settings import AnalyticsSettings
from strategies.analytics.statistics import Question
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import TensorExamples
from strategies.core.secret_random import RandomStream
from strategies.layers.secagg.client import Refused, SecureClient
from strategies.server.cohort import Cohort
from tests.strategies.fakes import Answer, FakeGrid
from tests.strategies.secagg.world import MASKED, World, vectors

CLASSES = 4000
"""So many labels that the entries of one histogram show how much noise there is."""


def asking(client_id: str, settings: AnalyticsSettings, threshold: float = 1.0) -> Answer:
    """Return a client with one example of each of the labels 0 and 1."""
    state = RecordDict()
    data = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1]))

    def answer(message: Message) -> Message:
        kind, config = message.metadata.message_type, message.content.config_records[wire.CONFIG]
        if kind == wire.DESCRIBE:
            return wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: 1}, config={wire.HIDDEN: True})
        half = SecureClient(config, state, threshold)
        try:
            if kind == ANALYSE:
                arrays, entries = answer_analytics(half, settings, CLASSES, lambda: data)
                return wire.reply_to(message, client_id, {}, arrays, entries)
            steps = {wire.SECAGG_KEYS: half.keys, wire.SECAGG_SHARES: half.shares}
            return wire.reply_to(message, client_id, {}, config=steps.get(kind, half.unmask)())
        except Refused as reason:
            return wire.reply_to(message, client_id, {}, config={wire.REFUSED: str(reason)})

    return answer


def cohort_of(size: int, settings: AnalyticsSettings) -> Cohort:
    grid = FakeGrid({i: asking(str(i), settings) for i in range(1, size + 1)})
    cohort = Cohort(grid, timeout=5.0, poll_seconds=0.001)
    cohort.connect(size, 0.0)
    return cohort


def test_the_sum_by_hand_and_its_noise() -> None:
    """Three clients with 0 and 1 each: 3, 3, 0, 0, …; at ε = 1 noise of variance 2e⁻¹/(1 − e⁻¹)² = 1.841."""
    plain = AnalyticsSettings()
    counts = ask(cohort_of(3, plain), Question(plain, CLASSES), Sharing(1.0))["counts"]
    assert counts[:4] == [3, 3, 0, 0]
    assert sum(counts) == 6
    noisy = AnalyticsSettings(epsilon=1.0)
    counts = ask(cohort_of(3, noisy), Question(noisy, CLASSES), Sharing(1.0))["counts"]
    assert np.var(counts[2:]) == pytest.approx(1.841, rel=0.2)
    assert np.mean(np.array(counts[2:]) == 0) == pytest.approx(0.462, abs=0.04)


def test_noise_grows_with_the_sensitivity() -> None:
    """A mean of labels 0 to 3 changes by 1 + 3 · 2¹⁶ per example; at ε = 2 the variance is 2p/(1 − p)²."""
    asked = Question(AnalyticsSettings(statistic="mean", epsilon=2.0), 4)
    stream = RandomStream.seeded(3, "scale")
    draws = np.array([asked.noise(1, stream) for _ in range(4000)])
    p = math.exp(-2.0 / (1 + 3 * 2**16))
    assert draws.std() == pytest.approx(math.sqrt(2 * p) / (1 - p), rel=0.06)


def test_a_mean_is_as_sensitive_as_its_largest_value() -> None:
    """One more example of the value −4, in [−4, 2], adds 1 to the count and −4 · 2¹⁶ to the sum."""
    asked = Question(AnalyticsSettings(statistic="mean", column="brightness", low=-4.0, high=2.0), 4)
    change = asked.vector(torch.tensor([1.0, -9.0])) - asked.vector(torch.tensor([1.0]))
    assert np.abs(change).sum() == asked.sensitivity == 1 + 4 * 2**16


def test_the_server_asks_nobody_where_too_few_are_connected() -> None:
    settings = AnalyticsSettings(min_clients=4)
    cohort = cohort_of(3, settings)
    before = len(cohort.grid.sent)  # type: ignore[attr-defined]
    with pytest.raises(LetheError, match=r"3 clients are connected, analytics\.min-clients is 4"):
        ask(cohort, Question(settings, CLASSES), Sharing(0.5))
    assert len(cohort.grid.sent) == before  # type: ignore[attr-defined]


def test_clients_refuse_a_smaller_cohort_than_they_know_of() -> None:
    """Whatever the server takes for enough."""
    cohort = cohort_of(3, AnalyticsSettings(min_clients=4))
    with pytest.raises(LetheError, match="analytics: no answer"):
        ask(cohort, Question(AnalyticsSettings(min_clients=3), CLASSES), Sharing(0.5))
    reasons = {fault.client_id: fault.reason for fault in cohort.faults}
    assert "3 clients take part, analytics.min-clients is 4" in reasons["1"]


def test_more_than_the_threshold_stay_where_more_must_answer() -> None:
    """Four are connected and three must answer: with two lost there is no answer, at a threshold of ½."""
    settings = AnalyticsSettings(min_clients=3)
    lost = {"3", "4"}

    def client(client_id: str) -> Answer:
        whole = asking(client_id, settings, 0.5)
        gone = client_id in lost
        return lambda message: None if gone and message.metadata.message_type == ANALYSE else whole(message)

    cohort = Cohort(FakeGrid({i: client(str(i)) for i in range(1, 5)}), timeout=0.2, poll_seconds=0.001)
    cohort.connect(4, 0.0)
    with pytest.raises(LetheError, match="analytics: no answer"):
        ask(cohort, Question(settings, CLASSES), Sharing(0.5))


@pytest.mark.parametrize(
    "asked", ["", "[]", "3", "{}", '{"statistic": "mean"}', json.dumps({"statistic": "sum", "column": 1})]
)
def test_a_client_refuses_a_question_that_is_none(asked: str) -> None:
    world, reasons = World(vectors(3), silent={MASKED: {"c0", "c1", "c2"}}), []
    world.send()
    for client_id in world.plain:
        half = world.half(client_id, {**world.secure.invitation(client_id), ASKED: asked})
        with pytest.raises(Refused, match="asks for no statistic") as refused:
            answer_analytics(
                half, AnalyticsSettings(), 4, lambda: TensorExamples(torch.zeros(0), torch.zeros(0))
            )
        reasons.append(refused.value)
    assert len(reasons) == 3
