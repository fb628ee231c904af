"""The federated algorithms by name: what a run config may write as ``strategy.name``."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

from flwr.serverapp.strategy import Strategy

from strategies import fedavg
from strategies.asynchronous import fedasync, fedbuff
from strategies.client.training import ClientHalf, ClientJob, LocalResult
from strategies.coded_gd import coded_gd
from strategies.core.errors import BadInput, LetheError
from strategies.fedmd import client as fedmd_client
from strategies.fedprox import fedprox
from strategies.flower import flower as builtin
from strategies.gossip import gossip
from strategies.one_shot import one_shot
from strategies.personal import ditto, measuring as personal, per_fedavg
from strategies.personal.measuring import MeasuredStrategy, Personalise
from strategies.pruned_dp import pruned_dp
from strategies.server.reports import Known
from strategies.settings import StrategySettings


@dataclass(frozen=True)
class StrategySpec:
    """Both halves of an algorithm.

    Parameters
    ----------
    build
        Makes the server half from its settings and the seed.
    client
        The client half.
    summary
        One line for people.
    personalise
        Makes a client's own model of the one that all share; None where clients have none.
    reports
        What clients report with their updates besides what all do (see `strategies.server.reports`).
    returns
        What they report in a round's second exchange.
    """

    build: Callable[[StrategySettings, int], Strategy]
    client: ClientHalf
    summary: str
    personalise: Personalise | None = None
    reports: Known = field(default_factory=dict)
    returns: Known = field(default_factory=dict)


def _needs_public_data(what: str, name: str = "fedmd") -> NoReturn:
    """Refuse to stand in for FedMD's own messages, and for a plan that knows the public data."""
    raise LetheError(f"{name} has no such thing as {what} without public data")


STRATEGIES: dict[str, StrategySpec] = {
    "coded-gd": StrategySpec(
        coded_gd.CodedGD,
        coded_gd.train_client,
        "exact full-batch gradient descent from any n − s clients, each holding s others' data",
        reports=coded_gd.REPORTS,
    ),
    "ditto": StrategySpec(
        lambda settings, seed: MeasuredStrategy(fedavg.FedAvg()),
        ditto.train_client,
        "FedAvg, and a personal model for every client that is held near the global one",
        ditto.personalise,
        returns=personal.REPORTS,
    ),
    "fedavg": StrategySpec(
        lambda settings, seed: fedavg.FedAvg(),
        fedavg.train_client,
        "weighted average of the clients' models",
    ),
    fedasync.NAME: StrategySpec(
        lambda settings, seed: fedasync.build(settings),
        fedavg.train_client,
        "each client's model is mixed into the global one as soon as it arrives",
    ),
    fedbuff.NAME: StrategySpec(
        lambda settings, seed: fedbuff.build(settings),
        fedavg.train_client,
        "a step for every K updates that arrive, in which late ones count less",
    ),
    "fedmd": StrategySpec(
        lambda settings, seed: _needs_public_data("a server half"),
        lambda job: _needs_public_data("an answer to 'train'"),
        "clients with different models learn from each other's logits on public data",
        reports=fedmd_client.REPORTS,
        returns=fedmd_client.RETURNS,
    ),
    "fedprox": StrategySpec(
        lambda settings, seed: fedavg.FedAvg(),
        fedprox.train_client,
        "FedAvg with a proximal term, accepts partial local work",
    ),
    "gossip": StrategySpec(
        gossip.Gossip,
        gossip.train_client,
        "no global model: every client mixes its own with those of its neighbours in a topology",
    ),
    one_shot.NAME: StrategySpec(
        lambda settings, seed: _needs_public_data("a server half", one_shot.NAME),
        one_shot.train_client,
        "one round: the ensemble of the clients' models is distilled into one on public data",
    ),
    "per-fedavg": StrategySpec(
        lambda settings, seed: MeasuredStrategy(fedavg.FedAvg()),
        per_fedavg.train_client,
        "a model from which one gradient step on a client's own data leads to a good one for it",
        per_fedavg.personalise,
        returns=personal.REPORTS,
    ),
    "pruned-dp": StrategySpec(
        lambda settings, seed: fedavg.FedAvg(),
        pruned_dp.train_client,
        "each client trains a smaller network of the most important neurons, and only that travels",
    ),
}


def lookup(name: str) -> StrategySpec:
    """Return the algorithm of that name; ``flwr:<ClassName>`` is one of Flower's own.

    Raises
    ------
    BadInput
        If there is none.
    """
    if name.startswith(builtin.PREFIX):
        client = _flower_fedprox if name == "flwr:FedProx" else fedavg.train_client
        return StrategySpec(lambda settings, seed: builtin.build(settings), client, f"Flower's own {name}")
    if name not in STRATEGIES:
        raise BadInput(f"strategy.name: got '{name}', known are {', '.join(STRATEGIES)} and flwr:<ClassName>")
    return STRATEGIES[name]


def _flower_fedprox(job: ClientJob) -> LocalResult:
    mu = float(job.strategy.option_values.get("proximal_mu", 0.0))
    return fedprox.train_client(replace(job, strategy=job.strategy.model_copy(update={"mu": mu})))
