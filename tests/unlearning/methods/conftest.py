"""What tests of single methods share."""

import pytest

from tests.unlearning.methods.slow import federation_of, finished
from unlearning.run import TrainedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Return a run of clients 0 to 3; its model has layers "0" (4·8 + 8 parameters) and "2"."""
    return finished(federation_of(), tmp_path_factory.mktemp("run"))
