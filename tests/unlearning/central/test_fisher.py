"""unlearning/central/fisher.py: the diagonal against its definition, and the noise's scale."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from unlearning.central.fisher import add_noise, fisher_forget, fisher_sum, noise_scale, without_class_rows
from unlearning.central.gradients import ExampleSum
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import flat_parameters, split_like, trainable
from unlearning.traits.fisher import FisherSettings

BuildNet = Callable[..., nn.Module]
MakeBlobs = Callable[..., Examples]
Run = Callable[[torch.Generator], nn.Module]


def slow_fisher(model: nn.Module, examples: Examples) -> Tensor:
    """The definition: one backward pass per example and class."""
    parameters = list(trainable(model.eval()).values())
    total = torch.zeros(len(flat_parameters(model)), dtype=torch.float64)
    for x in examples.x:
        log_probabilities = model(x.unsqueeze(0)).log_softmax(dim=1)[0]
        for log_probability in log_probabilities:
            pieces = torch.autograd.grad(log_probability, parameters, retain_graph=True)
            gradient = torch.cat([piece.reshape(-1) for piece in pieces]).double()
            total += log_probability.detach().exp().double() * gradient.square()
    return total


# by hand


def test_the_diagonal_by_hand() -> None:
    """Two classes, weights 0, x = 2: p = ½ each, ∂ log p_0 = (½·2, −½·2) = (1, −1), ∂ log p_1 = (−1, 1).

    H = ½·(1, 1) + ½·(1, 1) = (1, 1) for one example.
    """
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    total = fisher_sum(model, TensorExamples(torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([0])))
    assert total.total.tolist() == pytest.approx([1.0, 1.0])
    assert total.count == 1


def test_the_scale_by_hand() -> None:
    """α = 0.01, clamp 100. H = 4: sqrt(0.01/4) = 0.05. H = 0 and 1e-9: sqrt(0.01·100) = 1."""
    diagonal = torch.tensor([4.0, 0.0, 1e-9])
    scale = noise_scale(diagonal, FisherSettings(alpha=0.01, max_inverse=100.0))
    assert scale.tolist() == pytest.approx([0.05, 1.0, 1.0])


def test_rows_of_forgotten_classes_are_cleared(build_net: BuildNet) -> None:
    model = build_net(4, 5, 3)
    before, after = (split_like(flat_parameters(m), model) for m in (model, without_class_rows(model, [1])))
    assert not after["2.weight"][1].any()
    assert float(after["2.bias"][1]) == 0.0
    assert torch.equal(after["2.weight"][[0, 2]], before["2.weight"][[0, 2]])
    assert torch.equal(after["0.weight"], before["0.weight"])


# against the slow reference


@pytest.mark.parametrize("block_size", [None, 1, 4])
def test_the_diagonal_is_its_definition(
    block_size: int | None, build_net: BuildNet, make_blobs: MakeBlobs
) -> None:
    model, examples = build_net(4, 5, 3), make_blobs(10)
    fast = fisher_sum(model, examples, block_size)
    torch.testing.assert_close(fast.total, slow_fisher(model, examples), rtol=1e-6, atol=1e-12)


def test_the_diagonal_of_a_convolutional_network(build_conv: BuildNet) -> None:
    x = torch.randn((6, 1, 6, 6), generator=torch_generator(0))
    examples = TensorExamples(x, torch.zeros(6, dtype=torch.int64))
    fast = fisher_sum(build_conv(), examples, block_size=4).total
    torch.testing.assert_close(fast, slow_fisher(build_conv(), examples), rtol=1e-3, atol=1e-6)


# properties


def test_clients_add_up_to_the_whole(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, examples = build_net(4, 5, 3), make_blobs(20)
    clients = [examples.subset(range(start, 20, 3)) for start in range(3)]
    joined = ExampleSum.join(fisher_sum(model, client) for client in clients)
    torch.testing.assert_close(joined.mean, fisher_sum(model, examples).mean, rtol=1e-11, atol=1e-14)


def test_labels_play_no_part(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, examples = build_net(4, 5, 3), make_blobs(12)
    relabelled = TensorExamples(examples.x, torch.zeros_like(examples.y))
    assert torch.equal(fisher_sum(model, examples).total, fisher_sum(model, relabelled).total)


def test_without_variance_the_model_comes_back(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model = build_net(4, 5, 3)
    result = fisher_forget(model, make_blobs(12), FisherSettings(alpha=0.0), torch_generator(0))
    assert torch.equal(flat_parameters(result), flat_parameters(model))


def test_the_noise_has_the_asked_variance(build_net: BuildNet) -> None:
    """4,000 draws: the standard deviation is estimated to ±1.1 %, so 5 % is more than four of its errors."""
    model = build_net(40, 98, 1)
    diagonal = torch.full((len(flat_parameters(model)),), 4.0)
    noisy = add_noise(model, diagonal, FisherSettings(alpha=0.01), torch_generator(0))
    noise = flat_parameters(noisy) - flat_parameters(model)
    assert float(noise.std()) == pytest.approx(0.05, rel=0.05)
    assert abs(float(noise.mean())) < 0.004


def test_pruned_weights_get_no_noise(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    model, masks = build_net(4, 3), {"0.weight": torch.arange(12).view(3, 4) % 2 == 0}
    noisy = fisher_forget(model, make_blobs(9), FisherSettings(), torch_generator(0), masks=masks)
    changed = flat_parameters(noisy) != flat_parameters(model)
    assert torch.equal(changed, flat_mask(model, masks))


def test_only_class_requests_touch_the_head(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """Without noise, a request for no class changes nothing and one for class 2 clears its row."""
    model, quiet = build_net(4, 5, 3), FisherSettings(alpha=0.0)
    kept = fisher_forget(model, make_blobs(9), quiet, torch_generator(0), classes=())
    cleared = fisher_forget(model, make_blobs(9), quiet, torch_generator(0), classes=(2,))
    assert torch.equal(flat_parameters(kept), flat_parameters(model))
    assert torch.equal(flat_parameters(cleared), flat_parameters(without_class_rows(model, [2])))


def test_noise_comes_from_the_generator(
    build_net: BuildNet, make_blobs: MakeBlobs, assert_seeded: Callable[[Run], None]
) -> None:
    model, retain = build_net(4, 3), make_blobs(9)
    assert_seeded(lambda generator: fisher_forget(model, retain, FisherSettings(), generator))


# errors


def test_a_class_without_a_row_is_refused(build_net: BuildNet) -> None:
    with pytest.raises(ValueError, match=r"classes \[3\] are not all among the 3 rows"):
        without_class_rows(build_net(4, 3), [3])


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="no linear layer"):
        without_class_rows(nn.Conv2d(1, 1, 1), [0])


# a damaged answer


def test_squaring_the_gradient_of_the_batch_is_noticed(build_net: BuildNet, make_blobs: MakeBlobs) -> None:
    """The released code squares batch means, which is no Fisher diagonal: most of it cancels first."""
    model, examples = build_net(4, 5, 3), make_blobs(12)
    parameters = list(trainable(model).values())
    log_probabilities = model(examples.x).log_softmax(dim=1)
    damaged = torch.zeros(len(flat_parameters(model)), dtype=torch.float64)
    for label in range(3):
        pieces = torch.autograd.grad(log_probabilities[:, label].mean(), parameters, retain_graph=True)
        share = float(log_probabilities[:, label].detach().exp().mean())
        damaged += share * torch.cat([piece.reshape(-1) for piece in pieces]).square()
    assert float(damaged.sum()) < 0.7 * float(slow_fisher(model, examples).sum() / 12)
