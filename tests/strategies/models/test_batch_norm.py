"""Batch norms with a mark: one value per channel, and statistics by hand and against torch."""

import torch
from torch import nn

from strategies.core.examples import TensorExamples
from strategies.models.batch_norm import Local, Recalibrated, mark, recalibrated


def marked(kind: type[Local] | type[Recalibrated], channels: int = 1) -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(channels)
    mark(layer, kind)
    return layer


def examples(x: torch.Tensor) -> TensorExamples:
    return TensorExamples(x, torch.zeros(len(x), dtype=torch.int64))


def test_one_value_is_normalised_by_the_running_statistics() -> None:
    """(5 − 1)/√(4 + ε) = 2: torch refuses it, as one value has no variance."""
    layer = marked(Local)
    layer.running_mean, layer.running_var = torch.tensor([1.0]), torch.tensor([4.0])
    torch.testing.assert_close(layer.train()(torch.tensor([[5.0]])), torch.tensor([[2.0]]), atol=1e-4, rtol=0)
    assert layer.training
    assert layer.running_mean.tolist() == [1.0]


def test_training_leaves_the_statistics_of_a_recalibrated_layer_alone() -> None:
    layer, plain = marked(Recalibrated), nn.BatchNorm1d(1)
    x = torch.tensor([[1.0], [2.0], [6.0]])
    assert torch.equal(layer.train()(x), plain.train()(x))
    assert layer.running_mean is not None
    assert layer.running_mean.tolist() == [0.0]
    layer.running_mean.fill_(1.0)
    assert layer.eval()(torch.tensor([[1.0]])).item() == 0.0


def test_statistics_are_those_of_all_batches_together() -> None:
    """Of 1, 2, 6: mean 3, and (4 + 1 + 9)/2 = 7."""
    layer = marked(Recalibrated)
    recalibrated(nn.Sequential(layer), examples(torch.tensor([[1.0], [2.0], [6.0]])), batch_size=2)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert (layer.running_mean.item(), layer.running_var.item()) == (3.0, 7.0)
    assert layer.training


def test_two_layers_have_torchs_own_statistics_of_one_batch() -> None:
    """The slow reference: torch with momentum None, which keeps the mean over batches, on a single batch."""
    x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    plain = nn.Sequential(
        nn.BatchNorm2d(3, momentum=None), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, momentum=None)
    )
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    model.load_state_dict(plain.state_dict())
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.BatchNorm2d)
        mark(layer, Recalibrated)
    plain.train()(x)
    recalibrated(model, examples(x))
    for name in ("0.running_mean", "0.running_var", "2.running_mean", "2.running_var"):
        torch.testing.assert_close(model.state_dict()[name], plain.state_dict()[name], atol=1e-5, rtol=1e-5)


def test_a_model_without_such_layers_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1))
    assert recalibrated(model, examples(torch.ones(2, 1))) is model
    assert model.state_dict()["0.running_mean"].item() == 0
