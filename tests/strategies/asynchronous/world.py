"""An asynchronous loop over a grid without processes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from strategies.core import wire
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import Layer, train
from strategies.server import memory as strategy_state
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import StrategyWrapper
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, adds, flat_record, node_answer

CLOCK = SelectionSettings(speeds="equal")
PARETO = SelectionSettings(speeds="pareto:1.2")


@dataclass
class Run:
    """What came of a run: the model, its steps, and the state after each of them."""

    model: Tensor
    cohort: Cohort
    steps: list[RoundResult] = field(default_factory=list)
    states: list[Start] = field(default_factory=list)

    @property
    def faults(self) -> list[tuple[str, str, str]]:
        """Client, scope and reason of each fault."""
        return [(f.client_id, f.scope, f.reason) for f in self.cohort.faults]

    @property
    def accepted(self) -> list[tuple[str, ...]]:
        """Whose updates each step was made of."""
        return [step.accepted for step in self.steps]


def settings(name: str, **more: Any) -> StrategySettings:
    return StrategySettings.model_validate({"name": name, **more})


def run(
    grid: FakeGrid,
    strategy: StrategySettings,
    rounds: int,
    selection: SelectionSettings = CLOCK,
    *,
    start: Start | None = None,
    first: tuple[float, ...] = (10.0,),
    layer: Layer | None = None,
    on_round: Callable[[RoundResult], None] = lambda result: None,
    timeout: float = 0.1,
) -> Run:
    """Train from `first`, or from a state of another run."""
    cohort = Cohort(grid, timeout, poll_seconds=0.001)
    cohort.connect(wait_seconds=0.05)
    done = Run(flat_record(first)["w"].numpy(), cohort)  # type: ignore[arg-type] # replaced below

    def note(result: RoundResult, loop: object) -> None:
        assert isinstance(loop, StrategyWrapper)
        done.steps.append(result)
        memory = {name: tensor.clone() for name, tensor in strategy_state.capture(loop).items()}
        done.states.append(Start(result.arrays, result.round, memory))
        on_round(result)

    plan = TrainingPlan(strategy, selection, rounds, 0)
    arrays = train(plan, cohort, start or Start(flat_record(first)), layer=layer, on_round=note)
    done.model = wire.state_of(arrays)["w"].clone()
    return done


def fast_and_slow(**more: Answer) -> dict[int, Answer]:
    """Return a, with 2 examples and so 0.02 s, which adds 2, and b, with 7 and 0.07 s, which adds 4."""
    nodes = {1: node_answer("a", 2, adds(2.0)), 2: node_answer("b", 7, adds(4.0))}
    return nodes | dict(enumerate(more.values(), start=3))


def drifting(number: int = 6) -> dict[int, Answer]:
    """Return clients whose update depends on the model, with 3, 6, 9, … examples."""

    def towards(target: float) -> Callable[[Tensor, Any], Tensor]:
        return lambda old, message: old + 0.3 * (target - old)

    return {i: node_answer(str(i), 3 * i, towards(float(i))) for i in range(1, number + 1)}
