"""What tests of runs share: a small one that was forgotten from (each test has a copy), and networks."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.workflows import forget, train
from strategies.runs.folder import RunFolder
from tests.app import own_networks
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "run.name=small",
    "run.rounds=3",
    "run.workers=1",
    "data.clients=3",
    "data.train-limit=240",
    "data.test-limit=80",
    "model.name=mlp",
    "model.hidden=16",
)
CLIENT_2 = ForgetRequest(clients=("2",))
SUBTRACT = ForgetSettings(method="subtract")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the runs that the tests of a file share."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def _own_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        own_networks.use(patch)
        yield


@pytest.fixture(scope="session")
def _small_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    home = tmp_path_factory.mktemp("small")
    key = f"run.certificate-key={home / 'keys' / 'certificate.pem'}"
    folder = train(RunConfig().with_overrides([f"run.home={home}", key, *SMALL]))
    forget(folder, CLIENT_2, SUBTRACT)
    return folder


@pytest.fixture
def small(_small_run: RunFolder, tmp_path: Path) -> RunFolder:
    """Return a run of the clients 0 to 2 over three rounds; client 2 was forgotten by subtraction."""
    return RunFolder(Path(shutil.copytree(_small_run.path, tmp_path / "small")))
