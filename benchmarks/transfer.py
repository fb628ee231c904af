"""Better transfer: forget the source classes that hurt the target task first, then transfer.

Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934, section 5
(application to transfer learning), in which the features of a source model are kept and a new last layer is
trained on the target task (linear probing). The source task here is made so that some classes do hurt: the
model learns to name the first half of the classes as they are, and to sort images of the other half at random
into a few "harmful" classes; telling the other half apart is the target task, with few examples. With one
harmful class all images of the target task have the same label, so that a narrow network learns to see no
difference between them.

Whether a set-up can show the effect is seen by the retrained model: where even its target accuracy is not
above the untouched model's, no forgetting can be expected to gain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from app.workflows.observer import Observer
from benchmarks.central import CleaningOptions, Holder, Timed, cleaned, fitted, sparse_start, timed
from benchmarks.figures import kind, paired, pooled
from strategies.client.evaluation import evaluate, outputs_of
from strategies.core.examples import TensorExamples, concatenated
from unlearning.central.parameters import copied
from unlearning.central.training import SgdSettings, trained

UNTOUCHED = "untouched"
PROBE = SgdSettings(epochs=100, learning_rate=0.05)
"""How the last layer is trained: it begins at zero, and the loss is convex."""


class Options(CleaningOptions):
    """Options of the benchmark."""

    forget_epochs: int = 3
    forget_rate: float = 0.02
    sparsity: float = 0.95
    """Of the sparse source model."""
    harmful_classes: int = 3
    """How many there are, at least 1."""
    per_class: int = 20
    """Training examples of each class of the target task."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return, for each source model, its accuracy, that of the target task, and the time it took.

    With them comes what each gains in target accuracy over the untouched model, paired by seed.
    """
    observer.phase("transfer", 2 * options.seeds)
    tables: list[dict[str, dict[str, float]]] = []
    for seed in range(options.seeds):
        holder = Holder.of(options, seed)
        its_tasks = tasks(holder, options.harmful_classes, options.per_class)
        transfer = Transfer(holder, its_tasks, options)
        table: dict[str, dict[str, float]] = {}
        for rate in (0.0, options.sparsity):
            table |= transfer.table(rate)
            observer.advance(f"seed {seed}, sparsity {rate:g}")
        tables.append(table)
    return {
        "settings": options.settings(),
        "by source model": pooled("source", tables),
        "gains": [gain(tables, name) for name in tables[0] if not name.startswith(UNTOUCHED)],
    }


def gain(tables: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> dict[str, Any]:
    """Return what a source model gains in target accuracy over the untouched one, with its interval.

    Parameters
    ----------
    tables
        By source model, of one seed each.
    name
        Of the model, and after a comma how sparse it is.
    """
    twin = f"{UNTOUCHED},{name.partition(',')[2]}"
    ours, theirs = (
        {seed: table[each]["target TA"] for seed, table in enumerate(tables)} for each in (name, twin)
    )
    return {"source": name, **paired(ours, theirs).to_json()}


@dataclass(frozen=True, eq=False)
class Tasks:
    """The source task, whose last classes are harmful, and the target task."""

    helpful: TensorExamples
    harmful: TensorExamples
    """Training data of the source task."""
    num_source: int
    num_target: int
    """Number of labels."""
    source_test: TensorExamples
    """Of the helpful classes."""
    target: TensorExamples
    target_test: TensorExamples
    """Few examples, and all test examples, labelled from 0."""


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
    """Source models and what can be made of them."""

    holder: Holder
    tasks: Tasks
    options: Options

    def table(self, sparsity: float) -> dict[str, dict[str, float]]:
        """Return a row per source model of a sparsity."""
        tasks, draw, train = self.tasks, self.holder.generator, self.options.training()
        start = self.holder.model(tasks.num_source)
        everything = concatenated([tasks.helpful, tasks.harmful])
        untouched = fitted(start, everything, train, draw("train"))
        first = sparse_start(untouched, start, sparsity)
        masks = first.masks
        if masks:
            untouched = fitted(first.model, everything, train, draw("train"), masks)
        models = {
            UNTOUCHED: Timed(untouched, 0.0),
            **cleaned(untouched, tasks.helpful, self.options.cleaning(), lambda: draw("FT"), masks),
            "retrained": timed(lambda: fitted(first.model, tasks.helpful, train, draw("train"), masks)),
        }
        return {f"{name}, {kind(sparsity)}": self._row(made) for name, made in models.items()}

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
