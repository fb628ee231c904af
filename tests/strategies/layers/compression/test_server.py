"""The layer: neutral is nothing, versions, lost and restarted clients, withheld updates, log and bytes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Message
from hypothesis import given, settings as examples, strategies as st
from torch import Tensor

from strategies.core import wire
from strategies.core.seeds import torch_generator
from strategies.layers.compression.settings import CompressionSettings
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.plan import RoundResult, Start
from strategies.server import memory as strategy_state
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import StrategyWrapper
from tests.strategies.compression.nodes import LAYOUT, SIZE, Client, Step, model, run
from tests.strategies.fakes import raises

OFF = CompressionSettings()
CHAIN = CompressionSettings(codec="top-k+int8", down_codec="top-k+int8", keep=0.1, down_keep=0.3)


def pull(target: float, rate: float = 0.3) -> Step:
    """Return a training that moves towards a constant."""
    return lambda flat: rate * (target - flat)


def clients(settings: CompressionSettings, number: int = 3) -> list[Client]:
    return [Client(str(i), 10 * i, pull(float(i)), settings) for i in range(1, number + 1)]


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "flwr:FedAvg", "flwr:FedAdam"])
@pytest.mark.parametrize(
    "neutral",
    [
        CompressionSettings(codec="identity"),
        CompressionSettings(codec="top-k", keep=1.0, down_codec="random-k", down_keep=1.0),
        CompressionSettings(codec="low-rank", rank=5, down_codec="low-rank"),
    ],
)
def test_neutral_codecs_are_no_codec_to_the_bit(strategy: str, neutral: CompressionSettings) -> None:
    plain, _ = run(clients(OFF), OFF, 3, strategy=strategy)
    same, _ = run(clients(neutral), neutral, 3, strategy=strategy)
    other, _ = run(clients(CHAIN), CHAIN, 3, strategy=strategy)
    assert same.equal(plain)
    assert not other.equal(plain)


def test_top_k_by_hand() -> None:
    """One client with update (10, 1, …, 1) and 2 % of 60 entries: 2 of them go, the others are left over.

    In the second round the rest, now 2 each besides the update's 10, follows.
    """
    settings = CompressionSettings(codec="top-k", keep=0.02)
    update = torch.ones(SIZE)
    update[0] = 10.0
    client = Client("1", 5, lambda flat: update, settings)
    before = LAYOUT.flatten(model().state_dict())
    after, results = run([client], settings)
    moved = after - before
    assert int((moved.abs() > 1e-6).sum()) == 2
    assert float(moved[0]) == pytest.approx(10.0)
    residual = torch.from_numpy(client.state.array_records["compression"]["next-residual"].numpy().copy())
    torch.testing.assert_close(residual + moved, update)
    assert results[0].traffic.bytes_up < 4 * SIZE


@pytest.mark.parametrize("chain", ["top-k+int8", "random-k", "sign", "low-rank+int8"])
@pytest.mark.parametrize("down", ["identity", "top-k+int4"])
def test_every_chain_reaches_what_plain_averaging_reaches(chain: str, down: str) -> None:
    settings = CompressionSettings(codec=chain, down_codec=down, keep=0.2, rank=1, down_keep=0.4)
    near, results = run([Client(str(i), 5, pull(2.0, 0.05 * i), settings) for i in (1, 2, 3)], settings, 100)
    assert float((near - 2.0).abs().max()) < 0.1
    assert not any(result.faults for result in results)


def test_without_feedback_top_k_forgets_what_it_left_out() -> None:
    settings = CompressionSettings(codec="top-k", keep=0.02, error_feedback=False)
    clients_without = [Client("1", 5, lambda flat: torch.arange(1.0, SIZE + 1), settings)]
    after, _ = run(clients_without, settings, 5)
    moved = (after - LAYOUT.flatten(model().state_dict())).abs() > 1e-6
    assert moved.nonzero().flatten().tolist() == [SIZE - 2, SIZE - 1]


def test_a_client_that_is_up_to_date_gets_a_difference_and_starts_from_the_servers_copy() -> None:
    listed = clients(CHAIN)
    _, results = run(listed, CHAIN, 4)
    assert results[0].traffic.bytes_down > 3 * 4 * SIZE
    assert all(result.traffic.bytes_down < 3 * 3 * SIZE for result in results[1:])
    for starts in zip(*(client.starts for client in listed), strict=True):
        assert starts[0].equal(starts[1])
        assert starts[0].equal(starts[2])


def test_a_restarted_client_misses_a_round_and_then_gets_the_model() -> None:
    listed = clients(CHAIN)

    def wipe(result: RoundResult, loop: object) -> None:
        if result.round == 2:
            listed[0].state.clear()

    _, results = run(listed, CHAIN, 5, on_round=wipe)
    reasons = [fault.reason for result in results for fault in result.faults]
    assert reasons == ["refused: version 2 of the model is not here"]
    assert [len(result.accepted) for result in results] == [3, 3, 2, 3, 3]
    assert listed[0].starts[-1].equal(listed[1].starts[-1])
    assert results[3].traffic.bytes_down > results[4].traffic.bytes_down + SIZE


class Failing(Client):
    """A client that fails in round 2."""

    def __call__(self, message: Message) -> Message:
        config = message.content.config_records.get(wire.CONFIG, ConfigRecord())
        return raises(message) if config.get(wire.SERVER_ROUND) == 2 else super().__call__(message)


def test_a_client_that_drops_out_keeps_its_residual() -> None:
    """Of 60 ones 2 go, 58 stay; nothing changes while it fails; of 58 + 60 the 2 twos go, 114 stay."""
    settings = CompressionSettings(codec="top-k", keep=0.02)
    client = Failing("1", 5, lambda flat: torch.ones(SIZE), settings)
    residuals: list[float] = []

    def note(result: RoundResult, loop: object) -> None:
        residuals.append(float(client.state.array_records["compression"]["next-residual"].numpy().sum()))

    run([client], settings, 3, on_round=note)
    assert residuals == pytest.approx([58.0, 58.0, 114.0], abs=1e-3)


class Unlucky(Client):
    """A client some of whose replies do not count: they are lost, rejected or come too late."""

    fates: Sequence[str] = ()

    def __call__(self, message: Message) -> Message:
        reply = super().__call__(message)
        config = message.content.config_records.get(wire.CONFIG, ConfigRecord())
        number = int(str(config.get(wire.SERVER_ROUND, 0)))
        fate = self.fates[number - 1] if 0 < number <= len(self.fates) else "used"
        if fate == "rejected":
            reply.content.metric_records[wire.METRICS][wire.NUM_EXAMPLES] = self.num_examples + 1
        return raises(message) if fate == "lost" else reply


def unlucky(steps: Sequence[Tensor], fates: Sequence[str], settings: CompressionSettings) -> Unlucky:
    left = iter(steps)
    client = Unlucky("1", 5, lambda flat: next(left), settings)
    client.fates = fates
    return client


def residual_of(client: Client, *, last_used: bool) -> Tensor:
    """Return what the client still owes, once it hears whether its last reply was used."""
    kept = client.state.array_records["compression"]
    name = "next-residual" if last_used else "residual"
    return torch.from_numpy(kept[name].numpy().copy()) if name in kept else torch.zeros(SIZE)


@pytest.mark.parametrize("fate", ["lost", "rejected"])
def test_a_reply_that_does_not_count_takes_no_residual_with_it(fate: str) -> None:
    """Three rounds leave 1.0 each behind, the fourth sends 4.0 and does not count, the fifth delivers 4.0."""
    settings = CompressionSettings(codec="top-k", keep=0.02)
    crowded = torch.zeros(SIZE).index_fill_(0, torch.tensor([0, 1]), 5.0)
    alone = torch.zeros(SIZE)
    crowded[2] = alone[2] = 1.0
    client = unlucky([crowded] * 3 + [alone] * 2, ["used", "used", "used", fate, "used"], settings)
    before = LAYOUT.flatten(model().state_dict())
    after, results = run([client], settings, 5)
    assert [len(r.accepted) for r in results] == [1, 1, 1, 0, 1]
    assert (after - before)[2].item() == pytest.approx(4.0, abs=1e-5)


def test_a_reply_that_is_one_too_many_takes_no_residual_with_it() -> None:
    """Two are asked, one counts: the other's residual stays what it was before, and its copy of the model."""
    settings = CompressionSettings(codec="top-k", keep=0.02)
    both = [Client(str(i), 5, lambda flat: torch.ones(SIZE), settings) for i in (1, 2)]
    run(both, settings, 2, selection=SelectionSettings(fraction=0.5, over_selection=2.0))
    heard, unheard = (residual_of(c, last_used=c is both[0]).sum() for c in both)
    assert float(heard) == pytest.approx(114.0, abs=1e-3)
    assert float(unheard) == 0.0


