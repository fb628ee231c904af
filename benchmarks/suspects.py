"""Which client `lethe suspects` ranks first: one with a backdoor, one with wrong labels, or honest ones.

For each partition and seed, federations of ten clients train on digits or MNIST, one with honest clients
only, the others with client 3 attacking; then the clients are ranked from the log and the server's test data.
Each federation is a piece, and works in this process.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from app.config.run_config import RunConfig
from app.data import ServerData, load_client_data, load_server_data
from app.project import Node, Project, using
from app.project.loading import named
from app.workflows.observer import Observer
from app.workflows.suspecting import suspects
from app.workflows.training import train
from benchmarks.figures import wilson
from benchmarks.inline import InlineGrid
from benchmarks.kept import Kept
from benchmarks.options import DigitsOptions, chosen, numbers, separate_keys
from strategies.core.examples import Examples, TensorExamples, in_memory
from strategies.core.seeds import torch_generator

BAD = "3"
HONEST = "honest"
CLIENTS = 10
PARTITIONS: Mapping[str, Sequence[str]] = {
    "iid": (),
    "dirichlet-0.5": ("data.partition=dirichlet", "data.alpha=0.5"),
    "two-classes": ("data.partition=pathological", "data.classes-per-client=2"),
}
ATTACKS = ("backdoor", "labels")
"""A trigger and one target class, as the run config has it; or wrong classes, drawn at random."""


class Options(DigitsOptions):
    """Options of the benchmark."""

    data: str = "digits"
    """Names of the data sets, ``digits`` and ``mnist``, with commas between them; empty: both."""
    partitions: str = ""
    attacks: str = ""
    """Names of those to measure, with commas between them; empty: all."""
    shares: str = "0.1,0.2,0.4,0.8"
    """Shares of the bad client's examples that are poisoned, with commas between them."""
    first_seed: int = 0
    seeds: int = 10
    """The first seed and the number of seeds, of each attack."""
    honest_seeds: int = 30
    """Number of seeds without an attack, from the first."""
    train_examples: int = 2_000
    """Of MNIST, before a public share is held out."""
    overrides: str = "model.name=mlp;model.hidden=64"
    """Further keys of the run config, as ``section.key=value`` with a semicolon between them."""
    keep: str = ""
    """Folder where pieces are kept; empty: nowhere."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return, by data, partition and attack, how often the bad client was first, was named, and others were.

    Rates come with their 95 % interval, in percent.
    """
    cases = list(_cases(options))
    observer.phase("suspects", len(cases))
    rows: dict[tuple[str, str, str, float], list[Mapping[str, Any]]] = {}
    with Kept.under(options.keep, options.settings("train_examples", "overrides")) as kept:
        for data, partition, attack, share, seed in cases:
            keys = [*options.data_sets(options.train_examples)[data], *PARTITIONS[partition]]
            make = partial(ranked, [*keys, *separate_keys(options.overrides)], attack, share, seed)
            piece = kept.piece(f"{data}-{partition}-{attack}-{share:g}-{seed}", make)
            rows.setdefault((data, partition, attack, share), []).append(piece)
            observer.advance(f"{data}, {partition}, {attack} {share:g}, seed {seed}")
    return {"settings": options.settings(), "cases": [_row(*case, rows[case]) for case in rows]}


def _cases(options: Options) -> Iterator[tuple[str, str, str, float, int]]:
    """Yield all pieces, seed by seed, so that what is there after a while is of every case."""
    partitions = chosen("partitions", options.partitions, PARTITIONS)
    attacks = chosen("attacks", options.attacks, dict.fromkeys(ATTACKS))
    shares = numbers("shares", options.shares)
    for number in range(max(options.seeds, options.honest_seeds)):
        for data in options.data_sets():
            for partition in partitions:
                seed = options.first_seed + number
                if number < options.honest_seeds:
                    yield data, partition, HONEST, 0.0, seed
                if number < options.seeds:
                    yield from ((data, partition, a, share, seed) for a in attacks for share in shares)


