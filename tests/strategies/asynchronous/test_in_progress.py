"""The asynchronous loop: by hand, against rounds that wait, over interruptions, and with bad clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import Message
from hypothesis import given, settings as examples, strategies as st

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.layers.compression.settings import CompressionSettings
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.plan import Start
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.asynchronous.world import CLOCK, PARETO, drifting, fast_and_slow, run, settings
from tests.strategies.compression import nodes
from tests.strategies.fakes import Answer, FakeGrid, adds, flat_record, node_answer, raises, spoiled
from tests.strategies.update_logs import ONE

REAL = SelectionSettings()
ONE_EACH = settings("fedbuff", buffer_size=1)
FEDAVG = StrategySettings()


# By hand


def test_fedbuff_by_hand() -> None:
    """a arrives at 0.02, 0.04, 0.06 s and adds 2; b at 0.07 s, 3 steps late: (1 + 3)^−½ · 4 = 2."""
    done = run(FakeGrid(fast_and_slow()), ONE_EACH, 4)
    assert [wire.state_of(s.arrays)["w"].item() for s in done.steps] == [12.0, 14.0, 16.0, 18.0]
    assert done.accepted == [("a",), ("a",), ("a",), ("b",)]
    assert [s.metrics["staleness"] for s in done.steps] == [0.0, 0.0, 0.0, 3.0]
    assert [s.metrics["simulated-seconds"] for s in done.steps] == pytest.approx([0.02, 0.02, 0.02, 0.01])
    assert [s.selected for s in done.steps] == [("a", "b"), ("a",), ("a",), ("a",)]


def test_a_buffer_of_two_by_hand() -> None:
    """Of 2 + 7 examples: 10 + (2·2 + 7·4) / 9 · 0.5, in the time that b takes; nobody is late."""
    done = run(FakeGrid(fast_and_slow()), settings("fedbuff", buffer_size=2, server_learning_rate=0.5), 1)
    assert done.model.item() == pytest.approx(10 + 0.5 * 32 / 9)
    assert done.steps[0].metrics["simulated-seconds"] == pytest.approx(0.07)


def test_fedasync_by_hand() -> None:
    """With α = ½ a's models 12, 13, 14 make 11, 12, 13; b's 14 comes with ½·(1 + 3)^−½ of the way to it."""
    done = run(FakeGrid(fast_and_slow()), settings("fedasync", mixing=0.5), 4)
    assert [wire.state_of(s.arrays)["w"].item() for s in done.steps] == [11.0, 12.0, 13.0, 13.25]


def test_who_is_too_late_is_dropped_and_named() -> None:
    """b's update is 3 steps behind."""
    done = run(FakeGrid(fast_and_slow()), settings("fedbuff", buffer_size=1, max_staleness=2), 4)
    assert done.model.item() == 18.0
    assert done.faults == [("b", "round 4", "stale: 3 steps behind, strategy.max-staleness is 2")]
    assert done.steps[3].metrics["simulated-seconds"] == pytest.approx(0.02)


# Rounds that wait


@pytest.mark.parametrize("selection", [CLOCK, PARETO, REAL])
def test_a_buffer_of_all_is_fedavg_to_the_bit(selection: SelectionSettings) -> None:
    neutral = settings("fedbuff", buffer_size=6)
    plain = run(FakeGrid(drifting()), FEDAVG, 4, REAL)
    assert run(FakeGrid(drifting()), neutral, 4, selection).model.equal(plain.model)
    other = settings("fedbuff", buffer_size=6, server_learning_rate=0.5)
    assert not run(FakeGrid(drifting()), other, 4, selection).model.equal(plain.model)


@pytest.mark.parametrize(
    "strategy", [settings("fedasync", mixing=1.0), settings("fedbuff", buffer_size=1), ONE_EACH]
)
@pytest.mark.parametrize("selection", [CLOCK, REAL])
def test_one_client_is_fedavg_to_the_bit(strategy: StrategySettings, selection: SelectionSettings) -> None:
    plain = run(FakeGrid(drifting(1)), FEDAVG, 5, REAL)
    assert run(FakeGrid(drifting(1)), strategy, 5, selection).model.equal(plain.model)
    mixed = run(FakeGrid(drifting(1)), settings("fedasync", mixing=0.5), 5, selection)
    assert not mixed.model.equal(plain.model)


