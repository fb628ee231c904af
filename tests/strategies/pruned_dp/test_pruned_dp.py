"""Gradient-pruned aggregation: blocks down and up, and the mean over those who had an entry."""

import re
from collections.abc import Callable

import pytest
import torch
from flwr.app import Message
from flwr.serverapp.strategy import Strategy
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from strategies.algorithm import Holdings
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from strategies.fedavg import FedAvg
from strategies.layers.privacy.settings import PrivacySettings
from strategies.models.fisher import fisher_scores
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import block_index, pack_kept, subnetwork, unpack_kept
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.pruned_dp.pruned_dp import Pruning
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import AddedRecords
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, raises

PRUNED = StrategySettings(name="pruned-dp", score="random", refresh=2)


Step = Callable[[Tensor], Tensor]
CLIENTS = st.tuples(st.integers(1, 50), st.floats(-2, 2, width=32), st.sampled_from([0.2, 0.5, 1.0]))


def small_model() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2))
    generator = torch_generator(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


HELD = Holdings(small_model, 2)


LAYOUT = wire.Layout.of(small_model().state_dict())
GROUPS = hidden_groups(small_model())


def start_flat() -> Tensor:
    return LAYOUT.flatten(small_model().state_dict())


def client(
    client_id: str, num_examples: int, step: Callable[[Tensor], Tensor], keep: float | None = None
) -> Answer:
    """Return a client that changes the flat block it is sent, in a run in which it adds no noise."""

    def answer(message: Message) -> Message:
        if message.metadata.message_type == wire.DESCRIBE:
            config = {} if keep is None else {wire.KEEP: keep}
            return wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: num_examples}, config=config)
        record = message.content.array_records[wire.ARRAYS]
        layout = wire.layout_of(record)
        flat = wire.flat_of(record, layout)
        metrics = {wire.NUM_EXAMPLES: num_examples}
        return wire.reply_to(message, client_id, metrics, wire.FlatRecord(flat + step(flat), layout))

    return answer


def run(
    nodes: dict[int, Answer],
    strategy: StrategySettings = PRUNED,
    rounds: int = 1,
    privacy: PrivacySettings | None = None,
    shuffle: int | None = None,
    start: Start | None = None,
    build: Callable[[], Strategy] | None = None,
) -> tuple[Tensor, list[RoundResult], FakeGrid]:
    grid = FakeGrid(nodes, shuffle)
    cohort = Cohort(grid, 2.0, 0.001)
    cohort.connect(len(nodes))
    plan = TrainingPlan(
        strategy, SelectionSettings(), rounds, 0, privacy=privacy or PrivacySettings(), holdings=HELD
    )
    results: list[RoundResult] = []
    begin = start or Start(wire.FlatRecord(start_flat(), LAYOUT))
    arrays = train(plan, cohort, begin, build=build, on_round=lambda result, _: results.append(result))
    return wire.flat_of(arrays, LAYOUT), results, grid


def adding(value: float) -> Callable[[Tensor], Tensor]:
    return lambda flat: torch.full_like(flat, value)


def slow_mean(parts: list[tuple[list[int], list[float], int]], flat: Tensor) -> list[float]:
    """Return the new model entry by entry: old + Σ n δ / Σ n over the clients that had it."""
    new = []
    for entry, old in enumerate(flat.tolist()):
        had = [(delta[index.index(entry)], n) for index, delta, n in parts if entry in index]
        new.append(old + sum(d * n for d, n in had) / sum(n for _, n in had) if had else old)
    return new


@settings(max_examples=15, deadline=None)
@given(st.lists(CLIENTS, min_size=1, max_size=4))
def test_it_equals_a_slow_mean_over_those_who_had_an_entry(cohort: list[tuple[int, float, float]]) -> None:
    nodes = {i: client(str(i), n, adding(v), keep) for i, (n, v, keep) in enumerate(cohort, start=1)}
    flat, results, _ = run(nodes)
    parts = []
    for i, (n, value, _) in enumerate(cohort, start=1):
        kept = unpack_kept(GROUPS, bytes.fromhex(results[0].neurons[str(i)]))
        index = block_index(LAYOUT, GROUPS, kept)[0].tolist()
        parts.append((index, [value] * len(index), n))
    torch.testing.assert_close(flat, torch.tensor(slow_mean(parts, start_flat())), rtol=1e-5, atol=1e-5)


