"""One data holder: its data and model, the four rates of a model, and training from scratch, dense or sparse.

What `unlearning.central` does to a model is measured here as Jia et al. measure it (NeurIPS 2023, arXiv
2304.04934): UA, MIA-efficacy, RA and TA, and their mean distance to a model that was retrained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from app.client.node import pick_device
from app.config.run_config import RunConfig
from app.data import load_client_data, load_server_data
from app.models.built_in import build_model
from app.simulation.launch import partition_configs
from benchmarks.convnet import convnet, crops_and_flips
from benchmarks.figures import stopped
from benchmarks.options import SeedsOptions
from strategies.client.evaluation import mean_score, outputs_of
from strategies.core.augmenting import Augmented
from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples, in_memory
from strategies.core.seeds import numpy_generator, torch_generator
from strategies.task import CLASSIFICATION
from unlearning.audit.membership import membership_attack
from unlearning.central.finetune import FinetuneSettings, finetune
from unlearning.central.l1_sparse import L1SparseSettings, l1_sparse
from unlearning.central.masks import Masks
from unlearning.central.prune import SparseModel, omp
from unlearning.central.training import SgdSettings, trained

CONVNET = "convnet"
RATES = ("UA", "MIA", "RA", "TA")
Rates = Mapping[str, float]
_STEP_SHARES = (0.5, 0.25, 0.25)  # At half and three quarters of the epochs the step size falls to a tenth.


class HolderOptions(SeedsOptions):
    """Options of a benchmark on one data holder."""

    data_file: str = ""
    """An npz file with ``x_train``, ``y_train``, ``x_test`` and ``y_test``."""
    data_root: str = ""
    data_name: str = ""
    """Without a file: where a data set lies, and its name; by default scikit-learn's digits."""
    model: str = "cnn"
    """``model.name``, or ``convnet`` (`benchmarks.convnet`)."""
    augment: bool = False
    """Whether images are moved and mirrored where a model trains on them."""
    batch_size: int = 32
    """Of training and retraining."""
    train_examples: int = 5_000
    test_examples: int = 2_000
    """0 for all, of both."""
    epochs: int = 20
    learning_rate: float = 0.05
    """Of training and retraining; the step size falls to a tenth at half and at three quarters."""
    overrides: str = "model.width=16"
    """Further keys of the run config, as ``section.key=value`` with blanks between them."""

    def training(self, weight_decay: float = 0.0) -> SgdSettings:
        """Return how a model is trained."""
        return SgdSettings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=weight_decay,
            batch_size=self.batch_size,
        )

    def keys(self) -> list[str]:
        """Return what the options say as keys of the run config."""
        return [
            f"data.name={f'npz:{self.data_file}' if self.data_file else self.data_name or 'digits'}",
            f"data.root={self.data_root}",
            f"data.train-limit={self.train_examples}",
            f"data.test-limit={self.test_examples}",
            *([] if self.model == CONVNET else [f"model.name={self.model}"]),
            *self.overrides.split(),
        ]


class CleaningOptions(HolderOptions):
    """Options of a benchmark in which fine-tuning and l1-sparse forget a part of the training data."""

    forget_epochs: int = 10
    forget_rate: float = 0.05
    gamma: float = 2e-3
    """Epochs and step size of both, and the first penalty of l1-sparse."""

    def cleaning(self, weight_decay: float = 0.0) -> L1SparseSettings:
        """Return how l1-sparse works."""
        return L1SparseSettings(
            epochs=self.forget_epochs,
            learning_rate=self.forget_rate,
            gamma=self.gamma,
            weight_decay=weight_decay,
        )


