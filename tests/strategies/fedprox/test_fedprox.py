"""The proximal term and partial work."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies import fedavg
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, LocalResult, StepState, gradients_in
from strategies.core import wire
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.fedprox import fedprox
from strategies.fedprox.fedprox import steps_for
from strategies.settings import StrategySettings


def model() -> nn.Module:
    """Return a small network, always with the same weights."""
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    generator = torch_generator(0, "model")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return network


def examples(n: int = 40) -> Examples:
    """Return inputs with random labels."""
    generator = torch_generator(0, "data")
    return TensorExamples(
        torch.randn(n, 4, generator=generator), torch.randint(0, 3, (n,), generator=generator)
    )


def job(mu: float, *, work: str = "", seed: int = 0, name: str = "fedprox") -> ClientJob:
    """Return client 3's job."""
    strategy = StrategySettings(name=name, mu=mu, work=work)
    train = TrainSettings(local_epochs=2, batch_size=8, learning_rate=0.1)
    return ClientJob(model(), examples(), train, strategy, "3", 1, torch_generator(seed, "client"))


def weights(result: LocalResult) -> Tensor:
    """Return the trained parameters."""
    state = result.model.state_dict()
    return wire.Layout.of(state).flatten(state)


def test_adjustment_worked_by_hand() -> None:
    """w = 3, w_t = 1, μ = 0.5, loss gradient 2: 2 + 0.5·(3 − 1) = 3."""
    (found,) = StepState([torch.tensor([1.0])], 0.5)([torch.tensor([3.0])], [torch.tensor([2.0])])
    assert found.tolist() == [3.0]


def test_gradient_equals_autograd_of_the_written_out_objective() -> None:
    """∇[F(w) + (μ/2)‖w − w_t‖²] by autograd, at a w that is not w_t."""
    network, data, mu = model(), examples(), 0.7
    anchor = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3)
    parameters = list(network.parameters())
    loss = functional.cross_entropy(network(data.x), data.y)
    distance = sum(((p - a) ** 2).sum() for p, a in zip(parameters, anchor, strict=True))
    expected = torch.autograd.grad(loss + mu / 2 * distance, parameters)
    plain = torch.autograd.grad(functional.cross_entropy(network(data.x), data.y), parameters)
    found = StepState(anchor, mu)(parameters, plain)
    assert all(f.allclose(gradient, atol=1e-6) for f, gradient in zip(found, expected, strict=True))


def test_mu_zero_is_fedavg_bit_for_bit_and_another_is_not() -> None:
    """The neutral value."""
    plain = weights(fedavg.train_client(job(0.0, name="fedavg")))
    assert weights(fedprox.train_client(job(0.0))).equal(plain)
    assert not weights(fedprox.train_client(job(0.5))).equal(plain)


def test_a_larger_mu_stays_nearer() -> None:
    """The sign of the term: it pulls back to w_t."""
    start = wire.Layout.of(model().state_dict()).flatten(model().state_dict())
    distances = [float((weights(fedprox.train_client(job(mu))) - start).norm()) for mu in (0.0, 1.0, 4.0)]
    assert distances[0] > distances[1] > distances[2]


def test_a_parameter_without_gradient_is_pulled_back_too() -> None:
    """The term is over all parameters, also those that the loss does not touch."""
    parameter = nn.Parameter(torch.tensor([3.0]))
    (found,) = StepState([torch.tensor([1.0])], 2.0)([parameter], gradients_in([parameter]))
    assert found.tolist() == [4.0]


@pytest.mark.parametrize(
    ("share", "steps"), [("", 10), ("3=1.0", 10), ("3=0.5", 5), ("3=0.01", 1), ("7=0.5", 10)]
)
def test_partial_work_is_done_and_counted(share: str, steps: int) -> None:
    """40 examples, batches of 8, 2 epochs: 10 steps; a share of them, at least one; others do it all."""
    result = fedprox.train_client(job(0.1, work=share))
    assert result.metrics[wire.NUM_STEPS] == steps
    assert result.num_examples == 40


def test_half_the_work_is_the_first_half() -> None:
    """A client that stops early took the same steps until then."""
    half = fedprox.train_client(job(0.0, work="3=0.5"))
    whole_epoch = job(0.0)
    one_epoch = fedavg.train_client(
        ClientJob(
            whole_epoch.model,
            whole_epoch.examples,
            whole_epoch.train.model_copy(update={"local_epochs": 1}),
            whole_epoch.strategy,
            "3",
            1,
            torch_generator(0, "client"),
        )
    )
    assert weights(half).equal(weights(one_epoch))


def test_steps_are_rounded_up() -> None:
    """0.25 of 10 steps is 3."""
    assert steps_for("3", 10, {"3": 0.25}) == 3


def test_same_seed_same_bits_and_another_differs() -> None:
    """The batches come from the generator that is handed in."""
    first = weights(fedprox.train_client(job(0.1)))
    assert weights(fedprox.train_client(job(0.1))).equal(first)
    assert not weights(fedprox.train_client(job(0.1, seed=1))).equal(first)
