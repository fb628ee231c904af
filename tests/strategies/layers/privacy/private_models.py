"""Layers of every kind that private training knows, and the clipped sum of one example at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from opacus.layers import DPGRU, DPLSTM, DPRNN, DPMultiheadAttention
from torch import Tensor, nn

from strategies.core.seeds import torch_generator
from strategies.layers.privacy.settings import EngineName
from strategies.task import OutputSpec, Task

COUNT, LENGTH, WIDTH, VOCABULARY = 4, 5, 8, 7
ALL: tuple[EngineName, ...] = ("auto", "one-pass", "ghost", "hooks")
SAMPLED: tuple[EngineName, ...] = ("auto", "ghost", "hooks")


class Squares(Task):
    """The sum of an output's squares."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.square().reshape(len(outputs), -1).sum(dim=1)

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -self.losses(outputs, targets)

    def outputs(self, spec: OutputSpec) -> int:
        return 1


SQUARES = Squares()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(seed, "numbers"))


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, VOCABULARY, shape, generator=torch_generator(0, "tokens"))


def slow_sum(model: nn.Module, x: Tensor, clip_norm: float) -> list[Tensor]:
    """Return Σ_i g_i min(1, C/‖g_i‖) by trainable parameter, one example at a time."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for one in x:
        loss = SQUARES.losses(model(one[None]), one).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        for entry, gradient in zip(total, gradients, strict=True):
            entry += gradient * min(1.0, clip_norm / norm)
    return total


def median_norm(model: nn.Module, x: Tensor) -> float:
    """Return a norm that half of the examples' gradients are above."""
    norms = []
    for one in x:
        whole = slow_sum(model, one[None], float("inf"))
        norms.append(float(torch.cat([g.flatten() for g in whole]).norm()))
    return sorted(norms)[len(norms) // 2 - 1] * 1.01


class Attending(nn.Module):
    def __init__(self, *, batch_first: bool, bias: bool = False) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.attention = DPMultiheadAttention(WIDTH, 2, batch_first=batch_first, add_bias_kv=bias)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        given = x if self.batch_first else x.transpose(0, 1)
        seen, _ = self.attention(given, given, given)
        out: Tensor = self.head(seen if self.batch_first else seen.transpose(0, 1))
        return out


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0])
        return out


class WithParameter(nn.Module):
    """Parameters of its own beside a layer's, for which nobody has a sampler."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.head = nn.Parameter(numbers(LENGTH, WIDTH, seed=3)), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(x + self.place))
        return out


class ByName(nn.Module):
    """Two inputs, one of them by name, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = WithTwo()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x, other=x.flip(1))
        return out


class WithTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(numbers(WIDTH, WIDTH, seed=4))
        self.scale = nn.Buffer(torch.tensor(0.5))

    def forward(self, x: Tensor, *, other: Tensor) -> Tensor:
        return self.scale * torch.tanh(x @ self.weight) * other


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.table(x)))
        return out


class Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(torch.tanh(self.layer(x)))
        return out


class LowRank(nn.Module):
    """A frozen linear layer and one of low rank beside it, half of which begins at zero (LoRA)."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(requires_grad=False)
        self.down, self.up = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.up(self.down(x))
        return out


@dataclass(frozen=True)
class Case:
    """A model, its inputs, [n, …], and the engines that can train it."""

    build: Callable[[], nn.Module]
    x: Tensor
    engines: tuple[EngineName, ...] = ALL


def before(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a network with a linear layer before another layer."""
    return lambda: nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), layer())


def after(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a network with a linear layer behind another layer."""
    return lambda: nn.Sequential(layer(), nn.Linear(WIDTH, 2))


def convolved(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a network with a convolution before another layer."""
    return lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.Tanh(), layer())


SEQUENCES, IMAGES = numbers(COUNT, LENGTH, WIDTH), numbers(COUNT, 4, 8, 9)
TEXT = tokens(COUNT, LENGTH)
LAST = IMAGES.to(memory_format=torch.channels_last)

