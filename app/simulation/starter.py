"""The starter: a process that imports torch and the ClientApp once, and forks workers on command.

`multiprocessing` has such a process, its forkserver, but that imports the parent's main module again (a
script without a main guard, or one read from standard input, breaks), sends its instructions as pickles and
keeps named resources. This one is a hundred lines, and it owns its workers: when the parent ends, for
whatever reason, the starter's socket closes and it ends them all.

It stays single-threaded, as a process that forks must.
"""

import ctypes
import faulthandler
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence

import torch

from app.simulation import channel
from app.simulation.client import Clients, config_of, load_client_app, load_object
from app.simulation.launch import describe_status
from app.simulation.progress import Progress
from app.simulation.worker import Worker
from strategies.core.errors import BadInput
from strategies.core.shared_memory import SharedMemory

_PARENT_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG


def main(descriptor: int) -> None:
    """Load the ClientApp, then serve the parent, over the socket with this descriptor, until it is gone."""
    control = socket.socket(fileno=descriptor)
    os.dup2(2, 1)  # A client that prints must not write into the output of the command that simulates it.
    sys.stdout = sys.stderr
    faulthandler.enable()
    try:
        clients = _load_or_report(control)
        if clients is not None:
            Starter(control, clients).run()
    except channel.Closed:
        return  # The parent went while this process was still loading.


def _load_or_report(control: socket.socket) -> Clients | None:
    """Load what the parent asks for; report whether that worked."""
    setup, _ = channel.receive(control)
    gc.disable()  # Collecting among so many imports takes long, and in a fork it copies what it looks at.
    try:
        clients = load(setup)
    except BadInput as error:
        channel.send(control, {"refused": str(error)})
        return None
    except (Exception, SystemExit) as error:  # noqa: BLE001 (the parent reports whatever an import raises)
        traceback.print_exception(error)
        channel.send(control, {"error": f"{type(error).__name__}: {error}"})
        return None
    gc.freeze()  # The collector would otherwise touch, and so copy, every page that the workers share.
    gc.enable()
    channel.send(control, {"ready": True})
    return clients


def load(setup: channel.Header) -> Clients:
    """Import the code that the workers need; they inherit it."""
    torch.set_num_threads(1)
    if not setup["forks"]:  # A process that has computed before may not set it any more
        torch.set_num_interop_threads(1)
    # torch imports its compiler with the first optimiser, which takes seconds; so not in every worker.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    run_config = config_of(setup["run_config"])
    node_configs = [config_of(config) for config in setup["node_configs"]]
    clients = Clients(load_client_app(setup["client_app"]), run_config, node_configs)
    if setup["prepare"]:
        prepare = load_object(setup["prepare"])
        if not callable(prepare):
            raise TypeError(f"'{setup['prepare']}' is of type {type(prepare).__name__}, expected a function")
        prepare(run_config)
    return clients


class Starter:
    """Forks and reaps workers, which inherit the clients, on commands from the parent."""

    def __init__(self, control: socket.socket, clients: Clients) -> None:
        self._control = control
        self._clients = clients
        self._children: set[int] = set()

    def run(self) -> None:
        """Obey until the parent is gone, then end all workers."""
        try:
            while True:
                command, descriptors = channel.receive(self._control)
                if "reap" in command:
                    channel.send(self._control, {"ending": self._reap(command["reap"], command["seconds"])})
                else:
                    channel.send(self._control, {"process": self._fork(descriptors)})
        except channel.Closed:
            for child in self._children:
                os.kill(child, signal.SIGKILL)
            for child in self._children:
                os.waitpid(child, 0)
            os._exit(0)  # To take down an interpreter that imported torch takes half a second.

    def _fork(self, descriptors: Sequence[int]) -> int:
        starter = os.getpid()
        child = os.fork()
        if child == 0:
            self._be_worker(starter, descriptors)
        self._children.add(child)
        for descriptor in descriptors:
            os.close(descriptor)
        return child

    def _be_worker(self, starter: int, descriptors: Sequence[int]) -> None:
        try:
            self._control.close()
            die_with(starter)
            connection, progress, *slots = descriptors
            Worker(
                socket.socket(fileno=connection),
                [SharedMemory(d) for d in slots],
                Progress(SharedMemory(progress)),
                self._clients,
            ).run()
        except BaseException:  # noqa: BLE001 (a forked copy of the starter must never go on as the starter)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _reap(self, child: int, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended and time.monotonic() < deadline:
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        self._children.discard(child)
        return describe_status(os.waitstatus_to_exitcode(status))


def die_with(starter: int) -> None:
    """Have the kernel end this process when the starter is killed: nothing else could end it then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != starter:
            os._exit(1)
