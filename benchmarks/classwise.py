"""Forget a class, or a random tenth, on one data holder: dense against sparse, each against retraining.

The table of Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934
(their table 1: ResNet-18, CIFAR-10, 182 epochs), at a size of the user's choice. θo is trained on all data,
dense, and from the same first weights on the mask of its 5 % largest weights (OMP); θr in the same way
without the forgotten data; every method of the paper then works on θo.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from strategies.examples import Examples
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


@dataclass(frozen=True)
class Work:
    """How the models are trained and how the methods work; epochs, step sizes and examples."""

    train: SgdSettings
    finetune: FinetuneSettings
    l1_sparse: L1SparseSettings
    ascent: AscentSettings
    influence: InfluenceSettings
    fisher: FisherSettings
    fisher_examples: int


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
    finetune_epochs: int = 5,
    finetune_rate: float = 0.01,
    gamma: float = 5e-4,
    ascent_rate: float = 1e-4,
    fisher_alpha: float = 1e-6,
    curvature_examples: int = 256,
    sparsity: float = 0.95,
    seeds: int = 3,
    overrides: str = "model.width=16",
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
    epochs, learning_rate
        Of training and retraining; the step size falls to a tenth at half and at three quarters.
    finetune_epochs, finetune_rate, gamma
        Of fine-tuning, and of l1-sparse, whose first penalty is `gamma`.
    ascent_rate
        Step size of gradient ascent.
    fisher_alpha
        Variance of the noise of Fisher forgetting where the information is 1.
    curvature_examples
        Retained examples that influence and Fisher forgetting take the curvature from.
    sparsity
        Of the sparse models.
    seeds
        Number of seeds, from 0.
    overrides
        Further keys of the run config, as ``section.key=value`` with blanks between them.
    """
    options = {name: value for name, value in locals().items() if name != "observer"}
    observer = observer or Quiet()
    work = Work(
        SgdSettings(epochs=epochs, learning_rate=learning_rate),
        FinetuneSettings(epochs=finetune_epochs, learning_rate=finetune_rate),
        L1SparseSettings(epochs=finetune_epochs, learning_rate=finetune_rate, gamma=gamma),
        AscentSettings(learning_rate=ascent_rate),
        InfluenceSettings(fisher_examples=curvature_examples),
        FisherSettings(alpha=fisher_alpha),
        curvature_examples,
    )
    sizes = (train_examples, test_examples)
    keys = config_keys(data_file, data_name, data_root, sizes, model, overrides)
    found: dict[str, list[Table]] = {}
    for seed in range(seeds):
        for title, table in _one(Holder.of(keys, seed), work, sparsity, observer).items():
            found.setdefault(title, []).append(table)
    rows = {title: pooled(tables, "model") for title, tables in found.items()}
    return {"machine": machine(), "settings": options, **rows}


def requests(holder: Holder) -> dict[str, Split]:
    """Return what the paper forgets: one class, and a random tenth."""
    train, test = holder.train, holder.test
    of_class, others = train.split(train.y == FORGOTTEN_CLASS)
    drawn = torch.randperm(len(train), generator=holder.generator("forget"))
    chosen = drawn[: round(FORGOTTEN_SHARE * len(train))]
    return {
        "class-wise": Split(of_class, others, test.split(test.y == FORGOTTEN_CLASS)[1], test),
        "random": Split(train.subset(chosen), train.without(chosen), test, test),
    }


def _one(holder: Holder, work: Work, sparsity: float, observer: Observer) -> dict[str, Table]:
    start = holder.model()
    splits = requests(holder)
    dense: nn.Module | None = None
    tables = {}
    for rate in (0.0, sparsity):
        observer.phase(f"seed {holder.seed}, sparsity {rate:g}", 1 + 6 * len(splits))
        first = sparse_start(dense or start, start, rate)
        model, masks = first.model, first.masks
        original = fitted(model, holder.train, work.train, holder.generator("train"), masks)
        dense = dense or original
        observer.advance("trained")
        for title, split in splits.items():
            contest = _Contest(holder, split, work, masks, title)
            name = f"{title}, {f'{100 * rate:g} % sparse' if rate else 'dense'}"
            tables[name] = contest.table(model, original, observer)
    return tables


@dataclass(frozen=True, eq=False)
class _Contest:
    holder: Holder
    split: Split
    work: Work
    masks: Masks
    title: str

    def table(self, start: nn.Module, original: nn.Module, observer: Observer) -> Table:
        """Return the rates of every model, with its disparity, seconds and speed."""
        retrained = timed(lambda: self._retrained(start))
        observer.advance("retrained")
        models: dict[str, Timed] = {"before": Timed(original, 0.0), "retrain": retrained}
        for name, method in self._methods(original).items():
            models[name] = timed(method)
            observer.advance(name)
        reference = rates(retrained.model, self.split, self.holder.seed)
        return {name: self._row(each, reference, retrained.seconds) for name, each in models.items()}

    def _row(self, made: Timed, reference: Mapping[str, float], retraining: float) -> dict[str, float]:
        measured = rates(made.model, self.split, self.holder.seed)
        row = {**measured, "disparity": disparity(measured, reference), "seconds": made.seconds}
        return {**row, "times faster": retraining / made.seconds if made.seconds else float("nan")}

    def _retrained(self, start: nn.Module) -> nn.Module:
        generator = self.holder.generator("train")
        return fitted(start, self.split.retain, self.work.train, generator, self.masks)

    def _methods(self, model: nn.Module) -> Mapping[str, Callable[[], nn.Module]]:
        split, work, masks = self.split, self.work, self.masks
        draw = self.holder.generator
        whole = [FORGOTTEN_CLASS] if self.title == "class-wise" else []
        return {
            "FT": lambda: finetune(model, split.retain, work.finetune, draw("FT"), masks=masks),
            "l1-sparse": lambda: l1_sparse(model, split.retain, work.l1_sparse, draw("FT"), masks=masks),
            "GA": lambda: ascend(model, split.forget, work.ascent, draw("GA"), masks=masks),
            "IU": lambda: (
                influence(model, split.retain, split.forget, work.influence, draw("IU"), masks=masks).model
            ),
            "FF": lambda: fisher_forget(
                model, self._seen(), work.fisher, draw("FF"), classes=whole, masks=masks
            ),
        }

    def _seen(self) -> Examples:
        """Return the retained examples that Fisher forgetting takes the curvature from."""
        order = torch.randperm(len(self.split.retain), generator=self.holder.generator("fisher"))
        return self.split.retain.subset(order[: self.work.fisher_examples])
