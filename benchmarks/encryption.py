"""What encryption costs: bytes and seconds of one update against the keep rate, and of whole rounds."""

import tempfile
from typing import Any

import torch

from app.client.encryption_key import require_library
from app.workflows.observer import Observer
from benchmarks.blocks import block, built_in
from benchmarks.figures import stopped
from benchmarks.options import numbers
from benchmarks.rounds import RoundsOptions, beside_plain
from strategies.core.errors import BadInput
from strategies.core.seeds import torch_generator
from strategies.layers.encryption.ckks import EncryptedSum, Secret, new_secret


class Options(RoundsOptions):
    """Options of the benchmark."""

    keeps: str = "1,0.75,0.5,0.25,0.1"
    """Shares of the hidden neurons that clients train, separated by commas."""
    model: str = "cnn"
    """Of 28×28 images for single updates, of 8×8 ones for rounds."""
    repeats: int = 5
    """Of each step of an update; the fastest counts."""
    clients: int = 10
    """Of the runs on digits."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Return the figures of updates and of rounds, by keep rate.

    Raises
    ------
    BadInput
        If a keep rate is none, or TenSEAL is not installed.
    """
    require_library()
    rates = _rates(options.keeps)
    observer.phase("encryption", 2 * len(rates))
    secret = Secret(new_secret())
    found: dict[str, Any] = {"updates": {}, "rounds": {}}
    for keep in rates:
        found["updates"][f"{keep:g}"] = _update(secret, options.model, keep, options.repeats)
        observer.advance(f"one update, keep {keep:g}")
    for keep in rates:
        found["rounds"][f"{keep:g}"] = _rounds(options.keys(options.model, options.clients), keep)
        observer.advance(f"rounds, keep {keep:g}")
    return found


def _rates(text: str) -> list[float]:
    rates = numbers("keeps", text)
    if not all(0 < rate <= 1 for rate in rates):
        raise BadInput(f"benchmark encryption: keeps: given '{text}', allowed numbers in (0, 1] with commas")
    return rates


def _update(secret: Secret, name: str, keep: float, repeats: int) -> dict[str, float]:
    """Return bytes and seconds of one client's update of a network with that share of its neurons."""
    index, _ = block(built_in(name), keep, "ordered")
    size = len(index)
    delta = torch.randn(size, generator=torch_generator(0, "benchmark")) * 1e-3
    times: dict[str, list[float]] = {"encrypt": [], "add": [], "decrypt": []}
    payload: list[bytes] = []
    for _ in range(repeats):
        with stopped(times["encrypt"]):
            payload = secret.encrypt(delta)
        total = EncryptedSum(size)
        total.add(payload)
        with stopped(times["add"]):
            total.add(payload)
        ciphertexts = total.ciphertexts()
        with stopped(times["decrypt"]):
            secret.decrypt(ciphertexts, size)
    encrypted = sum(map(len, payload))
    return {
        "parameters": size,
        "plain-bytes": 4 * size,
        "encrypted-bytes": encrypted,
        "bytes-per-number": encrypted / size,
        **{f"{what}-seconds": min(seconds) for what, seconds in times.items()},
    }


def _rounds(base: list[str], keep: float) -> dict[str, float]:
    """Return seconds and bytes of a round, plain and encrypted, of clients that train that share."""
    pruned = ["strategy.name=pruned-dp", "strategy.score=ordered", f"strategy.keep={keep}"]
    keys = base if keep == 1 else [*base, *pruned]
    with tempfile.TemporaryDirectory() as home:
        encryption = ["privacy.encryption=ckks", f"privacy.encryption-key={home}/ckks.key"]
        return beside_plain(keys, "encrypted", encryption)
