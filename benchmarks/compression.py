"""Bytes that each codec takes to an accuracy on MNIST, against plain averaging with the same settings.

Ten clients, all of the training data spread over them, a small CNN. A codec stands for the way up; chains
with ``down`` encode the way down as well; otherwise the model is sent to everybody in every round.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.workflows.observer import Observer, Quiet
from benchmarks.jobs import chosen, machine
from benchmarks.reaching import MNIST_CNN, Contenders, named, race

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


def run(  # noqa: PLR0913 (each is an option of the command line)
    observer: Observer | None = None,
    *,
    data_root: str = "",
    codecs: str = "",
    partitions: str = "",
    seeds: int = 3,
    goal: float = 97.0,
    rounds: int = 100,
    overrides: str = "",
) -> dict[str, Any]:
    """Return rounds and bytes to the goal by partition and codec, and how many times less than plain.

    Parameters
    ----------
    observer
        Told of each run.
    data_root
        Where torchvision's MNIST lies (``data.root``).
    codecs, partitions
        Names of those to measure, with semicolons and commas between them; empty: all.
    seeds
        Number of seeds, from 0.
    goal
        Test accuracy in percent.
    rounds
        After which a run is given up.
    overrides
        Further keys of the run config, as ``section.key=value`` with a semicolon between them.
    """
    names = named("codecs", codecs, CODECS, PLAIN)
    wanted = chosen("partitions", partitions, PARTITIONS)
    common = (*MNIST_CNN, f"data.root={data_root}", "train.learning-rate=0.1", f"run.rounds={rounds}")
    told = (*common, *(key for key in overrides.split(";") if key))
    watcher = observer or Quiet()
    watcher.phase("compression", len(wanted) * len(names) * seeds)
    results: dict[str, Any] = {"machine": machine(), "goal": goal, "rounds": rounds, "seeds": seeds}
    for partition in wanted:
        contenders = {name: (*told, *PARTITIONS[partition], *CODECS[name]) for name in names}
        results[partition] = race(contenders, PLAIN, seeds, goal, watcher, partition)
    return results
