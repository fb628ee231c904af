import torch
from torch import nn
from torchvision.models import resnet18

from app.models.resnet import small_resnet18
from strategies.core.seeds import torch_generator


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


def images(side: int) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch_generator(0))


def test_it_has_torchvisions_parameters_but_for_stem_and_head() -> None:
    """torchvision documents 11,689,512: a stem of 7×7 instead of 3×3 and 1000 classes instead of 10."""
    expected = 11_689_512 - 64 * 3 * (7 * 7 - 3 * 3) - (512 * 1000 + 1000) + (512 * 10 + 10)

    model = small_resnet18(3, 10, group_norm)

    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_stem_keeps_the_size_of_the_image() -> None:
    """Three of the four stages halve it: 32 → 32, 16, 8, 4."""
    model, sizes = small_resnet18(3, 10, group_norm), []
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(stage).register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))

    model(images(32))

    assert sizes == [32, 16, 8, 4]


def test_it_computes_what_torchvisions_blocks_compute() -> None:
    """torchvision's own, with our weights and our stem put in."""
    ours = small_resnet18(3, 10, group_norm)
    theirs = resnet18(num_classes=10, norm_layer=group_norm)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.load_state_dict(ours.state_dict())

    torch.testing.assert_close(ours(images(16)), theirs(images(16)))


def test_nothing_is_computed_in_place() -> None:
    """A hook's copy of each activation equals the activation after the whole forward pass."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    model = small_resnet18(3, 10, group_norm)
    for layer in model.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, __, output: kept.append((output, output.clone())))

    model(images(8))

    assert kept
    assert all(torch.equal(output, copy) for output, copy in kept)


def test_torchvisions_own_in_place_sums_would_be_noticed() -> None:
    """Guards the test above."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    theirs = resnet18(num_classes=10, norm_layer=group_norm)
    theirs.layer1[0].bn2.register_forward_hook(lambda _, __, output: kept.append((output, output.clone())))

    theirs(images(32))

    assert not torch.equal(*kept[0])
