"""How fast disagreement falls in decentralised training, against theory; and what is learnt, by topology.

Theory: without local steps, the consensus distance falls per round at least by the second largest modulus of
the eigenvalues of W, and in the long run by just that. The first part mixes random models as the clients do,
without learning; the second trains.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from app.config.run_config import RunConfig
from app.workflows.observer import Observer, Quiet
from app.workflows.session import Session
from app.workflows.training import train
from benchmarks.jobs import machine, spread
from strategies.core.seeds import torch_generator
from strategies.gossip.gossip import DISTANCE, consensus_distance, mixed
from strategies.gossip.settings import GossipSettings
from strategies.gossip.topology import adjacency, mixing_weights, second_eigenvalue

TOPOLOGIES: Mapping[str, Sequence[str]] = {
    "ring": ("strategy.topology=ring",),
    "torus": ("strategy.topology=torus",),
    "random": ("strategy.topology=random", "strategy.edge-probability=0.3"),
    "complete": ("strategy.topology=complete",),
}
_RUN = (
    "data.name=mnist",
    "data.public=0",
    "data.partition=shards",
    "model.name=mlp",
    "model.hidden=32",
    "train.learning-rate=0.05",
    "train.momentum=0.0",
    "run.workers=1",
    "log.enabled=false",
)
_FLOOR = 1e-4
"""Below this share of the first distance, rounding to float32 is felt."""
_TAIL = 8
_SIZE, _MIXTURES = 1000, 60


def run(
    observer: Observer | None = None,
    *,
    data_root: str = "",
    clients: int = 16,
    train_examples: int = 3200,
    rounds: int = 40,
    seeds: int = 3,
    plot: str = "",
) -> dict[str, Any]:
    """Return, by topology, the factor per round in theory and as measured, and what training reaches.

    Parameters
    ----------
    observer
        Told of each run.
    data_root
        Where torchvision's MNIST lies (``data.root``).
    clients
        Of the federation.
    train_examples
        In all.
    rounds
        Of training; 0 leaves the second part out.
    seeds
        Number of seeds, from 0.
    plot
        File for a picture of the first part, of seed 0; empty: none.
    """
    size = [f"data.root={data_root}", f"data.clients={clients}", f"data.train-limit={train_examples}"]
    keys = [*_RUN, *size, "data.test-limit=2000", f"run.rounds={rounds}"]
    observer = observer or Quiet()
    observer.phase("gossip", seeds)
    curves: dict[str, tuple[list[float], float]] = {}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in TOPOLOGIES}
    averaged: list[float] = []
    for seed in range(seeds):
        own = [*keys, f"run.seed={seed}"]
        if rounds:
            averaged.append(_lines([*own, "strategy.name=fedavg"], {"": ()})[""][-1]["test-accuracy"])
        trained = _lines([*own, "strategy.name=gossip"], TOPOLOGIES) if rounds else {}
        for name, topology in TOPOLOGIES.items():
            distances, eigenvalue = mixing(topology, clients, seed)
            runs[name].append({"theory": eigenvalue, "measured": factor(distances)})
            if name in trained:
                runs[name][-1] |= _reached(trained[name][-1])
            curves.setdefault(name, (distances, eigenvalue))
        observer.advance(f"seed {seed}")
    rows = [
        {"topology": name, **{key: spread(figures[key] for figures in found) for key in found[0]}}
        for name, found in runs.items()
    ]
    if plot:
        picture(curves).savefig(Path(plot), dpi=110)
    settings = {"clients": clients, "train_examples": train_examples, "rounds": rounds, "seeds": seeds}
    return {
        "machine": machine(),
        "settings": settings,
        "topologies": rows,
        "fedavg": spread(averaged),
    }


def _lines(keys: Sequence[str], variants: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rounds of each variant, whose keys matter to the server alone, over the same clients."""
    found = {}
    with tempfile.TemporaryDirectory() as home:
        config = RunConfig().with_overrides([*keys, f"run.home={home}"])
        with Session.of(config).local_grid() as grid:
            for name, variant in variants.items():
                found[name] = train(config.with_overrides(variant), None, grid).read_metrics()
    return found


def mixing(topology: Sequence[str], clients: int, seed: int) -> tuple[list[float], float]:
    """Return the consensus distance of random models before and after each mixture, and the eigenvalue."""
    settings = RunConfig().with_overrides(["strategy.name=gossip", *topology]).strategy.own(GossipSettings)
    weights = mixing_weights(adjacency(settings.topology, clients, settings.edge_probability, seed))
    generator = torch_generator(seed, "gossip benchmark")
    models = [torch.randn(_SIZE, generator=generator) for _ in range(clients)]
    distances = [consensus_distance(models)]
    for _ in range(_MIXTURES):
        models = [mixed(models, row.tolist()) for row in weights]
        distances.append(consensus_distance(models))
    return distances, second_eigenvalue(weights)


def _reached(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        "distance after training": float(line[DISTANCE]),
        "accuracy of the mean": float(line["test-accuracy"]),
    }


def factor(distances: Sequence[float]) -> float:
    """Return the mean factor per round over the last rounds in which float32 can tell the models apart.

    Examples
    --------
    >>> round(factor([8.0, 4.0, 2.0, 1.0]), 6)
    0.5
    """
    felt = [d for d in distances if d >= _FLOOR * distances[0]]
    if len(felt) < 2:
        return 0.0
    steps = min(_TAIL, len(felt) - 1)
    return math.exp(math.log(felt[-1] / felt[-1 - steps]) / steps)


def picture(curves: Mapping[str, tuple[Sequence[float], float]]) -> Figure:
    """Return the consensus distance over the rounds, and what theory allows, by topology."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, (distances, eigenvalue)) in enumerate(curves.items()):
        rounds = range(len(distances))
        relative = [max(d / distances[0], 1e-9) for d in distances]
        bound = [max(eigenvalue**t, 1e-9) for t in range(len(distances))]
        axes.semilogy(rounds, relative, f"C{number}o-", markersize=3, label=f"{name}, measured")
        axes.semilogy(rounds, bound, f"C{number}--", label=f"{name}, {eigenvalue:.3f}^t")
    axes.set(xlabel="mixtures", ylabel="consensus distance, at the start = 1", ylim=(1e-8, 2))
    axes.legend(fontsize=8, ncols=2)
    return figure
