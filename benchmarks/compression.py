"""Bytes that each codec takes to an accuracy on MNIST, against plain averaging with the same settings.

Ten clients, all of the training data spread over them, a small CNN. A codec stands for the way up; chains
with ``down`` encode the way down as well; otherwise the model is sent to everybody in every round.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.workflows.observer import Observer
from benchmarks.options import chosen
from benchmarks.reaching import Contenders, RaceOptions, race

PLAIN = "plain"
_SPARSE = "compression.keep=0.01"


def _both(chain: str, keep: float, down_keep: float) -> Sequence[str]:
    return (
        f"compression.codec={chain}",
        f"compression.keep={keep}",
        f"compression.down-codec={chain}",
        f"compression.down-keep={down_keep}",
    )


CODECS: Contenders = {
    PLAIN: (),
    "int8": ("compression.codec=int8",),
    "int4": ("compression.codec=int4",),
    "sign": ("compression.codec=sign",),
    "low-rank": ("compression.codec=low-rank", "compression.rank=1"),
    "random-k": ("compression.codec=random-k", "compression.keep=0.1"),
    "top-k": ("compression.codec=top-k", _SPARSE),
    "top-k+int8": ("compression.codec=top-k+int8", _SPARSE),
    "top-k+int4": ("compression.codec=top-k+int4", _SPARSE),
    "top-k+int8, down too": _both("top-k+int8", 0.01, 0.05),
    "top-k+int4, down too": _both("top-k+int4", 0.01, 0.05),
}
"""What each contender sets."""
PARTITIONS: Mapping[str, Sequence[str]] = {
    "iid": (),
    "dirichlet-0.1": ("data.partition=dirichlet", "data.alpha=0.1"),
}


class Options(RaceOptions):
    """Options of the benchmark."""

    codecs: str = ""
    """Names of those to measure, with semicolons between them; empty: all."""
    partitions: str = ""
    """Names of those to measure, with commas between them; empty: all."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return rounds and bytes to the goal by partition and codec, and how many times less than plain."""
    names = chosen("codecs", options.codecs, CODECS, ";", PLAIN)
    wanted = chosen("partitions", options.partitions, PARTITIONS)
    observer.phase("compression", len(wanted) * len(names) * options.seeds)
    results: dict[str, Any] = options.settings("goal", "rounds", "seeds")
    for partition in wanted:
        common = [*options.keys("train.learning-rate=0.1"), *PARTITIONS[partition]]
        contenders = {name: (*common, *CODECS[name]) for name in names}
        results[partition] = race(contenders, PLAIN, options, observer, partition)
    return results
