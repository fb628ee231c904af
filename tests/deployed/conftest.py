"""One federation of real processes for all tests of this folder: starting it takes seconds."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.workflows import train
from benchmarks.deployed.federation import Federation
from strategies.core.settings import Scalar
from strategies.runs.folder import RunFolder

CLIENTS = ("0", "1", "2")
SMALL: dict[str, Scalar] = {
    "run.rounds": 2,
    "data.clients": 3,
    "data.train-limit": 240,
    "data.test-limit": 80,
    "model.name": "mlp",
    "model.hidden": 16,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the tests of this folder to `make check`: their federations are real processes that wait."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.check)


def home(federation: Federation) -> dict[str, Scalar]:
    """Return the keys that put runs and their key into the federation's folder."""
    key = federation.folder / "certificate" / "certificate.pem"
    return {"run.home": str(federation.runs), "run.certificate-key": str(key)}


def until(reached: Callable[[], bool], federation: Federation, name: str, seconds: float = 1800.0) -> None:
    """Wait for something that a run is to do; show its log if it does not."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, federation.output(name)[-3000:]
        time.sleep(0.05)


def in_one_process(folder: Path, config: dict[str, Scalar]) -> RunFolder:
    """Return a run of the same config, trained in this process tree."""
    places = [f"run.home={folder}", f"run.certificate-key={folder / 'certificate.pem'}", "run.workers=1"]
    return train(RunConfig().with_overrides([*places, *(f"{k}={v}" for k, v in config.items())]))


@pytest.fixture(scope="package")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Return a SuperLink with three SuperNodes with executors, which keep their state on disk."""
    folder = tmp_path_factory.mktemp("federation")
    (folder / "state").mkdir(mode=0o700)
    nodes: dict[str, dict[str, Scalar]] = {
        name: {"partition-id": i, "num-partitions": len(CLIENTS), "state": str(folder / "state")}
        for i, name in enumerate(CLIENTS)
    }
    with Federation(folder, CLIENTS, nodes, spare=("stranger", "twin"), heartbeat_seconds=10) as started:
        started.start_superlink()
        started.register([*CLIENTS, "twin"])
        for name in CLIENTS:
            started.start_node(name, warm=True)
        for name in CLIENTS:
            started.wait_for(name)
        yield started


@pytest.fixture(scope="package")
def trained(federation: Federation) -> RunFolder:
    """Return a run that the federation trained, in which the last node started its ClientApps itself."""
    _restart(federation, CLIENTS[-1], warm=False)
    printed = federation.run({**SMALL, **home(federation), "run.name": "first"}, "train")
    _restart(federation, CLIENTS[-1], warm=True)
    assert f"run folder: {federation.runs / 'first'}" in printed, printed
    return RunFolder.open("first", federation.runs)


def _restart(federation: Federation, name: str, *, warm: bool) -> None:
    federation.stop(name)
    federation.start_node(name, warm=warm)
    federation.wait_for(name)


@pytest.fixture(scope="package")
def local(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return the same run, trained in one process tree."""
    return in_one_process(tmp_path_factory.mktemp("local"), {**SMALL, "run.name": "first"})