def test_a_small_client_alone_with_an_entry_moves_it_whole() -> None:
    """1 example beside 4,000 that lack the entry: 4001/1 times its change of 2 is not too large to count."""
    nodes = {1: client("1", 1, adding(2.0), 1.0), 2: client("2", 4000, adding(0.5), 0.3)}
    flat, results, _ = run(nodes)
    index = block_index(LAYOUT, GROUPS, unpack_kept(GROUPS, bytes.fromhex(results[0].neurons["2"])))[0]
    expected = start_flat() + 2.0
    expected[index] = start_flat()[index] + (2.0 + 4000 * 0.5) / 4001
    assert results[0].accepted == ("1", "2")
    torch.testing.assert_close(flat, expected, rtol=1e-5, atol=1e-5)


def test_with_everything_kept_it_is_federated_averaging_to_the_bit() -> None:
    nodes = {1: client("1", 3, lambda f: 0.3 * f), 2: client("2", 7, torch.sin)}
    whole = PRUNED.model_copy(update={"keep": 1.0})
    pruned, _, _ = run(nodes, whole, rounds=3)
    plain, _, _ = run(nodes, StrategySettings(), rounds=3)
    assert pruned.equal(plain)
    assert not run(nodes, PRUNED, rounds=3)[0].equal(plain)


def test_the_order_of_arrival_does_not_change_a_bit() -> None:
    nodes = {i: client(str(i), 3 * i, lambda f, i=i: f / (i + 2)) for i in (1, 2, 3)}
    assert run(nodes, shuffle=1)[0].equal(run(nodes, shuffle=2)[0])


def test_only_blocks_travel_and_every_client_has_its_own_size() -> None:
    """keep 1/3 for 2 (its node says), 1/6 for 3 (the run says): 2 and 1 of 6 neurons of 5 entries."""
    settings = PRUNED.model_copy(update={"keeps": "3=0.16"})
    keeps = {1: None, 2: 1 / 3, 3: 0.9}
    nodes = {i: client(str(i), 1, adding(1.0), keep) for i, keep in keeps.items()}
    _, results, grid = run(nodes, settings)
    sent = {m.metadata.dst_node_id: m for m in grid.sent if m.metadata.message_type == wire.TRAIN}
    sizes = {i: wire.layout_of(m.content.array_records[wire.ARRAYS]).size for i, m in sent.items()}
    assert sizes == {1: 3 * 5 + 2, 2: 2 * 5 + 2, 3: 1 * 5 + 2}
    blocks = 4 * sum(sizes.values())
    assert blocks < results[0].traffic.bytes_up < blocks + 300


def test_a_lost_client_only_leaves_its_entries_to_others() -> None:
    lost = client("2", 5, adding(9.0))

    def failing(message: Message) -> Message | None:
        return raises(message) if message.metadata.message_type == wire.TRAIN else lost(message)

    nodes = {1: client("1", 5, adding(1.0)), 2: failing}
    flat, results, _ = run(nodes)
    kept = unpack_kept(GROUPS, bytes.fromhex(results[0].neurons["1"]))
    moved = torch.zeros(LAYOUT.size)
    moved[block_index(LAYOUT, GROUPS, kept)[0]] = 1.0
    torch.testing.assert_close(flat - start_flat(), moved)


def test_a_block_of_another_shape_is_rejected() -> None:
    def liar(message: Message) -> Message | None:
        reply = client("1", 5, adding(1.0))(message)
        if message.metadata.message_type == wire.TRAIN and reply is not None:
            reply.content[wire.ARRAYS] = wire.FlatRecord(start_flat(), LAYOUT)
        return reply

    flat, results, _ = run({1: liar, 2: client("2", 5, adding(0.0))})
    assert [fault.client_id for fault in results[0].faults] == ["1"]
    assert flat.equal(start_flat())


def test_neurons_are_selected_anew_every_other_round() -> None:
    _, results, _ = run({1: client("1", 1, adding(0.1))}, rounds=4)
    chosen = [result.neurons["1"] for result in results]
    assert chosen[0] == chosen[1] != chosen[2] == chosen[3]


def test_a_run_goes_on_with_the_neurons_it_had() -> None:
    """Refresh every third round, by magnitude: after round 1, round 2 has the selection of round 1."""
    settings = PRUNED.model_copy(update={"score": "magnitude", "refresh": 3})
    nodes = {1: client("1", 1, lambda f: -0.9 * f + 0.3)}
    whole, results, _ = run(nodes, settings, rounds=4)
    first = results[0]
    resumed, _, _ = run(nodes, settings, rounds=4, start=Start(first.arrays, 1, neurons=first.neurons))
    assert resumed.equal(whole)
    anew, _, _ = run(nodes, settings, rounds=4, start=Start(first.arrays, 1))
    assert not anew.equal(whole)