def test_fewer_places_than_clients_are_a_draw_per_step() -> None:
    """One place at a time is never late; and the first draw is that of the round with the same number."""
    one = settings("fedbuff", buffer_size=1, concurrency=1)
    done = run(FakeGrid(drifting()), one, 12, PARETO)
    assert all(step.metrics["staleness"] == 0 for step in done.steps)
    plain = run(FakeGrid(drifting()), FEDAVG, 12, SelectionSettings(fraction=1e-9))
    assert done.model.equal(plain.model)
    assert len(set(done.accepted)) > 2


# Order


@examples(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from(["fedbuff", "fedasync"]), st.integers(1, 4))
def test_with_a_clock_the_order_of_arrival_is_irrelevant(shuffle: int, name: str, places: int) -> None:
    strategy = settings(name, concurrency=places + 1)
    straight = run(FakeGrid(drifting()), strategy, 6, PARETO)
    shuffled = run(FakeGrid(drifting(), shuffle), strategy, 6, PARETO)
    assert shuffled.model.equal(straight.model)
    assert [s.metrics for s in shuffled.steps] == [s.metrics for s in straight.steps]
    assert shuffled.accepted == straight.accepted


def test_the_seed_and_nothing_else_decides() -> None:
    first = run(FakeGrid(drifting()), ONE_EACH, 8, PARETO).model
    torch.rand(1)
    assert run(FakeGrid(drifting()), ONE_EACH, 8, PARETO).model.equal(first)
    slower = SelectionSettings(speeds="pareto:0.4")
    assert not run(FakeGrid(drifting()), ONE_EACH, 8, slower).model.equal(first)


@pytest.mark.parametrize("method", ["power-of-choice", "oort", "budgeted"])
def test_idle_clients_are_chosen_as_the_section_selection_says(method: str) -> None:
    """With two places, others take part than uniformly; a budget of 2 is kept."""
    strategy = settings("fedbuff", buffer_size=1, concurrency=2)
    chosen = SelectionSettings.model_validate({"speeds": "equal", "method": method, "budget": 2})
    steps = run(FakeGrid(drifting()), strategy, 14, chosen).steps
    asked = [i for step in steps for i in step.selected]
    uniform = run(FakeGrid(drifting()), strategy, 14, CLOCK).steps
    assert asked != [i for step in uniform for i in step.selected]
    if method == "budgeted":
        assert {asked.count(str(i)) for i in range(1, 7)} == {2}
        assert steps[-1].faults[0].reason.startswith("no usable reply")


# Interruptions


@pytest.mark.parametrize("name", ["fedbuff", "fedasync"])
@pytest.mark.parametrize("places", [0, 3])
def test_an_interrupted_run_goes_on_to_the_same_bits(name: str, places: int) -> None:
    """After every step, with clients at work that are asked again."""
    strategy = settings(name, concurrency=places, buffer_size=2)
    whole = run(FakeGrid(drifting()), strategy, 8, PARETO)
    assert max(step.metrics["staleness"] for step in whole.steps) > 1
    for done in range(1, 8):
        rest = run(FakeGrid(drifting()), strategy, 8, PARETO, start=whole.states[done - 1])
        assert rest.model.equal(whole.model)
        assert rest.accepted == whole.accepted[done:]
        assert [s.metrics for s in rest.steps] == [s.metrics for s in whole.steps[done:]]


def test_without_what_was_under_way_it_would_not() -> None:
    """The test above would notice."""
    whole = run(FakeGrid(drifting()), ONE_EACH, 8, PARETO)
    bare = Start(whole.states[3].arrays, 4)
    assert not run(FakeGrid(drifting()), ONE_EACH, 8, PARETO, start=bare).model.equal(whole.model)


def test_a_client_that_is_gone_after_an_interruption_is_a_fault() -> None:
    whole = run(FakeGrid(drifting()), ONE_EACH, 3, PARETO)
    left = {node: answer for node, answer in drifting().items() if node != 6}
    rest = run(FakeGrid(left), ONE_EACH, 6, PARETO, start=whole.states[0])
    assert ("6", "round 2", "not connected any more") in rest.faults
    assert len(rest.steps) == 5


