"""strategies/analytics/scaling.py: the scale is scikit-learn's over the pooled rows."""

import math

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from hypothesis import given, settings, strategies as st
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from strategies.analytics.asking import Sharing
from strategies.analytics.scaling import ASK_SCALE, FixedPoint, answer_scale, ask_scale
from strategies.analytics.statistics import Integers
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import TensorExamples
from strategies.core.secret_random import RandomStream
from strategies.layers.secagg.client import Refused, SecureClient
from strategies.server.cohort import Cohort
from tests.strategies.fakes import Answer, FakeGrid


def stream(number: int = 0) -> RandomStream:
    """Return what a client blinds with."""
    return RandomStream.seeded(number, "scale")


def summed(point: FixedPoint, tables: list[Tensor]) -> Integers:
    """Return the sum of the clients' vectors, modulo 2^64 as the masks leave it."""
    vectors = [point.vector(x, stream(i)).view(np.uint64) for i, x in enumerate(tables)]
    return np.sum(vectors, axis=0, dtype=np.uint64).view(np.int64)


def test_by_hand() -> None:
    """Rows 1 and 3 with one client, 5 with another: mean 3, squared deviation 8 / 3; 7 is constant."""
    tables = [torch.tensor([[1.0, 7.0], [3.0, 7.0]]), torch.tensor([[5.0, 7.0]])]
    point = FixedPoint(2, 10.0)
    means, deviations = point.read(summed(point, tables))
    assert means == [3.0, 7.0]
    assert deviations == [pytest.approx(math.sqrt(8 / 3), rel=1e-12), 1.0]


COLUMN = st.tuples(st.floats(-1e5, 1e5), st.sampled_from([0.0, 1e-2, 1.0, 1e3]))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(COLUMN, min_size=1, max_size=4),
    st.lists(st.integers(0, 30), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_as_scikit_learn(columns: list[tuple[float, float]], sizes: list[int], seed: int) -> None:
    """Columns of any centre and spread, also small ones far from 0, over clients that may have no row."""
    sizes = [*sizes, 2]
    centre, spread = (torch.tensor(values) for values in zip(*columns, strict=True))
    generator = torch.Generator().manual_seed(seed)
    tables = [centre + spread * torch.randn(n, len(columns), generator=generator) for n in sizes]
    point = FixedPoint(len(tables), 1e6)
    means, deviations = point.read(summed(point, tables))
    pooled = torch.cat(tables).double()
    known = StandardScaler().fit(pooled.numpy())
    assert means == pytest.approx(known.mean_.tolist(), abs=1e-6, rel=1e-12)
    # A deviation that float32 cannot hold beside its mean may be taken for 0, or be
    for found, wanted, mean in zip(deviations, known.scale_.tolist(), means, strict=True):
        noise = 1e-7 * abs(mean)
        assert found == pytest.approx(wanted, rel=1e-6, abs=noise) or (found == 1.0 and wanted <= noise)


def test_a_small_deviation_beside_a_large_one() -> None:
    """As in the breast cancer table: a column of thousands, and one with a deviation of 0.003."""
    x = torch.stack([torch.linspace(0, 4000, 100), 0.06 + 0.003 * torch.sin(torch.arange(100.0))], dim=1)
    point = FixedPoint(4, 1e6)
    _, deviations = point.read(summed(point, list(x.chunk(4))))
    known = StandardScaler().fit(x.double().numpy())
    assert deviations == pytest.approx(known.scale_.tolist(), rel=1e-9)


def test_the_total_is_the_same_whatever_blinds_it() -> None:
    """The entries differ from draw to draw, in all their higher digits; what they add up to does not."""
    point, x = FixedPoint(4, 100.0), torch.tensor([[-2.5], [4.0]])
    first, second = point.vector(x, stream(1)), point.vector(x, stream(2))
    assert point.read(first) == point.read(second)
    assert (first[1:] != second[1:]).all()
    drawn = np.array([point.vector(x, stream(i)) for i in range(200)])
    assert len(set(drawn[:, 1] % (1 << 32))) == 1
    carried = drawn[:, 1] >> 32
    assert 0 <= carried.min() < carried.max() < 1 << point.blinding
    assert carried.mean() == pytest.approx((1 << point.blinding) / 2, rel=0.15)


@pytest.mark.parametrize("clients", [2, 3, 1000])
@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e9])
def test_extreme_rows_fit(clients: int, limit: float) -> None:
    """As many rows as are allowed, at the end of the range, overflow no entry of the sum."""
    point = FixedPoint(clients, limit)
    one = point.vector(torch.full((1, 1), limit, dtype=torch.float64), stream()).tolist()
    most = sum(entry << (32 * i) for i, entry in enumerate(one[4:])) * clients * (1 << 24)
    assert 1 << 120 < most <= 1 << 123
    assert clients * ((1 << 32) + (1 << (32 + point.blinding))) < 1 << 63


