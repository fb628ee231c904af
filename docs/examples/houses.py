"""House prices, a regression: R² over eight towns, of which one leaves.

Made from a formula in the manner of the California data: a price by income, age, rooms, people and place,
with noise; each town has its own place and income.
"""

import torch
from forgetting import COLUMNS as SHOWN, Options, forget_by, table
from torch import nn

import lethe

COLUMNS = ("income", "age", "rooms", "people", "latitude", "longitude")
NOISE = 0.3
METHODS = ("finetune", "subtract", "federaser")


def houses(generator: torch.Generator, count: int, town: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return measurements, shape [count, 6], and prices, shape [count]; `town` is (income, north, east)."""
    x = torch.randn(count, len(COLUMNS), generator=generator)
    x[:, 0] += town[0]
    x[:, 4:] = 0.3 * x[:, 4:] + town[1:]
    coast = torch.exp(-((x[:, 4] - x[:, 5]) ** 2))
    price = 0.8 * x[:, 0] + 0.3 * x[:, 2] - 0.2 * x[:, 3] + 0.1 * x[:, 1] * x[:, 0] + coast
    return x, price + NOISE * torch.randn(count, generator=generator)


def data(node: lethe.Node) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the houses of a town."""
    generator = torch.Generator().manual_seed(1000 + node.index)
    return houses(generator, 200, torch.randn(3, generator=generator))


def everywhere(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return houses of many towns."""
    generator = torch.Generator().manual_seed(1)
    towns = [houses(generator, 10, torch.randn(3, generator=generator)) for _ in range(count // 10)]
    return torch.cat([x for x, _ in towns]), torch.cat([y for _, y in towns])


def model(spec: lethe.ModelSpec) -> nn.Module:
    """Return a perceptron with two hidden layers."""
    return nn.Sequential(
        nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, spec.num_outputs)
    )


project = lethe.Project(model=model, data=data, task="regression", test=lambda: everywhere(1000))


def main() -> None:
    """Train over eight towns, then let the last leave."""
    options = Options.read(__doc__ or "")
    config = options.config(task__metric="r2", train__learning_rate=0.02, train__momentum=0.9)
    run = lethe.train(project, rounds=3 if options.small else 30, clients=8, config=config, progress=False)
    final = run.summary["final"]
    names = [name for name in ("test-r2", "test-mae", "test-rmse") if name in final]
    table(names, [[f"{final[name]:.3f}" for name in names]])
    print()  # noqa: T201
    table(SHOWN, forget_by(run, "7", METHODS))


if __name__ == "__main__":
    main()
