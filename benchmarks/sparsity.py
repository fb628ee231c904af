"""Does a sparse model forget better? Every central method at several sparsities, over seeds, in pieces.

The claim of Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934, on
one data holder: a class, a random tenth, what an honest client of ten would hold whose data are unlike the
others', and hard examples, whose labels are wrong. θo is trained from first weights on the mask of the
largest trained ones (OMP), θr in the same way without the forgotten data, and a second time from other
weights: no method can be expected to come closer than that, the *floor*.

The data, and what is forgotten, are the same for all seeds; a seed decides first weights, batches and all
else that is drawn. So every difference is paired by seed, and the models of several seeds are the shadow
models of U-LiRA. A piece is one seed at one sparsity. A sparsity has an effect on a method where the 95 %
interval of the paired differences of its disparity from that at the first sparsity leaves out 0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from app.config.settings import DataSettings
from app.data.partition import partition_indices
from app.workflows.observer import Observer
from benchmarks.central import Holder, Split, Timed, disparity, fitted, judged, sparse_start, timed
from benchmarks.central_methods import CONTENDERS, Case, ForgettingOptions
from benchmarks.figures import Interval, mean_std, paired
from benchmarks.kept import Kept
from benchmarks.options import chosen, numbers
from strategies.client.precision import computed_in
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import numpy_generator
from unlearning.audit.likelihood_ratio import LEAST_PAIRS, likelihood_ratios
from unlearning.central.masks import Masks, masked
from unlearning.central.random_labels import wrong_labels
from unlearning.central.training import trained

CLASS, RANDOM, CLIENT, HARD = "a class", "a random tenth", "a client", "hard examples"
REQUESTS = {"class": CLASS, "random": RANDOM, "client": CLIENT, "hard": HARD}
FORGOTTEN_CLASS = 0
_CLIENTS = DataSettings(clients=10, partition="dirichlet", alpha=0.5)
"""Whose first one asks to be forgotten."""
BEFORE, RETRAIN, FLOOR = "before", "retrain", "retrain again"
Row = Mapping[str, Any]
Piece = Mapping[str, Mapping[str, Row]]
"""Request -> model -> its rates, its seconds and the margins of the forgotten examples."""


class Options(ForgettingOptions):
    """Options of the benchmark."""

    model: str = "mlp"
    train_examples: int = 6_000
    test_examples: int = 4_000
    """Half of the test examples are held out, to say when to stop; models are judged by the others."""
    overrides: str = "model.hidden=64"
    epochs: int = 30
    seeds: int = 5
    sparsities: str = "0,0.75,0.9,0.95,0.99"
    """The others are compared with the first one."""
    shadows: int = 0
    """Number of seeds, from 0, that are measured at the sparsities `shadowed` at least, for U-LiRA."""
    shadowed: str = "0,0.95"
    random_share: float = 0.1
    hard_share: float = 0.01
    """Shares of the training examples that are forgotten at random, and that have a wrong label."""
    requests: str = ""
    """Some of ``class``, ``random``, ``client`` and ``hard``, with commas between them; empty: all."""
    methods: str = ""
    """Some of the central methods, with commas between them; empty: all."""
    rewind_epochs: int = 0
    """Epochs after whose weights a sparse model begins; 0: it begins with the first weights."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of the forward passes of all training, as ``run.precision``; models are judged in float32."""
    data_seed: int = 0
    """Decides the data and what is forgotten."""
    keep: str = ""
    """Folder in which pieces are kept, so that a call goes on where another stopped. Empty: nothing is."""
    kept_only: bool = False
    """Report the pieces that there are, and measure none."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return the rates of all models, the effects of sparsity, and what shadow models tell.

    Raises
    ------
    BadInput
        If a sparsity is none, or there is no piece to report.
    """
    plan = planned(options)
    apart = {"seeds", "sparsities", "shadows", "shadowed", "keep", "kept_only"}
    settings = {name: value for name, value in options.settings().items() if name not in apart}
    with Kept.under(options.keep, settings) as kept:
        observer.phase("pieces", len(plan))
        pieces: dict[tuple[int, float], Piece] = {}
        for seed, sparsity in plan:
            name = f"seed {seed}, sparsity {sparsity:g}"
            if options.kept_only and not (kept.path / f"{name}.json").exists():
                continue
            pieces[seed, sparsity] = kept.piece(name, partial(measured, options, seed, sparsity))
            observer.advance(name)
    if not pieces:
        raise BadInput(f"keep: {options.keep} holds no piece")
    return {"settings": options.settings(), **tables(pieces)}