@pytest.mark.parametrize("score", ["ordered", "magnitude", "fisher"])
def test_selection_by_score(score: str) -> None:
    """Neuron 5 has the largest weights; the public data light up neurons 3 and 5 only."""
    model = small_model()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.1, 0], [0.2, 0], [0.3, 0], [0, 1], [0.4, 0], [0, 2]]))  # type: ignore[operator, union-attr]
        model[0].bias.copy_(torch.tensor([-1.0, -1, -1, 0, -1, 0]))  # type: ignore[operator, union-attr]
    public = TensorExamples(torch.tensor([[0.5, 1.0]]), torch.tensor([0]))
    pruning = Pruning(PRUNED.model_copy(update={"score": score, "keep": 2 / 6}), model, 0, public)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    expected = {"ordered": (0, 1), "magnitude": (4, 5), "fisher": (3, 5)}[score]
    assert pruning.kept("1", 2 / 6, 1, pruning.scores(state)) == (expected,)


def test_the_released_model_scores_by_how_far_it_moved() -> None:
    settings = PRUNED.model_copy(update={"score": "fisher", "score_source": "global-model"})
    model = small_model()
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    state["0.weight"][4] += 3.0
    pruning = Pruning(settings, model, 0)
    assert pruning.kept("1", 1 / 6, 1, pruning.scores(state)) == ((4,),)


def test_fisher_scores_by_hand() -> None:
    """Two logits from one weight each, x = 1, both 0: p = 1/2, gradients ∓1/2, squared 1/4.

    An example whose label is unknown counts by the likeliest class, here the first.
    """
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    scores = fisher_scores(model, TensorExamples(torch.ones(2, 1), torch.tensor([1, -1])))
    assert scores["weight"].flatten().tolist() == [0.25, 0.25]


def test_public_scores_need_public_data() -> None:
    with pytest.raises(LetheError, match="'public' without public data"):
        Pruning(StrategySettings(name="pruned-dp"), small_model(), 0).scores({})


def test_central_noise_reaches_only_entries_that_were_asked_for() -> None:
    """One client with 3 of 6 neurons: its entries move by the clipped update, the others not at all."""
    exact = PrivacySettings(unit="client-central", noise_multiplier=0.0, clip_norm=100.0, randomness="seeded")
    nodes = {1: client("1", 5, adding(1.0)), 2: client("2", 50, adding(2.0))}
    flat, results, _ = run(nodes, privacy=exact)
    parts = []
    for i, value in ((1, 1.0), (2, 2.0)):
        kept = unpack_kept(GROUPS, bytes.fromhex(results[0].neurons[str(i)]))
        index = block_index(LAYOUT, GROUPS, kept)[0].tolist()
        parts.append((index, [value] * len(index), 1))
    torch.testing.assert_close(flat, torch.tensor(slow_mean(parts, start_flat())), rtol=1e-5, atol=1e-5)
    noisy, results, _ = run({1: nodes[1]}, privacy=exact.model_copy(update={"noise_multiplier": 1.0}))
    kept = unpack_kept(GROUPS, bytes.fromhex(results[0].neurons["1"]))
    index, _ = block_index(LAYOUT, GROUPS, kept)
    assert set(torch.nonzero(noisy != start_flat()).flatten().tolist()) == set(index.tolist())


def test_a_subnetwork_is_what_the_client_builds_from_the_message() -> None:
    _, results, grid = run({1: client("1", 1, adding(0.0))})
    message = next(m for m in grid.sent if m.metadata.message_type == wire.TRAIN)
    packed = message.content.config_records[wire.CONFIG][wire.POSITIONS]
    assert isinstance(packed, bytes)
    small = subnetwork(small_model(), GROUPS, unpack_kept(GROUPS, packed))
    record = message.content.array_records[wire.ARRAYS]
    assert wire.Layout.of(small.state_dict()) == wire.layout_of(record)
    assert packed.hex() == results[0].neurons["1"]


def test_a_further_record_is_cut_as_the_model_is() -> None:
    """Another model, twice the first, arrives as twice the client's block."""
    twice = wire.FlatRecord(2 * start_flat(), LAYOUT)
    _, _, grid = run(
        {1: client("1", 1, adding(0.0)), 2: client("2", 1, adding(0.0), 1 / 3)},
        build=lambda: AddedRecords(FedAvg(), {"teacher": twice}),
    )
    for message in (m for m in grid.sent if m.metadata.message_type == wire.TRAIN):
        block, teacher = (message.content.array_records[name] for name in (wire.ARRAYS, "teacher"))
        layout = wire.layout_of(block)
        assert layout.size < LAYOUT.size
        assert wire.flat_of(teacher, layout).equal(2 * wire.flat_of(block, layout))


