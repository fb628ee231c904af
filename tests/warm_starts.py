"""Simulations that start at once: a process that has imported torch and the ClientApp forks their starters.

Importing takes two to three seconds of a core, most of what a small training takes, and the suite has some
two hundred of them. What is forked runs the starter's own code; the real start, a new interpreter, is what
the tests of the simulation's processes (`tests.app.simulation.test_pool`) and all that run ``lethe`` as a
command use.
"""

import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from threading import Lock

from app.simulation import channel
from app.simulation.launch import Process, Setup, environment, launch, start, tell

_BOOT = (
    "import gc, json, sys; gc.disable(); sys.path[:] = json.loads(sys.argv[2]); "
    "from tests.warm_starts import serve; serve(int(sys.argv[1]))"
)
_LOOK_SECONDS = 0.002
_LATE: Mapping[str, Callable[[Mapping[str, object]], bool]] = {
    "flwr_datasets.partitioner": lambda keys: keys.get("data.partition", "iid") != "iid",
    "strategies.layers.privacy.training": lambda keys: keys.get("privacy.unit") == "example",
    "torchmetrics": lambda keys: (
        bool(keys.get("run.federated-evaluation"))
        or keys.get("task.name", "auto") not in ("auto", "classification")
    ),
}
"""What takes more than a second to import, and with which keys of a run its clients will."""


class WarmStarts:
    """Forks starters in the place of `app.simulation.launch.launch`; the first call starts what forks."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, setup: Setup) -> tuple[Process, socket.socket]:
        """Return a starter and the socket to it; one that is to be a fork of this process is one here too."""
        if setup.forks:
            return launch(setup)
        ours, theirs = socket.socketpair()
        with theirs:
            late = [module for module, needs in _LATE.items() if needs(setup.run_config)]
            told = {"late": late, "environment": environment(), "path": [str(p) for p in sys.path]}
            answer = self.command(told, theirs.fileno(), 2)
        tell(ours, setup)
        return ForkedStarter(self, answer["process"]), ours

    def command(self, command: Mapping[str, object], *descriptors: int) -> channel.Header:
        """Return the answer to a command."""
        with self._lock:
            if self._control is None:
                self._control, theirs = socket.socketpair()
                with theirs:
                    self._process = start(_BOOT, theirs.fileno())
            channel.send(self._control, command, descriptors)
            return channel.receive(self._control)[0]

    def close(self) -> None:
        """End the process that forks."""
        if self._control is not None and self._process is not None:
            self._control.close()
            self._process.wait()


class ForkedStarter:
    """A starter that was forked: what `subprocess.Popen` would be to its parent."""

    def __init__(self, starts: WarmStarts, process: int) -> None:
        self._starts = starts
        self.pid = process
        self.returncode: int | None = None

    def kill(self) -> None:
        """End it at once."""
        if self.returncode is None:
            self._starts.command({"kill": self.pid})

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return how."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            self.returncode = self._starts.command({"look": self.pid})["status"]
            if self.returncode is None:
                if deadline is not None and time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired("a starter", timeout or 0.0)
                time.sleep(_LOOK_SECONDS)
        return self.returncode


def serve(descriptor: int) -> None:
    """Import what starters import, then fork one whenever asked, until the parent is gone."""
    import torch

    import app.client_app
    import app.simulation.starter  # noqa: F401  # what is imported here need not be imported after the fork

    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    gc.freeze()  # A collection in a fork would else look at, and so copy, all that was imported
    gc.enable()
    control = socket.socket(fileno=descriptor)
    while True:
        try:
            command, descriptors = channel.receive(control)
            channel.send(control, _obeyed(control, command, descriptors))
        except channel.Closed:
            os._exit(0)


def _obeyed(control: socket.socket, command: channel.Header, descriptors: list[int]) -> channel.Header:
    if "kill" in command:
        os.kill(command["kill"], signal.SIGKILL)
        return {}
    if "look" in command:
        ended, status = os.waitpid(command["look"], os.WNOHANG)
        return {"status": os.waitstatus_to_exitcode(status) if ended else None}
    for module in command["late"]:
        if module not in sys.modules:
            importlib.import_module(module)
            gc.freeze()
    child = os.fork()
    if child == 0:
        _be_starter(control, command, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return {"process": child}


def _be_starter(control: socket.socket, command: channel.Header, connection: int, stderr: int) -> None:
    from app.simulation.starter import main

    try:
        control.close()
        os.dup2(stderr, 2)
        os.close(stderr)
        os.environ.clear()
        os.environ.update(command["environment"])
        sys.path[:] = command["path"]
        main(connection)
    finally:
        os._exit(0)  # Nothing of the process that forks must go on here.
