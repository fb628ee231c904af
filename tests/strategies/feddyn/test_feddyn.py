"""FedDyn against arithmetic by hand, a slow loop, the true minimum, and answers that are lost."""

from typing import Any

import pytest
import torch
from flwr.app import RecordDict

from app.config.run_config import RunConfig
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.plan import Start
from strategies.settings import StrategySettings
from tests.strategies.fakes import flat_record
from tests.strategies.hills import RATE, STEPS, Hill, run

ALPHA = 0.5


def hill(client_id: str, a: float, m: float, **more: Any) -> Hill:
    return Hill(client_id, a, m, StrategySettings(name="feddyn", dyn_alpha=ALPHA), **more)


def slow(clients: list[tuple[float, float]], rounds: int) -> tuple[float, float, list[float]]:
    """Return θ, h and all g_k after rounds of Algorithm 1, in plain Python."""
    theta, h, g = 0.0, 0.0, [0.0] * len(clients)
    for _ in range(rounds):
        ends = []
        for k, (a, m) in enumerate(clients):
            w = theta
            for _step in range(STEPS):
                w -= RATE * (a * (w - m) - g[k] + ALPHA * (w - theta))
            g[k] -= ALPHA * (w - theta)
            ends.append(w)
        h -= ALPHA * sum(end - theta for end in ends) / len(clients)
        theta = sum(ends) / len(ends) - h / ALPHA
    return theta, h, g


def test_a_round_by_hand() -> None:
    """f = ½(w − 8)², one step of 1/8: w = 1, h = −α, θ = 1 + 1."""
    ended = run(hill("a", 1.0, 8.0, steps=1), rounds=1)
    assert ended.model == 2.0
    assert float(ended.memory["@feddyn|h"]) == -ALPHA


def test_it_is_the_papers_algorithm() -> None:
    """Also where numbers of examples differ: clients count alike."""
    hills = [(1.0, 4.0), (3.0, -2.0), (0.5, 1.0)]
    clients = [hill(str(k), a, m, n=k + 1) for k, (a, m) in enumerate(hills)]
    ended = run(*clients, rounds=6)
    theta, h, g = slow(hills, 6)
    assert ended.model == pytest.approx(theta, rel=1e-5)
    assert float(ended.memory["@feddyn|h"]) == pytest.approx(h, rel=1e-4)
    held = [float(client.state.array_records["feddyn"]["next"].numpy()[0]) for client in clients]
    assert held == pytest.approx(g, rel=1e-4, abs=1e-6)


def test_it_ends_at_the_minimum_of_the_sum_and_fedavg_does_not() -> None:
    """Curvatures 0.5 and 4 and minima 4 and 0: at 2 / 4.5."""
    optimum = 0.5 * 4.0 / 4.5
    plain = [Hill("a", 0.5, 4.0, StrategySettings()), Hill("b", 4.0, 0.0, StrategySettings())]
    assert abs(run(*plain, rounds=200).model - optimum) > 0.1
    assert run(hill("a", 0.5, 4.0), hill("b", 4.0, 0.0), rounds=400).model == pytest.approx(optimum, abs=1e-3)


def test_an_answer_that_is_rejected_changes_neither_side() -> None:
    """h stays the mean of the g_k, as α (1/m) Σ of what was used moves both."""

    def spoil(content: RecordDict) -> None:
        nonlocal count
        count += 1
        if count == 2:
            content[wire.ARRAYS] = flat_record([float("nan")])

    count = 0
    clients = hill("a", 1.0, 4.0, spoil=spoil), hill("b", 3.0, -2.0)
    ended = run(*clients, rounds=5)
    assert [sorted(r.accepted) for r in ended.rounds][1] == ["b"]
    held = [float(client.state.array_records["feddyn"]["next"].numpy()[0]) for client in clients]
    assert float(ended.memory["@feddyn|h"]) == pytest.approx(sum(held) / 2, rel=1e-4)


def test_resumed_it_goes_on_as_if_nothing_had_happened() -> None:
    whole = run(hill("a", 1.0, 4.0), hill("b", 3.0, -2.0), rounds=6).model
    clients = hill("a", 1.0, 4.0), hill("b", 3.0, -2.0)
    half = run(*clients, rounds=3)
    start = Start(flat_record([half.model]), 3, strategy_tensors=half.memory)
    assert run(*clients, rounds=6, start=start).model == whole


def test_another_training_begins_anew_and_another_alpha_is_another_model() -> None:
    clients = hill("a", 1.0, 4.0), hill("b", 3.0, -2.0)
    first = run(*clients, rounds=3).model
    assert run(*clients, rounds=3).model == first
    other = [Hill(c.client_id, c.a, c.m, StrategySettings(name="feddyn", dyn_alpha=1.0)) for c in clients]
    assert run(*other, rounds=3).model != first


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("privacy.unit=example", "privacy.unit: given .* nothing leaves a client but noised updates"),
        ("forget.prune=omp", "forget.prune: given .* a strategy that averages updates"),
        ("privacy.secure-aggregation=true", "strategy.name: given .*only the sum of the updates is known"),
        ("strategy.dyn-alpha=0", r"strategy\.dyn-alpha: given 0, allowed a number > 0"),
    ],
)
def test_what_it_cannot_be_combined_with(key: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RunConfig().with_overrides(["strategy.name=feddyn", "log.enabled=false", key])


def test_the_log_is_not_marked_as_an_average() -> None:
    from strategies.feddyn.feddyn import FedDyn
    from strategies.feddyn.settings import FedDynSettings

    assert not FedDyn(FedDynSettings()).is_weighted_average
    assert torch.equal(FedDyn(FedDynSettings()).memory()["h"], torch.zeros(0))
