"""The log is the truth: a round moves the model by what the log says, whoever joined, left or lied."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from flwr.app import Message
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from strategies.core import wire
from strategies.layers.compression.settings import CompressionSettings
from strategies.layers.privacy.settings import PrivacySettings
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.compression.nodes import LAYOUT, Client, model
from tests.strategies.fakes import FakeGrid, raises

ROUNDS = 4
LIES = ["error", "NaN", "examples"]
NO_COMPRESSION = CompressionSettings()
SPARSE = CompressionSettings(codec="top-k+int8", down_codec="top-k+int8", keep=0.2, down_keep=0.5)
CENTRAL = PrivacySettings(unit="client-central", noise_multiplier=0.0, clip_norm=0.5, delta=0.01)
BUFFERED = StrategySettings(name="fedbuff", buffer_size=2)
PLANS = {
    "fedavg": {},
    "fedprox": {"strategy": StrategySettings(name="fedprox", mu=0.1)},
    "fedbuff": {"strategy": BUFFERED},
    "fedavgm": {"strategy": StrategySettings(name="fedavgm", server_momentum=0.0, server_learning_rate=0.5)},
    "fedasync": {"strategy": StrategySettings(name="fedasync", mixing=0.6)},
    "per-fedavg": {"strategy": StrategySettings(name="per-fedavg")},
    "ditto": {"strategy": StrategySettings(name="ditto")},
    "flwr:FedAvg": {"strategy": StrategySettings(name="flwr:FedAvg")},
    "compressed": {"compression": SPARSE},
    "compressed, asynchronous": {
        "compression": SPARSE,
        "strategy": StrategySettings(name="fedbuff", buffer_size=2),
    },
    "central": {"privacy": CENTRAL},
}


@dataclass
class Member(Client):
    """A client that is there from one round to another, and may lie in some."""

    first: int = 1
    last: int = ROUNDS
    lies: Mapping[int, str] = field(default_factory=dict)

    def __call__(self, message: Message) -> Message:
        """Answer as a client, but for the lies."""
        reply = super().__call__(message)
        if message.metadata.message_type != wire.TRAIN:
            return reply
        lie = self.lies.get(int(str(message.content.config_records[wire.CONFIG][wire.SERVER_ROUND])))
        if lie == "error":
            return raises(message)
        if lie == "examples":
            reply.content.metric_records[wire.METRICS][wire.NUM_EXAMPLES] = self.num_examples + 1
        if lie == "NaN":
            reply.content.pop(wire.CODED, None)
            reply.content[wire.ARRAYS] = wire.FlatRecord(torch.full((LAYOUT.size,), math.nan), LAYOUT)
        return reply


@dataclass
class ChangingGrid(FakeGrid):
    """A grid whose nodes are there in some rounds only."""

    members: Sequence[Member] = ()

    def at(self, server_round: int) -> None:
        """Let the nodes of a round be those that are there."""
        self.answers = {
            node: member
            for node, member in enumerate(self.members, start=1)
            if member.first <= server_round <= member.last
        }


def moved(members: Sequence[Member], plan: TrainingPlan, folder: Path) -> list[RoundResult]:
    """Train with a log; check each round's model against it, and who is in it; return the rounds."""
    grid = ChangingGrid({}, members=members)
    grid.at(1)
    cohort = Cohort(grid, 0.05, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    rounds: list[RoundResult] = []
    before = [wire.flat_of(wire.record_of(model().state_dict()), LAYOUT)]
    with UpdateLog.create(folder / "log", LAYOUT) as log:

        def note(result: RoundResult, _: object) -> None:
            after = wire.flat_of(result.arrays, LAYOUT)
            check(log, result, before[-1], after)
            before.append(after)
            rounds.append(result)
            grid.at(result.round + 1)

        start = Start(wire.record_of(model().state_dict()))
        train(plan, cohort, start, layer=lambda inner: LoggedStrategy(inner, log), on_round=note)
    return rounds


def check(log: UpdateLog, result: RoundResult, before: Tensor, after: Tensor) -> None:
    entries = log.entries(result.round)
    assert sorted(e.client_id for e in entries) == sorted(result.accepted)
    said = torch.zeros(LAYOUT.size, dtype=torch.float64)
    for entry in entries:
        said += log.delta(result.round, entry.client_id).double() * entry.weight
    torch.testing.assert_close(after.double() - before.double(), said, rtol=1e-5, atol=2e-6)


def plan_of(name: str) -> TrainingPlan:
    """Return the plan of that name, four rounds long."""
    more = {"strategy": StrategySettings(), **PLANS[name]}
    return TrainingPlan(selection=SelectionSettings(), rounds=ROUNDS, seed=0, **more)  # type: ignore[arg-type]


def member(number: int, num_examples: int, plan: TrainingPlan, **more: object) -> Member:
    """Return a client that moves towards its own optimum."""
    target = (number + 1) / 4
    return Member(
        f"c{number}",
        num_examples,
        lambda old: 0.3 * (torch.linspace(-target, target, LAYOUT.size) - old),
        plan.compression,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", PLANS)
def test_late_joiners_are_in_the_model_as_they_are_in_the_log(name: str, tmp_path: Path) -> None:
    """One client of 10 examples at the start, four of 400 that join in round 2."""
    plan = plan_of(name)
    late = [member(n, 400, plan, first=2) for n in (1, 2, 3, 4)]
    rounds = moved([member(0, 10, plan), *late], plan, tmp_path)
    assert rounds[0].accepted == ("c0",)
    assert {i for r in rounds[1:] for i in r.accepted} > {"c1", "c2"}


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(list(PLANS)),
    cohort=st.lists(
        st.tuples(
            st.sampled_from([1, 7, 60, 4000, 2**31]),
            st.integers(1, 3),
            st.integers(2, ROUNDS),
            st.dictionaries(
                st.integers(1, ROUNDS), st.sampled_from(["error", "NaN", "examples"]), max_size=2
            ),
        ),
        max_size=4,
    ),
)
def test_the_model_moves_by_what_the_log_says(
    name: str, cohort: list[tuple[int, int, int, dict[int, str]]]
) -> None:
    """Generated cohorts: joins, leaves, refusals, claims of 2^31 examples; every strategy that averages."""
    plan = plan_of(name)
    members = [member(0, 20, plan)]
    for number, (examples, first, last, lies) in enumerate(cohort, start=1):
        members.append(member(number, examples, plan, first=first, last=max(first, last), lies=lies))
    with tempfile.TemporaryDirectory() as folder:
        assert len(moved(members, plan, Path(folder))) == ROUNDS


def test_the_check_would_notice_a_client_that_is_left_out(tmp_path: Path) -> None:
    """A log of two clients, and the mean of one of them."""
    plan = plan_of("fedavg")
    members = [member(0, 10, plan), member(1, 400, plan)]
    moved(members, plan, tmp_path)
    log, before = UpdateLog.open(tmp_path / "log"), wire.flat_of(wire.record_of(model().state_dict()), LAYOUT)
    result = RoundResult(1, wire.record_of({}), {}, (), ("c0", "c1"), (), Cohort(FakeGrid({})).traffic, 0.0)
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check(log, result, before, before + log.delta(1, "c0"))
