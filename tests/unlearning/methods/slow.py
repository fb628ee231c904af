"""The slow way to what a federated round gives: each client's work done here, one by one, then a mean."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from strategies.client.evaluation import evaluate
from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.examples import Examples, concatenated
from strategies.core.seeds import torch_generator
from tests.unlearning.methods.federation import Federation, blobs
from unlearning.forget_spec import spec_for
from unlearning.forgetting import ForgetResult, forget
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

DATA = {str(i): blobs(20 + 4 * i, seed=i) for i in range(4)}
LAST = 3
"""Rounds of the run; those of a forgetting method are numbered on from there."""
CLIENT = ForgetRequest(clients=("2",))
CLASS = ForgetRequest(classes=(1,))
SAMPLE = ForgetRequest(samples={"0": (1, 2, 5), "3": (0, 30)})
REQUESTS = [CLIENT, CLASS, SAMPLE]


def federation_of(data: Mapping[str, Examples] = DATA, **settings: float) -> Federation:
    """Return a federation whose clients train gently."""
    gentle = {"local_epochs": 1, "batch_size": 8, "momentum": 0.9, "learning_rate": 0.05, **settings}
    return Federation(data, settings=TrainSettings.model_validate(gentle))


def finished(federation: Federation, folder: Path, retention: str = "full") -> TrainedRun:
    """Return a run of a federation."""
    return federation.trained(folder / "log", LAST, retention)


def forgotten(
    method: str, run: TrainedRun, federation: Federation, request: ForgetRequest, **settings: object
) -> ForgetResult:
    """Serve a request by a method."""
    chosen = ForgetSettings.of(method, **settings)
    return forget(run, request, method, chosen, federation.cohort())


def parts(federation: Federation, request: ForgetRequest) -> dict[str, tuple[Examples, Examples]]:
    """Return each client's part of D_f and of D_r."""
    return {i: d.split(spec_for(request, i).named(d)) for i, d in federation.data.items()}


def model_at(federation: Federation, flat: Tensor) -> nn.Module:
    """Return the federation's model with some parameters."""
    model = federation.build_model()
    wire.load_flat(model, flat, federation.layout)
    return model


def flat_of(federation: Federation, model: nn.Module) -> Tensor:
    """Return a model's parameters as they travel."""
    return federation.layout.flatten(model.state_dict())


def draws(federation: Federation, client_id: str, server_round: int) -> Generator:
    """Return the generator of a client in a round."""
    return torch_generator(federation.seed, "client", client_id, "round", server_round)


def mean_of(models: Mapping[str, tuple[int, Tensor]]) -> Tensor:
    """Return Σ n_k w_k / Σ n_k of (n_k, w_k) by client."""
    total = sum(n for n, _ in models.values())
    return sum((n / total * w.double() for n, w in models.values()), torch.zeros(())).float()


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Check that two models are the same but for rounding."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def loss_on(federation: Federation, flat: Tensor, examples: Examples) -> float:
    """Return a model's mean loss."""
    return evaluate(model_at(federation, flat), examples).loss


def part_of_all(federation: Federation, request: ForgetRequest) -> tuple[Examples, Examples]:
    """Return D_f and D_r."""
    forget, retain = zip(*parts(federation, request).values(), strict=True)
    return concatenated(forget), concatenated(retain)
