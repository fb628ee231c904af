"""One federation of real processes for all tests of a file: starting it takes seconds."""

from collections.abc import Iterator

import pytest

from benchmarks.deployed.federation import Federation
from strategies.settings import Scalar

CLIENTS = ("0", "1", "2")
SMALL: dict[str, Scalar] = {
    "run.rounds": 2,
    "data.clients": 3,
    "data.train-limit": 240,
    "data.test-limit": 80,
    "model.name": "mlp",
    "model.hidden": 16,
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Return a SuperLink with three SuperNodes, of which the last starts its ClientApps itself.

    The first keeps its state on its own disk.
    """
    folder = tmp_path_factory.mktemp("federation")
    (folder / "state").mkdir(mode=0o700)
    nodes: dict[str, dict[str, Scalar]] = {
        name: {"partition-id": i, "num-partitions": len(CLIENTS)} for i, name in enumerate(CLIENTS)
    }
    nodes["0"]["state"] = str(folder / "state")
    with Federation(folder, CLIENTS, nodes, spare=("stranger", "twin")) as started:
        started.start_superlink()
        started.register([*CLIENTS, "twin"])
        for name in CLIENTS:
            started.start_node(name, warm=name != "2")
        for name in CLIENTS:
            started.wait_for(name)
        yield started
