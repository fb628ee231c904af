"""Messages of clients and to clients, with anything in the place of anything: named as a fault, or used.

A client may send what it likes: no answer of one may end the server's round or keep the others' updates out.
As many cases as in `tests.test_fuzzing`.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, strategies as st

from strategies.core import wire
from strategies.layers.compression.client import ClientLink, LostVersion
from strategies.layers.compression.settings import CompressionSettings
from strategies.layers.secagg.client import Refused
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.npy_files import arrays, headers, npy
from tests.strategies.compression.nodes import LAYOUT, Client, model
from tests.strategies.fakes import Answer, FakeGrid, adds, flat_record, node_answer, spoiled
from tests.strategies.secagg.world import MASKED, World, vectors
from tests.test_fuzzing import FUZZED

Spoil = Callable[[RecordDict], None]
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.sampled_from([0, 1, -1, 2**31])
TEXTS = st.text(max_size=8) | st.sampled_from(["a", "b", "1", "-1", "nan", "float32", "object"])
BYTES = st.binary(max_size=40) | st.sampled_from([bytes(16), bytes(32), bytes(33), bytes(64)])
CONFIG_VALUES = (
    st.booleans()
    | NUMBERS
    | TEXTS
    | BYTES
    | st.lists(st.integers(-3, 9), max_size=4)
    | st.lists(BYTES, max_size=4)
)
METRIC_VALUES = NUMBERS | st.lists(st.integers(-3, 9), max_size=4) | st.lists(st.floats(), max_size=4)
DTYPES = ["float32", "float64", "int64", "bool", "object", "", "f", "evil", "<U3", "complex64"]
SHAPES = st.sampled_from([(2,), (1,), (4,)]) | st.lists(st.integers(-2, 7) | st.just(2**62), max_size=3).map(
    tuple
)
ARRAYS = st.builds(
    Array,
    st.sampled_from(DTYPES),
    SHAPES,
    st.sampled_from(["numpy.ndarray", "numpy.ndarray", "", "pickle"]),
    st.binary(max_size=60) | arrays() | headers(),
) | st.builds(
    lambda shape, dtype: Array(np.full(shape, 1, dtype=dtype)),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.sampled_from(["float32", "float64", "int64", "bool", "complex64", "float16"]),
)
KEYS = ["x", wire.REFUSED, wire.NUM_EXAMPLES, wire.LABEL_COUNTS, wire.CLIENT_ID, wire.NUM_PARTITIONS]
KEYS += [wire.WITHHELD, wire.KEEP, wire.HIDDEN]


@st.composite
def spoils(draw: st.DrawFn) -> Spoil:
    """Draw what is done to a message's content: entries replaced, added or removed, records likewise."""
    what, where, which = draw(st.integers(0, 4)), draw(st.integers(0, 9)), draw(st.integers(0, 30))
    config, metric, array = draw(CONFIG_VALUES), draw(METRIC_VALUES), draw(ARRAYS)
    key = draw(
        st.sampled_from(["x", wire.REFUSED, wire.NUM_EXAMPLES, wire.CLIENT_ID, wire.WITHHELD, wire.KEEP])
    )

    def spoil(content: RecordDict) -> None:
        names = list(content)
        name = names[where % len(names)]
        record: Any = content[name]
        value = {ConfigRecord: config, MetricRecord: metric}.get(type(record), array)
        if what == 0:
            del content[name]
        elif what == 1:
            del content[
                name
            ]  # Flower warns of each record that is replaced, which takes longer than the case
            content[name] = ConfigRecord({key: config})
        elif what == 2 and len(record):
            del record[list(record)[which % len(record)]]
        elif what == 3:
            record[key] = value
        elif len(record):
            record[list(record)[which % len(record)]] = value

    return spoil


def trained(
    clients: dict[int, Answer], first: ArrayRecord, compression: CompressionSettings | None = None
) -> list[RoundResult]:
    """Train two rounds and return them."""
    cohort = Cohort(FakeGrid(clients), 60.0, 0.001)
    cohort.connect(1, 0.0)
    more = {} if compression is None else {"compression": compression}
    plan = TrainingPlan(StrategySettings(), SelectionSettings(), rounds=2, seed=0, **more)
    results: list[RoundResult] = []
    train(plan, cohort, Start(first), on_round=lambda result, strategy: results.append(result))
    return results


@pytest.mark.parametrize("kind", [wire.DESCRIBE, wire.TRAIN])
@FUZZED
@given(spoil=spoils())
def test_no_answer_of_a_client_keeps_another_out(kind: str, spoil: Spoil) -> None:
    """Neither when it says who it is nor when it has trained."""
    good, bad = node_answer("a", 1, adds(2.0)), node_answer("b", 3, adds(4.0))
    full = spoiled(bad, _say_all, wire.DESCRIBE)
    rounds = trained({1: good, 2: spoiled(full, spoil, kind)}, flat_record([0.0, 0.0]))
    assert all("a" in each.accepted for each in rounds)
    assert all(bool(torch.isfinite(wire.state_of(each.arrays)["w"]).all()) for each in rounds)


def _say_all(content: RecordDict) -> None:
    """Add what only some clients say of themselves."""
    content.config_records[wire.CONFIG].update({wire.NUM_PARTITIONS: 2, wire.KEEP: 0.5, wire.HIDDEN: False})


def _says_many(content: RecordDict) -> None:
    content.config_records[wire.CONFIG][wire.NUM_PARTITIONS] = "many"