def ranked(keys: Sequence[str], attack: str, share: float, seed: int) -> dict[str, Any]:
    """Train a federation, rank its clients, and return what is said of the bad one and of the others."""
    common = [f"data.clients={CLIENTS}", f"run.seed={seed}", "run.workers=1", "run.evaluate-every=1000000"]
    if attack == "backdoor":
        common += ["attack.kind=backdoor", f"attack.clients={BAD}", f"attack.share={share}"]
    with tempfile.TemporaryDirectory() as home:
        config = RunConfig().with_overrides([*keys, *common, f"run.home={home}"])
        if attack != "labels":
            found = suspects(train(config, None, InlineGrid(config)))
        else:
            with using(named(mislabelling(config, share))):
                own = [key for key in keys if not key.startswith("data.")]
                config = RunConfig().with_overrides([*own, *common, f"run.home={home}"])
                found = suspects(train(config, None, InlineGrid(config)))
    by_client = {each["client"]: each for each in found["clients"]}
    bad = by_client[BAD]
    return {
        "rank": bad["rank"],
        "score": bad["score"],
        "p": bad["p"],
        "named": bad["stands-out"],
        "others": [i for i in found["standing-out"] if i != BAD],
        "scores": {
            name: {each["client"]: each["signs"][name]["score"] for each in found["clients"]}
            for name in bad["signs"]
        },
    }


def mislabelling(config: RunConfig, share: float) -> Project:
    """Return the data of a run config as a project in which a share of the bad client's labels is wrong."""
    server = load_server_data(config.data, config.data_seed)

    def data(node: Node) -> tuple[torch.Tensor, torch.Tensor]:
        place = {"partition-id": node.index, "num-partitions": node.count}
        found = load_client_data(config.data, config.data_seed, place)
        if node.id == BAD:
            generator = torch_generator(config.data_seed, "wrong labels")
            found = mislabelled(found, share, server.num_groups, generator)
        return _tensors(found)

    return Project(data=data, test=_own(server.test), public=_own(server.public), classes=_names(server))


def mislabelled(
    examples: Examples, share: float, num_groups: int, generator: torch.Generator
) -> TensorExamples:
    """Return examples of which a share, drawn at random, has one of the other labels each."""
    stored = in_memory(examples)
    wrong = torch.randperm(len(stored), generator=generator)[: round(share * len(stored))]
    labels = stored.y.clone()
    shifts = torch.randint(1, num_groups, (len(wrong),), generator=generator)
    labels[wrong] = (labels[wrong] + shifts) % num_groups
    return TensorExamples(stored.x, labels)


def _tensors(examples: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    stored = in_memory(examples)
    return stored.x, stored.y


def _own(examples: Examples | None) -> tuple[torch.Tensor, torch.Tensor] | None:
    return None if examples is None else _tensors(examples)


def _names(server: ServerData) -> tuple[str, ...]:
    return tuple(server.class_names)


def _row(
    data: str, partition: str, attack: str, share: float, pieces: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a row of the table: of how many runs, and the rates over them."""
    count = len(pieces)
    row: dict[str, Any] = {"data": data, "partition": partition, "attack": attack, "share": share}
    row["runs"] = count
    if attack == HONEST:
        alarms = sum(bool(each["named"] or each["others"]) for each in pieces)
        return {**row, "somebody named": wilson(alarms, count)}
    by_sign = {name: sum(_is_first(each["scores"][name]) for each in pieces) for name in pieces[0]["scores"]}
    return {
        **row,
        "first": wilson(sum(each["rank"] == 1 for each in pieces), count),
        "named": wilson(sum(each["named"] for each in pieces), count),
        "others named": wilson(sum(bool(each["others"]) for each in pieces), count),
        **{f"first by {name}": count for name, count in by_sign.items()},
    }


def _is_first(scores: Mapping[str, float]) -> bool:
    """Say whether the bad client is out furthest by one sign, by the scores of all clients."""
    return scores[BAD] == max(scores.values())
