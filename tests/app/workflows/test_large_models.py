"""What a large model takes: how often server and worker have it in memory while it is trained."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from app.config.run_config import RunConfig
from app.workflows.observer import Quiet
from app.workflows.training import train
from benchmarks.footprint import below
from benchmarks.large import hidden_of

MEGABYTES = 40


class Peaks(Quiet):
    """Notes the most that server and workers had in memory, besides what they had before the first round."""

    def __init__(self) -> None:
        self.server = self.worker = self._before = 0.0

    def phase(self, name: str, total: int) -> None:
        """Begin to count."""
        Path("/proc/self/clear_refs").write_text("5")
        self._before = memory_mb(os.getpid(), "VmRSS")

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Look at the processes when a round is over."""
        self.server = memory_mb(os.getpid(), "VmHWM") - self._before
        tree = list(below(os.getpid()))
        deepest = max(depth for depth, _ in tree)
        workers = [process for depth, process in tree if depth == deepest]
        start = min(memory_mb(process, "VmRSS") for depth, process in tree if depth == deepest - 1)
        self.worker = max([self.worker, *(memory_mb(process, "VmHWM") - start for process in workers)])


def memory_mb(process: int, key: str) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def write_images(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    y = np.arange(64) % 10
    np.savez(folder / "images.npz", x=generator.integers(0, 256, (64, 8, 8), dtype=np.uint8), y=y)
    return folder / "images.npz"


def test_server_and_worker_hold_few_copies_of_a_large_model(tmp_path: Path) -> None:
    """At most 3 and 4, mapped memory counted in full; 12 and 7 if each step makes copies.

    A worker also maps the model that the server sent, which makes 5.
    """
    keys = {
        "run.home": str(tmp_path),
        "run.rounds": 2,
        "run.workers": 1,
        "data.name": f"npz:{write_images(tmp_path)}",
        "data.clients": 3,
        "data.public": "0",
        "model.name": "mlp",
        "model.hidden": hidden_of(MEGABYTES),
        "train.local-steps": 1,
        "train.batch-size": 4,
        "log.retention": "sum",
    }
    config = RunConfig().with_overrides([f"{key}={value}" for key, value in keys.items()])
    peaks = Peaks()
    folder = train(config, peaks)
    size = (folder.path / "model.safetensors").stat().st_size / 1e6
    assert size == pytest.approx(MEGABYTES, rel=0.01)
    assert 1.0 < peaks.server / size < 3.4
    assert 3.0 < peaks.worker / size < 5.6
