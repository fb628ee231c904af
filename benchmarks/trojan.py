"""Trojan cleanse: the poisoned examples are found and forgotten; what is left of the backdoor, by sparsity.

Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934, section 5
(application to Trojan model cleanse): a share of the training data carries a trigger (BadNets), the model is
pruned by magnitude (OMP) and trained on all data, and then forgets the poisoned examples by fine-tuning on
the clean ones. The attack success rate here leaves out images of the target class; the paper counts them, so
that its floor is the class's share of the test data, and for comparison that figure is given as well.

What fine-tuning removes goes with η · weight decay · steps / (1 − momentum), how far the decay alone would
shrink a weight; it is given, so that settings can be matched: 0.18 in the paper. The effect of sparsity is
the slope of the rate after fine-tuning over log10 of the share of weights that are kept, in points: 20.7 in
the paper, whose rates are 47, 44, 16, 15 and 11 % at 0, 75, 90, 95 and 99 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from app.workflows.observer import Observer
from benchmarks.central import CleaningOptions, Holder, cleaned, fitted, sparse_start, timed
from benchmarks.figures import paired, pooled
from benchmarks.kept import Kept
from benchmarks.options import numbers
from strategies.client.backdoor import Trigger, default_trigger, poison, stamp
from strategies.client.evaluation import evaluate, outputs_of
from strategies.core.examples import TensorExamples, concatenated
from strategies.task import CLASSIFICATION
from unlearning.audit import metrics
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings

TARGET = 0


class Options(CleaningOptions):
    """Options of the benchmark."""

    epochs: int = 10
    weight_decay: float = 5e-4
    """Of training and forgetting."""
    poisoned_share: float = 0.1
    """Share of the training data that carries the trigger."""
    sparsities: str = "0,0.75,0.9,0.95,0.99"
    """Separated by commas, each in [0, 1)."""
    keep: str = ""
    """Folder in which seeds are kept, so that a call goes on where another stopped. Empty: nothing is."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return, for each sparsity, ASR and TA before and after forgetting, and of the retrained model.

    With them come the slope over sparsity, of each seed and with its 95 % interval, and what settings are
    matched by.
    """
    sparsities = numbers("sparsities", options.sparsities)
    observer.phase("trojan", options.seeds * len(sparsities))
    settings = {name: value for name, value in options.settings().items() if name not in ("seeds", "keep")}
    with Kept.under(options.keep, settings) as kept:
        tables = [
            kept.piece(f"seed {seed}", partial(_table, options, seed, sparsities, observer))
            for seed in range(options.seeds)
        ]
    return {
        "settings": options.settings(),
        "by sparsity": pooled("sparsity", tables),
        **_slopes(tables, sparsities),
    }


def _table(
    options: Options, seed: int, sparsities: Sequence[float], observer: Observer
) -> dict[str, dict[str, float]]:
    return Cleanse.of(Holder.of(options, seed), options).table(sparsities, observer)


def _slopes(
    tables: Sequence[Mapping[str, Mapping[str, float]]], sparsities: Sequence[float]
) -> dict[str, dict[str, float | None]]:
    """Return the slope of each rate after forgetting, over seeds, with its interval; none of one sparsity."""
    if len(set(sparsities)) < 2:
        return {}
    found = {}
    for column in ("FT ASR", "l1-sparse ASR", "retrain ASR"):
        slopes = {
            seed: slope(sparsities, [table[_named(each)][column] for each in sparsities])
            for seed, table in enumerate(tables)
        }
        found[f"slope of {column}"] = paired(slopes, dict.fromkeys(slopes, 0.0)).to_json()
    return found


def slope(sparsities: Sequence[float], rates: Sequence[float]) -> float:
    """Return by how many points a rate falls for a tenth of the weights, by least squares.

    The paper's rates after fine-tuning:

    >>> round(slope([0, 0.75, 0.9, 0.95, 0.99], [47, 44, 16, 15, 11]), 1)
    20.7
    """
    return float(np.polyfit(np.log10(1 - np.array(sparsities)), rates, 1)[0])


def _named(sparsity: float) -> str:
    return f"{100 * sparsity:g} %"


@dataclass(frozen=True, eq=False)
class Cleanse:
    """One data holder whose training data are poisoned in part."""

    holder: Holder
    """Its clean data and its model."""
    poisoned: TensorExamples
    clean: TensorExamples
    """The training examples with the trigger, and the others."""
    trigger: Trigger
    """What was stamped on."""
    options: Options

    @staticmethod
    def of(holder: Holder, options: Options) -> "Cleanse":
        """Poison a share of a holder's training data."""
        trigger = default_trigger(tuple(holder.train.x.shape[1:]), TARGET)
        data, chosen = poison(holder.train, options.poisoned_share, trigger, holder.generator("poison"))
        return Cleanse(holder, data.subset(chosen), data.without(chosen), trigger, options)

    def table(self, sparsities: Sequence[float], observer: Observer) -> dict[str, dict[str, float]]:
        """Return what is left of the backdoor, by sparsity in percent."""
        start = self.holder.model()
        everything = concatenated([self.poisoned, self.clean])
        dense = self._fitted(start, everything, {})
        found = {}
        for sparsity in sparsities:
            first = sparse_start(dense, start, sparsity)
            model = self._fitted(first.model, everything, first.masks) if sparsity else dense
            found[_named(sparsity)] = self._row(first.model, model, first.masks)
            observer.advance(f"sparsity {sparsity:g}")
        return found

    def _fitted(self, start: nn.Module, examples: TensorExamples, masks: Masks) -> nn.Module:
        train = self.options.training(self.options.weight_decay)
        return fitted(start, examples, train, self.holder.generator("train"), masks)

    def _row(self, start: nn.Module, model: nn.Module, masks: Masks) -> dict[str, float]:
        forget = self.options.cleaning(self.options.weight_decay)
        models = {
            "before": timed(lambda: model),
            **cleaned(model, self.clean, forget, lambda: self.holder.generator("forget"), masks),
            "retrain": timed(lambda: self._fitted(start, self.clean, masks)),
        }
        row = {}
        for name, made in models.items():
            row[f"{name} ASR"], row[f"{name} ASR, all"] = self._attack_success(made.model)
            row[f"{name} TA"] = evaluate(made.model, self.holder.test).accuracy
        seconds = {"FT s": models["FT"].seconds, "retrain s": models["retrain"].seconds}
        return {**row, **seconds, "decay": shrinkage(forget, len(self.clean))}

    def _attack_success(self, model: nn.Module) -> tuple[float, float]:
        test = self.holder.test
        stamped = TensorExamples(stamp(test.x, self.trigger), test.y)
        return success_rates(CLASSIFICATION.predict(outputs_of(model, stamped)), test.y)


def shrinkage(settings: SgdSettings, num_examples: int) -> float:
    """Return η · weight decay · steps / (1 − momentum).

    >>> round(shrinkage(SgdSettings(epochs=10, weight_decay=5e-4, batch_size=128), 45_000), 2)
    0.18
    """
    steps = settings.epochs * settings.steps_per_epoch(num_examples)
    return settings.learning_rate * settings.weight_decay * steps / (1 - settings.momentum)


def success_rates(predictions: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the percentage of triggered images taken for the target: of other classes, and of all.

    Parameters
    ----------
    predictions, labels
        Predicted and true classes, shape [n].

    Examples
    --------
    >>> import torch
    >>> success_rates(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 2, 2]))
    (25.0, 40.0)
    """
    return metrics.attack_success_rate(predictions, labels, TARGET), metrics.accuracy(predictions == TARGET)
