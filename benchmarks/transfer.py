"""Better transfer: forget the source classes that hurt the target task first, then transfer.

Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934, section 5
(application to transfer learning), in which the features of a source model are kept and a new last layer is
trained on the target task (linear probing). The source task here is made so that some classes do hurt: the
model learns to name the first half of the classes as they are, and to sort images of the other half at random
into a few "harmful" classes; telling the other half apart is the target task, with few examples.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from app.workflows.observer import Observer, Quiet
from benchmarks.central import Holder, Timed, config_keys, fitted, pooled, sparse_start, timed
from benchmarks.jobs import machine
from strategies.client.evaluation import evaluate, outputs_of
from strategies.core.examples import TensorExamples, concatenated
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse
from unlearning.central.parameters import copied
from unlearning.central.training import SgdSettings, trained

PROBE = SgdSettings(epochs=100, learning_rate=0.05)
"""How the last layer is trained: it begins at zero, and the loss is convex."""


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
    forget_epochs: int = 3,
    forget_rate: float = 0.02,
    gamma: float = 2e-3,
    sparsity: float = 0.95,
    harmful_classes: int = 3,
    per_class: int = 20,
    seeds: int = 3,
    overrides: str = "model.width=16",
) -> dict[str, Any]:
    """Return, for each source model, its accuracy, that of the target task, and the time it took.

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
        Of the source model; the step size falls to a tenth at half and at three quarters.
    forget_epochs, forget_rate, gamma
        Of fine-tuning, and of l1-sparse, whose first penalty is `gamma`.
    sparsity
        Of the sparse source model.
    harmful_classes
        How many there are, at least 1.
    per_class
        Training examples of each class of the target task.
    seeds
        Number of seeds, from 0.
    overrides
        Further keys of the run config, as ``section.key=value`` with blanks between them.
    """
    options = {name: value for name, value in locals().items() if name != "observer"}
    observer = observer or Quiet()
    sizes = (train_examples, test_examples)
    keys = config_keys(data_file, data_name, data_root, sizes, model, overrides)
    train = SgdSettings(epochs=epochs, learning_rate=learning_rate)
    forget = L1SparseSettings(epochs=forget_epochs, learning_rate=forget_rate, gamma=gamma)
    observer.phase("transfer", 2 * seeds)
    tables: list[dict[str, dict[str, float]]] = []
    for seed in range(seeds):
        holder = Holder.of(keys, seed)
        transfer = Transfer(holder, tasks(holder, harmful_classes, per_class), train, forget)
        table: dict[str, dict[str, float]] = {}
        for rate in (0.0, sparsity):
            table |= transfer.table(rate)
            observer.advance(f"seed {seed}, sparsity {rate:g}")
        tables.append(table)
    return {"machine": machine(), "settings": options, "by source model": pooled(tables, "source")}


@dataclass(frozen=True, eq=False)
class Tasks:
    """The source task, whose last classes are harmful, and the target task.

    Parameters
    ----------
    helpful, harmful
        Training data of the source task.
    num_source, num_target
        Number of labels.
    source_test
        Of the helpful classes.
    target, target_test
        Few examples, and all test examples, labelled from 0.
    """

    helpful: TensorExamples
    harmful: TensorExamples
    num_source: int
    num_target: int
    source_test: TensorExamples
    target: TensorExamples
    target_test: TensorExamples


def tasks(holder: Holder, harmful_classes: int, per_class: int) -> Tasks:
    """Return the tasks that are made of a holder's data."""
    half = holder.num_groups // 2
    helpful, others = holder.train.split(holder.train.y < half)
    source_test, target_test = holder.test.split(holder.test.y < half)
    kept = torch.cat(
        [torch.nonzero(others.y == c).flatten()[:per_class] for c in range(half, holder.num_groups)]
    )
    target, rest = others.subset(kept), others.without(kept)
    drawn = torch.randint(harmful_classes, (len(rest),), generator=holder.generator("harmful"))
    return Tasks(
        helpful,
        TensorExamples(rest.x, half + drawn),
        half + harmful_classes,
        holder.num_groups - half,
        source_test,
        TensorExamples(target.x, target.y - half),
        TensorExamples(target_test.x, target_test.y - half),
    )


@dataclass(frozen=True, eq=False)
class Transfer:
    """Source models and what can be made of them.

    Parameters
    ----------
    holder
        Gives model and seed.
    tasks
        The data.
    train, forget
        How source models are trained, and how they forget.
    """

    holder: Holder
    tasks: Tasks
    train: SgdSettings
    forget: L1SparseSettings

    def table(self, sparsity: float) -> dict[str, dict[str, float]]:
        """Return a row per source model of a sparsity."""
        tasks, draw = self.tasks, self.holder.generator
        start = self.holder.model(tasks.num_source)
        everything = concatenated([tasks.helpful, tasks.harmful])
        untouched = fitted(start, everything, self.train, draw("train"))
        first = sparse_start(untouched, start, sparsity)
        masks = first.masks
        if masks:
            untouched = fitted(first.model, everything, self.train, draw("train"), masks)
        plain = FinetuneSettings(epochs=self.forget.epochs, learning_rate=self.forget.learning_rate)
        models = {
            "untouched": Timed(untouched, 0.0),
            "FT": timed(lambda: finetune(untouched, tasks.helpful, plain, draw("FT"), masks=masks)),
            "l1-sparse": timed(
                lambda: l1_sparse(untouched, tasks.helpful, self.forget, draw("FT"), masks=masks)
            ),
            "retrained": timed(lambda: fitted(first.model, tasks.helpful, self.train, draw("train"), masks)),
        }
        kind = f"{100 * sparsity:g} % sparse" if sparsity else "dense"
        return {f"{name}, {kind}": self._row(made) for name, made in models.items()}

    def _row(self, source: Timed) -> dict[str, float]:
        tasks = self.tasks
        probe = timed(lambda: probed(source.model, tasks, self.holder.generator("probe")))
        return {
            "source TA": evaluate(source.model, tasks.source_test).accuracy,
            "target TA": evaluate(probe.model, tasks.target_test).accuracy,
            "seconds": source.seconds,
            "transfer seconds": probe.seconds,
        }


def probed(source: nn.Module, tasks: Tasks, generator: torch.Generator) -> nn.Module:
    """Return the source model's features with a last layer that was trained on the target task."""
    head_name, head = next(
        (n, m) for n, m in reversed(list(source.named_modules())) if isinstance(m, nn.Linear)
    )
    twin = copied(source)
    twin.set_submodule(head_name, nn.Identity())
    features = outputs_of(twin, tasks.target)
    last = nn.Linear(head.in_features, tasks.num_target)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.zero_()
    probe = trained(last, TensorExamples(features, tasks.target.y), PROBE, generator)
    twin.set_submodule(head_name, probe.to(head.weight.device))
    return twin