@examples(deadline=None, max_examples=25)
@given(
    fates=st.lists(st.sampled_from(["used", "lost", "rejected"]), min_size=1, max_size=6),
    codec=st.sampled_from(["top-k", "top-k+int8", "sign", "low-rank"]),
    seed=st.integers(0, 2**20),
    downlink=st.sampled_from(["identity", "top-k"]),
)
def test_what_was_used_and_what_is_owed_is_what_was_trained(
    fates: list[str], codec: str, seed: int, downlink: str
) -> None:
    """model after − model before + residual = Σ δ over the rounds that counted, whichever did not."""
    settings = CompressionSettings(codec=codec, keep=0.05, rank=1, down_codec=downlink, down_keep=0.3)
    generator = torch_generator(seed, "steps")
    steps = [torch.randn(SIZE, generator=generator) for _ in fates]
    client = unlucky(steps, fates, settings)
    after, results = run([client], settings, len(fates))
    before = LAYOUT.flatten(model().state_dict())
    used = [step for step, result in zip(steps, results, strict=True) if result.accepted]
    assert len(used) == fates.count("used")
    owed = residual_of(client, last_used=fates[-1] == "used")
    expected = sum(used, start=torch.zeros(SIZE))
    torch.testing.assert_close(after - before + owed, expected, rtol=1e-4, atol=1e-4)


