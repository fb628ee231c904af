"""pfl 0.6 (Granqvist et al., "pfl-research", NeurIPS 2024), the fastest published simulator, in one process.

Its evaluation of every client before and after training is turned off, as no other contender does that.
"""
# mypy: disable-error-code="import-not-found,import-untyped,misc,unused-ignore"
# pfl is no dependency of this project: it is measured where it is found.

import dataclasses
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.jobs import LEARNING_RATE, Job, Stopwatch, Task, initial_model


class Model(nn.Module):
    """The job's model with the two methods that pfl asks for."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.net = initial_model(job)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return functional.cross_entropy(self.net(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return nothing: evaluation is off."""
        return {}


class Averaging(FederatedAveraging):
    """Federated averaging without evaluation."""

    def get_next_central_contexts(self, *arguments: Any, **options: Any) -> Any:
        """Return pfl's own, with evaluation turned off."""
        contexts, model, metrics = super().get_next_central_contexts(*arguments, **options)
        if contexts is not None:
            contexts = tuple(dataclasses.replace(context, do_evaluation=False) for context in contexts)
        return contexts, model, metrics


class Laps(TrainingProcessCallback):
    """Stops the time of each iteration."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def after_central_iteration(self, *arguments: Any, **options: Any) -> tuple[bool, Metrics]:
        """Note that an iteration is over."""
        self._watch.lap()
        return False, Metrics()


def main(task: Task, watch: Stopwatch) -> None:
    """Run the task."""
    data = [Dataset(raw_data=[c.x, c.y], user_id=str(i)) for i, c in enumerate(task.clients())]
    users = FederatedDataset(lambda i: data[i], MinimizeReuseUserSampler(list(range(task.job.clients))))
    module = Model(task.job)
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    parameters = NNAlgorithmParams(
        central_num_iterations=task.job.rounds,
        evaluation_frequency=1,
        train_cohort_size=task.job.clients,
        val_cohort_size=0,
    )
    training = NNTrainHyperParams(
        local_learning_rate=LEARNING_RATE, local_num_epochs=1, local_batch_size=task.job.batch_size
    )
    backend, callbacks = SimulatedBackend(users, users), [Laps(watch)]
    watch.start()
    Averaging().run(parameters, backend, model, training, callbacks=callbacks, send_metrics_to_platform=False)
    flat = torch.cat([tensor.flatten() for tensor in module.state_dict().values()])
    watch.report(flat, threads=torch.get_num_threads())
