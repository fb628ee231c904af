"""What a federated algorithm is: its two halves, and the records and messages that are its own.

What can be said of an algorithm without importing it, such as its settings and what it can be combined with,
are its traits (`strategies.core.traits`), which lie in the ``settings.py`` beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import ClientHalf, ClientJob
from strategies.client.work import ClientReply, ClientWork
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples
from strategies.figures import Figures
from strategies.layers.privacy.scoring import Scoring
from strategies.server.guard import Reference
from strategies.server.reports import Known
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import StrategyWrapper
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, Task

Personalise = Callable[[ClientJob], nn.Module]
"""Makes a client's own model of the job's, which holds the round's; may change that in place."""
Handler = Callable[[ClientWork], ClientReply]
"""Answers a message type of the algorithm's own on a client."""


@dataclass(frozen=True, eq=False)
class Holdings:
    """The server's own resources in a run: model, public data and test data.

    Parameters
    ----------
    build_model
        Makes the run's model with its initial weights, on the device to use.
    num_outputs
        Of its answers.
    public, test
        The server's own data, or None.
    figures
        What the model is judged by; None: by the mean score and loss alone.
    """

    build_model: Callable[[], nn.Module]
    num_outputs: int
    public: Examples | None = None
    test: Examples | None = None
    train: TrainSettings = field(default_factory=TrainSettings)
    task: Task = CLASSIFICATION
    figures: Figures | None = None


@dataclass(frozen=True, eq=False)
class ServerSide:
    """The arguments that an algorithm's server half is built from.

    Parameters
    ----------
    rounds, evaluate_every
        How many rounds there are, and how many from one evaluation to the next.
    holdings
        What the server holds; None: nothing.
    """

    settings: StrategySettings
    seed: int = 0
    rounds: int = 1
    evaluate_every: int = 1
    holdings: Holdings | None = None

    @property
    def required_holdings(self) -> Holdings:
        """The holdings; LetheError if there are none."""
        if self.holdings is None:
            raise LetheError(
                f"{self.settings.name} has no server half without a model and data on the server"
            )
        return self.holdings

    @property
    def public(self) -> Examples:
        """The public data; LetheError if there are none."""
        if self.required_holdings.public is None:
            raise LetheError(f"data.public: given 0, but {self.settings.name} needs public data")
        return self.required_holdings.public


@dataclass(frozen=True, eq=False)
class Members:
    """The clients of a training as its server half sees them, kept up to date by the training loop.

    Parameters
    ----------
    names
        Node id -> client-id.
    keeps
        Client-id -> share of the neurons that the client said it can train.
    central_noise
        Whether noise is added to the sum of the updates.
    mask
        Which parameters may differ from zero, shape [P], bool; None: all.
    """

    names: Mapping[int, str]
    keeps: Mapping[str, float]
    central_noise: bool = False
    mask: Tensor | None = None


class PartsStrategy(StrategyWrapper):
    """A server half whose clients train parts of the model.

    Attributes
    ----------
    selected : dict of str to bytes
        Client-id -> the neurons that it trained last, as they travel.
    """

    selected: dict[str, bytes]

    def reference_of(self, reply: Message) -> Reference | None:
        """Return the part of the model that a reply is about; None if it does not name one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Algorithm:
    """Both halves of an algorithm.

    Parameters
    ----------
    summary
        One line for people.
    client
        The client half.
    build
        Makes the server half.
    around
        Wraps the server half and what logs it, where it does more than the log holds, such as sending further
        records; None: it does not.
    parts
        Wraps whatever trains the model, where clients train parts of it; None: they train all.
    personalise
        Makes a client's own model of the one that all share; None where clients have none.
    reports
        What clients report with their updates besides what all do (see `strategies.server.reports`).
    returns
        What they report in a round's second exchange.
    required
        Returns the numbers without which the server half takes no reply of a round.
    handlers
        Message type -> what a client answers, for message types of its own.
    initial
        Returns what the server holds before the first round, from settings, number of public examples and
        number of outputs; None: the initial model.
    model_names
        Returns the architectures that clients take in turn; None: all have the run's.
    check_client
        Refuses what a client cannot do, before the first round, from the settings and whether its node has
        data of its own.
    named_clients
        Returns the client-ids that its keys name, by key.
    counting_repeats
        Wraps the server half, in whose answers there is noise, to count those to rounds that were interrupted
        and asked again; None: nobody counts them.
    kept
        What the names of the records begin with that hold a client's own models; empty: it keeps none.
    members
        Returns the names of a family of algorithms; nothing for a single one.
    scoring
        Returns how clients may look at their own data to choose what they train, from the settings, the
        number of rounds and the selection; None: they may not.
    """

    summary: str
    client: ClientHalf
    build: Callable[[ServerSide], Strategy]
    around: Callable[[Strategy, ServerSide, Members], StrategyWrapper] | None = None
    parts: Callable[[Strategy, ServerSide, Members], PartsStrategy] | None = None
    personalise: Personalise | None = None
    reports: Known = field(default_factory=dict)
    returns: Known = field(default_factory=dict)
    required: Callable[[StrategySettings], Sequence[str]] = lambda settings: ()
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    initial: Callable[[StrategySettings, int, int], wire.State] | None = None
    model_names: Callable[[StrategySettings], Sequence[str]] | None = None
    check_client: Callable[[StrategySettings, bool], None] = lambda settings, own_data: None
    named_clients: Callable[[StrategySettings], Mapping[str, Iterable[str]]] = lambda settings: {}
    counting_repeats: Callable[[Strategy, int], Strategy] | None = None
    kept: str = ""
    members: Callable[[], Iterable[str]] = lambda: ()
    scoring: Callable[[StrategySettings, int, SelectionSettings], Scoring | None] = (
        lambda settings, rounds, selection: None
    )
