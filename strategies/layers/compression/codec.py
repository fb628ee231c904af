"""Which codec: its name in the run config, and its parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Choice = Literal["all", "top-k", "random-k", "low-rank"]
Form = Literal["float32", "int8", "int4", "sign"]
Shapes = Sequence[tuple[int, ...]]
"""Shapes of the entries that lie in the vector, one after another."""

CHOICES: tuple[Choice, ...] = ("all", "top-k", "random-k", "low-rank")
FORMS: tuple[Form, ...] = ("float32", "int8", "int4", "sign")


@dataclass(frozen=True)
class Codec:
    """How a vector is encoded.

    Parameters
    ----------
    choice
        Which entries or factors travel.
    form
        How their numbers are written.
    keep
        Share of the entries that ``top-k`` and ``random-k`` choose, in (0, 1].
    rank
        Of ``low-rank``.
    unbiased
        Whether the expectation is the vector itself, where the codec can have that.
    """

    choice: Choice = "all"
    form: Form = "float32"
    keep: float = 1.0
    rank: int = 1
    unbiased: bool = False

    @staticmethod
    def parse(text: str, keep: float = 0.5, rank: int = 1, *, unbiased: bool = False) -> "Codec":
        """Return the codec with this name; keeping every entry means no codec.

        Raises
        ------
        ValueError
            If it is no codec.

        Examples
        --------
        >>> Codec.parse("top-k+int8", keep=0.1).form
        'int8'
        """
        stages = [] if text == "identity" else text.split("+")
        choices = [stage for stage in stages if stage in CHOICES[1:]]
        forms = [stage for stage in stages if stage in FORMS[1:]]
        if stages != choices[:1] + forms[:1]:
            raise ValueError(
                f"identity, or one of {', '.join(CHOICES[1:])}, or one of {', '.join(FORMS[1:])}, or one of "
                "each in this order with a plus sign, such as top-k+int8"
            )
        if stages in (["low-rank", "int4"], ["low-rank", "sign"]):
            raise ValueError("low-rank alone or low-rank+int8: factors do not stand so few bits")
        choice = choices[0] if choices else "all"
        if keep == 1 and choice in {"top-k", "random-k"}:
            choice = "all"
        return Codec(choice, forms[0] if forms else "float32", keep, rank, unbiased)

    def is_neutral(self, shapes: Shapes) -> bool:
        """Say whether vectors of these shapes come back as they were, to the bit."""
        whole = self.choice == "all" or (
            self.choice == "low-rank" and not any(factored(shape, self.rank) for shape in shapes)
        )
        return whole and self.form == "float32"


def factored(shape: tuple[int, ...], rank: int) -> bool:
    """Say whether factors take less than the matrix; higher dimensions are columns, as in PowerSGD."""
    if len(shape) < 2:
        return False
    rows, columns = shape[0], math.prod(shape[1:])
    return rank * (rows + columns) < rows * columns
