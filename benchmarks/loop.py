"""The project's own training loop over the clients behind a grid, every client in every round."""

from collections.abc import Callable

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from app.config.run_config import RunConfig
from benchmarks.jobs import INPUT_SHAPE, NUM_GROUPS
from strategies.core import wire
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import Layer, train
from strategies.server.cohort import Cohort


class TrainingLoop:
    """Connects to the clients once, and trains from the start as often as it is asked to.

    Parameters
    ----------
    grid
        The clients are behind it.
    config
        Says the strategy, the rounds and how many clients there are.
    """

    def __init__(self, grid: Grid, config: RunConfig) -> None:
        self._plan = TrainingPlan(config.strategy, config.selection, config.run.rounds, config.run.seed)
        self._num_clients = config.data.clients
        self.cohort = Cohort(grid)
        self.cohort.client_config.update({wire.NUM_GROUPS: NUM_GROUPS, wire.INPUT_SHAPE: list(INPUT_SHAPE)})
        self.cohort.connect(self._num_clients)

    def train(
        self, initial: ArrayRecord, on_round: Callable[[RoundResult], None], layer: Layer | None = None
    ) -> ArrayRecord:
        """Train, with a layer around the strategy if one is given; return the final model.

        Raises
        ------
        RuntimeError
            If a client is missing in a round.
        """

        def checked(result: RoundResult, strategy: object) -> None:
            on_round(result)
            accepted = len(result.accepted)
            if accepted != self._num_clients:
                raise RuntimeError(f"{accepted} of {self._num_clients} clients: {result.faults[:1]}")

        return train(self._plan, self.cohort, Start(initial), layer=layer, on_round=checked)
