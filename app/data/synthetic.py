"""The data set synthetic(α, β): devices whose data and labels differ by chosen amounts.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020,
arXiv 1812.06127, section 5.1 and appendix C.1. Device k labels its inputs by a model of its own,

    y = argmax softmax(W_k x + b_k),   W_k ~ N(u_k, 1), b_k ~ N(u_k, 1), u_k ~ N(0, α),
    x ~ N(v_k, Σ),   Σ_jj = j^−1.2,    v_k ~ N(B_k, 1), B_k ~ N(0, β),

with x in 60 dimensions and 10 classes. Sizes follow a power law, as the authors' code draws them: 50 and a
lognormal of mean 4 and deviation 2 of the logarithm. A tenth of each device's examples is for testing. α and
β are variances, as in the paper; at (1, 1) the authors' code, which takes them for deviations, is the same.
"""

import re

import numpy as np
import torch

from app.data.pool import DataSet, Pool, numbered
from strategies.core.errors import BadInput
from strategies.core.seeds import numpy_generator

DIMENSIONS = 60
CLASSES = 10
_DEVICES = 30
_TEST_SHARE = 0.1
_FEWEST, _LOG_MEAN, _LOG_DEVIATION = 50, 4.0, 2.0


def device_sizes(devices: int, generator: np.random.Generator) -> list[int]:
    """Draw how many examples each device has, at least 50."""
    drawn = generator.lognormal(_LOG_MEAN, _LOG_DEVIATION, devices)
    return [_FEWEST + int(size) for size in drawn]


def device_data(
    alpha: float, beta: float, size: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a device's model and its examples: inputs [size, 60], float32, and labels [size], int64.

    `alpha` and `beta` are variances, at least 0: how far the devices' models and their inputs differ.
    """
    model_mean = generator.normal(0.0, np.sqrt(alpha))
    center = generator.normal(generator.normal(0.0, np.sqrt(beta)), 1.0, DIMENSIONS)
    weight = generator.normal(model_mean, 1.0, (CLASSES, DIMENSIONS))
    bias = generator.normal(model_mean, 1.0, CLASSES)
    deviations = np.arange(1, DIMENSIONS + 1) ** (-1.2 / 2)  # Σ is diagonal
    x = generator.normal(center, deviations, (size, DIMENSIONS))
    return x.astype(np.float32), (x @ weight.T + bias).argmax(axis=1)  # softmax keeps the order


def read_synthetic(text: str) -> DataSet:
    """Return the data set that ``<alpha>,<beta>[,<devices>[,<seed>]]`` describes; empty: ``1,1,30,0``.

    It is the same in every run, whatever the run's seed.

    Raises
    ------
    BadInput
        If the text is none of these.
    """
    alpha, beta, devices, seed = _parsed(text)
    sizes = device_sizes(devices, numpy_generator(seed, "synthetic", "sizes"))
    parts: tuple[_Parts, _Parts] = (([], [], []), ([], [], []))
    for device, size in enumerate(sizes):
        x, y = device_data(alpha, beta, size, numpy_generator(seed, "synthetic", device))
        cut = size - int(_TEST_SHARE * size)
        for (xs, ys, owners), piece in zip(parts, (slice(cut), slice(cut, None)), strict=True):
            xs.append(x[piece])
            ys.append(y[piece])
            owners.append(np.full(len(y[piece]), device))
    return DataSet("synthetic", _pool(parts[0]), _pool(parts[1]), numbered(CLASSES))


_Parts = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
"""Inputs, labels and owners, device by device."""


def _pool(parts: _Parts) -> Pool:
    x, y, device = (torch.from_numpy(np.concatenate(arrays)) for arrays in parts)
    return Pool(x, y, device=device)


def _parsed(text: str) -> tuple[float, float, int, int]:
    number, whole = r"(\d+(?:\.\d*)?)", r"(\d{1,6})"
    found = re.fullmatch(f"{number},{number}(?:,{whole}(?:,{whole})?)?", text.replace(" ", "") or "1,1")
    if found is None or found[3] == "0":
        raise BadInput(
            f"data.name: given 'synthetic:{text}', allowed synthetic:<alpha>,<beta>[,<devices>[,<seed>]], "
            "such as synthetic:1,1,30"
        )
    return float(found[1]), float(found[2]), int(found[3] or _DEVICES), int(found[4] or 0)
