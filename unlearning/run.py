"""A finished training run as the forgetting methods see it: models, log, plan, and the server's data."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from strategies.client.backdoor import Trigger
from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import Examples
from strategies.log.reading import LogReader
from strategies.models.mask import hold, masks_in
from strategies.plan import TrainingPlan
from strategies.task import CLASSIFICATION, Task
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings
from unlearning.spending import MemorySpending, Spending


@dataclass(frozen=True)
class TrainedRun:
    """What a method may read; nothing of it is changed.

    Parameters
    ----------
    plan
        How the run was trained; `retrain` repeats it.
    train
        Settings of local training.
    build_model
        Makes a model of the run's architecture with the run's initial weights.
    layout
        Names and shapes of the model's floating entries.
    initial, final
        Flat parameters before the first and after the last round, shape [layout.size]; `final` those after
        the last request of `forgotten`, if there is one.
    log
        The update log, or None where none was kept.
    num_groups
        Number of groups of the data, such as classes.
    public, test
        The server's own data, or None.
    trigger
        The backdoor's trigger, when the run was attacked for the purpose of an audit.
    staged
        What the run config has made of clients' examples, ``poisoned`` or ``hard``, by client-id; empty where
        it stages nobody, as with real data.
    clients
        The ids of the clients that the run knew.
    num_examples
        How many examples each of them had, by client-id; a client that was purged is not in it.
    train_seconds
        How long it took to make `final`: the training, or the forgetting before.
    device
        Where models are computed.
    mask
        Which parameters may differ from zero, shape [layout.size], bool; None for a dense model.
    mask_origin
        How the mask was chosen, as ``forget.prune`` names it; empty for a dense model.
    pruned_by
        The settings by which it was pruned; None for a dense model, or where they are not known.
    client_models
        Whether each client keeps a model of its own; `initial` and `final` are then what the server has of
        the strategy, and no model.
    personal_models
        Whether each client keeps a model of its own besides the one that all share.
    local_layers
        Whether layers of the model stay with each client, so that `final` is no whole model.
    given_weights
        Whether the initial weights were given, and so are the same for all seeds.
    lineage
        The clients' lineage that `final` belongs to; empty: the run's own.
    privacy
        What the run's summary says of its privacy; None where nothing is private.
    forgotten
        What was forgotten before: `final` is the result of the last of these requests, and whatever is made
        from here on leaves all of them out.
    seeded_model
        Makes a model of the run's architecture with the initial weights of a seed; None: it has but one.
    fresh_seed
        Returns a seed that no training of the run had; asked where the server gets sums of updates only.
    spending
        What the clients of a private run have spent, in it and in what was trained after it.
    task
        What is learned.
    precision
        In what the clients computed the forward passes of local training (``run.precision``).
    all_groups
        Whether retraining trains all groups that were trained apart again, and not only those that hold what
        is forgotten: `final` has models of another seed, or of a method that is not exact.
    """

    plan: TrainingPlan
    train: TrainSettings
    build_model: Callable[[], nn.Module]
    layout: wire.Layout
    initial: Tensor
    final: Tensor
    log: LogReader | None
    num_groups: int
    public: Examples | None = None
    test: Examples | None = None
    trigger: Trigger | None = None
    staged: Mapping[str, str] = field(default_factory=dict)
    clients: tuple[str, ...] = ()
    num_examples: Mapping[str, int] = field(default_factory=dict)
    train_seconds: float = 0.0
    device: torch.device = torch.device("cpu")
    mask: Tensor | None = None
    mask_origin: str = ""
    pruned_by: ForgetSettings | None = None
    privacy: Mapping[str, Any] | None = None
    client_models: bool = False
    personal_models: bool = False
    local_layers: bool = False
    given_weights: bool = False
    lineage: str = ""
    forgotten: tuple[ForgetRequest, ...] = ()
    seeded_model: Callable[[int], nn.Module] | None = None
    fresh_seed: Callable[[], int] = lambda: secrets.randbelow(2**62)  # Clients learn it
    spending: Spending = field(default_factory=MemorySpending)
    task: Task = CLASSIFICATION
    precision: str = "float32"
    all_groups: bool = False

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.plan.seed

    @property
    def forgotten_clients(self) -> tuple[str, ...]:
        """The clients that were forgotten before, as a whole."""
        return tuple(client_id for request in self.forgotten for client_id in request.clients)

    @cached_property
    def trained(self) -> Tensor:
        """Which entries of the flat parameters clients train, shape [layout.size], bool.

        The others are statistics, which the server sets (`strategies.models.batch_norm.Recalibrated`).
        """
        statistics = {name for name, _ in self.build_model().named_buffers()}
        sizes = zip(self.layout.names, self.layout.sizes, strict=True)
        return torch.cat([torch.full((size,), name not in statistics) for name, size in sizes])

    @property
    def num_trained(self) -> int:
        """How many entries clients train: the length of a gradient."""
        return int(self.trained.sum())

    def spread(self, values: Tensor) -> Tensor:
        """Return values of the entries that clients train as flat ones, shape [layout.size], 0 elsewhere."""
        return values.new_zeros(self.layout.size).masked_scatter(self.trained, values)

    def settled(self, flat: Tensor) -> Tensor:
        """Return flat parameters with the statistics that the server sets, if there are any."""
        return flat if self.plan.settle is None else self.plan.settle(flat)

    def renewed(self) -> "TrainedRun":
        """Return the run with a new seed and new initial weights, which no training of it had; a mask stays.

        LetheError if the run has only one set of initial weights.
        """
        if self.seeded_model is None:
            raise LetheError("the run's sums are hidden, and there are no other weights to begin again from")
        seed = self.fresh_seed()
        initial = self.layout.flatten(self.seeded_model(seed).state_dict())
        initial = initial if self.mask is None else initial * self.mask
        return replace(self, plan=replace(self.plan, seed=seed), initial=initial)

    @contextmanager
    def lent(self, flat: Tensor) -> Iterator[nn.Module]:
        """Have a model with the given flat parameters for a while, to be measured and not changed.

        A large one lies in the vector itself. BadInput as `model`.
        """
        if self.local_layers or self.mask is not None:
            yield self.model(flat)
            return
        with wire.lent(self.build_model().to(self.device), flat, self.layout) as model:
            yield model

    def model(self, flat: Tensor) -> nn.Module:
        """Return a model with the given flat parameters, on the run's device; it holds the run's mask.

        BadInput if a part of the model stays with each client, so that none is whole here.
        """
        if self.local_layers:
            raise BadInput(
                'model.batch-norm: "local" leaves layers with each client, so the server has no model to run'
            )
        model = self.build_model()
        wire.load_flat(model, flat, self.layout)
        if self.mask is not None:
            hold(model, masks_in(self.mask, self.layout))
        return model.to(self.device)
