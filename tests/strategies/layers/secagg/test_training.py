"""Training under secure aggregation over a grid without processes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.fedavg import FedAvg
from strategies.layers.privacy.noise import clipped
from strategies.layers.privacy.settings import PrivacySettings
from strategies.layers.secagg.client import Refused, SecureClient
from strategies.layers.secagg.masking import Vector
from strategies.layers.secagg.training import client_vector, summed
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.aggregation import ExactSum, fraction_bits
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, flat_record, node_answer, raises

SECURE = PrivacySettings(secure_aggregation=True, threshold=0.67, max_examples=100)
PLAN = TrainingPlan(StrategySettings(), SelectionSettings(), rounds=3, seed=0, privacy=SECURE)
BITS = fraction_bits(100 * 5)
RATES = (0.1, 0.2, 0.3, 0.4, 0.5)


def step(rate: float, old: Tensor) -> Tensor:
    return old + rate * (torch.tensor([rate * 10, -rate]) - old)


def secure_answer(client_id: str, weight: int, rate: float, clip: float | None = None) -> Answer:
    """Return a client that trains as `step` and answers the messages of the protocol."""
    state = RecordDict()

    def answer(message: Message) -> Message:
        kind, config = message.metadata.message_type, message.content.config_records[wire.CONFIG]
        half = SecureClient(config, state, 0.67)
        if kind == wire.DESCRIBE:
            return wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: 1}, config={wire.HIDDEN: True})
        try:
            if kind == wire.TRAIN:
                old = wire.state_of(message.content.array_records[wire.ARRAYS])["w"]
                delta = step(rate, old) - old
                delta = delta if clip is None else clipped(delta, clip)
                bits = int(str(config[wire.SUM_BITS]))
                arrays, entries = half.masked(client_vector(delta, weight, float(weight), bits))
                return wire.reply_to(message, client_id, {}, arrays, entries)
            steps = {wire.SECAGG_KEYS: half.keys, wire.SECAGG_SHARES: half.shares}
            return wire.reply_to(message, client_id, {}, config=steps.get(kind, half.unmask)())
        except Refused as reason:
            return wire.reply_to(message, client_id, {}, config={wire.REFUSED: str(reason)})

    return answer


def secure_clients(clip: float | None = None, weight: int | None = None) -> dict[int, Answer]:
    return {
        node: secure_answer(f"c{rate}", weight or round(rate * 100), rate, clip)
        for node, rate in enumerate(RATES, start=1)
    }


def plain_clients() -> dict[int, Answer]:
    return {
        node: node_answer(f"c{rate}", round(rate * 100), lambda old, _, rate=rate: step(rate, old))  # type: ignore[misc]
        for node, rate in enumerate(RATES, start=1)
    }


def run(
    nodes: Mapping[int, Answer], plan: TrainingPlan = PLAN, first: Sequence[float] = (1.0, 2.0)
) -> tuple[Tensor, list[RoundResult], Cohort]:
    cohort = Cohort(FakeGrid(dict(nodes)), 60.0, poll_seconds=0.001)
    cohort.connect()
    rounds: list[RoundResult] = []
    arrays = train(plan, cohort, Start(flat_record(first)), on_round=lambda r, _: rounds.append(r))
    return wire.state_of(arrays)["w"].clone(), rounds, cohort


def plain_plan(privacy: PrivacySettings) -> TrainingPlan:
    """Return the same training without masks, in the same fixed point."""
    return replace(PLAN, privacy=privacy, build=lambda plan: FedAvg(BITS))


def test_worked_by_hand() -> None:
    """Updates 1/2 and −1/4 of 3 and 2 examples, b = 2: entries 6 and −2 of a sum 4, of 5 examples: 4/4/5."""
    one = client_vector(torch.tensor([0.5]), 3, 1.0, 2)
    other = client_vector(torch.tensor([-0.25]), 2, 2.0, 2)
    assert one.view(np.int64).tolist() == [6, 3, 12]
    assert other.view(np.int64).tolist() == [-2, 2, 16]
    update = summed(one + other, 2, 10)
    assert update.delta.tolist() == [pytest.approx(0.2)]
    assert (update.num_examples, update.weight) == (5, 5.0)
    assert update.metrics == {wire.TRAIN_LOSS: pytest.approx(1.4)}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1000, 1000, width=32), st.integers(1, 50)), min_size=1, max_size=8),
)
def test_the_sum_is_that_of_plain_averaging(updates: list[tuple[float, int]]) -> None:
    bits = fraction_bits(400.0)
    plain, secure = ExactSum(1, bits), ExactSum(1)
    total: Vector = np.zeros(3, dtype=np.uint64)
    for value, weight in updates:
        plain.add(torch.tensor([value]), weight)
        total = total + client_vector(torch.tensor([value]), weight, 0.0, bits)
    summed(total, bits, 400).add_to(secure)
    assert secure.mean().equal(plain.mean())


def test_the_model_is_that_of_plain_averaging_to_the_bit() -> None:
    secure, rounds, cohort = run(secure_clients())
    plain, plain_rounds, _ = run(plain_clients(), plain_plan(PrivacySettings()))
    assert secure.equal(plain)
    assert [r.accepted for r in rounds] == [r.accepted for r in plain_rounds]
    assert [r.metrics[wire.TRAIN_LOSS] for r in rounds] == pytest.approx(
        [r.metrics[wire.TRAIN_LOSS] for r in plain_rounds]
    )
    assert cohort.faults == []
    assert all(info.hidden and info.num_examples == 1 for info in cohort.clients.values())


def test_central_privacy_adds_the_same_noise_to_the_masked_sum() -> None:
    """Clipped by the clients or by the server: the same model, to the bit; without noise another."""
    central = PrivacySettings(
        unit="client-central", noise_multiplier=0.5, clip_norm=0.3, delta=0.01, randomness="seeded"
    )
    secure = central.model_copy(update={"secure_aggregation": True, "threshold": 0.67})
    bits = fraction_bits(1 * 5)
    plain, _, _ = run(plain_clients(), replace(plain_plan(central), build=lambda plan: FedAvg(bits)))
    masked, rounds, _ = run(secure_clients(0.3, 1), replace(PLAN, privacy=secure))
    assert masked.equal(plain)
    assert rounds[-1].metrics[wire.EPSILON] > 0
    silent, _, _ = run(
        secure_clients(0.3, 1), replace(PLAN, privacy=secure.model_copy(update={"noise_multiplier": 0.0}))
    )
    assert not masked.equal(silent)


def losing(answer: Answer, *kinds: str) -> Answer:
    """Return a client that fails at messages of some kinds."""
    return lambda message: raises(message) if message.metadata.message_type in kinds else answer(message)


def test_a_client_that_is_lost_after_sharing_is_left_out() -> None:
    nodes = secure_clients()
    model, rounds, cohort = run(nodes | {5: losing(nodes[5], wire.TRAIN)})
    plain = plain_clients()
    expected, _, _ = run({n: plain[n] for n in (1, 2, 3, 4)}, plain_plan(PrivacySettings()))
    assert model.equal(expected)
    assert [r.accepted for r in rounds] == [("c0.1", "c0.2", "c0.3", "c0.4")] * 3
    assert {(f.client_id, f.reason) for f in cohort.faults} == {("c0.5", "error: ValueError: no data")}


def test_below_the_threshold_the_model_stays_and_the_run_goes_on() -> None:
    nodes = secure_clients()
    lost = {n: losing(nodes[n], wire.SECAGG_SHARES) for n in (3, 4, 5)}
    model, rounds, cohort = run(nodes | lost)
    assert model.tolist() == [1.0, 2.0]
    assert [r.accepted for r in rounds] == [()] * 3
    reasons = [f.reason for f in cohort.faults if f.client_id == "all" and f.scope == "round 1"]
    assert reasons == [
        "secure sum: 2 of 5 clients shared their keys, 4 needed",
        "no usable reply: the model is kept as it was",
    ]


def test_nonsense_from_a_client_spoils_its_round_only() -> None:
    """An update far out of range makes a sum that cannot be; the model is kept, and the run goes on."""

    def lie(message: Message) -> Message | None:
        reply = nodes[1](message)
        if message.metadata.message_type == wire.TRAIN and reply is not None:
            sent = reply.content.array_records[wire.ARRAYS][wire.MASKED].numpy()
            wrong = wire.reply_to(message, "c0.1", {}, ArrayRecord({wire.MASKED: Array(sent + 2**61)}))
            wrong.content[wire.CONFIG] = reply.content[wire.CONFIG]
            return wrong
        return reply

    nodes = secure_clients()
    model, rounds, cohort = run(nodes | {1: lie})
    assert model.tolist() == [1.0, 2.0]
    assert len(rounds) == 3
    assert any("none that clients could give who follow" in f.reason for f in cohort.faults)


def test_who_deals_wrong_shares_is_not_asked_again() -> None:
    """Round 1 cannot be unmasked; rounds 2 and 3 go on without the liar."""

    def deal(message: Message) -> Message | None:
        reply = nodes[2](message)
        if message.metadata.message_type == wire.SECAGG_SHARES and reply is not None:
            entries = dict(reply.content.config_records[wire.CONFIG])
            reply.content[wire.CONFIG] = ConfigRecord(entries | {"secagg-seed-hash": bytes(32)})
        return reply

    nodes = secure_clients()
    _, rounds, cohort = run(nodes | {2: deal})
    assert [len(r.accepted) for r in rounds] == [0, 4, 4]
    assert ("c0.2", "not asked: it dealt or opened wrong shares before") in {
        (f.client_id, f.reason) for f in cohort.faults
    }


def test_a_client_does_not_send_what_diverged() -> None:
    for update in (float("nan"), float("inf"), 2000.0):
        with pytest.raises(LetheError, match="diverged, and nothing is sent"):
            client_vector(torch.tensor([update]), 1, 0.0, 10)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([0, 0, 0], "no client has an example left"),
        ([0, 11, 0], "none that clients could give"),
        ([0, -1, 0], "none that clients could give"),
        ([5 * 1024 * 4 + 1, 5, 0], "none that clients could give"),
        ([-(2**63), 5, 0], "none that clients could give"),
    ],
)
def test_a_sum_that_cannot_be(entries: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        summed(np.array(entries, dtype=np.int64).view(np.uint64), 2, 10)


def test_pruned_weights_stay_zero() -> None:
    total = np.array([4, 4, 1, 0], dtype=np.int64).view(np.uint64)
    summed(total, 2, 10, torch.tensor([True, True]))
    with pytest.raises(ValueError, match="pruned weights were changed"):
        summed(total, 2, 10, torch.tensor([True, False]))
