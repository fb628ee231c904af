"""strategies/fedmd/client.py: transfer learning, digest, revisit, and what is kept and told."""

from typing import Any

import pytest
import torch
from flwr.app import RecordDict
from torch import nn

from strategies.client.evaluation import evaluate, outputs_of
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import TensorExamples
from strategies.core.secret_random import Randomness
from strategies.core.seeds import torch_generator
from strategies.fedmd import client
from strategies.fedmd.client import answer_digest, answer_query, digest, digest_loss
from strategies.fedmd.privacy import ANSWERS, epsilon
from strategies.layers.privacy.noise import grid_step
from strategies.settings import StrategySettings
from tests.strategies.fedmd.world import CLASSES, PUBLIC, SMALL, TEST, Client, blobs, network

SETTINGS = StrategySettings(**SMALL)
ALIGNED = list(range(0, 60, 3))


RETRAINED = {wire.LINEAGE: "retrained"}


def query(server_round: int = 1, **more: Any) -> dict[str, Any]:
    return {wire.SERVER_ROUND: server_round, client.ALIGNMENT: ALIGNED, **more}


def with_consensus(values: torch.Tensor) -> RecordDict:
    return RecordDict({wire.ARRAYS: wire.record_of({client.LOGITS: values})})


def member(client_id: str = "0", **settings: Any) -> Client:
    return Client(client_id, 6, blobs(20, 7), SETTINGS.model_copy(update=settings))


def answered(who: Client, **more: Any) -> torch.Tensor:
    reply = answer_query(who.work(query(**more)))
    assert reply.arrays is not None
    return wire.state_of(reply.arrays)[client.LOGITS]


# by hand


def test_mean_absolute_error_by_hand() -> None:
    """|1−0|, |2−4|, |0−0|, |−1−0| have the mean 1."""
    logits, consensus = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    assert float(digest_loss(logits, consensus, SETTINGS)) == 1.0


def test_divergence_by_hand() -> None:
    """At T = 2, logits (0, 0) against (2 log 3, 0): 4 · (¾ log(¾/½) + ¼ log(¼/½))."""
    settings = SETTINGS.model_copy(update={"digest_loss": "kl", "digest_temperature": 2.0})
    three = 2 * torch.tensor(3.0).log()
    loss = digest_loss(torch.zeros(1, 2), torch.tensor([[float(three), 0.0]]), settings)
    expected = 4 * (0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log())
    assert float(loss) == pytest.approx(float(expected))


def test_one_step_by_hand() -> None:
    """Adam's first step is the step size against the sign of the gradient: the bias moves from 0 to 0.01."""
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    given, consensus = TensorExamples(torch.zeros(4, 1), torch.zeros(4)), torch.full((4, 1), 5.0)
    loss = digest(
        model, given, consensus, SETTINGS.model_copy(update={"digest_epochs": 1}), torch_generator(0)
    )
    assert loss == 5.0
    assert float(model.bias.detach()) == pytest.approx(0.01, rel=1e-4)


# identities


def test_a_consensus_of_ones_own_answers_leaves_the_model_where_it_is() -> None:
    """Identical clients agree: the error is 0, its gradient 0, and Adam takes no step."""
    who = Client("0", 6, blobs(20, 7), SETTINGS.model_copy(update={"revisit_epochs": 0}), dropout=0.0)
    own = answered(who)
    before = who.flat
    answer_digest(who.work(query(), with_consensus(own)))
    assert torch.equal(who.flat, before)


def test_another_consensus_moves_it() -> None:
    who = member(revisit_epochs=0)
    own = answered(who)
    before = who.flat
    answer_digest(who.work(query(), with_consensus(own + 1)))
    assert not torch.equal(who.flat, before)


def test_digesting_brings_the_answers_closer_to_the_consensus() -> None:
    model, x = network(8), PUBLIC.examples
    consensus = outputs_of(network(8, seed=1), x)
    before = float((outputs_of(model, x) - consensus).abs().mean())
    digest(model, x, consensus, SETTINGS.model_copy(update={"digest_epochs": 20}), torch_generator(0))
    assert float((outputs_of(model, x) - consensus).abs().mean()) < 0.7 * before


def test_transfer_learning_learns_and_revisiting_learns_more() -> None:
    who = member(public_epochs=15, private_epochs=5)
    start = evaluate(network(6), TEST).accuracy
    answered(who)
    assert who.work({}).client_state.figures[client.BASELINE] > start + 20


# what decides


def test_test_data_decide_nothing() -> None:
    """Whatever it is measured on, a client trains the same: it is only measured, never stopped."""
    flats = []
    for test in (TEST, TensorExamples(TEST.x, (TEST.y + 1) % CLASSES), None):
        who = member()
        who.test = test
        consensus = answered(who) + 0.5
        answer_digest(who.work(query(measure=True), with_consensus(consensus)))
        flats.append(who.flat)
    assert torch.equal(flats[0], flats[1])
    assert torch.equal(flats[0], flats[2])


def test_without_test_data_no_accuracy_is_reported() -> None:
    who = member()
    who.test = None
    metrics = answer_digest(who.work(query(measure=True), with_consensus(answered(who)))).metrics
    assert wire.ACCURACY not in metrics
    assert client.BASELINE not in metrics


def test_a_client_is_its_seed_and_its_name() -> None:
    assert torch.equal(answered(member()), answered(member()))
    assert not torch.equal(answered(member()), answered(member("1")))


def test_the_global_generator_has_no_effect_and_is_not_changed() -> None:
    state = torch.get_rng_state()
    first = answered(member())
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(answered(member()), first)