CASES: Mapping[str, Case] = {
    "linear": Case(lambda: nn.Linear(WIDTH, 3), SEQUENCES[:, 0]),
    "linear on sequences": Case(before(lambda: nn.Linear(6, 2)), SEQUENCES),
    "linear on more": Case(before(lambda: nn.Linear(6, 2)), numbers(COUNT, 2, 3, WIDTH)),
    "low rank": Case(LowRank, SEQUENCES),
    "embedding": Case(after(lambda: nn.Embedding(VOCABULARY, WIDTH)), TEXT),
    "embedding of one token": Case(after(lambda: nn.Embedding(VOCABULARY, WIDTH)), TEXT[:, 0]),
    "embedding with padding": Case(after(lambda: nn.Embedding(VOCABULARY, WIDTH, padding_idx=1)), TEXT),
    "bag, mean": Case(
        after(lambda: nn.EmbeddingBag(VOCABULARY, WIDTH, mode="mean", padding_idx=1)), TEXT, SAMPLED
    ),
    "bag, sum": Case(after(lambda: nn.EmbeddingBag(VOCABULARY, WIDTH, mode="sum")), TEXT, SAMPLED),
    "layer norm": Case(before(lambda: nn.LayerNorm(6)), SEQUENCES, SAMPLED),
    "layer norm without bias": Case(
        before(lambda: nn.LayerNorm((LENGTH, 6), bias=False)), SEQUENCES, SAMPLED
    ),
    "RMS norm": Case(before(lambda: nn.RMSNorm(6)), SEQUENCES, SAMPLED),
    "instance norm": Case(convolved(lambda: nn.InstanceNorm2d(6, affine=True)), IMAGES, SAMPLED),
    "group norm": Case(convolved(lambda: nn.GroupNorm(2, 6)), IMAGES),
    "convolution": Case(convolved(lambda: nn.Conv2d(6, 3, 3, stride=2)), IMAGES),
    "convolution, many channels": Case(convolved(lambda: nn.Conv2d(6, 3, (2, 3), padding=(1, 2))), LAST),
    "convolution, channels last": Case(
        lambda: convolved(lambda: nn.Conv2d(6, 3, 3))().to(memory_format=torch.channels_last), LAST
    ),
    "convolution, groups": Case(convolved(lambda: nn.Conv2d(6, 6, 3, groups=3)), LAST, SAMPLED),
    "convolution, same": Case(convolved(lambda: nn.Conv2d(6, 3, 3, padding="same")), LAST, SAMPLED),
    "convolution, reflected": Case(
        convolved(lambda: nn.Conv2d(6, 3, 3, padding=(1, 2), padding_mode="reflect")), LAST, SAMPLED
    ),
    "convolution of sequences": Case(
        lambda: nn.Conv1d(LENGTH, 6, 3, stride=2, padding=2, dilation=2), SEQUENCES, SAMPLED
    ),
    "convolution of volumes": Case(
        lambda: nn.Conv3d(2, 3, 2, stride=(1, 2, 1)), numbers(COUNT, 2, 4, 5, 4), SAMPLED
    ),
    "transposed convolution": Case(lambda: nn.ConvTranspose2d(4, 3, 2), IMAGES, SAMPLED),
    "parametric ReLU": Case(before(nn.PReLU), SEQUENCES, SAMPLED),
    "own parameter": Case(WithParameter, SEQUENCES, SAMPLED),
    "input by name": Case(ByName, SEQUENCES, ("auto",)),
    "in place": Case(
        lambda: nn.Sequential(nn.Linear(WIDTH, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)), SEQUENCES
    ),
    "attention": Case(lambda: Attending(batch_first=False), SEQUENCES),
    "attention, as long as the batch": Case(lambda: Attending(batch_first=False), SEQUENCES[:, :COUNT]),
    "attention, batch first": Case(lambda: Attending(batch_first=True), SEQUENCES),
    "attention with biases": Case(lambda: Attending(batch_first=True, bias=True), SEQUENCES, SAMPLED),
    "RNN": Case(lambda: Recurrent(DPRNN(WIDTH, 3, batch_first=True), 3), SEQUENCES),
    "LSTM": Case(
        lambda: Recurrent(DPLSTM(WIDTH, 3, num_layers=2, bidirectional=True, batch_first=True), 6), SEQUENCES
    ),
    "GRU": Case(lambda: Recurrent(DPGRU(WIDTH, 3, batch_first=True), 3), SEQUENCES),
    "tied": Case(Tied, TEXT, ("auto", "one-pass", "hooks")),
    "twice": Case(lambda: Twice(nn.Linear(WIDTH, WIDTH)), SEQUENCES[:, 0], ("auto", "one-pass", "hooks")),
    "norm twice": Case(
        lambda: nn.Sequential(nn.Linear(WIDTH, 6), Twice(nn.LayerNorm(6))), SEQUENCES, SAMPLED
    ),
}