def _has_half_an_example(content: RecordDict) -> None:
    content.metric_records[wire.METRICS][wire.LABEL_COUNTS] = [0.5, float("nan")]


def _has_all_examples(content: RecordDict) -> None:
    content.metric_records[wire.METRICS][wire.NUM_EXAMPLES] = 2**46


def _sends(array: Array) -> Spoil:
    def spoil(content: RecordDict) -> None:
        content[wire.ARRAYS] = ArrayRecord({"w": array})

    return spoil


@pytest.mark.parametrize(
    ("kind", "spoil", "is_used"),
    [
        (wire.DESCRIBE, _says_many, True),
        (wire.DESCRIBE, _has_half_an_example, True),
        (wire.DESCRIBE, _has_all_examples, False),
        (wire.TRAIN, _sends(Array("evil", (2,), "numpy.ndarray", bytes(8))), False),
        (wire.TRAIN, _sends(Array(np.ones(2, np.complex64))), False),
        (wire.TRAIN, _sends(Array("float32", (2,), "numpy.ndarray", npy(np.ones(3, np.float32)))), False),
        (wire.TRAIN, _sends(Array(np.array([1.0, 1e300]))), False),
    ],
)
def test_nonsense_ends_no_round(kind: str, spoil: Spoil, is_used: bool) -> None:
    """Numbers that are none, and arrays that are none of real numbers or of another shape than they say."""
    good, bad = node_answer("a", 1, adds(2.0)), node_answer("b", 3, adds(4.0))
    rounds = trained({1: good, 2: spoiled(bad, spoil, kind)}, flat_record([0.0, 0.0]))
    assert ["b" in each.accepted for each in rounds] == [is_used] * 2
    assert all("a" in each.accepted for each in rounds)


CODED = CompressionSettings(codec="top-k+int8", down_codec="top-k+int8", keep=0.1, down_keep=0.3)


@FUZZED
@given(spoil=spoils())
def test_no_compressed_update_keeps_another_out(spoil: Spoil) -> None:
    def client(name: str) -> Client:
        return Client(name, 3, lambda flat: 0.3 - flat, CODED)

    first = wire.record_of(model().state_dict())
    rounds = trained({1: client("a"), 2: spoiled(client("b"), spoil)}, first, CODED)
    assert all("a" in each.accepted for each in rounds)


@FUZZED
@given(spoil=spoils())
def test_a_client_reads_a_compressed_model_or_says_why_not(spoil: Spoil) -> None:
    """The message is the server's; whatever it is, the client gives one clear error."""
    told = ConfigRecord({wire.LINK: "x", wire.VERSION: 1})
    content = RecordDict({wire.ARRAYS: wire.record_of(model().state_dict()), wire.CONFIG: told})
    spoil(content)
    if ClientLink.wanted(content):
        with suppress(ValueError, LostVersion):
            ClientLink(CODED, content, RecordDict(), LAYOUT).receive()


STEPS = [wire.SECAGG_KEYS, wire.SECAGG_SHARES, wire.SECAGG_UNMASK, MASKED]


@pytest.mark.parametrize("step", STEPS)
@FUZZED
@given(spoil=spoils())
def test_no_answer_ends_a_secure_sum_in_anything_but_a_sum_or_none(step: str, spoil: Spoil) -> None:
    """Where there is one, it is that of the clients whose vectors came."""
    world = World(
        vectors(4), spoil=lambda kind, i, entries: _spoil(spoil, entries, (kind, i) == (step, "c1"))
    )
    with suppress(ValueError):  # Of a vector's message, which the strategy turns into a fault
        world.send()
    total = world.secure.close()
    if total is not None and set(world.secure.survivors) == set(world.sent):
        assert (total == world.expected()).all()


@pytest.mark.parametrize("step", STEPS)
@FUZZED
@given(spoil=spoils())
def test_a_client_of_a_secure_sum_answers_or_refuses(step: str, spoil: Spoil) -> None:
    """Whatever it is told."""
    world = World(vectors(4), tamper=lambda kind, i, told: _spoil(spoil, told, (kind, i) == (step, "c1")))
    with suppress(ValueError, Refused):
        world.run()


def _spoil(spoil: Spoil, entries: dict[str, Any], wanted: bool) -> None:
    if wanted:
        content = RecordDict({wire.CONFIG: ConfigRecord(dict(entries))})
        spoil(content)
        entries.clear()
        entries.update(content.config_records.get(wire.CONFIG, ConfigRecord()))


@FUZZED
@given(payload=st.binary(max_size=200), cut=st.floats(0, 1), place=st.floats(0, 1))
def test_a_ciphertext_is_added_or_refused(payload: bytes, cut: float, place: float) -> None:
    """Bytes of anybody, and those of a right one with some of them replaced."""
    ckks = pytest.importorskip("strategies.layers.encryption.ckks")
    pytest.importorskip("tenseal")
    right = _ciphertext()
    start = int(place * len(right))
    for given_bytes in (payload, right[: int(cut * len(right))], right[:start] + payload + right[start:]):
        with suppress(ValueError):
            ckks.EncryptedSum(3).add([given_bytes])


_KNOWN: list[bytes] = []


def _ciphertext() -> bytes:
    from strategies.layers.encryption.ckks import Secret, new_secret

    if not _KNOWN:
        _KNOWN.extend(Secret(new_secret()).encrypt(torch.tensor([1.0, -2.0, 0.5])))
    return _KNOWN[0]