def test_lost_state_gives_the_model_of_the_beginning_and_is_said() -> None:
    who = member()
    answered(who)
    first = who.flat
    who.state.clear()
    reply = answer_query(who.work(query(server_round=4)))
    assert torch.equal(who.flat, first)
    assert reply.metrics[client.ANEW] == 1


# what is kept


def test_the_state_is_the_model_and_a_few_figures() -> None:
    who = member()
    answered(who)
    parameters = sum(p.numel() for p in network(6).parameters())
    assert 4 * parameters < wire.records_bytes(who.state) < 4 * parameters + 100


def test_the_transferred_model_is_kept_if_asked_for() -> None:
    who = member(keep_transferred=True)
    answered(who)
    first = who.flat
    answer_digest(who.work(query(), with_consensus(torch.ones(len(ALIGNED), CLASSES))))
    again = network(6, dropout=who.dropout)
    assert who.work({}).client_state.read_model(again, transferred=True)
    assert torch.equal(wire.Layout.of(again.state_dict()).flatten(again.state_dict()), first)
    assert not torch.equal(who.flat, first)


def test_lineages_leave_each_other_alone() -> None:
    who = member()
    answered(who)
    before = who.flat
    answered(who, **RETRAINED)
    answer_digest(who.work(query(**RETRAINED), with_consensus(torch.ones(len(ALIGNED), CLASSES))))
    assert torch.equal(who.flat, before)
    assert not torch.equal(next(who.model("retrained").parameters()), next(who.model().parameters()))


def test_the_upper_bound_is_measured_and_changes_nothing() -> None:
    plain, bounded = member(), member(upper_bound=True)
    assert torch.equal(answered(plain), answered(bounded))
    assert torch.equal(plain.flat, bounded.flat)
    figures = bounded.work({}).client_state.figures
    assert figures[client.BASELINE] == plain.work({}).client_state.figures[client.BASELINE]
    assert client.UPPER_BOUND in figures


def test_clipped_and_noised_answers() -> None:
    clipped = answered(member(logit_clip=0.5))
    assert float(torch.linalg.vector_norm(clipped, dim=1).max()) <= 0.5 + 1e-6
    noised = answered(member(logit_clip=0.5, logit_noise=2.0))
    assert float((noised - clipped).std()) == pytest.approx(1.0, abs=0.4)
    assert not ((noised / grid_step(1.0)) % 1).any()


# noise


def noisy(seeded: bool = False) -> Client:
    who = member(logit_clip=0.5, logit_noise=2.0)
    who.randomness = Randomness(secret=not seeded)
    return who


def test_the_runs_seed_does_not_give_the_noise_away() -> None:
    """What the server can draw from the seed that it knows, taken away from the answer."""
    clean, sent = answered(member(logit_clip=0.5)), answered(noisy())
    streams = [Randomness(secret=False).stream(0, "fedmd", "0", "noise", r) for r in range(3)]
    guesses = [stream.normal(clean.numel()).view(clean.shape).float() for stream in streams]
    generator = torch_generator(0, "fedmd", "0", "noise", 1)
    guesses.append(torch.randn(clean.shape, generator=generator))
    assert all(float((sent - guess - clean).std()) > 0.9 for guess in guesses)
    seeded = answered(noisy(seeded=True))
    assert float((seeded - guesses[1] - clean).abs().max()) < grid_step(1.0)


def test_secret_noise_is_drawn_anew_and_seeded_noise_for_each_round() -> None:
    assert not torch.equal(answered(noisy()), answered(noisy()))
    assert torch.equal(answered(noisy(seeded=True)), answered(noisy(seeded=True)))
    assert not torch.equal(answered(noisy(seeded=True)), answered(noisy(seeded=True), server_round=2))


def test_a_question_asked_again_is_paid_for_again() -> None:
    """The same question 20 times, whose mean is better than each answer: ε is that of 20 answers."""
    who, size, delta = noisy(), len(ALIGNED), SETTINGS.logit_delta
    replies = [answer_query(who.work(query())) for _ in range(20)]
    spent = [reply.metrics[wire.EPSILON] for reply in replies]
    assert spent == pytest.approx([epsilon(2.0, size, n, delta) for n in range(1, 21)])


def test_no_other_question_is_free() -> None:
    """Another round, another lineage, fewer examples: μ² adds up over 20 + 20 + 5 rows; digesting is free."""
    who, delta = noisy(), SETTINGS.logit_delta
    answer_query(who.work(query(2)))
    answer_query(who.work(query(**RETRAINED)))
    answer_digest(who.work(query(), with_consensus(torch.ones(len(ALIGNED), CLASSES))))
    few = answer_query(who.work({**query(), client.ALIGNMENT: ALIGNED[:5]}))
    assert few.metrics[wire.EPSILON] == pytest.approx(epsilon(2.0, 2 * len(ALIGNED) + 5, 1, delta))


def test_without_noise_there_is_no_epsilon_and_nothing_is_kept() -> None:
    who = member(logit_clip=0.5)
    assert wire.EPSILON not in answer_query(who.work(query())).metrics
    assert ANSWERS not in who.state


# errors


@pytest.mark.parametrize("positions", [[], [60], [-1, 3]])
def test_positions_outside_the_public_data_are_refused(positions: list[int]) -> None:
    with pytest.raises(ValueError, match="outside the 60 public examples"):
        answer_query(member().work({**query(), client.ALIGNMENT: positions}))


def test_another_architecture_than_that_of_the_state_is_refused() -> None:
    who = member()
    answered(who)
    who.hidden = 9
    with pytest.raises(LetheError, match="its model was exchanged"):
        answered(who)
