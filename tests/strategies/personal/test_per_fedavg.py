"""strategies/personal/per_fedavg.py: the meta-gradient, and personalisation by gradient steps."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies import fedavg
from strategies.client import training
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, LocalResult
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from strategies.personal import per_fedavg
from strategies.personal.per_fedavg import Objective, descend, hessian_product, meta_gradient
from strategies.settings import StrategySettings
from tests.strategies.fedprox.test_fedprox import examples, model
from tests.strategies.other_tasks import OwnLoss


def job(rate: float, form: str = "hessian-free", *, seed: int = 0, name: str = "per-fedavg") -> ClientJob:
    strategy = StrategySettings(name=name, inner_rate=rate, meta_gradient=form)  # type: ignore[arg-type]
    train = TrainSettings(local_epochs=2, batch_size=8, learning_rate=0.1)
    return ClientJob(model(), examples(), train, strategy, "3", 1, torch_generator(seed, "client"))


def weights(result: LocalResult) -> Tensor:
    state = result.model.state_dict()
    return wire.Layout.of(state).flatten(state)


def written_out(network: nn.Module, inner: Examples, outer: Examples, rate: float) -> list[Tensor]:
    """Differentiate f(w − α ∇f(w; D); D') by autograd through the inner step: the exact meta-gradient."""
    named = dict(network.named_parameters())
    loss = functional.cross_entropy(network(inner.x), inner.y)
    found = torch.autograd.grad(loss, list(named.values()), create_graph=True)
    moved = {name: p - rate * g for (name, p), g in zip(named.items(), found, strict=True)}
    after = functional.cross_entropy(torch.func.functional_call(network, moved, (outer.x,)), outer.y)
    return list(torch.autograd.grad(after, list(named.values())))


class Quadratic(nn.Module):
    """A model of two parameters whose output is ½ wᵀAw; see the tests below."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0]))


def test_one_step_worked_by_hand() -> None:
    """f = ½ wᵀAw, A = diag(2, 4), w = (1, −2), α = 0.1.

    w̃ = w − 0.1·(2, −8) = (0.8, −1.2); g = A w̃ = (1.6, −4.8); (I − 0.1 A) g = (1.28, −2.88).
    """
    matrix = torch.diag(torch.tensor([2.0, 4.0]))
    network = Quadratic()
    network.forward = lambda x: 0.5 * network.w @ matrix @ network.w  # type: ignore[method-assign]
    batch, objective = (torch.zeros(1, 1), torch.zeros(1)), Objective(network, OwnLoss(lambda output: output))
    meta_gradient(objective, batch, batch, batch, 0.1)
    assert network.w.grad is not None
    torch.testing.assert_close(network.w.grad, torch.tensor([1.28, -2.88]), atol=1e-3, rtol=0)
    meta_gradient(objective, batch, batch, None, 0.1)
    torch.testing.assert_close(network.w.grad, torch.tensor([1.6, -4.8]))
    assert network.w.tolist() == [1.0, -2.0]


def test_hessian_product_equals_autograd_on_a_quadratic() -> None:
    """∇²f v of a random quadratic, by autograd's double backward in float64."""
    root = torch.randn(6, 6, generator=torch_generator(1), dtype=torch.float64)
    matrix = root @ root.T
    network = Quadratic()
    network.w = nn.Parameter(torch.randn(6, generator=torch_generator(2), dtype=torch.float64))
    network.forward = lambda x: 0.5 * network.w @ matrix @ network.w  # type: ignore[method-assign]
    batch, objective = (torch.zeros(1, 1), torch.zeros(1)), Objective(network, OwnLoss(lambda output: output))
    vector = torch.randn(6, generator=torch_generator(3), dtype=torch.float64)
    first = torch.autograd.grad(network(batch[0]), network.w, create_graph=True)[0]
    expected = torch.autograd.grad(first @ vector, network.w)[0]
    found = hessian_product(objective, batch, [vector])[0]
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_the_hessian_free_form_is_near_the_exact_meta_gradient() -> None:
    """On a small network, with D'' = D, as differentiating through the step has it."""
    network, data = model(), examples()
    inner, outer = data.subset(range(20)), data.subset(range(20, 40))
    exact = torch.cat([g.flatten() for g in written_out(network, inner, outer, 0.5)])
    parameters = list(network.parameters())
    errors = []
    for second in (inner, None):
        batches = [None if part is None else (part.x, part.y) for part in (inner, outer, second)]
        meta_gradient(Objective(network), *batches, 0.5)  # type: ignore[arg-type]
        found = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[0] < 0.01
    assert errors[1] > 5 * errors[0]


@pytest.mark.parametrize("form", ["hessian-free", "first-order"])
def test_inner_rate_zero_is_fedavg_bit_for_bit_and_another_is_not(form: str) -> None:
    plain = weights(fedavg.train_client(job(0.0, name="fedavg")))
    assert weights(per_fedavg.train_client(job(0.0, form))).equal(plain)
    assert not weights(per_fedavg.train_client(job(0.1, form))).equal(plain)


def test_a_product_with_nothing_is_nothing() -> None:
    network = model()
    zero = [torch.zeros_like(p) for p in network.parameters()]
    batch = (examples().x, examples().y)
    assert all(not term.any() for term in hessian_product(Objective(network), batch, zero))


def test_the_forms_differ_and_the_seed_decides() -> None:
    first = weights(per_fedavg.train_client(job(0.1)))
    assert weights(per_fedavg.train_client(job(0.1))).equal(first)
    assert not weights(per_fedavg.train_client(job(0.1, seed=1))).equal(first)
    assert not weights(per_fedavg.train_client(job(0.1, "first-order"))).equal(first)


def test_personal_steps_are_full_batch_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of 16 of 40 examples, against torch's SGD on all at once."""
    monkeypatch.setattr(training, "_CHUNK", 16)
    network, other, data = model(), model(), examples()
    descend(network, data, 0.3, 2)
    optimizer = torch.optim.SGD(other.parameters(), 0.3)
    for _ in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(other(data.x), data.y).backward()
        optimizer.step()
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_rate_zero_personalises_nothing() -> None:
    assert weights(LocalResult(per_fedavg.personalise(job(0.0)), 1)).equal(weights(LocalResult(model(), 1)))
