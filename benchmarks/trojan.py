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

from app.workflows.observer import Observer, Quiet
from benchmarks.central import Holder, config_keys, fitted, pooled, sparse_start, timed
from benchmarks.jobs import machine
from strategies.client.backdoor import Trigger, default_trigger, poison, stamp
from strategies.client.evaluation import evaluate, outputs_of
from strategies.core.examples import TensorExamples, concatenated
from strategies.task import CLASSIFICATION
from unlearning.audit import metrics
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings

TARGET = 0


def run(  # noqa: PLR0913  # a parameter per option
    observer: Observer | None = None,
    *,
    data_file: str = "",
    data_root: str = "",
    data_name: str = "",
    model: str = "cnn",
    train_examples: int = 5_000,
    test_examples: int = 2_000,
    epochs: int = 10,
    learning_rate: float = 0.05,
    weight_decay: float = 5e-4,
    forget_epochs: int = 10,
    forget_rate: float = 0.05,
    gamma: float = 2e-3,
    poisoned_share: float = 0.1,
    sparsities: str = "0,0.75,0.9,0.95,0.99",
    seeds: int = 3,
    overrides: str = "model.width=16",
) -> dict[str, Any]:
    """Return, for each sparsity, ASR and TA before and after forgetting, and of the retrained model.

    Parameters
    ----------
    observer
        Told of each model.
    data_file
        An npz file with ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
    data_root, data_name
        Without a file: a data set by name, and where it lies; by default scikit-learn's digits.
    model
        ``model.name``.
    train_examples, test_examples
        0 for all.
    epochs, learning_rate
        Of training; the step size falls to a tenth at half and at three quarters.
    weight_decay
        Of training and forgetting.
    forget_epochs, forget_rate, gamma
        Of fine-tuning, and of l1-sparse, whose first penalty is `gamma`.
    poisoned_share
        Share of the training data that carries the trigger.
    sparsities
        Separated by commas, each in [0, 1).
    seeds
        Number of seeds, from 0.
    overrides
        Further keys of the run config, as ``section.key=value`` with blanks between them.
    """
    options = {name: value for name, value in locals().items() if name != "observer"}
    observer = observer or Quiet()
    sizes = (train_examples, test_examples)
    keys = config_keys(data_file, data_name, data_root, sizes, model, overrides)
    chosen = [float(each) for each in str(sparsities).split(",")]
    decay: dict[str, Any] = {"weight_decay": weight_decay}
    tuned = L1SparseSettings(epochs=forget_epochs, learning_rate=forget_rate, gamma=gamma, **decay)
    train = SgdSettings(epochs=epochs, learning_rate=learning_rate, **decay)
    observer.phase("trojan", seeds * len(chosen))
    tables = []
    for seed in range(seeds):
        cleanse = Cleanse.of(Holder.of(keys, seed), poisoned_share, train, tuned)
        tables.append(cleanse.table(chosen, observer))
    return {"machine": machine(), "settings": options, "by sparsity": pooled(tables, "sparsity")}


@dataclass(frozen=True, eq=False)
class Cleanse:
    """One data holder whose training data are poisoned in part.

    Parameters
    ----------
    holder
        Its clean data and its model.
    poisoned, clean
        The training examples with the trigger, and the others.
    trigger
        What was stamped on.
    train, forget
        How the models are trained, and how they forget.
    """

    holder: Holder
    poisoned: TensorExamples
    clean: TensorExamples
    trigger: Trigger
    train: SgdSettings
    forget: L1SparseSettings

    @staticmethod
    def of(holder: Holder, share: float, train: SgdSettings, forget: L1SparseSettings) -> "Cleanse":
        """Poison a share of a holder's training data."""
        trigger = default_trigger(tuple(holder.train.x.shape[1:]), TARGET)
        data, chosen = poison(holder.train, share, trigger, holder.generator("poison"))
        return Cleanse(holder, data.subset(chosen), data.without(chosen), trigger, train, forget)

    def table(self, sparsities: Sequence[float], observer: Observer) -> dict[str, dict[str, float]]:
        """Return what is left of the backdoor, by sparsity in percent."""
        start = self.holder.model()
        dense = self._trained(start, {})
        found = {}
        for sparsity in sparsities:
            first = sparse_start(dense, start, sparsity)
            model = dense if sparsity == 0 else self._trained(first.model, first.masks)
            found[f"{100 * sparsity:g} %"] = self._row(first.model, model, first.masks)
            observer.advance(f"sparsity {sparsity:g}")
        return found

    def _trained(self, start: nn.Module, masks: Masks) -> nn.Module:
        data = concatenated([self.poisoned, self.clean])
        return fitted(start, data, self.train, self.holder.generator("train"), masks)

    def _row(self, start: nn.Module, model: nn.Module, masks: Masks) -> dict[str, float]:
        draw = self.holder.generator
        plain = FinetuneSettings.model_validate(self.forget.model_dump(exclude={"gamma"}))
        models = {
            "before": timed(lambda: model),
            "FT": timed(lambda: finetune(model, self.clean, plain, draw("forget"), masks=masks)),
            "l1-sparse": timed(
                lambda: l1_sparse(model, self.clean, self.forget, draw("forget"), masks=masks)
            ),
            "retrain": timed(lambda: fitted(start, self.clean, self.train, draw("train"), masks)),
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
