"""What encryption costs: bytes and seconds of one update against the keep rate, and of whole rounds."""

import tempfile
import time
from typing import Any

import torch

from app.client.encryption_key import require_library
from app.config.settings import ModelSettings
from app.models.built_in import build_model
from app.workflows.observer import Observer, Quiet
from benchmarks.jobs import INPUT_SHAPE, NUM_GROUPS, machine
from benchmarks.rounds import beside_plain
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.seeds import torch_generator
from strategies.layers.encryption.ckks import EncryptedSum, Secret, new_secret
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import block_index
from strategies.pruned_dp.pruned_dp import Pruning
from strategies.pruned_dp.settings import PrunedSettings


def run(
    observer: Observer | None = None,
    *,
    keeps: str = "1,0.75,0.5,0.25,0.1",
    model: str = "cnn",
    repeats: int = 5,
    clients: int = 10,
    rounds: int = 3,
    workers: int = 0,
) -> dict[str, Any]:
    """Measure.

    Parameters
    ----------
    observer
        Told of each measurement.
    keeps
        Shares of the hidden neurons that clients train, separated by commas.
    model
        Of 28×28 images for single updates, of 8×8 ones for rounds.
    repeats
        Of each step of an update; the fastest counts.
    clients, rounds, workers
        Of the runs on digits; 0 workers are all cores.

    Returns
    -------
    dict
        ``updates`` and ``rounds`` by keep rate, and the ``machine``.

    Raises
    ------
    BadInput
        If a keep rate is none, or TenSEAL is not installed.
    """
    require_library()
    watcher = observer or Quiet()
    rates = _rates(keeps)
    watcher.phase("encryption", 2 * len(rates))
    secret = Secret(new_secret())
    found: dict[str, Any] = {"updates": {}, "rounds": {}}
    for keep in rates:
        found["updates"][f"{keep:g}"] = _update(secret, model, keep, repeats)
        watcher.advance(f"one update, keep {keep:g}")
    base = [
        f"model.name={model}",
        f"data.clients={clients}",
        f"run.rounds={rounds}",
        f"run.workers={workers}",
    ]
    for keep in rates:
        found["rounds"][f"{keep:g}"] = _rounds(base, keep)
        watcher.advance(f"rounds, keep {keep:g}")
    return {**found, "machine": machine()}


def _rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate <= 1 for rate in rates):
        raise BadInput(f"benchmark encryption: keeps: given '{text}', allowed numbers in (0, 1] with commas")
    return rates


def _update(secret: Secret, name: str, keep: float, repeats: int) -> dict[str, float]:
    """Return bytes and seconds of one client's update of a network with that share of its neurons."""
    size = _block_size(name, keep)
    delta = torch.randn(size, generator=torch_generator(0, "benchmark")) * 1e-3
    times: dict[str, list[float]] = {"encrypt": [], "add": [], "decrypt": []}
    payload: list[bytes] = []
    for _ in range(repeats):
        began = time.perf_counter()
        payload = secret.encrypt(delta)
        times["encrypt"].append(time.perf_counter() - began)
        total = EncryptedSum(size)
        total.add(payload)
        began = time.perf_counter()
        total.add(payload)
        times["add"].append(time.perf_counter() - began)
        ciphertexts = total.ciphertexts()
        began = time.perf_counter()
        secret.decrypt(ciphertexts, size)
        times["decrypt"].append(time.perf_counter() - began)
    encrypted = sum(map(len, payload))
    return {
        "parameters": size,
        "plain-bytes": 4 * size,
        "encrypted-bytes": encrypted,
        "bytes-per-number": encrypted / size,
        **{f"{what}-seconds": min(seconds) for what, seconds in times.items()},
    }


def _block_size(name: str, keep: float) -> int:
    model = build_model(ModelSettings.model_validate({"name": name}), INPUT_SHAPE, NUM_GROUPS, seed=0)
    layout = wire.Layout.of(model.state_dict())
    kept = Pruning(PrunedSettings(score="ordered"), model, 0).kept("0", keep, 1, {})
    index, _ = block_index(layout, hidden_groups(model), kept)
    return len(index)


def _rounds(base: list[str], keep: float) -> dict[str, float]:
    """Return seconds and bytes of a round, plain and encrypted, of clients that train that share."""
    pruned = ["strategy.name=pruned-dp", "strategy.score=ordered", f"strategy.keep={keep}"]
    keys = base if keep == 1 else [*base, *pruned]
    with tempfile.TemporaryDirectory() as home:
        encryption = ["privacy.encryption=ckks", f"privacy.encryption-key={home}/ckks.key"]
        return beside_plain(keys, "encrypted", encryption, home)