def planned(options: Options) -> list[tuple[int, float]]:
    """Return seed and sparsity of each piece, in the order in which they are made."""
    sparsities = [_checked(value) for value in numbers("sparsities", options.sparsities)]
    shadowed = [_checked(value) for value in numbers("shadowed", options.shadowed)] if options.shadows else []
    first = [(seed, sparsity) for seed in range(options.seeds) for sparsity in sparsities]
    more = [(seed, sparsity) for seed in range(options.shadows) for sparsity in shadowed]
    return list(dict.fromkeys([*first, *more]))


def _checked(sparsity: float) -> float:
    if not 0 <= sparsity < 1:
        raise BadInput(f"sparsities: given {sparsity:g}, allowed shares from 0 to below 1")
    return sparsity


# A piece


@dataclass(frozen=True, eq=False)
class World:
    """The data of a request, and what is to be forgotten of them."""

    train: Examples
    split: Split
    held_out: TensorExamples


def worlds(holder: Holder, options: Options) -> dict[str, World]:
    """Return the world of each request; they are the same for all seeds."""
    train, test = holder.train, holder.test
    order = torch.randperm(len(test), generator=holder.generator("held out"))
    half = len(test) // 2
    held_out, judged = test.subset(order[:half]), test.subset(order[half:])
    tenth = _drawn(holder, "forget", options.random_share)
    held = torch.from_numpy(partition_indices(train.y.numpy(), _CLIENTS, _CLIENTS.clients, holder.seed)[0])
    hard = _drawn(holder, "hard", options.hard_share)
    labels = train.y.clone()
    labels[hard] = wrong_labels(train.y[hard], holder.num_groups, holder.generator("wrong labels"))
    noisy = TensorExamples(train.x, labels)
    others_judged = judged.split(judged.y == FORGOTTEN_CLASS)[1]
    clean, wrong = holder.varied(train), holder.varied(noisy)
    of_class = train.y == FORGOTTEN_CLASS
    known = {
        CLASS: World(clean, Split(*clean.split(of_class), others_judged), held_out),
        RANDOM: World(clean, Split(clean.subset(tenth), clean.without(tenth), judged), held_out),
        CLIENT: World(clean, Split(clean.subset(held), clean.without(held), judged), held_out),
        HARD: World(wrong, Split(wrong.subset(hard), wrong.without(hard), judged), held_out),
    }
    asked = {REQUESTS[name] for name in chosen("requests", options.requests, REQUESTS)}
    return {name: world for name, world in known.items() if name in asked}


def _drawn(holder: Holder, scope: str, share: float) -> torch.Tensor:
    count = len(holder.train)
    return torch.randperm(count, generator=holder.generator(scope))[: max(1, round(share * count))]


@lru_cache(maxsize=1)
def _held(options: Options) -> tuple[Holder, dict[str, World]]:
    holder = Holder.of(options, options.data_seed)
    return holder, worlds(holder, options)


def measured(options: Options, seed: int, sparsity: float) -> Piece:
    """Return every model of every request of a seed at a sparsity."""
    fixed, found = _held(options)
    holder = replace(fixed, seed=seed)
    original: dict[int, Trained] = {}  # Only hard examples are on another model
    piece = {}
    with computed_in(options.precision, torch.device("cpu")):
        for name, world in found.items():
            key = id(world.train)
            original[key] = original.get(key) or Trained.on(world.train, holder, options, sparsity)
            piece[name] = dict(_rows(original[key], world, holder, options))
    return piece


@dataclass(frozen=True, eq=False)
class Trained:
    """θo, the dense weights that it began with, and its mask."""

    model: nn.Module
    first: nn.Module
    masks: Masks

    @staticmethod
    def on(train: Examples, holder: Holder, options: Options, sparsity: float) -> "Trained":
        """Train on all data: dense, and then, of the first weights, those that became largest."""
        first, sgd = holder.model(), options.training(options.weight_decay)
        dense = fitted(first, train, sgd, holder.generator("train"))
        if sparsity == 0:
            return Trained(dense, first, {})
        found = sparse_start(dense, _early(first, train, holder, options), sparsity)
        model = fitted(found.model, train, sgd, holder.generator("train"), found.masks)
        return Trained(model, first, found.masks)


def _early(first: nn.Module, train: Examples, holder: Holder, options: Options, *scope: str) -> nn.Module:
    """Return the weights that a sparse model begins with, before they are pruned."""
    if not options.rewind_epochs:
        return first
    sgd = options.training(options.weight_decay).model_copy(update={"epochs": options.rewind_epochs})
    return trained(first, train, sgd, holder.generator("rewind", *scope))


