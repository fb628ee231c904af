"""A sign: what rounds, or examples, say of each client, and how far out that puts it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from unlearning.suspects import outliers
from unlearning.suspects.outliers import Values

SMALLEST_SHARE = 0.25
"""Share of the clients' median below which a positive figure counts as that share: a tiny one widens the
spread, and must not hide a large one."""

Reduce = Callable[[Values], Values]
"""From the means of samples, shape [draws, clients, columns], to a figure, shape [draws, clients]."""


def only_column(means: Values) -> Values:
    """Return the means of signs that have one column."""
    found: Values = means[..., 0]
    return found


def known_means(samples: Values) -> list[float | None]:
    """Return the mean of each column of what is a number, shape [n, clients]; None where nothing is."""
    known = ~np.isnan(samples)
    count = known.sum(axis=0)
    means = np.where(known, samples, 0.0).sum(axis=0) / np.maximum(count, 1)
    return [float(mean) if number else None for mean, number in zip(means, count, strict=True)]


@dataclass(frozen=True, eq=False)
class Sign:
    """One kind of evidence about all clients; the larger its value, the worse the client looks.

    Parameters
    ----------
    name
        For people, in a word.
    unit
        What one sample is of: a round of the log, or an example of the server's.
    samples
        Shape [samples, clients, columns], not a number where a client has none.
    shown
        What people are told of each client.
    reason
        What it means that a client stands out by this sign.
    reduce
        Makes a client's value of the means of its samples.
    """

    name: Literal["direction", "length", "loss", "class"]
    unit: Literal["round", "example"]
    samples: Values
    shown: Sequence[float | None]
    reason: str
    reduce: Reduce = only_column

    @cached_property
    def values(self) -> Values:
        """Each client's value, shape [clients]."""
        found: Values = self.resampled(np.ones((1, len(self.samples))))[0]
        return found

    @cached_property
    def scores(self) -> Values:
        """By how many standard deviations each client is out, shape [clients]."""
        return outliers.scores_of(self.values)

    @cached_property
    def p(self) -> Values:
        """How often the worst of clients that differ by chance would be as far out, shape [clients]."""
        return outliers.p_values(self.values)

    def resampled(self, counts: Values) -> Values:
        """Return the clients' values if each sample counts so many times.

        Parameters
        ----------
        counts
            Shape [draws, samples].

        Returns
        -------
        array
            Shape [draws, clients]. A client without a sample in a draw keeps its mean over all.
        """
        num_samples, clients, columns = self.samples.shape
        known = ~np.isnan(self.samples)
        sums = counts @ np.where(known, self.samples, 0.0).reshape(num_samples, -1)
        times = counts @ known.astype(float).reshape(num_samples, -1)
        means = np.divide(sums, times, out=np.broadcast_to(self._means, sums.shape).copy(), where=times > 0)
        values = self.reduce(means.reshape(-1, clients, columns))
        middle = np.median(values, axis=-1, keepdims=True)
        found: Values = middle + (values - middle) * self._trust
        return found

    @cached_property
    def _means(self) -> Values:
        known = ~np.isnan(self.samples)
        sums = np.where(known, self.samples, 0.0).sum(axis=0)
        found: Values = (sums / np.maximum(known.sum(axis=0), 1)).reshape(-1)
        return found

    @cached_property
    def _trust(self) -> Values:
        """How much of a client's distance from the median counts, in [0, 1]: less if it has few samples.

        The mean of fewer samples scatters more. Nobody's distance grows.
        """
        known = (~np.isnan(self.samples)).all(axis=2).sum(axis=0)
        usual = max(float(np.median(known)), 1.0)
        found: Values = np.minimum(1.0, np.sqrt(known / usual))
        return found


def together(values: Sequence[Values]) -> Values:
    """Return how far clients are out by several signs, given each one's values, shape [..., clients].

    It is the score of the sum of the values, each in its own standard deviations. Who is out by several signs
    is out further than by each, and who is out by one hardly less. Among few clients signs may cancel each
    other by chance, and their sums hardly differ: less than a deviation of one sign is no measure.
    """
    return outliers.scores_of(np.sum([outliers.standardised(each) for each in values], axis=0), 1.0)
