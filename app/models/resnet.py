"""ResNet-18 for small images.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", arXiv 1512.03385. It is torchvision's,
with three differences: the stem is that of the paper's CIFAR-10 models, a 3×3 convolution of stride 1 without
pooling; the norm is the caller's; and nothing is computed in place, because private training reads
activations that would be overwritten. It stands apart from `app.models.built_in` because it imports
torchvision, which takes seconds.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, ResNet

_BLOCKS = [2, 2, 2, 2]


class Block(BasicBlock):
    """A basic block, out of place."""

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(f(x) + x), with x projected where f changes its shape."""
        residual = functional.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return functional.relu(residual + (x if self.downsample is None else self.downsample(x)))


def small_resnet18(channels: int, num_outputs: int, norm: Callable[[int], nn.Module]) -> nn.Module:
    """Build the network, for images [n, channels, height, width], from torch's global generator.

    `norm` makes the norm layer for a number of channels.
    """
    model = ResNet(Block, _BLOCKS, num_classes=num_outputs, norm_layer=norm)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.relu = nn.ReLU()
    model.maxpool = nn.Identity()  # type: ignore[assignment]
    return model