# Bad clients


def never(answer: Answer) -> Answer:
    return lambda message: None if message.metadata.message_type == wire.TRAIN else answer(message)


def failing(answer: Answer) -> Answer:
    return lambda message: raises(message) if message.metadata.message_type == wire.TRAIN else answer(message)


def not_finite(answer: Answer) -> Answer:
    return spoiled(answer, lambda c: c.__setitem__(wire.ARRAYS, flat_record([float("nan")])))


@pytest.mark.parametrize("selection", [CLOCK, REAL])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (never, "no answer in 0.02 s"),
        (failing, "error: ValueError: no data"),
        (not_finite, "NaN in the parameters"),
    ],
)
def test_a_bad_client_is_named_and_the_others_go_on(
    selection: SelectionSettings, spoil: type[Answer], reason: str
) -> None:
    """c is asked once per version of the model; the step waits for it, and is made without it."""
    grid = FakeGrid(fast_and_slow(c=spoil(node_answer("c", 1, adds(9.0)))))
    done = run(grid, settings("fedbuff", buffer_size=3), 3, selection, timeout=0.02)
    assert len(done.steps) == 3
    assert {i for step in done.accepted for i in step} <= {"a", "b"}
    assert {(i, text) for i, _, text in done.faults} == {("c", reason)}


@pytest.mark.parametrize("selection", [CLOCK, REAL])
def test_where_nobody_can_be_used_the_model_is_kept(selection: SelectionSettings) -> None:
    """A step ends when nobody is left to wait for."""
    grid = FakeGrid({node: failing(answer) for node, answer in fast_and_slow().items()})
    done = run(grid, ONE_EACH, 2, selection)
    assert done.model.item() == 10.0
    kept = [scope for i, scope, reason in done.faults if reason.startswith("no usable reply")]
    assert kept == ["round 1", "round 2"]


def test_a_step_is_made_of_those_who_can_answer() -> None:
    """A buffer of three, of which one fails: 10 + (2·2 + 7·4) / 9."""
    grid = FakeGrid(fast_and_slow(c=failing(node_answer("c", 5, adds(1.0)))))
    done = run(grid, settings("fedbuff", buffer_size=3), 1)
    assert done.model.item() == pytest.approx(10 + 32 / 9)


def test_a_liar_cannot_make_itself_fresh() -> None:
    """What a client says of its staleness is overwritten."""
    liar = spoiled(
        node_answer("b", 7, adds(4.0)), lambda c: c[wire.METRICS].__setitem__(wire.STALENESS, -0.9)
    )
    done = run(FakeGrid(fast_and_slow() | {2: liar}), ONE_EACH, 4)
    assert done.model.item() == 18.0


def test_clients_join_and_leave() -> None:
    grid = FakeGrid(fast_and_slow())

    def change(result: object) -> None:
        grid.answers.pop(1, None)
        grid.answers[9] = node_answer("z", 1, adds(1.0))

    done = run(grid, ONE_EACH, 10, on_round=change)
    assert done.accepted[0] == ("a",)
    assert {i for step in done.accepted[2:] for i in step} == {"b", "z"}


def test_who_is_still_at_work_at_the_end_is_given_up() -> None:
    grid = FakeGrid(fast_and_slow(c=never(node_answer("c", 100, adds(0.0)))))
    run(grid, ONE_EACH, 2)
    assert grid.cancelled


def test_too_few_clients_end_the_run() -> None:
    with pytest.raises(LetheError, match=r"2 clients are connected, selection\.min-clients is 3"):
        run(FakeGrid(fast_and_slow()), ONE_EACH, 1, SelectionSettings(speeds="equal", min_clients=3))


# The log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[UpdateLog]:
    with UpdateLog.create(tmp_path / "log", ONE) as log:
        yield log


