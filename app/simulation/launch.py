"""Starting the starter: a new interpreter with the parent's import path, one thread, a patient allocator.

Where the clients need objects that only this process has, such as those of a notebook, it is a fork of it.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import UserConfigValue

from app.simulation import channel
from strategies.core.errors import BadInput

_BOOT = (
    "import gc, json, sys; gc.disable(); sys.path[:] = json.loads(sys.argv[2]); "
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
_LOOK_SECONDS = 0.01
# A training step asks for the same megabytes and frees them again and again. By default glibc returns them
# to the system each time, and a third of a small model's step goes into getting zeroed pages back.
# And every thread, as each client beside others has one, would allocate from cold memory of its own.
_TUNABLES = {"arena_max": 1, "hugetlb": 1, "mmap_threshold": 2**25, "trim_threshold": 2**30}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT_BYTES = 2**28
"""What the process with the server keeps at most of freed memory."""


@dataclass(frozen=True)
class Setup:
    """The parameters of the workers: configs as in `LocalGrid`, and how many are started at most.

    `forks` says that the starter is a fork of this process, with all that it has in memory.
    """

    client_app: str
    run_config: Mapping[str, UserConfigValue]
    node_configs: Sequence[Mapping[str, UserConfigValue]]
    workers: int
    prepare: str
    forks: bool = False

    @staticmethod
    def of(
        client_app: str,
        run_config: Mapping[str, UserConfigValue],
        num_clients: int,
        workers: int,
        node_configs: Sequence[Mapping[str, UserConfigValue]] | None,
        prepare: str,
        forks: bool = False,
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
        return Setup(client_app, dict(run_config), configs, size, prepare, forks)


def partition_configs(num_clients: int) -> list[dict[str, UserConfigValue]]:
    """Return the node configs of clients that share one data set."""
    return [{"partition-id": i, "num-partitions": num_clients} for i in range(num_clients)]


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Process(Protocol):
    """The starter as its parent sees it."""

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code when it has ended; `subprocess.TimeoutExpired` if it has not by then."""

    def kill(self) -> None:
        """End it at once."""


def launch(setup: Setup) -> tuple[Process, socket.socket]:
    """Start the starter; return it and the socket to it while it still loads the ClientApp."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = Forked.start(ours, theirs) if setup.forks else start(_BOOT, theirs.fileno())
    tell(ours, setup)
    return process, ours


@dataclass
class Forked:
    """A starter that is a fork of this process."""

    number: int
    code: int | None = None

    @staticmethod
    def start(ours: socket.socket, theirs: socket.socket) -> "Forked":
        """Fork; the child serves the other end of the parent's socket."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # Else the child has what waits to be written, too
        with warnings.catch_warnings():
            # Python warns of threads; torch's are not used in the child, which computes with one thread
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child:
            return Forked(child)
        status = 1
        try:
            from app.simulation.starter import main

            ours.close()
            os.setsid()  # An interrupt from the keyboard is for the parent alone
            main(theirs.detach())
            status = 0
        except BaseException:  # noqa: BLE001 (a forked copy must never go on as the parent)
            traceback.print_exc()
        finally:
            os._exit(status)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.code is None:
            ended, status = os.waitpid(self.number, 0 if deadline is None else os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("the starter", timeout or 0.0)
            else:
                time.sleep(_LOOK_SECONDS)
        return self.code

    def kill(self) -> None:
        """End it at once."""
        if self.code is None:
            os.kill(self.number, signal.SIGKILL)


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


def keep_freed_memory() -> None:
    """Have this process keep what it frees of replies' vectors, which it needs again for the next ones.

    Where another C library has no such setting, or the user has settings of their own, nothing changes.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", ""):
        libc.mallopt(_M_MMAP_THRESHOLD, _TUNABLES["mmap_threshold"])
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


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
