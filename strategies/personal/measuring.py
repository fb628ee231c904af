"""What strategies that personalise share: each client's accuracy before and after, their mean and the worst.

After a round that is evaluated, the clients that took part in it are sent the new model, personalise it, and
report two accuracies: that of the model they were sent, and that of their own. A client is measured on test
data as its own data are: where it brings no test data itself, on those of the data set, weighted by the
shares that the classes have in its training data. The training data stay whole, so that the global model is
that of the strategy without the measurement, to the bit.

The figures are means over the clients, each counting once, and means over the worst tenth of them (at least
one), as in Li et al., "Ditto", arXiv 2012.04221.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from torch import Tensor, nn

from strategies.algorithm import Personalise
from strategies.client.evaluation import mean_score, outputs_of
from strategies.client.training import ClientJob
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.fedavg import broadcast
from strategies.server.reports import PERCENT
from strategies.server.wrapper import ReturnResult, StrategyWrapper

MESSAGE = "evaluate.personal"
"""Message type. Brings the model of the round; asks for the accuracy before and after personalisation."""

GLOBAL = "global-accuracy"
"""float in [0, 100], client to server: accuracy of the model that all share; its mean over the clients."""
PERSONAL = "personal-accuracy"
"""float in [0, 100], client to server: accuracy of the client's own model; its mean over the clients."""
GLOBAL_WORST = "global-worst"
"""Mean of the lowest tenth of the accuracies before."""
PERSONAL_WORST = "personal-worst"
"""Mean of the lowest tenth of the accuracies after."""
REPORTS = {GLOBAL: PERCENT, PERSONAL: PERCENT}
"""What clients report."""
FIGURES = (GLOBAL, GLOBAL_WORST, PERSONAL, PERSONAL_WORST)
"""The figures of a round."""

_WORST_SHARE = 0.1


def group_shares(examples: Examples, num_groups: int) -> Tensor:
    """Return the shares of the groups, such as classes, among examples, shape [num_groups]."""
    return torch.tensor(examples.group_counts(num_groups)).double() / len(examples)


def weighted_score(scores: Tensor, groups: Tensor | None, shares: Tensor | None) -> float | None:
    """Return the mean score, each group of the test data counting its share.

    Parameters
    ----------
    scores
        From 0 to 100, shape [t].
    groups
        Such as classes, shape [t]; None: there are none.
    shares
        Shape [groups]; None: every example counts the same.

    Returns
    -------
    float or None
        None where the test data hold no group that has a share.

    Examples
    --------
    Class 0 has one of two right, class 1 none, class 2 counts nothing: 3/4 · 1/2 + 1/4 · 0.

    >>> scores, shares = torch.tensor([100.0, 0.0, 0.0, 100.0]), torch.tensor([0.75, 0.25, 0.0])
    >>> weighted_score(scores, torch.tensor([0, 0, 1, 2]), shares)
    37.5
    """
    if groups is None or shares is None:
        return mean_score(scores)
    counts = torch.bincount(groups, minlength=len(shares)).double()
    weights = torch.where(counts > 0, shares.double() / counts.clamp(min=1), 0.0)[groups]
    total = float(weights.sum())
    return float((weights * scores.double()).sum()) / total if total > 0 else None


def worst(values: Sequence[float]) -> float:
    """Return the mean of the lowest tenth, of at least one.

    Examples
    --------
    >>> worst([90.0, 50.0, 70.0])
    50.0
    >>> worst([float(value) for value in range(20)])
    0.5
    """
    count = max(1, math.ceil(_WORST_SHARE * len(values) - 1e-9))
    return sum(sorted(values)[:count]) / count


def measure(
    job: ClientJob, personalise: Personalise, test: Examples | None, num_groups: int, *, own_test: bool
) -> dict[str, float | int]:
    """Return a client's report: the two accuracies, if it has test data.

    Parameters
    ----------
    test
        Test data, or None.
    own_test
        Whether the test data are the client's own, and so counted as they are.
    """
    numbers: dict[str, float | int] = {wire.NUM_EXAMPLES: len(job.examples)}
    if test is None or not len(test):
        return numbers
    targets, groups = test.targets(), test.groups()
    as_one = own_test or groups is None or groups.dim() == 2
    shares = None if as_one else group_shares(job.examples, num_groups)

    def score(model: nn.Module) -> float | None:
        scores = job.task.scores(outputs_of(model, test, task=job.task), targets)
        return weighted_score(scores, groups, shares)

    before = score(job.model)
    after = score(personalise(job))
    if before is not None and after is not None:
        numbers |= {GLOBAL: before, PERSONAL: after}
    return numbers


def figures(clients: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the figures of a round from the clients' reports; empty if no client could measure.

    Examples
    --------
    >>> figures([{GLOBAL: 50.0, PERSONAL: 90.0}, {GLOBAL: 70.0, PERSONAL: 80.0}])
    {'global-accuracy': 60.0, 'global-worst': 50.0, 'personal-accuracy': 85.0, 'personal-worst': 80.0}
    """
    measured = [client for client in clients if GLOBAL in client and PERSONAL in client]
    if not measured:
        return {}
    before, after = [client[GLOBAL] for client in measured], [client[PERSONAL] for client in measured]
    values = (sum(before) / len(before), worst(before), sum(after) / len(after), worst(after))
    return dict(zip(FIGURES, values, strict=True))


@final
class MeasuredStrategy(StrategyWrapper):
    """Have the clients measure what personalisation gives, after rounds that are evaluated."""

    def configure_return(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the new model to every node of the grid, if the round is evaluated."""
        if not config.get(wire.MEASURE, False):
            return []
        return broadcast(server_round, arrays, config, grid, MESSAGE)

    def aggregate_return(self, server_round: int, replies: Iterable[Message]) -> ReturnResult:
        """Return the accuracies of each client, and the figures of the round."""
        clients: dict[str, dict[str, float]] = {}
        rejected: dict[str, str] = {}
        for reply in replies:
            client_id = wire.client_id_in(reply.content) or str(reply.metadata.src_node_id)
            numbers = dict(wire.iter_numbers(reply.content.metric_records.get(wire.METRICS, {})))
            accuracies = {key: numbers[key] for key in (GLOBAL, PERSONAL) if key in numbers}
            if not all(0 <= value <= 100 for value in accuracies.values()):
                rejected[client_id] = "reports accuracies that are no percentages"
            elif len(accuracies) < 2:
                rejected[client_id] = "has no test data to measure its own model on"
            else:
                clients[client_id] = accuracies
        ordered = {i: clients[i] for i in sorted(clients, key=wire.client_sort_key)}
        return ReturnResult(figures(ordered.values()), ordered, rejected)