def test_an_update_that_is_not_finite_is_not_withheld() -> None:
    """It is sent, so that the guard says what is wrong; the next round goes on from what was before."""
    settings = CompressionSettings(codec="identity", upload_threshold=0.02)
    client = unlucky([torch.full((SIZE,), torch.nan), torch.ones(SIZE)], [], settings)
    after, results = run([client], settings, 2)
    assert results[0].faults[0].reason == "NaN in the parameters"
    torch.testing.assert_close(after, LAYOUT.flatten(model().state_dict()) + 1)


def test_small_updates_are_withheld_counted_and_not_lost() -> None:
    """Updates of 0.9 % of the model: one, and two together, are below 2 %; three together go."""
    settings = CompressionSettings(codec="identity", upload_threshold=0.02)
    start = LAYOUT.flatten(model().state_dict())
    step = 0.009 * start.norm() * torch.nn.functional.normalize(torch.ones(SIZE), dim=0)
    after, results = run([Client("1", 5, lambda flat: step, settings)], settings, 3)
    assert [result.metrics.get(wire.WITHHELD, 0) for result in results] == [1, 1, 0]
    assert results[0].traffic.bytes_up < 100 < results[2].traffic.bytes_up
    torch.testing.assert_close(after, start + 3 * step)


def test_a_good_model_is_sent_all_the_same() -> None:
    settings = CompressionSettings(codec="identity", upload_threshold=100.0, upload_accuracy=90.0)
    good = Client("1", 5, pull(1.0), settings, accuracy=95.0)
    poor = Client("2", 5, pull(1.0), settings, accuracy=80.0)
    _, results = run([good, poor], settings)
    assert results[0].metrics[wire.WITHHELD] == 1


def test_the_log_holds_what_was_aggregated(tmp_path: Path) -> None:
    with UpdateLog.create(tmp_path / "log", LAYOUT) as log:
        after, results = run(clients(CHAIN), CHAIN, 3, layer=lambda inner: LoggedStrategy(inner, log))
        model_again = LAYOUT.flatten(model().state_dict()).double()
        for result in results:
            entries = log.entries(result.round)
            total = sum(entry.weight for entry in entries)
            for entry in entries:
                delta = log.delta(result.round, entry.client_id).double()
                model_again += entry.weight * delta / total
    torch.testing.assert_close(model_again.float(), after)


def test_a_resumed_training_goes_on_to_the_bit() -> None:
    whole, _ = run(clients(CHAIN), CHAIN, 6)
    listed, kept = clients(CHAIN), {}

    def keep(result: RoundResult, loop: object) -> None:
        assert isinstance(loop, StrategyWrapper)
        kept["start"] = Start(result.arrays, result.round, strategy_state.capture(loop))

    run(listed, CHAIN, 3, on_round=keep)
    resumed, results = run(listed, CHAIN, 6, start=kept["start"])
    assert resumed.equal(whole)
    assert not any(result.faults for result in results)


def test_another_training_starts_without_the_residuals_of_the_first() -> None:
    used = clients(CHAIN)
    first, _ = run(used, CHAIN, 3)
    again, _ = run(used, CHAIN, 3)
    assert again.equal(first)


def damaging(client: Client, payload: bytes) -> Client:
    original = client.__call__

    class Damaged(Client):
        def __call__(self, message: Message) -> Message:
            reply = original(message)
            if wire.CODED in reply.content:
                reply.content[wire.CODED] = ConfigRecord({wire.PAYLOAD: [payload]})
            return reply

    return Damaged(client.client_id, client.num_examples, client.step, client.settings)


@examples(max_examples=20, deadline=None)
@given(st.binary(max_size=40))
def test_a_damaged_payload_is_rejected_and_the_round_goes_on(payload: bytes) -> None:
    listed = clients(CHAIN, 2)
    listed[0] = damaging(listed[0], payload)
    _, results = run(listed, CHAIN)
    assert results[0].accepted == ("2",)
    assert results[0].faults[0].client_id == "1"
    assert "encoded" in results[0].faults[0].reason


@pytest.mark.parametrize("chain", ["sign", "low-rank+int8"])
def test_pruned_weights_stay_zero_whatever_the_codec_makes_of_them(chain: str) -> None:
    settings = CompressionSettings(codec=chain, down_codec="int4", rank=1)
    mask = torch.arange(SIZE) % 3 > 0
    start = Start(wire.FlatRecord(LAYOUT.flatten(model().state_dict()) * mask, LAYOUT))
    listed = [Client(str(i), 5, lambda flat: mask * (1 - flat), settings) for i in (1, 2)]
    after, results = run(listed, settings, 3, start=start, mask=mask)
    assert not any(result.faults for result in results)
    assert not bool(after[~mask].any())
    assert bool(after[mask].all())
