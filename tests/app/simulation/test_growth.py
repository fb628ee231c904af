"""What a run does for each client costs the same however many there are: operations are counted."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from app.simulation import LocalGrid, grid as grid_module
from app.simulation.jobs import Group, Job, Outcome
from app.simulation.launch import Setup
from app.workflows.training_rounds import round_json
from strategies.core import wire
from strategies.log.strategy import LoggedStrategy
from strategies.log.update_log import UpdateLog
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.runs.checkpoint import Checkpoint
from strategies.runs.folder import RunFolder
from strategies.runs.json_lines import append_line
from strategies.server import memory
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.counting import check_growth, operations
from tests.strategies.fakes import Answer, adds, node_answer

_SIZES = (40, 80, 160)
_START = {"w": torch.zeros(3)}


class _Worker:
    """Stands for a worker process that nothing is ever wrong with."""

    is_stuck = False


class _Pool:
    """A pool whose one worker answers in this process, as soon as it is asked for replies."""

    size, num_replaced, at_once = 1, 0, 4

    def __init__(self, setup: Setup) -> None:
        self._answers: dict[int, Answer] = {
            i: node_answer(str(i - 1), 3, adds(0.5)) for i in range(1, len(setup.node_configs) + 1)
        }
        self._jobs: deque[Job] = deque()
        self.workers = [_Worker()]

    def find(self, waiting: int) -> _Worker | None:
        return self.workers[0] if len(self._jobs) < self.at_once else None

    def give(self, worker: _Worker, group: Group, states: Sequence[bytes]) -> bool:
        self._jobs += group
        return True

    def at_work(self) -> dict[str, float]:
        return {}

    def wait(self, seconds: float, limit: int) -> list[Outcome]:
        outcomes = []
        for _ in range(min(limit, len(self._jobs))):
            job = self._jobs.popleft()
            reply = self._answers[job.node_id](job.message)
            assert reply is not None
            outcomes.append(Outcome(job, reply.content, b"state of " + str(job.node_id).encode()))
        return outcomes

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_module, "WorkerPool", _Pool)


def _connected(clients: int) -> Cohort:
    cohort = Cohort(LocalGrid("none:app", {}, clients, 1))
    cohort.connect()
    return cohort


def test_connecting() -> None:
    def prepare(clients: int) -> Callable[[], object]:
        grid = LocalGrid("none:app", {}, clients, 1)

        def work() -> None:
            with grid:
                Cohort(grid).connect()

        return work

    check_growth(prepare, _SIZES)


@pytest.mark.parametrize("method", ["uniform", "power-of-choice", "oort", "budgeted"])
def test_rounds_with_log_and_checkpoints(tmp_path: Path, method: str) -> None:
    """Two rounds of all clients: messages, replies, sum, log, states, checkpoint, the line of the metrics."""

    def prepare(clients: int) -> Callable[[], object]:
        cohort = _connected(clients)
        place = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        selection = SelectionSettings.model_validate({"method": method, "fraction": 0.9})
        plan = TrainingPlan(StrategySettings(), selection, rounds=2, seed=0, federated_evaluation=True)
        folder = RunFolder.create(place, "run", "")
        log = UpdateLog.create(folder.log_path, wire.Layout.of(_START), "sum")
        grid = cohort.grid
        assert isinstance(grid, LocalGrid)

        def record(result: RoundResult, strategy: object) -> None:
            states = grid.client_states(), grid.state_versions()
            kept = memory.capture(strategy)  # type: ignore[arg-type]
            folder.write_checkpoint(
                Checkpoint(result.round, wire.state_of(result.arrays), {}, kept, *map(dict, states))
            )
            folder.append_metrics(round_json(result))

        def work() -> None:
            with log, grid:
                train(
                    plan,
                    cohort,
                    Start(wire.record_of(_START)),
                    layer=lambda inner: LoggedStrategy(inner, log),
                    on_round=record,
                )

        return work

    check_growth(prepare, _SIZES)


def test_a_line_more_costs_the_same_however_long_the_file_is(tmp_path: Path) -> None:
    """Bytes that are read: the end of the file, not all of it."""
    path = tmp_path / "metrics.jsonl"

    def read_by_the_next_line() -> int:
        before = _bytes_read()
        append_line(path, {"round": 1, "selected": list(range(100))})
        return _bytes_read() - before

    first = read_by_the_next_line()
    for _ in range(200):
        append_line(path, {"round": 1, "selected": list(range(1000))})
    assert read_by_the_next_line() <= first + 2**17
    assert operations(lambda: append_line(path, {"round": 2})) < 5_000


def _bytes_read() -> int:
    """Return the bytes that this process has read so far, whether from a disk or a cache."""
    text = Path("/proc/self/io").read_text()
    return int(text.split("rchar:")[1].split()[0])
