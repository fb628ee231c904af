"""The benchmark of the local simulation: its contenders do the same work, its figures are what they say."""

import dataclasses
import os
import time
from pathlib import Path

import pytest

from app.config.settings import ModelSettings
from benchmarks.jobs import (
    JOBS,
    NUM_PARAMETERS,
    Job,
    Task,
    contend,
    processor_seconds,
    reference_cnn,
    write_data,
)
from benchmarks.simulation import ratios, summary
from strategies.core.errors import LetheError

TINY = Job(clients=3, rounds=2, steps=2, batch_size=4)


def test_the_reference_model_has_the_stated_size() -> None:
    """Two 5×5 convolutions, 32·26 + 64·(32·25 + 1), and two linear layers, 512·1025 + 10·513."""
    parameters = sum(p.numel() for p in reference_cnn(ModelSettings()).parameters())
    assert parameters == NUM_PARAMETERS == 32 * 26 + 64 * (32 * 25 + 1) + 512 * 1025 + 10 * 513


def test_the_local_simulation_gives_the_model_of_the_plain_loop(tmp_path: Path) -> None:
    task = Task(TINY, str(write_data(TINY, tmp_path)), threads=1)
    plain = contend("plain", task)
    simulated = contend("lethe", dataclasses.replace(task, workers=2))
    assert simulated["model-norm"] == pytest.approx(plain["model-norm"], rel=1e-6)
    assert len(simulated["round-seconds"]) == len(plain["round-seconds"]) == TINY.rounds


def test_every_client_has_the_examples_of_its_steps(tmp_path: Path) -> None:
    clients = Task(TINY, str(write_data(TINY, tmp_path))).clients()
    assert [len(examples) for examples in clients] == [8, 8, 8]
    assert 0 <= float(clients[0].x.min()) < float(clients[0].x.max()) <= 1


def test_a_scaled_job_keeps_all_but_the_clients() -> None:
    assert JOBS["compute-bound"].scaled(0.05) == Job(5, 5, 10, 32)
    assert JOBS["compute-bound"].scaled(0.0).clients == 2


def test_ratios_and_medians() -> None:
    """Of 3, 1 and 2 seconds the median is 2; half of the plain loop's 4."""
    lethe = summary([{"seconds": s, "peak-mb": s * 100} for s in (3.0, 1.0, 2.0)])
    assert lethe == {"seconds": 2.0, "peak-mb": 200.0, "all-seconds": [3.0, 1.0, 2.0]}
    assert ratios({"plain": {"seconds": 4.0}, "lethe": lethe, "ray": {"failed": "x"}}) == {
        "plain": 1.0,
        "lethe": 0.5,
    }
    assert ratios(
        {"plain": {"seconds": 4.0, "processor-seconds": 3.0}, "lethe": lethe}, "processor-seconds"
    ) == {"plain": 1.0}


def test_the_processor_time_of_a_process() -> None:
    """This process has taken some, and what it takes now is counted."""
    before = processor_seconds(os.getpid())
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    assert 0 < before < processor_seconds(os.getpid())


def test_a_contender_that_fails_is_named() -> None:
    with pytest.raises(LetheError, match=r"contender 'plain' failed: .*nowhere"):
        contend("plain", Task(TINY, "nowhere"))
