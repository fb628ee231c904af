"""Starting the starter: a new interpreter with the parent's import path, one thread, a patient allocator."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import UserConfigValue

from app.simulation import channel
from strategies.core.errors import BadInput

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from app.simulation.starter import main; main(int(sys.argv[1]))"
)
# One thread per worker: the result of a sum depends on how it is split among threads, and the workers share
# the cores anyway.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # An import that asks for a GPU must not initialise CUDA, which a forked worker could not use any more.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
# A training step asks for the same megabytes and frees them again and again. By default glibc returns them
# to the system each time, and a third of a small model's step goes into getting zeroed pages back.
_TUNABLES = {"hugetlb": 1, "mmap_threshold": 2**25, "trim_threshold": 2**30}


@dataclass(frozen=True)
class Setup:
    """The parameters of the workers: configs as in `LocalGrid`, and how many are started at most."""

    client_app: str
    run_config: Mapping[str, UserConfigValue]
    node_configs: Sequence[Mapping[str, UserConfigValue]]
    workers: int
    prepare: str

    @staticmethod
    def of(
        client_app: str,
        run_config: Mapping[str, UserConfigValue],
        num_clients: int,
        workers: int,
        node_configs: Sequence[Mapping[str, UserConfigValue]] | None,
        prepare: str,
    ) -> "Setup":
        """Return a checked setup with defaults filled in.

        Raises
        ------
        BadInput
            If there are no clients, fewer than 0 workers, no way to fork, or a malformed import path.
        """
        if sys.platform != "linux":
            raise BadInput(
                f"platform: got {sys.platform}, but the simulation in one process tree forks its workers and "
                "needs Linux (on Windows: WSL, on macOS: a container); elsewhere use flwr run"
            )
        for path in filter(None, (client_app, prepare)):
            if not all(path.partition(":")):
                raise BadInput(f"import path: got '{path}', expected 'package.module:name'")
        configs = partition_configs(num_clients) if node_configs is None else list(node_configs)
        if not configs:
            raise BadInput(f"clients: got {num_clients}, expected at least 1")
        if workers < 0:
            raise BadInput(f"run.workers: got {workers}, expected 0 (one per core) or more")
        size = min(workers or num_cores(), len(configs))
        return Setup(client_app, dict(run_config), configs, size, prepare)


def partition_configs(num_clients: int) -> list[dict[str, UserConfigValue]]:
    """Return the node configs of clients that share one data set."""
    return [{"partition-id": i, "num-partitions": num_clients} for i in range(num_clients)]


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launch(setup: Setup) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Start the starter; return it and the socket to it while it still loads the ClientApp."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = start(_BOOT, theirs.fileno())
    tell(ours, setup)
    return process, ours


def start(boot: str, descriptor: int) -> "subprocess.Popen[bytes]":
    """Start a new interpreter on some code, which finds a socket's descriptor and the import path in argv."""
    return subprocess.Popen(
        [sys.executable, "-c", boot, str(descriptor), json.dumps([str(p) for p in sys.path])],
        stdin=subprocess.DEVNULL,
        pass_fds=[descriptor],
        env=environment(),
        # An interrupt from the keyboard is for the parent alone, which then ends the workers.
        start_new_session=True,
    )


def tell(starter: socket.socket, setup: Setup) -> None:
    """Tell the starter what to load."""
    channel.send(starter, {**vars(setup), "node_configs": [dict(c) for c in setup.node_configs]})


def environment() -> dict[str, str]:
    """Return the starter's environment."""
    settings = tunables(os.environ.get("GLIBC_TUNABLES", ""))
    return {**os.environ, **_ENVIRONMENT, "GLIBC_TUNABLES": settings}


def tunables(present: str) -> str:
    """Return settings of glibc's allocator; the user's own come last, where they count.

    >>> tunables("glibc.malloc.check=1").split(":")[-2:]
    ['glibc.malloc.trim_threshold=1073741824', 'glibc.malloc.check=1']
    """
    ours = [f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items()]
    return ":".join([*ours, *filter(None, [present])])


def describe_status(code: int) -> str:
    """Say how a process ended.

    >>> describe_status(-9)
    'killed by SIGKILL'
    >>> describe_status(3)
    'exit status 3'
    """
    if code >= 0:
        return f"exit status {code}"
    names = {s.value: s.name for s in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"
