"""Breast cancer over four hospitals: columns scaled by secure sums, AUROC beside pooled training.

The data (scikit-learn's, 569 patients, 30 measurements) are split over four hospitals of different sizes. No
hospital shows its patients, not even for the scale of the columns. Then one of them leaves.
"""

import numpy as np
import torch
from forgetting import COLUMNS, Options, forget_by, table
from sklearn.datasets import load_breast_cancer
from torch import nn

import lethe

SHARES = (0.4, 0.3, 0.2, 0.1)
METHODS = ("fast-distill", "finetune", "federaser")


def model(spec: lethe.ModelSpec) -> nn.Module:
    """Return a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, spec.num_outputs))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Return all patients: measurements, shape [569, 30], and whether the tumour is benign."""
    table = load_breast_cancer()
    return torch.from_numpy(table.data).float(), torch.from_numpy(table.target)


def by_size(labels: np.ndarray, count: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Spread the patients over the hospitals by their sizes."""
    ends = np.cumsum(SHARES[:count]) / sum(SHARES[:count]) * len(labels)
    return np.split(generator.permutation(len(labels)), ends[:-1].astype(int))


project = lethe.Project(model=model, data=data, partition=by_size, classes=("malignant", "benign"))


def main() -> None:
    """Train with four hospitals and with all data in one place, then let the last hospital leave."""
    options = Options.read(__doc__ or "")
    rounds, seeds = (3, 1) if options.small else (30, 5)
    keys = {"task__metric": "auroc", "task__metrics": "auroc", "train__learning_rate": 0.1}
    config = options.config(data__scale="federated", train__local_epochs=1, **keys)
    pooled = {**config, "data.scale": "standard"}
    found: dict[str, list[float]] = {"four hospitals": [], "pooled": []}
    for seed in range(seeds):
        run = lethe.train(project, rounds=rounds, clients=4, seed=seed, config=config, progress=False)
        alone = lethe.train(project, rounds=rounds, clients=1, seed=seed, config=pooled, progress=False)
        for name, each in (("four hospitals", run), ("pooled", alone)):
            found[name].append(float(each.summary["final"]["test-auroc"]))
    rows = [[name, f"{np.mean(a):.4f}", " ".join(f"{x:.4f}" for x in a)] for name, a in found.items()]
    table(["training", "mean AUROC", "by seed"], rows)
    print()  # noqa: T201
    table(COLUMNS, forget_by(run, "3", METHODS))


if __name__ == "__main__":
    main()
