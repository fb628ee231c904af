"""One data holder: its data and model, the four rates of a model, and training from scratch, dense or sparse.

What `unlearning.central` does to a model is measured here as Jia et al. measure it (NeurIPS 2023, arXiv
2304.04934): UA, MIA-efficacy, RA and TA, and their mean distance to a model that was retrained.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from app.client.node import pick_device
from app.config.run_config import RunConfig
from app.data import load_client_data, load_server_data
from app.models.built_in import build_model
from app.simulation.launch import partition_configs
from strategies.client.evaluation import evaluate, outputs_of
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.core.seeds import numpy_generator, torch_generator
from strategies.task import CLASSIFICATION
from unlearning.audit.membership import membership_attack
from unlearning.central.masks import Masks
from unlearning.central.prune import SparseModel, omp
from unlearning.central.training import SgdSettings, trained

RATES = ("UA", "MIA", "RA", "TA")
Rates = Mapping[str, float]
_STEP_SHARES = (0.5, 0.25, 0.25)  # At half and three quarters of the epochs the step size falls to a tenth.


@dataclass(frozen=True, eq=False)
class Holder:
    """One data holder.

    Parameters
    ----------
    train, test
        Its data.
    num_groups
        Number of labels.
    config
        The run config that says which data and model.
    seed
        Of everything that is drawn.
    """

    train: TensorExamples
    test: TensorExamples
    num_groups: int
    config: RunConfig
    seed: int

    @staticmethod
    def of(keys: Sequence[str], seed: int) -> "Holder":
        """Return the holder of all training data that a run config names.

        Raises
        ------
        BadInput
            If a key is refused, or there are no test data.
        """
        held = ["data.clients=1", "data.public=0", f"run.seed={seed}"]
        config = RunConfig().with_overrides([*keys, *held])
        server = load_server_data(config.data, seed)
        if server.test is None:
            raise BadInput(f"data set {server.name} has no test data; set data.test-share")
        train = load_client_data(config.data, seed, partition_configs(1)[0])
        return Holder(train, server.test, server.num_groups, config, seed)

    def model(self, num_groups: int = 0, scope: int = 0) -> nn.Module:
        """Return a model with fresh weights; `scope` tells several apart."""
        shape, seed = tuple(self.train.x.shape[1:]), 1000 * scope + self.seed
        model = build_model(self.config.model, shape, num_groups or self.num_groups, seed)
        return model.to(pick_device(self.config.run.device))

    def generator(self, *scope: int | str) -> torch.Generator:
        """Return a generator for the scope."""
        return torch_generator(self.seed, "benchmark", *scope)


def config_keys(
    data_file: str, data_name: str, data_root: str, sizes: tuple[int, int], model: str, overrides: str
) -> list[str]:
    """Return what a benchmark's options say as keys of the run config.

    Parameters
    ----------
    data_file
        An npz file; empty: a data set by name.
    data_name, data_root
        The data set, by default scikit-learn's digits, and where it lies.
    sizes
        Training and test examples; 0 for all.
    model
        ``model.name``.
    overrides
        Further keys, as ``section.key=value`` with blanks between them.
    """
    return [
        f"data.name={f'npz:{data_file}' if data_file else data_name or 'digits'}",
        f"data.root={data_root}",
        f"data.train-limit={sizes[0]}",
        f"data.test-limit={sizes[1]}",
        f"model.name={model}",
        *str(overrides).split(),
    ]


@dataclass(frozen=True, eq=False)
class Split:
    """What is forgotten, what stays, and what is tested on, which the model has never seen."""

    forget: TensorExamples
    retain: TensorExamples
    test: TensorExamples


def rates(model: nn.Module, split: Split, seed: int) -> dict[str, float]:
    """Return UA, MIA-efficacy, RA and TA of a model, in percent."""
    retained, unseen, forgotten = (
        CLASSIFICATION.margins(outputs_of(model, part), part.y)
        for part in (split.retain, split.test, split.forget)
    )
    generator = numpy_generator(seed, "benchmark", "membership")
    attack = membership_attack(retained, unseen, forgotten, generator)
    return {
        "UA": 100.0 - evaluate(model, split.forget).accuracy,
        "MIA": float("nan") if attack.efficacy is None else attack.efficacy,
        "RA": evaluate(model, split.retain).accuracy,
        "TA": evaluate(model, split.test).accuracy,
    }


def disparity(measured: Rates, retrained: Rates) -> float:
    """Return the mean |gap| over the four rates, in points.

    TensorExamples
    --------
    >>> disparity({"UA": 4, "MIA": 1, "RA": 100, "TA": 90}, {"UA": 2, "MIA": 3, "RA": 100, "TA": 94})
    2.0
    """
    return sum(abs(measured[name] - retrained[name]) for name in RATES) / len(RATES)


def fitted(
    start: nn.Module,
    examples: TensorExamples,
    sgd: SgdSettings,
    generator: torch.Generator,
    masks: Masks | None = None,
) -> nn.Module:
    """Return a model trained from `start`, with a step size that falls at half and three quarters."""
    model = start
    for number, epochs in enumerate(phases(sgd.epochs)):
        rate = sgd.learning_rate * 0.1**number
        step = sgd.model_copy(update={"epochs": epochs, "learning_rate": rate})
        model = trained(model, examples, step, generator, masks=masks)
    return model


def phases(epochs: int) -> list[int]:
    """Return the epochs at each step size.

    TensorExamples
    --------
    >>> phases(182), phases(10), phases(1)
    ([91, 46, 45], [5, 2, 3], [0, 0, 1])
    """
    first, second = (round(share * epochs) for share in _STEP_SHARES[:2])
    return [first, second, epochs - first - second]


def sparse_start(dense: nn.Module, start: nn.Module, sparsity: float) -> SparseModel:
    """Return the first weights on the mask of the largest trained ones; at sparsity 0 there is no mask."""
    return omp(dense, start, sparsity) if sparsity > 0 else SparseModel(start, {})


@dataclass(frozen=True, eq=False)
class Timed:
    """A model and how long it took to make."""

    model: nn.Module
    seconds: float


def timed(make: Callable[[], nn.Module]) -> Timed:
    """Make a model and time it."""
    began = time.perf_counter()
    model = make()
    return Timed(model, time.perf_counter() - began)


def mean_std(values: Iterable[float]) -> dict[str, float]:
    """Return mean and sample standard deviation, which is 0 over a single value."""
    listed = list(values)
    return {"mean": statistics.fmean(listed), "std": statistics.stdev(listed) if len(listed) > 1 else 0.0}


def pooled(tables: Sequence[Mapping[str, Mapping[str, float]]], label: str) -> list[dict[str, object]]:
    """Return one row per entry of equal tables, a table per seed, with mean and spread of each figure."""
    return [
        {label: name, **{figure: mean_std(table[name][figure] for table in tables) for figure in row}}
        for name, row in tables[0].items()
    ]
