"""The public examples of a round, and the consensus of the clients' logits on them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from strategies.core.seeds import numpy_generator
from strategies.core.wire import client_sort_key


def draw_alignment(labels: Tensor, count: int, seed: int, server_round: int) -> Tensor:
    """Draw a round's public examples; each class has its share to within one example.

    Every (n / count)-th example is drawn, after these were shuffled and then sorted by class.

    Parameters
    ----------
    labels
        Of the public data, shape [n].
    count
        How many to draw, 1 to n.
    seed, server_round
        Decide the draw.

    Returns
    -------
    Tensor
        Ascending positions, shape [count], int64.
    """
    shuffled = torch.from_numpy(numpy_generator(seed, "alignment", server_round).permutation(len(labels)))
    if labels.dim() == 2:  # Of several classes each: drawn as if all were of one
        labels = torch.zeros(len(labels), dtype=torch.int64)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    every = ((torch.arange(count, dtype=torch.float64) + 0.5) * (len(labels) / count)).long()
    return by_class[every].sort().values


def mean_consensus(logits: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return Σ_k c_k f_k with c_k proportional to the weights, shape [n, classes].

    The sum is made in the order of the client-ids, so the order of arrival does not change a bit.

    Parameters
    ----------
    logits
        By client-id, shape [n, classes] each; at least one.
    weights
        By client-id, above 0; 1 for a client that is not named.
    """
    ids = sorted(logits, key=client_sort_key)
    raw = [weights.get(i, 1.0) for i in ids]
    total = torch.zeros_like(logits[ids[0]], dtype=torch.float64)
    for client_id, weight in zip(ids, raw, strict=True):
        total.add_(logits[client_id].double(), alpha=weight)
    return (total / sum(raw)).float()


def confidence_consensus(logits: Mapping[str, Tensor]) -> Tensor:
    """Return the mean of the clients' rows, each weighted by its certainty, shape [n, classes].

    A client that never saw a class is unsure of its examples, and so has little say about them. Where nobody
    is sure of anything, all rows count alike.

    Parameters
    ----------
    logits
        By client-id, shape [n, classes] each; at least one.
    """
    ids = sorted(logits, key=client_sort_key)
    first = logits[ids[0]]
    total, weight = torch.zeros_like(first, dtype=torch.float64), torch.zeros(len(first), dtype=torch.float64)
    for client_id in ids:
        sure = certainty(logits[client_id])  # [n]
        total += sure[:, None] * logits[client_id].double()
        weight += sure
    unsure = weight <= 0
    mean = mean_consensus(logits, {})
    return torch.where(unsure[:, None], mean.double(), total / weight.clamp_min(1e-300)[:, None]).float()


def variance_consensus(logits: Mapping[str, Tensor]) -> Tensor:
    """Return Σ_k w_kc f_k(x)_c with w_kc proportional to Var_x f_k(x)_c, shape [n, classes].

    Each client has a weight for each class. Training without a class pushes its logit down alike for
    all examples, so that its column varies little; the column of a class that a client knows tells examples
    apart. Cho et al. (Fed-ET, arXiv 2204.12703) weigh clients by the variance too, but of each row over the
    classes, in which every client is as sure of public examples as the others. A column that varies with
    nobody is the clients' mean.

    Parameters
    ----------
    logits
        By client-id, shape [n, classes] each; at least one.
    """
    ids = sorted(logits, key=client_sort_key)
    total = torch.zeros_like(logits[ids[0]], dtype=torch.float64)
    weight = torch.zeros(total.shape[1], dtype=torch.float64)
    for client_id in ids:
        column = logits[client_id].double()
        varies = column.var(dim=0, correction=0)  # [classes]
        total += varies * column
        weight += varies
    mean = mean_consensus(logits, {}).double()
    return torch.where(weight <= 0, mean, total / weight.clamp_min(1e-300)).float()


def certainty(logits: Tensor) -> Tensor:
    """Return 1 − H(softmax(row)) / log(classes) of each row, in [0, 1], shape [n], float64.

    Parameters
    ----------
    logits
        Shape [n, classes] with at least two classes.

    Examples
    --------
    >>> certainty(torch.tensor([[0.0, 0.0], [100.0, 0.0]]))
    tensor([0., 1.], dtype=torch.float64)
    """
    log_p = torch.log_softmax(logits.double(), dim=1)
    entropy = -(log_p.exp() * log_p).sum(dim=1)
    return (1 - entropy / math.log(logits.shape[1])).clamp(0, 1)
