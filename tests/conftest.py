"""No test touches the home of whoever runs it or what the next one imports; simulations start at once.

The last is done by `tests.warm_starts`.
"""

import gc
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest
from hypothesis import HealthCheck, settings

from tests.fresh_starts import FreshStarts
from tests.warm_starts import WarmStarts

# A busy machine is no fault of what is tested
settings.register_profile(
    "unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at all that was imported, and at whatever is new so often."""
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_sessionfinish() -> None:
    """Let go of what was kept, which triton's bindings would report as leaked."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Matplotlib would build its cache of fonts anew, which takes seconds
    fonts = os.environ.get("MPLCONFIGDIR", str(Path("~/.cache/matplotlib").expanduser()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", fonts)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def _no_imports_left() -> Iterator[None]:
    """Forget what a test put on the path of imports, and the modules that came from there."""
    path = list(sys.path)
    yield
    added = [place for place in sys.path if place and place not in path]
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if isinstance(spec, ModuleSpec):  # torch.classes answers any name with an object of its own
            places = [spec.origin or "", *(spec.submodule_search_locations or ())]
            if any(Path(place).is_relative_to(folder) for place in places for folder in added):
                del sys.modules[name]


@pytest.fixture(autouse=True, scope="session")
def _warm_starts(_home: None) -> Iterator[None]:
    starts = WarmStarts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.simulation.pool.launch", starts.launch)
        yield
    starts.close()


@pytest.fixture(scope="session")
def fresh_starts() -> Iterator[FreshStarts]:
    """Return what runs code as in a new interpreter."""
    starts = FreshStarts()
    yield starts
    starts.close()


@pytest.fixture(scope="session")
def memory_home() -> Iterator[Path]:
    """Return a folder in memory, where the machine has such; a disk takes ten times as long."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None, prefix="lethe-") as folder:
        yield Path(folder)


@pytest.fixture
def memory_path(memory_home: Path) -> Path:
    """Return a folder of the test's own in memory, for tests that write a file in each of many cases."""
    return Path(mkdtemp(dir=memory_home))
