"""Hard examples of an honest client: a few that a model can only know by heart.

Forgetting methods are told apart on hard examples, such as mislabelled or rare ones, and hardly on average
ones (Feldman, "Does Learning Require Memorization?", STOC 2020, arXiv 1906.05271; "RULI", arXiv 2506.13009):
a model that never saw an average example knows it anyway. A client that holds some is not attacking; its
errors are those of real data. No hard example is no change.
"""

import torch
from torch import Tensor

from strategies.client.settings import HardKind
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples, in_memory


def harden(
    examples: Examples, kind: HardKind, count: int, generator: torch.Generator
) -> tuple[TensorExamples, Tensor]:
    """Make some of a client's examples hard.

    Parameters
    ----------
    examples
        The client's, inputs of shape [n, ...] and class labels of shape [n].
    kind
        ``mislabelled`` gives each of them the label of another of the client's classes, at random; ``rare``
        reflects its inputs in the middle of the client's range of inputs, which makes an image its negative.
    count
        How many, from 0, which changes nothing, to n.
    generator
        Chooses the examples, and the wrong labels.

    Returns
    -------
    tuple of TensorExamples and Tensor
        All examples in their order, as a copy; and the positions of the hard ones, ascending, shape [count],
        int64.

    Raises
    ------
    BadInput
        If the client has fewer examples, or no second class.

    Examples
    --------
    >>> one = TensorExamples(torch.tensor([[0.0], [0.25], [1.0]]), torch.tensor([0, 0, 0]))
    >>> made, chosen = harden(one, "rare", 3, torch.Generator().manual_seed(0))
    >>> made.x.flatten().tolist(), made.y.tolist(), chosen.tolist()
    ([1.0, 0.75, 0.0], [0, 0, 0], [0, 1, 2])
    """
    if count > len(examples):
        raise BadInput(f"hard.examples: given {count}, a client that hard.clients names has {len(examples)}")
    stored = in_memory(examples)
    x, y = stored.x.clone(), stored.y.clone()
    chosen = torch.randperm(len(y), generator=generator)[: count if kind != "none" else 0].sort().values
    if kind == "mislabelled":
        y[chosen] = _others(y, chosen, generator)
    elif len(chosen):
        x[chosen] = x.min() + x.max() - x[chosen]
    return TensorExamples(x, y, stored.group_of), chosen


def _others(labels: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Return another of the labels for each of the chosen, shape [k], int64."""
    known, place = torch.unique(labels, return_inverse=True)
    if len(known) < 2:
        raise BadInput(
            'hard.kind: given "mislabelled", but a client that hard.clients names has a single class; '
            'allowed "rare"'
        )
    further = torch.randint(1, len(known), (len(chosen),), generator=generator)
    others: Tensor = known[(place[chosen] + further) % len(known)]
    return others
