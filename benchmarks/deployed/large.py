"""A large model over a deployed federation on loopback: what each process holds at most, and the seconds.

As `benchmarks.large`, with SuperLink, SuperNodes and executors as docs/deploy.md starts them. What a process
takes with a tiny model is that of its imports; the rest is given in models, 4 bytes for each parameter.
"""

import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, final

from app.workflows.observer import Observer
from benchmarks.deployed.federation import Federation, nodes_of
from benchmarks.deployed.processes import read_proc, tree_of
from benchmarks.deployed.soak import rounds_of
from benchmarks.footprint import resident_mb
from benchmarks.large import TINY, hidden_of, write_data
from benchmarks.options import BenchmarkOptions
from strategies.core.errors import LetheError
from strategies.core.settings import Scalar

_PAUSE_SECONDS = 0.1
_SERVER_APP, _CLIENT_APP = "server-app", "client-app"
_PATIENCE = 3000


class Options(BenchmarkOptions):
    """Options of the benchmark."""

    megabytes: int = 100
    """Size of the model."""
    clients: int = 2
    """All take part in each round, with one step of eight images."""
    rounds: int = 1
    """Of training."""


def run(options: Options, observer: Observer) -> dict[str, Any]:
    """Train over the federation.

    Returns
    -------
    dict
        The options, ``parameters``, ``round-seconds``, and for each kind of process the most that one of them
        had: ``mb``, and ``models`` besides what it had with a tiny model.

    Raises
    ------
    LetheError
        If the run does not come to its end.
    """
    observer.phase("deployed-large", 2)
    small, _, _ = _trained(options, TINY)
    observer.advance("tiny model")
    most, seconds, parameters = _trained(options, hidden_of(options.megabytes))
    observer.advance(f"{options.megabytes} MB")
    model_mb = 4 * parameters / 1e6
    kinds = {kind: {"mb": mb, "models": (mb - small[kind]) / model_mb} for kind, mb in most.items()}
    return {**options.settings(), "parameters": parameters, "round-seconds": seconds, "processes": kinds}


def _trained(options: Options, hidden: int) -> tuple[dict[str, float], list[float], int]:
    """Train a perceptron; return the most memory by kind of process, seconds by round, and the parameters."""
    names = tuple(map(str, range(options.clients)))
    with tempfile.TemporaryDirectory() as place:
        config: dict[str, Scalar] = {
            "run.name": "large",
            "run.home": f"{place}/runs",
            "run.rounds": options.rounds,
            "run.round-timeout": _PATIENCE,
            "data.name": f"npz:{write_data(options.clients, Path(place))}",
            "data.clients": options.clients,
            "data.public": "0",
            "model.name": "mlp",
            "model.hidden": hidden,
            "train.local-steps": 1,
            "train.batch-size": 8,
        }
        with Federation(Path(place), names, nodes_of(names)) as federation:
            federation.start(warm=True)
            with _Most(federation) as most:
                printed = federation.run(config, timeout=_PATIENCE)
            folder = federation.runs / "large"
            if not (folder / "model.safetensors").exists():
                raise LetheError(f"the run failed: {printed[-500:]}")
            seconds = [float(line["seconds"]) for line in rounds_of(folder)]
            return most.mb, seconds, (folder / "model.safetensors").stat().st_size // 4


@final
class _Most:
    """Watches a federation's processes; `mb` is the most memory of one, by its kind."""

    def __init__(self, federation: Federation) -> None:
        self.mb: dict[str, float] = defaultdict(float)
        self._roots = {name: each.pid for name, each in federation.processes.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_PAUSE_SECONDS):
            for kind, pid in self._kinds():
                self.mb[kind] = max(self.mb[kind], resident_mb(pid))

    def _kinds(self) -> Iterator[tuple[str, int]]:
        """Yield the processes that can hold the model, with their kinds."""
        for name, root in self._roots.items():
            below = [pid for pid in tree_of(root) if pid != root]
            if name == "superlink":
                yield name, root
                apps = (pid for pid in below if b"flwr-serverapp" in read_proc(Path(f"/proc/{pid}/cmdline")))
                yield from ((_SERVER_APP, pid) for pid in apps)
            elif name.startswith("executor-"):
                yield from ((_CLIENT_APP, pid) for pid in below)
            elif not name.startswith("register-"):
                yield "supernode", root
