"""How fast disagreement falls in decentralised training, against theory; and what is learnt, by topology.

Theory: without local steps, the consensus distance falls per round at least by the second largest modulus of
the eigenvalues of W, and in the long run by just that. The first part mixes random models as the clients do,
without learning; the second trains.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from app.config.run_config import RunConfig
from app.workflows.observer import Observer
from app.workflows.training import train
from benchmarks.figures import pooled, spread
from benchmarks.options import RunOptions
from benchmarks.rounds import local_clients
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


class Options(RunOptions):
    """Options of the benchmark; without rounds, nothing is trained."""

    train_examples: int = 3200
    rounds: int = 40
    clients: int = 16
    """Of the federation."""
    plot: str = ""
    """File for a picture of the first part, of seed 0; empty: none."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return, by topology, the factor per round in theory and as measured, and what training reaches."""
    keys = [*_RUN, *options.keys(), f"data.clients={options.clients}", "data.test-limit=2000"]
    observer.phase("gossip", options.seeds)
    curves: dict[str, tuple[list[float], float]] = {}
    tables: list[dict[str, dict[str, float]]] = []
    averaged: list[float] = []
    for seed in range(options.seeds):
        own = [*keys, f"run.seed={seed}"]
        table: dict[str, dict[str, float]] = {}
        for name, topology in TOPOLOGIES.items():
            distances, eigenvalue = mixing(topology, options.clients, seed)
            table[name] = {"theory": eigenvalue, "measured": factor(distances)}
            curves.setdefault(name, (distances, eigenvalue))
        if options.rounds:
            averaged.append(_last_lines([*own, "strategy.name=fedavg"], {"": ()})[""]["test-accuracy"])
            for name, line in _last_lines([*own, "strategy.name=gossip"], TOPOLOGIES).items():
                table[name]["distance after training"] = float(line[DISTANCE])
                table[name]["accuracy of the mean"] = float(line["test-accuracy"])
        tables.append(table)
        observer.advance(f"seed {seed}")
    if options.plot:
        picture(curves).savefig(Path(options.plot), dpi=110)
    return {
        "settings": options.settings("clients", "train_examples", "rounds", "seeds"),
        "topologies": pooled("topology", tables, spread),
        "fedavg": spread(averaged),
    }


def _last_lines(keys: Sequence[str], variants: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Return the last round of each variant, whose keys matter to the server alone, over the same clients."""
    with local_clients(keys) as (session, grid):
        return {
            name: train(session.config.with_overrides(variant), None, grid).read_metrics()[-1]
            for name, variant in variants.items()
        }


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