def _rows(original: Trained, world: World, holder: Holder, options: Options) -> Iterator[tuple[str, Row]]:
    split, masks, sgd = world.split, original.masks, options.training(options.weight_decay)

    def retrained(first: nn.Module, *scope: str) -> nn.Module:
        if masks:
            first = masked(_early(first, split.retain, holder, options, *scope), masks)
        return fitted(first, split.retain, sgd, holder.generator("train", *scope), masks)

    def row(made: Timed) -> Row:
        rates, margins = judged(made.model, split, holder.seed)
        told = [round(value, 4) for value in margins.tolist()]
        return {**rates, "seconds": made.seconds, "margins": told}

    yield BEFORE, row(Timed(original.model, 0.0))
    yield RETRAIN, row(timed(partial(retrained, original.first)))
    yield FLOOR, row(timed(partial(retrained, holder.model(scope=1), "again")))
    case = Case(
        original.model,
        split,
        world.held_out,
        masks,
        holder.model(scope=2),
        holder.num_groups,
        holder.generator,
    )
    for name in chosen("methods", options.methods, CONTENDERS):
        yield name, row(timed(partial(CONTENDERS[name], case, options)))


# The tables


def tables(pieces: Mapping[tuple[int, float], Piece]) -> dict[str, Any]:
    """Return the tables of some pieces, by seed and sparsity."""
    first = min(sparsity for _, sparsity in pieces)
    found: dict[str, list[dict[str, Any]]] = {"models": [], "effects": [], "shadows": []}
    for request in next(iter(pieces.values())):
        for name in next(iter(pieces.values()))[request]:
            by_sparsity = {
                sparsity: {seed: piece[request] for (seed, s), piece in pieces.items() if s == sparsity}
                for sparsity in sorted({sparsity for _, sparsity in pieces})
            }
            for sparsity, by_seed in by_sparsity.items():
                told = {"request": request, "model": name, "sparsity": sparsity, "seeds": len(by_seed)}
                found["models"].append({**told, **_figures(by_seed, name)})
                if sparsity != first and name not in {RETRAIN}:
                    found["effects"].append({**told, **_effect(by_sparsity[first], by_seed, name)})
                if len(by_seed) >= LEAST_PAIRS and name != RETRAIN:
                    found["shadows"].append({**told, **_attack(by_seed, name)})
    return found


Seeds = Mapping[int, Mapping[str, Row]]
"""Seed -> model -> its rates."""


def _disparities(by_seed: Seeds, name: str) -> dict[int, float]:
    return {seed: disparity(models[name], models[RETRAIN]) for seed, models in by_seed.items()}


def _figures(by_seed: Seeds, name: str) -> dict[str, Any]:
    """Return rates, the disparity, and by how much it differs from doing nothing and from the floor."""
    own, nothing, floor = (_disparities(by_seed, each) for each in (name, BEFORE, FLOOR))
    return {
        **{
            rate: mean_std(models[name][rate] for models in by_seed.values())
            for rate in ("UA", "MIA", "RA", "TA")
        },
        "disparity": mean_std(own.values()),
        "by seed": [round(value, 2) for value in own.values()],
        "less nothing": paired(own, nothing).to_json(),
        "less floor": paired(own, floor).to_json(),
        "seconds": mean_std(models[name]["seconds"] for models in by_seed.values()),
    }


def _effect(dense: Seeds, sparse: Seeds, name: str) -> dict[str, Any]:
    """Return what sparsity does to the disparity, and to what it differs from that of doing nothing."""
    ours, theirs = _disparities(sparse, name), _disparities(dense, name)
    nothing, before = _disparities(sparse, BEFORE), _disparities(dense, BEFORE)
    above, below = _less(ours, nothing), _less(theirs, before)
    return {"effect": claim(paired(ours, theirs)), "effect less nothing": claim(paired(above, below))}


def _less(values: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - others[seed] for seed, value in values.items()}


def claim(found: Interval) -> dict[str, Any]:
    """Return an interval with what it says of the sign: ``better``, ``worse`` or ``not decided``."""
    sign = "not decided"
    if found.low is not None and found.high is not None:
        sign = "better" if found.high < 0 else "worse" if found.low > 0 else sign
    return {**found.to_json(), "decided": sign}


def _attack(by_seed: Seeds, name: str) -> dict[str, Any]:
    """Return what an attacker with the models of these seeds tells of single forgotten examples."""
    ours, theirs = (
        np.array([models[each]["margins"] for models in by_seed.values()], dtype=np.float64)
        for each in (name, RETRAIN)
    )
    found = likelihood_ratios(ours, theirs, numpy_generator(0, "benchmark", "shadows", name))
    rate = found.rates[0.05]
    return {
        "pairs": found.pairs,
        "area": [found.area.value, found.area.low, found.area.high],
        "p": found.p_value,
        "true positives at 5 %": None if rate is None else [rate.value, rate.low, rate.high],
    }
