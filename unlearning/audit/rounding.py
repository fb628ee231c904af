"""Rounding a model's weights to few bits: an attack that may bring back what forgetting only pushed a little.

A method that moves the weights just far enough for the forgotten data to be answered wrongly leaves them near
the old ones; rounded to a coarse grid, some of them fall back onto the old values (Zhang et al.,
"Catastrophic Failure of LLM Unlearning via Quantization", ICLR 2025, arXiv 2410.16454; arXiv 2605.02196).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from strategies.core.shared_memory import new_vector
from strategies.core.wire import Layout
from strategies.server.aggregation import largest_entry
from strategies.server.cohort import Cohort
from unlearning.audit.measurement import Measurement, measure
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings

_PIECE = 1 << 20
"""Parameters that are rounded at a time: in float64 a whole model would be several of it."""


@dataclass(frozen=True)
class Rounded:
    """What is left of one model's accuracies when its weights are rounded.

    Parameters
    ----------
    bits
        Of each weight, its sign included.
    unlearning_accuracy, retain_accuracy, test_accuracy
        UA, RA and TA in percent; None where they could not be measured.
    """

    bits: int
    unlearning_accuracy: float | None
    retain_accuracy: float | None
    test_accuracy: float | None

    @staticmethod
    def of(bits: int, measured: Measurement) -> "Rounded":
        """Return the accuracies of a measurement."""
        return Rounded(bits, measured.unlearning_accuracy, measured.retain_accuracy, measured.test_accuracy)

    def to_json(self) -> Mapping[str, Any]:
        """Return the accuracies as a mapping that `json` can write."""
        return {
            "unlearning_accuracy": self.unlearning_accuracy,
            "retain_accuracy": self.retain_accuracy,
            "test_accuracy": self.test_accuracy,
        }


def rounded(flat: Tensor, layout: Layout, bits: int) -> Tensor:
    """Return parameters rounded to 2^bits − 1 values around 0, on a grid of its own for each entry.

    The largest value of an entry lies on its grid; zeros stay zero. `flat` has shape [layout.size].

    Examples
    --------
    >>> layout = Layout(("w", "b"), ((3,), (1,)))
    >>> rounded(torch.tensor([1.0, 0.3, -0.6, 5.0]), layout, 2)
    tensor([ 1.,  0., -1.,  5.])
    """
    levels, sizes = 2 ** (bits - 1) - 1, list(layout.sizes)
    made = new_vector(layout.size)
    for place, part in zip(torch.split(made, sizes), torch.split(flat, sizes), strict=True):
        step = largest_entry(part) / levels if len(part) else 0.0
        for own, piece in zip(torch.split(place, _PIECE), torch.split(part, _PIECE), strict=True):
            # In float32 the step of an entry of tiny values is 0
            own.copy_(torch.round(piece.double() / step) * step if step else piece)
    return made


def rounded_weights(run: TrainedRun, flat: Tensor, bits: int) -> Tensor:
    """Return parameters whose weights are `rounded`, shape [layout.size]; running statistics stay.

    Models that are rounded to be used keep these in full precision, too: at few bits a small variance is 0.
    """
    found = rounded(flat, run.layout, bits)
    return found if run.num_trained == run.layout.size else torch.where(run.trained, found, flat)


def measure_rounded(
    run: TrainedRun,
    models: Mapping[str, Tensor],
    request: ForgetRequest,
    cohort: Cohort,
    settings: AuditSettings,
) -> dict[str, tuple[Rounded, ...]]:
    """Measure models, shape [run.layout.size] each, at each of ``audit.rounding``; by name."""
    return {
        name: tuple(
            Rounded.of(
                bits,
                measure(
                    run,
                    rounded_weights(run, flat, bits),
                    request,
                    cohort,
                    settings,
                    name=f"{name} at {bits} bits",
                ),
            )
            for bits in settings.rounding_bits
        )
        for name, flat in models.items()
    }


def by_bits(
    found: Mapping[str, Sequence[Rounded]], columns: Mapping[str, str]
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return one method's part as plain data, by bits and column; `columns` name its models."""
    return {
        str(each.bits): {column: found[name][place].to_json() for column, name in columns.items()}
        for place, each in enumerate(next(iter(found.values()), ()))
    }