def test_what_a_client_does_not_send() -> None:
    """Values beyond the range, and those that are no numbers."""
    point = FixedPoint(3, 10.0)
    for wrong in (10.5, -11.0, math.inf, math.nan):
        with pytest.raises(Refused, match=r"^it holds a value beyond ±10; data\.scale-range says how large"):
            point.vector(torch.tensor([[1.0, wrong]]), stream())


def test_what_the_server_does_not_use() -> None:
    """Sums that no honest clients could give."""
    point = FixedPoint(3, 10.0)
    honest = point.vector(torch.tensor([[1.0], [2.0]]), stream())
    for entry, value, said in (
        (0, 0, "tell of 0 examples"),
        (0, -5, "tell of -5 examples"),
        (3, 1 << 60, "none of"),
    ):
        forged = honest.copy()
        forged[entry] = value
        with pytest.raises(LetheError, match=said):
            point.read(forged)
    negative = honest.copy()
    negative[4:7] = 0
    with pytest.raises(LetheError, match="none of values in range"):
        point.read(negative)


def answering(client_id: str, data: TensorExamples, least: int = 3) -> Answer:
    """Return a client that answers the steps of a secure sum."""
    state = RecordDict()

    def answer(message: Message) -> Message:
        kind, config = message.metadata.message_type, message.content.config_records[wire.CONFIG]
        if kind == wire.DESCRIBE:
            return wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: len(data)})
        half = SecureClient(config, state, 0.5)
        try:
            if kind == ASK_SCALE:
                arrays, entries = answer_scale(half, least, 10.0, lambda: data)
                return wire.reply_to(message, client_id, {}, arrays, entries)
            steps = {wire.SECAGG_KEYS: half.keys, wire.SECAGG_SHARES: half.shares}
            return wire.reply_to(message, client_id, {}, config=steps.get(kind, half.unmask)())
        except Refused as reason:
            return wire.reply_to(message, client_id, {}, config={wire.REFUSED: str(reason)})

    return answer


def cohort_of(*clients: Answer) -> Cohort:
    """Return connected clients 1, 2, …"""
    cohort = Cohort(FakeGrid(dict(enumerate(clients, start=1))), timeout=5.0, poll_seconds=0.001)
    cohort.connect(len(clients), 0.0)
    return cohort


def row(value: float) -> TensorExamples:
    """Return one example with one column."""
    return TensorExamples(torch.tensor([[value]]), torch.tensor([0]))


def test_over_a_grid() -> None:
    """Clients with 1, 3 and 5, and one beyond the range, which is named: mean 3, deviation √(8/3)."""
    cohort = cohort_of(*(answering(str(i), row(v)) for i, v in enumerate((1.0, 3.0, 5.0, 11.0), start=1)))
    scale = ask_scale(cohort, 1, 10.0, 3, Sharing(0.5, "data.scale"))
    assert scale == (3.0, pytest.approx(math.sqrt(8 / 3), rel=1e-12))
    assert [(f.client_id, f.scope) for f in cohort.faults] == [("4", "data.scale")]
    assert "beyond ±10" in cohort.faults[0].reason


def test_too_small_a_cohort_is_refused_by_both_sides() -> None:
    """The server asks nobody; a client that knows of a larger minimum sends nothing; nor does an image."""
    two = cohort_of(*(answering(str(i), row(1.0)) for i in (1, 2)))
    with pytest.raises(
        LetheError, match=r"^data\.scale: 2 clients are connected, analytics\.min-clients is 3$"
    ):
        ask_scale(two, 1, 10.0, 3, Sharing(0.5, "data.scale"))
    with pytest.raises(LetheError, match=r"^data\.scale: no answer"):
        ask_scale(two, 1, 10.0, 2, Sharing(0.5, "data.scale"))
    assert "2 clients take part, analytics.min-clients is 3" in two.faults[0].reason
    image = TensorExamples(torch.zeros(1, 1, 2, 2), torch.tensor([0]))
    cohort = cohort_of(*(answering(str(i), image) for i in (1, 2, 3)))
    with pytest.raises(LetheError, match="no answer"):
        ask_scale(cohort, 4, 10.0, 3, Sharing(0.5, "data.scale"))
