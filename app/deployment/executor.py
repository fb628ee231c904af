"""ClientApp processes for a SuperNode, forked from one that has torch and Flower imported already.

A SuperNode starts a fresh Python for every message, and importing torch takes longer than a short round.
Started with ``--isolation process`` it leaves that to a program of the user's. This is one: it asks the
SuperNode for tasks, and forks a process for each. The process imports this project's code from the bundle
that the run brought, as a fresh one would; it takes over other people's code, and this project's if every
file of the bundle is, byte for byte, the one that was imported here, or if the bundle, as that of a user's
own project, brings none.
"""

import contextlib
import gc
import hashlib
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import torch
from flwr.common.constant import APP_DIR, FAB_HASH_TRUNCATION
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.utils import get_flwr_home
from flwr.supernode.runtime import run_clientapp as clientapp
from flwr.supernode.runtime.run_clientapp import run_clientapp

from app.deployment.bundles import ANY, Allowed, warn

_OWN = ("app", "strategies", "unlearning")
_NEEDED = ("app.client_app", "strategies.layers.privacy.training")
"""Modules of a ClientApp, the second for private training; their imports take long."""
_LOOK_SECONDS = 0.05
_RETRY_SECONDS = 0.5
_FIRST_RETRY = 0.05
"""Seconds after which a ClientApp that asked before its message was whole asks again; doubled each time."""


def serve(port: int, stopped: Callable[[], bool], allowed: Allowed = ANY) -> None:
    """Run the ClientApps of a SuperNode on this machine until `stopped` says so.

    `port` is that of the SuperNode's own interface on loopback, as ``flower-supernode --port`` has it; if no
    SuperNode is there, it is waited for. A message of a bundle that is not `allowed` is answered with an
    error.
    """
    code = OwnCode(Path(__file__).resolve().parents[1])
    _warm_up()
    address = f"127.0.0.1:{port}"
    children: set[int] = set()
    with contextlib.closing(_connection(address)) as client:
        while not stopped():
            children -= {child for child in children if os.waitpid(child, os.WNOHANG)[0]}
            try:
                token, fab_hash = _next_task(client)
            except httpx.HTTPError:
                time.sleep(_RETRY_SECONDS)
                continue
            if token:
                if refused := allowed.refusal(fab_hash):
                    warn(refused)
                begin = forget_own_modules if refused else code.beginning(fab_hash)
                children.add(_fork(address, token, begin, allowed))
            else:
                time.sleep(_LOOK_SECONDS)


def _warm_up() -> None:
    for module in _NEEDED:
        importlib.import_module(module)
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # The first optimiser imports for a second more
    gc.collect()
    gc.freeze()  # What is imported stays, and its pages stay shared with the children


def _connection(address: str) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec")],
    )


def _next_task(client: RuntimeHttpClient) -> tuple[str, str]:
    """Return the token of a waiting message, and its bundle's hash; both empty if there is none."""
    answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
    return (answer.token, answer.task.fab_hash) if answer.HasField("task") else ("", "")


def _fork(address: str, token: str, begin: Callable[[], None], allowed: Allowed) -> int:
    parent = os.getpid()
    if child := os.fork():
        return child
    status: object = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        allowed.guard()
        begin()
        ask_again_soon()
        run_clientapp(address, token, insecure=True, parent_pid=parent)
        status = 0
    except SystemExit as end:
        status = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)  # The parent's ends are not to be tied up twice


def ask_again_soon() -> None:
    """Shorten the second that Flower waits before it asks again for an object that was not there yet.

    A SuperNode hands out a task when it knows of a message, before it has all of it; a process that starts
    instantly is there first.
    """
    pull = pull_and_inflate_object_from_tree
    setattr(clientapp, pull.__name__, partial(pull, initial_backoff=_FIRST_RETRY))


class OwnCode:
    """The code of this project's packages, in the folder `root`, as it was when the executor began."""

    def __init__(self, root: Path) -> None:
        self._digests = _digests(root)
        self._beginnings: dict[Path, Callable[[], None]] = {}

    def beginning(self, fab_hash: str) -> Callable[[], None]:
        """Return what a process of a bundle does first with the modules that were imported here.

        It forgets them, so that it imports the bundle's, unless these are the same, or there are none. A
        bundle that no process has unpacked yet is not known.
        """
        found = (
            list((get_flwr_home() / APP_DIR).glob(f"*.{fab_hash[:FAB_HASH_TRUNCATION]}")) if fab_hash else []
        )
        if len(found) != 1:
            return forget_own_modules
        if found[0] not in self._beginnings:
            self._beginnings[found[0]] = self._beginning(found[0])
        return self._beginnings[found[0]]

    def _beginning(self, bundle: Path) -> Callable[[], None]:
        digests = _digests(bundle)
        if not digests:
            return keep_own_modules
        return partial(take_over, bundle) if digests.items() <= self._digests.items() else forget_own_modules


def _digests(root: Path) -> dict[str, bytes]:
    """Return the hash of each file of this project's packages, by its path below a folder."""
    files = [path for name in _OWN for path in (root / name).rglob("*.py")]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).digest() for path in files}


def take_over(bundle: Path) -> None:
    """Keep this project's modules; those not imported yet will come from the bundle."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _OWN and hasattr(module, "__path__"):
            module.__path__ = [str(bundle.joinpath(*name.split(".")))]


def keep_own_modules() -> None:
    """Do nothing: what is installed here is what the bundle imports."""


def forget_own_modules() -> None:
    """Drop this project's modules, so that they are imported anew from the current ``sys.path``."""
    for name in [name for name in sys.modules if name.partition(".")[0] in _OWN]:
        del sys.modules[name]
