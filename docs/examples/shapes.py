"""Segmentation of made shapes by a small U-Net: IoU over six clients, of which one leaves.

Every pixel of a 32×32 image is background, disc or square; each client has a brightness of its own.
"""

import torch
from forgetting import COLUMNS, Options, forget_by, table
from torch import Tensor, nn

import lethe

SIDE = 32
METHODS = ("finetune", "subtract", "federaser")


def drawings(generator: torch.Generator, count: int, brightness: float) -> tuple[Tensor, Tensor]:
    """Return images, shape [count, 1, 32, 32], and the label of each pixel, shape [count, 32, 32]."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    labels = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    for label in labels:
        for kind in (1, 2):
            row, column = torch.randint(6, SIDE - 6, (2,), generator=generator).tolist()
            size = int(torch.randint(4, 8, (1,), generator=generator))
            far = (
                (y - row).square() + (x - column).square()
                if kind == 1
                else (y - row).abs().maximum((x - column).abs()) ** 2
            )
            label[far <= size**2] = kind
    images = brightness * (labels > 0).float().unsqueeze(1) + 0.2 * torch.randn(
        count, 1, SIDE, SIDE, generator=generator
    )
    return images, labels


def data(node: lethe.Node) -> tuple[Tensor, Tensor]:
    """Return a client's drawings."""
    return drawings(torch.Generator().manual_seed(100 + node.index), 60, 0.7 + 0.1 * node.index)


class UNet(nn.Module):
    """Three levels of convolutions, two connections across, normalised over groups."""

    def __init__(self, outputs: int, width: int = 8) -> None:
        super().__init__()
        self.fine = _block(1, width)
        self.middle = nn.Sequential(nn.MaxPool2d(2), _block(width, 2 * width))
        self.coarse = nn.Sequential(
            nn.MaxPool2d(2), _block(2 * width, 4 * width), nn.Upsample(scale_factor=2)
        )
        self.up_to_middle = nn.Sequential(_block(6 * width, 2 * width), nn.Upsample(scale_factor=2))
        self.up_to_fine = nn.Sequential(_block(3 * width, width), nn.Conv2d(width, outputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape [n, classes, 32, 32]."""
        fine = self.fine(images)
        middle = self.middle(fine)
        middle = self.up_to_middle(torch.cat([middle, self.coarse(middle)], dim=1))
        return self.up_to_fine(torch.cat([fine, middle], dim=1))


def _block(before: int, after: int) -> nn.Module:
    layers = [
        layer
        for inputs in (before, after)
        for layer in (nn.Conv2d(inputs, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU())
    ]
    return nn.Sequential(*layers)


project = lethe.Project(
    model=lambda spec: UNet(spec.num_outputs),
    data=data,
    task="segmentation",
    classes=("background", "disc", "square"),
    test=lambda: drawings(torch.Generator().manual_seed(1), 100, 1.0),
)


def main() -> None:
    """Train over six clients, then let the last leave."""
    options = Options.read(__doc__ or "")
    config = options.config(
        task__metric="iou", train__learning_rate=0.1, train__momentum=0.9, train__batch_size=8
    )
    run = lethe.train(project, rounds=1 if options.small else 25, clients=6, config=config, progress=False)
    final = run.summary["final"]
    table(["test-iou", "test-score"], [[f"{final[name]:.3f}" for name in ("test-iou", "test-score")]])
    print()  # noqa: T201
    table(COLUMNS, forget_by(run, "5", METHODS))


if __name__ == "__main__":
    main()