@dataclass(frozen=True, eq=False)
class Holder:
    """One data holder."""

    train: TensorExamples
    test: TensorExamples
    """Its data."""
    num_groups: int
    """Number of labels."""
    config: RunConfig
    """The run config that says which data and model."""
    seed: int
    """Of everything that is drawn."""
    convolutional: bool = False
    """Whether the model is `benchmarks.convnet`'s in place of the run config's."""
    augment: bool = False
    """Whether training inputs are varied."""

    @staticmethod
    def of(options: HolderOptions, seed: int) -> "Holder":
        """Return the holder of all training data that the options name.

        Raises
        ------
        BadInput
            If a key is refused, or there are no test data.
        """
        held = ["data.clients=1", "data.public=0", f"run.seed={seed}"]
        config = RunConfig().with_overrides([*options.keys(), *held])
        server = load_server_data(config.data, seed)
        if server.test is None:
            raise BadInput(f"data set {server.name} has no test data; set data.test-share")
        train = in_memory(load_client_data(config.data, seed, partition_configs(1)[0]))
        test, groups = in_memory(server.test), server.num_groups
        return Holder(train, test, groups, config, seed, options.model == CONVNET, options.augment)

    def model(self, num_groups: int = 0, scope: int = 0) -> nn.Module:
        """Return a model with fresh weights; `scope` tells several apart."""
        shape, seed = tuple(self.train.x.shape[1:]), 1000 * scope + self.seed
        outputs = num_groups or self.num_groups
        own = partial(convnet, shape[0], outputs) if self.convolutional else None
        model = build_model(self.config.model, shape, outputs, seed, own)
        return model.to(pick_device(self.config.run.device))

    def varied(self, examples: TensorExamples) -> Examples:
        """Return examples that are varied where a model trains on them, if they are to be."""
        return Augmented(examples, crops_and_flips) if self.augment else examples

    def generator(self, *scope: int | str) -> torch.Generator:
        """Return a generator for the scope."""
        return torch_generator(self.seed, "benchmark", *scope)


@dataclass(frozen=True, eq=False)
class Split:
    """What is forgotten, what stays, and what is tested on, which the model has never seen."""

    forget: Examples
    retain: Examples
    test: Examples


def rates(model: nn.Module, split: Split, seed: int) -> dict[str, float]:
    """Return UA, MIA-efficacy, RA and TA of a model, in percent."""
    return judged(model, split, seed)[0]


def judged(model: nn.Module, split: Split, seed: int) -> tuple[dict[str, float], Tensor]:
    """Return the rates of a model in percent, and the margins of the forgotten examples, shape [n]."""
    accuracies, margins = [], []
    for part in (split.retain, split.test, split.forget):
        outputs, targets = outputs_of(model, part), part.targets()
        accuracies.append(mean_score(CLASSIFICATION.scores(outputs, targets)))
        margins.append(CLASSIFICATION.margins(outputs, targets))
    retained, unseen, forgotten = margins
    attack = membership_attack(retained, unseen, forgotten, numpy_generator(seed, "benchmark", "membership"))
    rates = {
        "UA": 100.0 - accuracies[2],
        "MIA": float("nan") if attack.efficacy is None else attack.efficacy,
        "RA": accuracies[0],
        "TA": accuracies[1],
    }
    return rates, forgotten


def disparity(measured: Rates, retrained: Rates) -> float:
    """Return the mean |gap| over the four rates, in points.

    Examples
    --------
    >>> disparity({"UA": 4, "MIA": 1, "RA": 100, "TA": 90}, {"UA": 2, "MIA": 3, "RA": 100, "TA": 94})
    2.0
    """
    return sum(abs(measured[name] - retrained[name]) for name in RATES) / len(RATES)


def fitted(
    start: nn.Module,
    examples: Examples,
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

    Examples
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
    seconds: list[float] = []
    with stopped(seconds):
        model = make()
    return Timed(model, seconds[0])


def cleaned(
    model: nn.Module,
    retained: TensorExamples,
    settings: L1SparseSettings,
    generator: Callable[[], torch.Generator],
    masks: Masks,
) -> dict[str, Timed]:
    """Return a model fine-tuned on what stays, without and with the penalty of l1-sparse.

    All other settings are the same; each of the two has a generator of its own.
    """
    plain = FinetuneSettings.model_validate(settings.model_dump(exclude={"gamma"}))
    return {
        "FT": timed(lambda: finetune(model, retained, plain, generator(), masks=masks)),
        "l1-sparse": timed(lambda: l1_sparse(model, retained, settings, generator(), masks=masks)),
    }
