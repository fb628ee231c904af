"""Forget a class, or a random tenth, on one data holder: dense against sparse, each against retraining.

The table of Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934
(their table 1: ResNet-18, CIFAR-10, 182 epochs), at a size of the user's choice. θo is trained on all data,
dense, and from the same first weights on the mask of its 5 % largest weights (OMP); θr in the same way
without the forgotten data; every method of the paper then works on θo.

Each method has one setting that is searched, as in the paper: for each request, dense and sparse by
themselves, the value with the smallest disparity on a seed that is not among those reported.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from app.workflows.observer import Observer, Quiet
from benchmarks.central import (
    Holder,
    Split,
    Timed,
    config_keys,
    disparity,
    fitted,
    pooled,
    rates,
    sparse_start,
    timed,
)
from benchmarks.jobs import machine
from benchmarks.kept import Kept
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.core.settings import split_list
from unlearning.central.ascent import AscentSettings, ascend
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.fisher import FisherSettings, fisher_forget
from unlearning.central.influence import InfluenceSettings, influence
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings

FORGOTTEN_CLASS = 0
FORGOTTEN_SHARE = 0.1
Table = dict[str, dict[str, float]]

SEARCHED: Mapping[str, str] = {
    "FT": "finetune_rates",
    "l1-sparse": "gammas",
    "GA": "ascent_rates",
    "IU": "influence_alphas",
    "FF": "fisher_alphas",
}
"""Method -> the option with the values that are tried."""


@dataclass(frozen=True)
class Work:
    """How the models are trained and how the methods work; epochs, step sizes and examples."""

    train: SgdSettings
    finetune: FinetuneSettings
    l1_sparse: L1SparseSettings
    ascent: AscentSettings
    influence: InfluenceSettings
    fisher: FisherSettings

    def having(self, method: str, value: float) -> "Work":
        """Return the same with a value of the setting that is searched for a method.

        l1-sparse takes the step size of fine-tuning, so that the two differ in the penalty alone.
        """
        changed: dict[str, dict[str, Any]] = {
            "FT": {
                "finetune": self.finetune.model_copy(update={"learning_rate": value}),
                "l1_sparse": self.l1_sparse.model_copy(update={"learning_rate": value}),
            },
            "l1-sparse": {"l1_sparse": self.l1_sparse.model_copy(update={"gamma": value})},
            "GA": {"ascent": self.ascent.model_copy(update={"learning_rate": value})},
            "IU": {"influence": self.influence.model_copy(update={"alphas": (value,)})},
            "FF": {"fisher": self.fisher.model_copy(update={"alpha": value})},
        }
        return replace(self, **changed[method])

    def tuned(self, chosen: Mapping[str, float]) -> "Work":
        """Return the same with the values chosen for each method, in their order."""
        work = self
        for method, value in chosen.items():
            work = work.having(method, value)
        return work


def run(  # noqa: PLR0913  # a parameter per option
    observer: Observer | None = None,
    *,
    data_file: str = "",
    data_root: str = "",
    data_name: str = "",
    model: str = "cnn",
    train_examples: int = 5_000,
    test_examples: int = 2_000,
    epochs: int = 20,
    learning_rate: float = 0.05,
    weight_decay: float = 5e-4,
    finetune_epochs: int = 5,
    finetune_rates: str = "0.01,0.03,0.1",
    gammas: str = "1e-4,3e-4,1e-3,3e-3",
    ascent_rates: str = "1e-4,3e-4,1e-3,3e-3",
    influence_alphas: str = "0.01,0.03,0.1,0.3,1",
    fisher_alphas: str = "1e-8,1e-7,1e-6,1e-5",
    curvature_examples: int = 256,
    sparsity: float = 0.95,
    seeds: int = 3,
    search_seed: int = 1_000,
    keep: str = "",
    overrides: str = "model.width=16 model.hidden=128",
) -> dict[str, Any]:
    """Return for each kind of request, dense and sparse, the rates of every method and its disparity.

    Parameters
    ----------
    observer
        Told of each method.
    data_file
        An npz file with ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
    data_root, data_name
        Without a file: a data set by name, and where it lies; by default scikit-learn's digits.
    model
        ``model.name``.
    train_examples, test_examples
        0 for all.
    epochs, learning_rate, weight_decay
        Of training and retraining; the step size falls to a tenth at half and at three quarters.
    finetune_epochs, finetune_rates, gammas
        Of fine-tuning and of l1-sparse: passes, step sizes of both, first penalties of the latter.
    ascent_rates
        Step sizes of gradient ascent.
    influence_alphas
        Lengths of the influence step.
    fisher_alphas
        Variances of the noise of Fisher forgetting where the information is 1.
    curvature_examples
        Retained examples that influence and Fisher forgetting take the curvature from.
    sparsity
        Of the sparse models.
    seeds
        Number of seeds, from 0.
    search_seed
        Seed on which step sizes, penalties, lengths and variances are chosen from those given.
    keep
        Folder in which the choice and each seed's results are kept, so that a call goes on where another
        stopped. Empty: nothing is kept.
    overrides
        Further keys of the run config, as ``section.key=value`` with blanks between them.

    Raises
    ------
    BadInput
        If the search would use a reported seed.
    """
    options = {name: value for name, value in locals().items() if name != "observer"}
    observer = observer or Quiet()
    if search_seed in range(seeds):
        raise BadInput(
            f"search_seed: got {search_seed}, allowed a seed that is not reported, from {seeds} on"
        )
    sgd: dict[str, Any] = {"epochs": finetune_epochs, "weight_decay": weight_decay}
    work = Work(
        SgdSettings(epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay),
        FinetuneSettings(**sgd),
        L1SparseSettings(**sgd),
        AscentSettings(),
        InfluenceSettings(fisher_examples=curvature_examples, max_retain_drop=100.0),
        FisherSettings(),
    )
    sizes = (train_examples, test_examples)
    keys = config_keys(data_file, data_name, data_root, sizes, model, overrides)
    grid = {method: numbers(options[name]) for method, name in SEARCHED.items()}

    def held(seed: int) -> Iterator[Contest]:
        return contests(Holder.of(keys, seed), work, sparsity, curvature_examples, observer)

    def search() -> dict[str, dict[str, float]]:
        return {contest.name: contest.searched(work, grid, observer) for contest in held(search_seed)}

    def measure(seed: int) -> dict[str, Table]:
        return {each.name: each.table(work.tuned(chosen[each.name]), observer) for each in held(seed)}

    with Kept.under(keep, {name: options[name] for name in options if name not in {"seeds", "keep"}}) as kept:
        chosen = kept.piece("chosen", search)
        tables = [kept.piece(f"seed {seed}", partial(measure, seed)) for seed in range(seeds)]
    rows = {title: pooled([table[title] for table in tables], "model") for title in chosen}
    return {"machine": machine(), "settings": options, "chosen": chosen, **rows}


def numbers(text: object) -> list[float]:
    """Return numbers that are separated by commas.

    Raises
    ------
    BadInput
        If there is none, or one is no number.
    """
    try:
        found = [float(each) for each in split_list(str(text))]
    except ValueError:
        found = []
    if not found:
        raise BadInput(f"expected numbers separated by commas, got '{text}'")
    return found


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


def contests(
    holder: Holder, work: Work, sparsity: float, curvature_examples: int, observer: Observer
) -> Iterator["Contest"]:
    """Train the holder's model, dense and sparse, and yield what is contested with each.

    Parameters
    ----------
    holder
        Data and model.
    work
        How models are trained.
    sparsity
        Of the sparse model.
    curvature_examples
        Retained examples that Fisher forgetting takes the curvature from.
    observer
        Told of each model.
    """
    start = holder.model()
    dense: nn.Module | None = None
    for rate in (0.0, sparsity):
        kind = f"{100 * rate:g} % sparse" if rate else "dense"
        observer.phase(f"train, seed {holder.seed}, {kind}", 1)
        first = sparse_start(dense or start, start, rate)
        sgd, draw = work.train, holder.generator
        original = fitted(first.model, holder.train, sgd, draw("train"), first.masks)
        dense = dense or original
        observer.advance("trained")
        for title, split in requests(holder).items():
            retrained = timed(partial(fitted, first.model, split.retain, sgd, draw("train"), first.masks))
            contest = Contest(f"{title}, {kind}", holder, split, original, retrained, first.masks)
            yield contest.with_curvature(curvature_examples)


@dataclass(frozen=True, eq=False)
class Contest:
    """One request on one model.

    Parameters
    ----------
    name
        Of the table.
    holder, split
        Where the data are, and which of them are forgotten.
    original, retrained
        θo and θr.
    masks
        Of the sparse model.
    seen
        Retained examples that Fisher forgetting takes the curvature from; None: all.
    """

    name: str
    holder: Holder
    split: Split
    original: nn.Module
    retrained: Timed
    masks: Masks
    seen: TensorExamples | None = None

    def with_curvature(self, count: int) -> "Contest":
        """Return the same with that many examples drawn for the curvature."""
        order = torch.randperm(len(self.split.retain), generator=self.holder.generator("fisher"))
        return replace(self, seen=self.split.retain.subset(order[:count]))

    def table(self, work: Work, observer: Observer) -> Table:
        """Return the rates of every model, with its disparity, seconds and speed."""
        observer.phase(f"forget, seed {self.holder.seed}, {self.name}", len(SEARCHED))
        models: dict[str, Timed] = {"before": Timed(self.original, 0.0), "retrain": self.retrained}
        for name in SEARCHED:
            models[name] = timed(partial(self.forgotten, name, work))
            observer.advance(name)
        return {name: self._row(made) for name, made in models.items()}

    def searched(
        self, work: Work, grid: Mapping[str, Sequence[float]], observer: Observer
    ) -> dict[str, float]:
        """Return the value of each method's setting with the smallest disparity; the first of equals."""
        observer.phase(f"search, {self.name}", sum(len(values) for values in grid.values()))
        chosen: dict[str, float] = {}
        for method, values in grid.items():
            tried = {}
            for value in values:
                model = self.forgotten(method, work.having(method, value)) if len(values) > 1 else None
                tried[value] = self._disparity(self._rates(model)) if model else 0.0
                observer.advance(f"{method} at {value:g}", {"disparity": tried[value]})
            chosen[method] = min(tried, key=tried.__getitem__)
            work = work.having(method, chosen[method])
        return chosen

    def forgotten(self, method: str, work: Work) -> nn.Module:
        """Return the model after a method of the paper."""
        model, split, masks = self.original, self.split, self.masks
        draw = self.holder.generator
        if method == "FT":
            return finetune(model, split.retain, work.finetune, draw("FT"), masks=masks)
        if method == "l1-sparse":
            return l1_sparse(model, split.retain, work.l1_sparse, draw("FT"), masks=masks)
        if method == "GA":
            return ascend(model, split.forget, work.ascent, draw("GA"), masks=masks)
        if method == "IU":
            return influence(model, split.retain, split.forget, work.influence, draw("IU"), masks=masks).model
        whole = sorted(set(split.forget.y.tolist()) - set(split.retain.y.tolist()))
        seen = split.retain if self.seen is None else self.seen
        return fisher_forget(model, seen, work.fisher, draw("FF"), classes=whole, masks=masks)

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
