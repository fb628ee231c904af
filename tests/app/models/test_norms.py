"""``model.batch-norm`` carried out on layers, and what is refused."""

import re

import pytest
import torch
from torch import nn

from app.models.norms import settle_batch_norm
from strategies.core.errors import BadInput
from strategies.models import travelling
from strategies.models.batch_norm import Local, Recalibrated


class Own(nn.BatchNorm1d):
    """Normalises and does something else."""


def nested(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(norm))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.BatchNorm3d(4), Own(4)])
def test_batch_norm_is_refused_wherever_it_is(norm: nn.Module) -> None:
    expected = (
        rf'layer \'1\.0\' is {type(norm).__name__}, .* use GroupNorm, .*"group".*"local".*"recalibrate"'
    )
    with pytest.raises(BadInput, match=expected):
        settle_batch_norm(nested(norm), "refuse")


@pytest.mark.parametrize("policy", ["refuse", "local", "recalibrate"])
def test_a_batch_norm_over_processes_is_refused(policy: str) -> None:
    with pytest.raises(BadInput, match="SyncBatchNorm, which no client has peers for"):
        settle_batch_norm(nested(nn.SyncBatchNorm(4)), policy)


def test_group_hands_on_weight_and_bias_and_keeps_a_shared_layer_shared() -> None:
    norm = nn.BatchNorm1d(12, eps=1e-3)
    with torch.no_grad():
        norm.weight.fill_(3.0)
    model = nn.Sequential(norm, nn.ReLU(), norm)
    settle_batch_norm(model, "group")
    made = model[0]
    assert isinstance(made, nn.GroupNorm)
    assert (made.num_groups, made.eps, model[2]) == (4, 1e-3, made)
    assert made.weight is norm.weight
    assert model(torch.rand(2, 12)).shape == (2, 12)


def test_group_does_not_replace_what_does_more() -> None:
    with pytest.raises(BadInput, match=re.escape("given \"group\", but layer '1.0' is Own, which does more")):
        settle_batch_norm(nested(Own(4)), "group")


@pytest.mark.parametrize(("policy", "kind"), [("local", Local), ("recalibrate", Recalibrated)])
def test_a_marked_layer_keeps_its_class_and_names(policy: str, kind: type[nn.Module]) -> None:
    model = nested(Own(4))
    names = list(model.state_dict())
    settle_batch_norm(model, policy)
    settle_batch_norm(model, policy)  # Twice is once
    assert isinstance(model.get_submodule("1.0"), kind)
    assert isinstance(model.get_submodule("1.0"), Own)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("policy", ["refuse", "group", "local", "recalibrate"])
def test_a_frozen_layer_keeps_its_statistics_under_any_policy(policy: str) -> None:
    model = nested(nn.BatchNorm1d(4))
    model[1].requires_grad_(False)
    settle_batch_norm(model, policy)
    x = torch.rand(5, 4)
    assert torch.equal(model.train()(x), model.eval()(x))
    assert list(travelling.travelling(model)) == ["0.weight", "0.bias"]
    assert model.state_dict()["1.0.running_mean"].tolist() == [0.0] * 4


def test_instance_norm_with_statistics_is_refused() -> None:
    settle_batch_norm(nested(nn.InstanceNorm1d(4)), "refuse")
    with pytest.raises(BadInput, match="InstanceNorm1d with running statistics"):
        settle_batch_norm(nested(nn.InstanceNorm1d(4, track_running_stats=True)), "local")
