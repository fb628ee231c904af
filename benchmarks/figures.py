"""Figures over seeds, with their means and spreads, and what a measurement depends on besides the code."""

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from app.simulation.launch import num_cores
from unlearning.student_t import quantile

Spread = Mapping[str, float | None]
"""``mean`` and ``std``: None where there are too few values."""
Figures = Mapping[str, float]
"""By name."""
_Z_975 = 1.959964
"""Quantile at 97.5 % of the normal distribution."""


def spread(values: Iterable[float]) -> Spread:
    """Return mean and sample standard deviation; None where there are too few values.

    Examples
    --------
    >>> spread([1.0, 3.0]), spread([])
    ({'mean': 2.0, 'std': 1.4142135623730951}, {'mean': None, 'std': None})
    """
    found = list(values)
    mean = statistics.fmean(found) if found else None
    return {"mean": mean, "std": statistics.stdev(found) if len(found) > 1 else None}


def mean_std(values: Iterable[float]) -> dict[str, float]:
    """Return mean and sample standard deviation, which is 0 over a single value.

    Examples
    --------
    >>> mean_std([1.0, 3.0]), mean_std([1.0])
    ({'mean': 2.0, 'std': 1.4142135623730951}, {'mean': 1.0, 'std': 0.0})
    """
    found = list(values)
    return {"mean": statistics.fmean(found), "std": statistics.stdev(found) if len(found) > 1 else 0.0}


def wilson(hits: int, count: int) -> dict[str, float]:
    """Return a rate and its 95 % interval, in percent (Wilson, JASA 22, 1927).

    Examples
    --------
    >>> wilson(10, 10)
    {'rate': 100.0, 'low': 72.2, 'high': 100.0}
    """
    z2 = _Z_975**2
    share = hits / count
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    found = {"rate": share, "low": max(middle - half, 0.0), "high": min(middle + half, 1.0)}
    return {name: round(100 * value, 1) for name, value in found.items()}


def each_figure(
    samples: Sequence[Figures], over: Callable[[Iterable[float]], Spread] = mean_std
) -> dict[str, Spread]:
    """Return mean and spread of each figure over samples that have the same figures."""
    return {figure: over(sample[figure] for sample in samples) for figure in samples[0]}


def pooled(
    label: str,
    tables: Sequence[Mapping[str, Figures]],
    over: Callable[[Iterable[float]], Spread] = mean_std,
) -> list[dict[str, Any]]:
    """Return a row per entry of equal tables, one table per seed, with mean and spread of each figure.

    Parameters
    ----------
    label
        Column with the entries' names.
    tables
        By entry and figure.
    over
        What is made of the values of a figure.
    """
    return [{label: name, **each_figure([table[name] for table in tables], over)} for name in tables[0]]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, by Student's distribution; no ends from a single value."""

    mean: float
    low: float | None
    high: float | None
    count: int

    def to_json(self) -> dict[str, float | None]:
        """Return the figures by name."""
        return asdict(self)


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Interval:
    """Return the mean difference over the seeds that both have, with its interval; at least one.

    Student's quantile is taken to three digits, as tables have it.

    >>> paired({0: 3.0, 1: 5.0}, {0: 1.0, 1: 1.0, 2: 9.0})
    Interval(mean=3.0, low=-9.706, high=15.706, count=2)
    """
    found = [value - others[seed] for seed, value in values.items() if seed in others]
    mean = statistics.fmean(found)
    if len(found) < 2:
        return Interval(mean, None, None, len(found))
    half = round(quantile(len(found) - 1), 3) * statistics.stdev(found) / len(found) ** 0.5
    return Interval(mean, round(mean - half, 6), round(mean + half, 6), len(found))


def kind(sparsity: float) -> str:
    """Return what tables call a model of a sparsity, such as ``95 % sparse``."""
    return f"{100 * sparsity:g} % sparse" if sparsity > 0 else "dense"


@contextmanager
def stopped(seconds: list[float]) -> Iterator[None]:
    """Append the seconds that a block of code takes."""
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)


def machine() -> dict[str, Any]:
    """Return what a measurement depends on besides the code."""
    return {
        "cores": num_cores(),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Return the processor's model where Linux names it, else its architecture."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
