"""No test touches the home of whoever runs it: keys, runs and data sets are looked for in a test's own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Matplotlib would build its cache of fonts anew, which takes seconds
    fonts = os.environ.get("MPLCONFIGDIR", str(Path("~/.cache/matplotlib").expanduser()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", fonts)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield
