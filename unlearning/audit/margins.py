"""The margins of single examples under a model, as the attacks on single examples read them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from strategies.client.holdout import held_out
from unlearning.audit.gathering import Evidence
from unlearning.audit.roc import Scores

Positions = NDArray[np.int64]
_BLOCK = 1000


@dataclass(frozen=True, eq=False)
class Margins:
    """How well one model knows each example (`Task.confidences`).

    Attributes
    ----------
    forgotten : mapping of str to array
        Of D_f, by client that holds some of it, in the order of its examples, float64.
    retained, unseen : array
        Of D_r, in the order of the clients and their examples, and of the test data, float64.
    places : mapping of str to array
        Position of each forgotten example among the client's.
    summed : mapping of str to int
        How many of D_f each client holds that sent sums only; none of these is above.
    kept : mapping of str to int
        How many of D_r are each client's, in the order of `retained`; all clients that told margins are here.
    """

    forgotten: Mapping[str, Scores]
    retained: Scores
    unseen: Scores
    places: Mapping[str, Positions]
    summed: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)

    @property
    def all_forgotten(self) -> Scores:
        """Those of D_f, client by client."""
        return np.concatenate([np.zeros(0), *self.forgotten.values()])

    @property
    def examples(self) -> Hashable:
        """Tells which examples these are margins of: equal if the same clients told as much each."""
        forgotten = tuple((client, len(values)) for client, values in self.forgotten.items())
        return forgotten, tuple(self.kept.items()), len(self.retained), len(self.unseen)

    @staticmethod
    def of(evidence: Evidence, unseen: Tensor, local_test_share: float = 0.0) -> "Margins":
        """Return the margins in the clients' answers; a client that sent sums only has none.

        `unseen` are those of the test data; `local_test_share` is what each client holds out, which has
        positions but no answer.
        """
        known = {i: answer for i, answer in evidence.answers.items() if answer.margin is not None}
        margins = {i: _floats(answer.margin) for i, answer in known.items() if answer.margin is not None}
        marks = {i: answer.forget.numpy() for i, answer in known.items()}
        holders = [i for i in known if marks[i].any()]
        return Margins(
            {i: margins[i][marks[i]] for i in holders},
            np.concatenate([np.zeros(0), *(margins[i][~marks[i]] for i in known)]),
            _floats(unseen),
            {i: positions(local_test_share, i, len(marks[i]))[marks[i]] for i in holders},
            {i: held for i in evidence.sums_only if (held := int(evidence.answers[i].forget.sum()))},
            {i: int((~marks[i]).sum()) for i in known},
        )


def positions(local_test_share: float, client_id: str, count: int) -> Positions:
    """Return the positions of the first `count` examples that a client trains on, shape [count].

    >>> positions(0.0, "7", 3).tolist()
    [0, 1, 2]
    """
    size = count + _BLOCK
    kept = np.zeros(0, np.int64)
    while len(kept) < count:
        kept = np.flatnonzero(~held_out(local_test_share, client_id, size).numpy()).astype(np.int64)
        size *= 2
    return kept[:count]


def same_examples(given: Sequence[Margins]) -> bool:
    """Whether all models were asked about the same examples: no client answered for one and not another."""
    return len({each.examples for each in given}) == 1


def _floats(margins: Tensor) -> Scores:
    found: Scores = margins.double().numpy()
    return found
