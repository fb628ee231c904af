"""Which updates an update log keeps, and how precisely.

`full` keeps every update. `interval:<k>` keeps those of the rounds 1, 1 + k, 1 + 2k, …: FedEraser starts over
from the first round, so the first is always kept (Liu et al., IWQoS 2021, arXiv 2012.13891). `sum` keeps one
running sum Σ_t w_t·δ_t per client, all that subtraction needs (Wu et al., arXiv 2201.09441), in float32
because a sum that is rounded in every round loses more than an update that is rounded once. Norms, weights
and example counts are kept for every round, whatever the retention.
"""

import re
from dataclasses import dataclass
from typing import Literal

from strategies.core.errors import BadInput

DTYPES = ("float32", "float16", "bfloat16")
"""Precisions of stored updates. The largest relative rounding errors are 0, 2^-11 and 2^-8; float16 ends at
±65504, and below 2^-14 has an absolute error of up to 2^-25."""


@dataclass(frozen=True)
class Retention:
    """What is kept.

    Parameters
    ----------
    kind
        Every update, those of some rounds, or one sum per client.
    every
        Rounds from one kept round to the next, at least 1; neutral 1.
    """

    kind: Literal["full", "interval", "sum"]
    every: int = 1

    @staticmethod
    def parse(text: str) -> "Retention":
        """Return the retention that ``full``, ``sum`` or ``interval:<k>`` names.

        Raises
        ------
        BadInput
            If the text is none of these.

        Examples
        --------
        >>> Retention.parse("interval:5")
        Retention(kind='interval', every=5)
        """
        if text == "full":
            return Retention("full")
        if text == "sum":
            return Retention("sum")
        if not (match := re.fullmatch(r"interval:0*([1-9]\d*)", text)):
            raise BadInput(
                f"log.retention: got '{text}', expected full, sum or interval:<k> with k at least 1"
            )
        return Retention("interval", int(match[1]))

    def __str__(self) -> str:
        """Return the text that `parse` takes."""
        return f"{self.kind}:{self.every}" if self.kind == "interval" else self.kind

    def keeps(self, server_round: int) -> bool:
        """Say whether the single updates of a round are kept.

        Examples
        --------
        >>> [r for r in range(1, 10) if Retention("interval", 3).keeps(r)]
        [1, 4, 7]
        """
        return self.kind != "sum" and (server_round - 1) % self.every == 0


def check_dtype(retention: Retention, dtype: str) -> str:
    """Return the precision in which a log stores, in torch's words.

    Raises
    ------
    BadInput
        If there is no such precision, or the retention does not allow it.
    """
    if dtype not in DTYPES:
        raise BadInput(f"log.dtype: got '{dtype}', expected {', '.join(DTYPES)}")
    if retention.kind == "sum" and dtype != "float32":
        raise BadInput(f"log.dtype: got '{dtype}' with log.retention = 'sum'; sums are kept in float32")
    return dtype
