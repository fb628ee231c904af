"""Trojan cleanse: the poisoned examples are found and forgotten; what is left of the backdoor, by sparsity.

Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934, section 5
(application to Trojan model cleanse): a share of the training data carries a trigger (BadNets), the model is
pruned by magnitude (OMP) and trained on all data, and then forgets the poisoned examples by fine-tuning on
the clean ones. The attack success rate here leaves out images of the target class; the paper counts them, so
that its floor is the class's share of the test data, and for comparison that figure is given as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from app.workflows.observer import Observer
from benchmarks.central import CleaningOptions, Holder, cleaned, fitted, sparse_start, timed
from benchmarks.figures import pooled
from benchmarks.options import numbers
from strategies.client.backdoor import Trigger, default_trigger, poison, stamp
from strategies.client.evaluation import evaluate, outputs_of
from strategies.core.examples import TensorExamples, concatenated
from strategies.task import CLASSIFICATION
from unlearning.audit import metrics
from unlearning.central.masks import Masks

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


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return, for each sparsity, ASR and TA before and after forgetting, and of the retrained model."""
    sparsities = numbers("sparsities", options.sparsities)
    observer.phase("trojan", options.seeds * len(sparsities))
    tables = []
    for seed in range(options.seeds):
        cleanse = Cleanse.of(Holder.of(options, seed), options)
        tables.append(cleanse.table(sparsities, observer))
    return {"settings": options.settings(), "by sparsity": pooled("sparsity", tables)}


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
            found[f"{100 * sparsity:g} %"] = self._row(first.model, model, first.masks)
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
        return {**row, "FT s": models["FT"].seconds, "retrain s": models["retrain"].seconds}

    def _attack_success(self, model: nn.Module) -> tuple[float, float]:
        test = self.holder.test
        stamped = TensorExamples(stamp(test.x, self.trigger), test.y)
        return success_rates(CLASSIFICATION.predict(outputs_of(model, stamped)), test.y)


def success_rates(predictions: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the percentage of triggered images taken for the target: of other classes, and of all.

    Parameters
    ----------
    predictions, labels
        Predicted and true classes, shape [n].

    TensorExamples
    --------
    >>> import torch
    >>> success_rates(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 2, 2]))
    (25.0, 40.0)
    """
    return metrics.attack_success_rate(predictions, labels, TARGET), metrics.accuracy(predictions == TARGET)
