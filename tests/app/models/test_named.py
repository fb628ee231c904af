"""Models of torchvision and timm: seeded, with the task's outputs, on grey images too; no download."""

import sys

import pytest
import torch
from torch import Tensor, nn

from app.config.settings import ModelSettings
from app.models.built_in import build_model
from strategies.core.errors import BadInput
from tests.fresh_starts import FreshStarts

SMALL = "torchvision:squeezenet1_1"


def named(
    name: str, shape: tuple[int, ...] = (3, 32, 32), seed: int = 0, batch_norm: str = "refuse"
) -> nn.Module:
    settings = ModelSettings.model_validate({"name": name, "batch-norm": batch_norm})
    return build_model(settings, shape, 7, seed)


def first(model: nn.Module) -> Tensor:
    return next(model.parameters()).detach()


def test_the_head_has_the_tasks_outputs_and_the_seed_decides_the_weights() -> None:
    model = named(SMALL)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert torch.equal(first(model), first(named(SMALL)))
    assert not torch.equal(first(model), first(named(SMALL, seed=1)))


def test_a_grey_image_is_repeated_and_no_entry_is_renamed() -> None:
    grey, coloured = named(SMALL, (1, 32, 32)), named(SMALL)
    assert list(grey.state_dict()) == list(coloured.state_dict())
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(grey.eval()(x), coloured.eval()(x.repeat(1, 3, 1, 1)))


def test_a_model_that_takes_grey_images_is_left_alone() -> None:
    def own() -> nn.Module:
        return nn.Sequential(Tripled(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LazyLinear(7))

    model = build_model(ModelSettings(), (1, 8, 8), 7, 0, own)
    assert not model._forward_pre_hooks
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 7)


class Tripled(nn.Module):
    """Makes three channels of one, and takes nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        """Return three channels."""
        assert x.shape[1] == 1
        return x.repeat(1, 3, 1, 1)


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(BadInput, match="torchvision has no classifier 'resnet19'; near it: resnet18"):
        named("torchvision:resnet19")


def test_a_batch_norm_of_theirs_is_refused_with_the_choices() -> None:
    with pytest.raises(BadInput, match=r"'bn1' is BatchNorm2d, .*model\.batch-norm"):
        named("torchvision:resnet18")


def test_timm_builds_models_too() -> None:
    pytest.importorskip("timm")
    assert named("timm:resnet10t", batch_norm="group")(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(BadInput, match="timm has no classifier 'resnet10'"):
        named("timm:resnet10")


def test_without_timm_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"'timm:resnet10t', but timm is not installed: pip install 'lethe-fl"):
        named("timm:resnet10t")


def test_neither_library_is_imported_for_the_models_that_are_built_in(fresh_starts: FreshStarts) -> None:
    code = (
        "import sys; from app.config.settings import ModelSettings; from app.models import build_model; "
        "build_model(ModelSettings(), (1, 8, 8), 3, 0); print({'torchvision', 'timm'} & sys.modules.keys())"
    )
    assert fresh_starts.run(code).strip() == "set()"