PRIVATE = PRUNED.model_copy(update={"score": "fisher", "score_source": "private", "score_noise": 5.0})


def choosing(
    client_id: str,
    kept: tuple[int, ...],
    value: float,
    change: Callable[[Message], None] = lambda reply: None,
) -> Answer:
    """Return a client that keeps these neurons when it is to choose, and adds a constant to its block."""
    plain = client(client_id, 5, adding(value))

    def answer(message: Message) -> Message | None:
        told = message.content.config_records[wire.CONFIG]
        if message.metadata.message_type != wire.TRAIN or wire.KEEP not in told:
            return plain(message)
        flat = wire.flat_of(message.content.array_records[wire.ARRAYS], LAYOUT)
        index, small = block_index(LAYOUT, GROUPS, (kept,))
        record = wire.FlatRecord(flat[index] + value, small)
        positions = {wire.POSITIONS: pack_kept(GROUPS, (kept,))}
        reply = wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: 5}, record, config=positions)
        change(reply)
        return reply

    return answer


def test_clients_choose_once_in_a_refresh_and_only_then_the_whole_model_travels() -> None:
    """Clients keep (0, 1, 2) and (2, 3, 4) and add 1 and 3: where both are 2, by the mean; twice."""
    nodes = {1: choosing("1", (0, 1, 2), 1.0), 2: choosing("2", (2, 3, 4), 3.0)}
    flat, results, grid = run(nodes, PRIVATE, rounds=3)
    parts = [
        (block_index(LAYOUT, GROUPS, (kept,))[0].tolist(), [value] * (3 * 5 + 2), 5)
        for kept, value in (((0, 1, 2), 1.0), ((2, 3, 4), 3.0))
    ]
    expected = start_flat()
    for _ in range(3):
        expected = torch.tensor(slow_mean(parts, expected))
    torch.testing.assert_close(flat, expected, rtol=1e-5, atol=1e-5)
    sent = [m.content for m in grid.sent if m.metadata.message_type == wire.TRAIN]
    sizes = [wire.layout_of(content.array_records[wire.ARRAYS]).size for content in sent]
    assert sizes == [LAYOUT.size] * 2 + [17] * 2 + [LAYOUT.size] * 2  # refresh is 2
    told = [content.config_records[wire.CONFIG] for content in sent]
    assert [record.get(wire.KEEP) for record in told] == [0.5, 0.5, None, None, 0.5, 0.5]
    assert [wire.POSITIONS in record for record in told] == [False, False, True, True, False, False]
    assert [unpack_kept(GROUPS, bytes.fromhex(results[1].neurons[i])) for i in "12"] == [
        ((0, 1, 2),),
        ((2, 3, 4),),
    ]


def _without_positions(reply: Message) -> None:
    del reply.content.config_records[wire.CONFIG][wire.POSITIONS]


def _with_the_whole_model(reply: Message) -> None:
    reply.content[wire.ARRAYS] = wire.FlatRecord(start_flat(), LAYOUT)


def _with_noise(reply: Message) -> None:
    reply.content.config_records[wire.CONFIG][wire.POSITIONS] = b"\x07nonsense"


@pytest.mark.parametrize(
    ("kept", "change", "reason"),
    [
        ((0, 1), lambda reply: None, r"it chose \[2\] neurons, expected \[3\]"),
        ((0, 1, 2), _without_positions, "positions of the neurons that it chose are missing"),
        ((0, 1, 2), _with_the_whole_model, "wrong shape|shape"),
        ((0, 1, 2), _with_noise, "positions of neurons: malformed"),
    ],
)
def test_a_choice_that_is_none_is_rejected_and_named(
    kept: tuple[int, ...], change: Callable[[Message], None], reason: str
) -> None:
    nodes = {1: choosing("1", kept, 9.0, change), 2: choosing("2", (0, 1, 2), 0.0)}
    flat, results, _ = run(nodes, PRIVATE)
    assert [fault.client_id for fault in results[0].faults] == ["1"]
    assert re.search(reason, results[0].faults[0].reason)
    assert flat.equal(start_flat())


def test_a_client_whose_choice_was_lost_is_asked_to_choose_again() -> None:
    lost = choosing("1", (0, 1, 2), 1.0)
    rounds: list[object] = []

    def failing(message: Message) -> Message | None:
        if message.metadata.message_type == wire.TRAIN:
            rounds.append(message.content.config_records[wire.CONFIG].get(wire.KEEP))
            if len(rounds) == 1:
                return raises(message)
        return lost(message)

    run({1: failing}, PRIVATE, rounds=2)
    assert rounds == [0.5, 0.5]
