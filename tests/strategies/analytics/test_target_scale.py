"""strategies/analytics/target_scale.py: the scale is the deviation of the pooled targets."""

import math

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from hypothesis import given, settings, strategies as st
from torch import Tensor

from strategies.analytics.statistics import Integers
from strategies.analytics.target_scale import (
    ASK_TARGETS,
    TargetSums,
    answer_target_scale,
    ask_target_scale,
)
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.secret_random import RandomStream
from strategies.layers.secagg.client import Refused, SecureClient
from strategies.server.cohort import Cohort
from strategies.tasks.choice import scale_of
from tests.strategies.fakes import Answer, FakeGrid


def summed(sums: TargetSums, parts: list[Tensor]) -> Integers:
    """Return the sum of the clients' vectors, modulo 2^64 as the masks leave it."""
    vectors = [
        sums.vector(part, len(parts), len(parts), RandomStream.seeded(i, "targets")).view(np.uint64)
        for i, part in enumerate(parts)
    ]
    return np.sum(vectors, axis=0, dtype=np.uint64).view(np.int64)


def test_by_hand() -> None:
    """Targets 1 and 3 with one client, 5 with another: squared deviations 4, 0, 4."""
    parts = [torch.tensor([1.0, 3.0]), torch.tensor([5.0])]
    sums = TargetSums(1, 10.0)
    assert sums.read(summed(sums, parts), 2) == pytest.approx(math.sqrt(8 / 3), rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(0, 99))
def test_as_over_the_pooled_targets(numbers: int, sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [300 + 5 * torch.randn(n, numbers, generator=generator) for n in (*sizes, 2)]
    sums = TargetSums(numbers, 1e4)
    found = sums.read(summed(sums, parts), len(parts))
    assert found == pytest.approx(scale_of(torch.cat(parts)), rel=1e-6)


def test_the_noise_is_that_of_its_epsilon() -> None:
    """Of 3 · 3000 draws of the sum of 4 clients' parts: variance 2 / (1 − q)² q with q = exp(−ε / Δ)."""
    sums, nothing = TargetSums(1, 1.0, 1e5), torch.zeros(0)
    drawn = np.array(
        [
            sum(sums.vector(nothing, 4, 4, RandomStream.seeded(100 * i + j, "noise")) for j in range(4))
            for i in range(1000)
        ]
    )
    assert sums.sensitivity == 3 * 2**16
    q = math.exp(-1e5 / sums.sensitivity)
    assert float(drawn.var()) == pytest.approx(2 * q / (1 - q) ** 2, rel=0.12)
    assert abs(float(drawn.mean())) < 5 * math.sqrt(2 * q / (1 - q) ** 2 / drawn.size)


def test_one_example_changes_the_noised_vector_by_no_more_than_the_sensitivity() -> None:
    """Also one beyond the range, which is cut off. The same draws, with and without it."""
    sums = TargetSums(2, 4.0, 1.0)
    rows = torch.tensor([[1.0, -2.0], [1e9, -1e9]])
    one, two = (sums.vector(rows[:n], 3, 3, RandomStream.seeded(0, "same")) for n in (1, 2))
    assert int(np.abs(two - one).sum()) == sums.sensitivity


def test_with_much_budget_the_noised_scale_is_near() -> None:
    targets = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    sums = TargetSums(1, 4.0, 1.0)
    assert sums.read(summed(sums, list(targets.chunk(4))), 4) == pytest.approx(scale_of(targets), rel=0.05)


def test_noise_that_hides_the_scale_is_said() -> None:
    sums = TargetSums(1, 1e6, 1.0)
    with pytest.raises(
        LetheError, match=r"^task\.scale-from: the noise .* in ±1e\+06; give a larger analytics\.epsilon"
    ):
        sums.read(np.array([100 << 16, 0, -3], dtype=np.int64), 3)


def test_what_a_client_does_not_send() -> None:
    stream = RandomStream.seeded(0, "targets")
    with pytest.raises(Refused, match=r"^it holds a value beyond ±10; task\.scale-range says"):
        TargetSums(1, 10.0).vector(torch.tensor([11.0]), 3, 3, stream)
    with pytest.raises(Refused, match=r"another number of targets of each example than task\.outputs says"):
        TargetSums(2, 10.0).vector(torch.tensor([1.0]), 3, 3, stream)


def answering(client_id: str, targets: Tensor, least: int = 3) -> Answer:
    """Return a client that answers the steps of a secure sum."""
    state = RecordDict()

    def answer(message: Message) -> Message:
        kind, config = message.metadata.message_type, message.content.config_records[wire.CONFIG]
        if kind == wire.DESCRIBE:
            return wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: len(targets)})
        half = SecureClient(config, state, 0.5)
        try:
            if kind == ASK_TARGETS:
                arrays, entries = answer_target_scale(half, least, TargetSums(1, 10.0), lambda: targets)
                return wire.reply_to(message, client_id, {}, arrays, entries)
            steps = {wire.SECAGG_KEYS: half.keys, wire.SECAGG_SHARES: half.shares}
            return wire.reply_to(message, client_id, {}, config=steps.get(kind, half.unmask)())
        except Refused as reason:
            return wire.reply_to(message, client_id, {}, config={wire.REFUSED: str(reason)})

    return answer


def test_over_a_grid_and_fewer_clients_than_must_be() -> None:
    parts = {i: torch.tensor([float(i), 2.0 * i]) for i in range(1, 4)}
    cohort = Cohort(FakeGrid({i: answering(str(i), y) for i, y in parts.items()}), 1.0, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    pooled = scale_of(torch.cat(list(parts.values())))
    assert ask_target_scale(cohort, TargetSums(1, 10.0), 3, 0.5) == pytest.approx(pooled)
    with pytest.raises(LetheError, match=r"^task\.scale-from: 3 clients are connected, analytics\.min-clie"):
        ask_target_scale(cohort, TargetSums(1, 10.0), 4, 0.5)


def test_a_client_refuses_a_smaller_cohort_than_it_asks_for() -> None:
    grid = FakeGrid({i: answering(str(i), torch.ones(2), least=4) for i in range(1, 4)})
    cohort = Cohort(grid, 1.0, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    with pytest.raises(LetheError, match=r"^task\.scale-from: no answer"):
        ask_target_scale(cohort, TargetSums(1, 10.0), 3, 0.5)
    assert any("3 clients take part, analytics.min-clients is 4" in f.reason for f in cohort.faults)
