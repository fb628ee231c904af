"""Forget a class, or a random tenth, on one data holder: dense against sparse, each against retraining.

The table of Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934
(their table 1: ResNet-18, CIFAR-10, 182 epochs), at a size of the user's choice. θo is trained on all data,
dense, and from the same first weights on the mask of its 5 % largest weights (OMP); θr in the same way
without the forgotten data; every method of the paper then works on θo.

Each method has one setting that is searched, as in the paper: for each request, dense and sparse by
themselves, the value with the smallest disparity on a seed that is not among those reported.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from app.workflows.observer import Observer
from benchmarks.central import (
    Holder,
    HolderOptions,
    Split,
    Timed,
    disparity,
    fitted,
    rates,
    sparse_start,
    timed,
)
from benchmarks.figures import kind, pooled
from benchmarks.kept import Kept
from benchmarks.options import numbers
from strategies.core.errors import BadInput
from unlearning.central.ascent import AscentSettings, ascend
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.fisher import fisher_forget
from unlearning.central.influence import InfluenceSettings, influence
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse
from unlearning.central.masks import Masks
from unlearning.traits.fisher import FisherSettings

FORGOTTEN_CLASS = 0
FORGOTTEN_SHARE = 0.1
Table = dict[str, dict[str, float]]
Chosen = Mapping[str, float]
"""Method -> the value of the setting that is searched."""

SEARCHED: Mapping[str, str] = {
    "FT": "finetune_rates",
    "l1-sparse": "gammas",
    "GA": "ascent_rates",
    "IU": "influence_alphas",
    "FF": "fisher_alphas",
}
"""Method -> the option with the values that are tried."""


class Options(HolderOptions):
    """Options of the benchmark."""

    weight_decay: float = 5e-4
    """Of training, fine-tuning and l1-sparse."""
    finetune_epochs: int = 5
    finetune_rates: str = "0.01,0.03,0.1"
    """Epochs and step sizes of fine-tuning and of l1-sparse."""
    gammas: str = "1e-4,3e-4,1e-3,3e-3"
    """First penalties of l1-sparse."""
    ascent_rates: str = "1e-4,3e-4,1e-3,3e-3"
    """Step sizes of gradient ascent."""
    influence_alphas: str = "0.01,0.03,0.1,0.3,1"
    """Lengths of the influence step."""
    fisher_alphas: str = "1e-8,1e-7,1e-6,1e-5"
    """Variances of the noise of Fisher forgetting where the information is 1."""
    curvature_examples: int = 256
    """Retained examples that influence and Fisher forgetting take the curvature from."""
    sparsity: float = 0.95
    """Of the sparse models."""
    search_seed: int = 1_000
    """Seed on which step sizes, penalties, lengths and variances are chosen from those given."""
    keep: str = ""
    """Folder in which the choice and each seed's results are kept, so that a call goes on where another
    stopped. Empty: nothing is kept."""
    overrides: str = "model.width=16 model.hidden=128"


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return for each kind of request, dense and sparse, the rates of every method and its disparity.

    Raises
    ------
    BadInput
        If the search would use a reported seed.
    """
    if options.search_seed in range(options.seeds):
        raise BadInput(
            f"search_seed: got {options.search_seed}, allowed a seed that is not reported, "
            f"from {options.seeds} on"
        )
    told = options.settings()
    grid = {method: numbers(name, told[name]) for method, name in SEARCHED.items()}

    def search() -> dict[str, Chosen]:
        contested = contests(Holder.of(options, options.search_seed), options, observer)
        return {contest.name: contest.searched(grid, observer) for contest in contested}

    def measure(seed: int) -> dict[str, Table]:
        contested = contests(Holder.of(options, seed), options, observer)
        return {contest.name: contest.table(chosen[contest.name], observer) for contest in contested}

    same = {name: value for name, value in told.items() if name not in {"seeds", "keep"}}
    with Kept.under(options.keep, same) as kept:
        chosen = kept.piece("chosen", search)
        tables = [kept.piece(f"seed {seed}", partial(measure, seed)) for seed in range(options.seeds)]
    rows = {title: pooled("model", [table[title] for table in tables]) for title in chosen}
    return {"settings": told, "chosen": chosen, **rows}


def requests(holder: Holder) -> dict[str, Split]:
    """Return what the paper forgets: one class, and a random tenth."""
    train, test = holder.train, holder.test
    of_class, others = train.split(train.y == FORGOTTEN_CLASS)
    drawn = torch.randperm(len(train), generator=holder.generator("forget"))
    chosen = drawn[: round(FORGOTTEN_SHARE * len(train))]
    return {
        "class-wise": Split(of_class, others, test.split(test.y == FORGOTTEN_CLASS)[1]),
        "random": Split(train.subset(chosen), train.without(chosen), test),
    }