@pytest.mark.parametrize("name", ["fedbuff", "fedasync"])
def test_the_log_holds_the_weights_that_were_used(log: UpdateLog, name: str) -> None:
    """Initial model and Σ w·δ are the final model; b's weight is 1 · (1 + 3)^−½, or α times that."""
    strategy = settings(name, buffer_size=1, mixing=0.5)
    done = run(FakeGrid(fast_and_slow()), strategy, 6, layer=lambda inner: LoggedStrategy(inner, log))
    assert log.averaging_rounds() == log.rounds() == [1, 2, 3, 4, 5, 6]
    rate = 0.5 if name == "fedasync" else 1.0
    assert [e.weight for e in log.entries(4)] == pytest.approx([0.5 * rate])
    moved = sum(e.weight * log.delta(e.round, e.client_id).double() for e in log.entries())
    assert (10.0 + moved).float().equal(done.model)


@pytest.mark.parametrize("retention", ["full", "sum"])
def test_a_late_client_is_subtracted_exactly(tmp_path: Path, retention: str) -> None:
    """What is left without b is what the others added, whichever way the log keeps it."""
    strategy = settings("fedbuff", buffer_size=2)
    with (
        UpdateLog.create(tmp_path / "full", ONE) as full,
        UpdateLog.create(tmp_path / "kept", ONE, retention) as kept,
    ):
        done = run(
            FakeGrid(drifting()),
            strategy,
            7,
            PARETO,
            layer=lambda inner: LoggedStrategy(LoggedStrategy(inner, full), kept),
        )
        others = [e for e in full.entries() if e.client_id != "2"]
        expected = 10.0 + sum(e.weight * full.delta(e.round, e.client_id).double() for e in others)
        left = done.model.double() - kept.weighted_sum("2").double()
        assert any(e.weight < 1 for e in others)
        torch.testing.assert_close(left, expected, rtol=0, atol=2e-6)


# Compression


CHAIN = CompressionSettings(codec="top-k+int8", down_codec="top-k+int8", keep=0.2, down_keep=0.4)


def compressed(
    codec: CompressionSettings,
    rounds: int,
    start: Start | None = None,
    clients: list[nodes.Client] | None = None,
) -> tuple[torch.Tensor, list[object]]:
    listed = clients or [
        nodes.Client(str(i), 3 * i, lambda flat, i=i: 0.3 * (i - flat), codec) for i in (1, 2, 3, 4)
    ]
    return nodes.run(
        listed, codec, rounds, strategy=settings("fedbuff", buffer_size=2), selection=PARETO, start=start
    )


def test_a_neutral_codec_is_no_codec_to_the_bit() -> None:
    plain, _ = compressed(CompressionSettings(), 6)
    same, _ = compressed(CompressionSettings(codec="identity"), 6)
    assert same.equal(plain)
    assert not compressed(CHAIN, 6)[0].equal(plain)


def test_compressed_and_late_clients_reach_what_they_would() -> None:
    """Four clients that pull towards 2, over copies of the model of which some are old."""
    clients = [nodes.Client(str(i), 3 * i, lambda flat: 0.2 * (2.0 - flat), CHAIN) for i in (1, 2, 3, 4)]
    near = compressed(CHAIN, 150, clients=clients)[0]
    assert float((near - 2.0).abs().max()) < 0.1


def test_a_client_that_has_nothing_new_to_say_says_so() -> None:
    """Event-triggered: once at its goal, a client's small reply is counted, and no update of the buffer."""
    codec = CompressionSettings(codec="identity", upload_threshold=1e-3)
    clients = [nodes.Client(str(i), 3 * i, lambda flat: 0.3 * (2.0 - flat), codec) for i in (1, 2)]
    near, steps = nodes.run(clients, codec, 40, strategy=settings("fedbuff", buffer_size=1), selection=CLOCK)
    assert float((near - 2.0).abs().max()) < 0.01
    quiet = steps[-1]
    assert quiet.metrics[wire.WITHHELD] == 2
    assert quiet.accepted == ()
    assert quiet.traffic.bytes_up < 200
    assert not any(step.faults for step in steps)


def test_a_message_is_told_its_step() -> None:
    """So that a client draws as it would in the round of that number."""
    rounds: list[int] = []

    def noting(old: torch.Tensor, message: Message) -> torch.Tensor:
        rounds.append(int(str(message.content.config_records[wire.CONFIG][wire.SERVER_ROUND])))
        return old

    run(FakeGrid({1: node_answer("a", 2, noting)}), ONE_EACH, 3)
    assert rounds == [1, 2, 3]