def contests(holder: Holder, options: Options, observer: Observer) -> Iterator["Contest"]:
    """Train the holder's model, dense and sparse, and yield what is contested with each."""
    start = holder.model()
    sgd, draw = options.training(options.weight_decay), holder.generator
    dense: nn.Module | None = None
    for sparsity in (0.0, options.sparsity):
        observer.phase(f"train, seed {holder.seed}, {kind(sparsity)}", 1)
        first = sparse_start(dense or start, start, sparsity)
        original = fitted(first.model, holder.train, sgd, draw("train"), first.masks)
        dense = dense or original
        observer.advance("trained")
        for title, split in requests(holder).items():
            retrained = timed(partial(fitted, first.model, split.retain, sgd, draw("train"), first.masks))
            name = f"{title}, {kind(sparsity)}"
            yield Contest(name, holder, options, split, original, retrained, first.masks)


@dataclass(frozen=True, eq=False)
class Contest:
    """One request on one model."""

    name: str
    """Of the table."""
    holder: Holder
    options: Options
    split: Split
    """Which of the holder's data are forgotten."""
    original: nn.Module
    retrained: Timed
    """θo and θr."""
    masks: Masks
    """Of the sparse model."""

    def table(self, chosen: Chosen, observer: Observer) -> Table:
        """Return the rates of every model, with its disparity, seconds and speed."""
        observer.phase(f"forget, seed {self.holder.seed}, {self.name}", len(SEARCHED))
        models: dict[str, Timed] = {"before": Timed(self.original, 0.0), "retrain": self.retrained}
        for name in SEARCHED:
            models[name] = timed(partial(self.forgotten, name, chosen))
            observer.advance(name)
        return {name: self._row(made) for name, made in models.items()}

    def searched(self, grid: Mapping[str, Sequence[float]], observer: Observer) -> Chosen:
        """Return the value of each method's setting with the smallest disparity; the first of equals."""
        observer.phase(f"search, {self.name}", sum(len(values) for values in grid.values()))
        chosen: dict[str, float] = {}
        for method, values in grid.items():
            tried = {}
            for value in values:
                model = self.forgotten(method, {**chosen, method: value}) if len(values) > 1 else None
                tried[value] = self._disparity(self._rates(model)) if model else 0.0
                observer.advance(f"{method} at {value:g}", {"disparity": tried[value]})
            chosen[method] = min(tried, key=tried.__getitem__)
        return chosen

    def forgotten(self, method: str, chosen: Chosen) -> nn.Module:
        """Return the model after a method of the paper.

        l1-sparse takes the step size of fine-tuning, so that the two differ in the penalty alone.
        """
        model, split, masks, draw = self.original, self.split, self.masks, self.holder.generator
        value, count = chosen[method], self.options.curvature_examples
        epochs, decay = self.options.finetune_epochs, self.options.weight_decay
        if method == "FT":
            plain = FinetuneSettings(epochs=epochs, weight_decay=decay, learning_rate=value)
            return finetune(model, split.retain, plain, draw("FT"), masks=masks)
        if method == "l1-sparse":
            rate = chosen["FT"]
            sparse = L1SparseSettings(epochs=epochs, weight_decay=decay, learning_rate=rate, gamma=value)
            return l1_sparse(model, split.retain, sparse, draw("FT"), masks=masks)
        if method == "GA":
            return ascend(model, split.forget, AscentSettings(learning_rate=value), draw("GA"), masks=masks)
        if method == "IU":
            step = InfluenceSettings(fisher_examples=count, max_retain_drop=100.0, alphas=(value,))
            return influence(model, split.retain, split.forget, step, draw("IU"), masks=masks).model
        whole = sorted(set(split.forget.targets().tolist()) - set(split.retain.targets().tolist()))
        order = torch.randperm(len(split.retain), generator=draw("fisher"))
        seen = split.retain.subset(order[:count])
        return fisher_forget(model, seen, FisherSettings(alpha=value), draw("FF"), classes=whole, masks=masks)

    def _row(self, made: Timed) -> dict[str, float]:
        measured = self._rates(made.model)
        row = {**measured, "disparity": self._disparity(measured), "seconds": made.seconds}
        speed = {"times faster": self.retrained.seconds / made.seconds} if made.seconds else {}
        return {**row, **speed}

    def _rates(self, model: nn.Module) -> dict[str, float]:
        return rates(model, self.split, self.holder.seed)

    def _disparity(self, measured: Mapping[str, float]) -> float:
        return disparity(measured, self._reference)

    @cached_property
    def _reference(self) -> dict[str, float]:
        return self._rates(self.retrained.model)
