"""A deployed federation on loopback: SuperLink, SuperNodes and runs as docs/deploy.md starts them.

TLS, SuperNode authentication and a database are as in earnest; ports, home and keys are its own. Everything
that it starts leads a process group of its own and is ended by that.
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from app.federation_keys import make_keys
from strategies.errors import LetheError
from strategies.settings import Scalar

ROOT = Path(__file__).resolve().parents[2]
NAME = "loopback"
"""Of the SuperLink in Flower's config."""
_READY_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_QUIET = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}
_IMPATIENT = """\
from flwr.common import constant
constant.HEARTBEAT_DEFAULT_INTERVAL = {seconds}
from flwr.supernode.cli import flower_supernode
flower_supernode()
"""
_SHORT_POLL = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05"}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Federation:
    """The processes of a federation; a context manager that ends them.

    Parameters
    ----------
    folder
        Holds everything: keys, database, Flower's home, output of the processes.
    clients
        Client-ids, for each of which a key is made.
    node_config
        Of every node, besides its client-id.
    app
        Folder of the Flower app that runs are started from.
    spare
        Names of further keys, of nodes that are no clients.
    short_poll
        Whether SuperExec looks for work every 0.05 s, instead of Flower's every second.
    heartbeat_seconds
        Between two signs of life of a node; the SuperLink takes a node back that was killed when it has
        missed two. Flower's 30 s are a constant; None leaves them.

    Attributes
    ----------
    keys : Path
        As ``lethe keys`` makes them.
    runs : Path
        For ``run.home``.
    """

    def __init__(
        self,
        folder: Path,
        clients: Iterable[str],
        node_config: Mapping[str, Mapping[str, Scalar]] | None = None,
        *,
        app: Path = ROOT,
        spare: Sequence[str] = (),
        short_poll: bool = True,
        heartbeat_seconds: int | None = None,
    ) -> None:
        self.folder, self.keys, self.runs = folder, folder / "keys", folder / "runs"
        self.clients = tuple(clients)
        self._node_config = node_config or {}
        self._app = app
        self._supernode: tuple[str, ...] = ("flower-supernode",)
        if heartbeat_seconds is not None:
            self._supernode = (sys.executable, "-c", _IMPATIENT.format(seconds=heartbeat_seconds))
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._node_ports: dict[str, int] = {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self.environment = {
            **os.environ,
            **_QUIET,
            **(_SHORT_POLL if short_poll else {}),
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "FLWR_HOME": str(folder / "flwr"),
        }
        make_keys(self.keys, ["localhost", "127.0.0.1"], (*self.clients, *spare))
        self._write_flower_config()

    def __enter__(self) -> "Federation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.processes):
            self.kill(name)

    def _write_flower_config(self) -> None:
        home = self.folder / "flwr"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{NAME}"\n\n[superlink.{NAME}]\n'
            f'address = "127.0.0.1:{self.port}"\nroot-certificates = "{self.keys / "ca.pem"}"\n',
            encoding="utf-8",
        )

    def start(self, clients: Iterable[str] | None = None, *, warm: bool = False) -> None:
        """Start the SuperLink, register the clients' keys, and start their nodes."""
        wanted = self.clients if clients is None else tuple(clients)
        self.start_superlink()
        self.register(wanted)
        for client_id in wanted:
            self.start_node(client_id, warm=warm)
        for client_id in wanted:
            self.wait_for(client_id)

    def start_superlink(self) -> None:
        """Start the SuperLink on its database and wait until it answers."""
        keys = self.keys
        self._start(
            "superlink",
            *("flower-superlink", "--port", str(self.port), "--enable-supernode-auth"),
            *("--database", str(self.folder / "state.db")),
            *("--ssl-certfile", str(keys / "server.pem"), "--ssl-keyfile", str(keys / "server.key")),
            *("--ssl-ca-certfile", str(keys / "ca.pem")),
        )
        self._until(self._answers, "the SuperLink does not answer", "superlink")

    def register(self, clients: Iterable[str]) -> None:
        """Register clients' public keys with the SuperLink, as `flwr supernode register` does."""
        begun = [
            (i, self._start(f"register-{i}", "flwr", "supernode", "register", str(self._public(i)), NAME))
            for i in clients
        ]
        for client_id, process in begun:
            if process.wait(_READY_SECONDS):
                raise LetheError(
                    f"client {client_id} was not registered: {self.output(f'register-{client_id}')}"
                )

    def _public(self, client_id: str) -> Path:
        return self.keys / "clients" / f"{client_id}.pub"

    def start_node(
        self, name: str, *, key: str = "", root: Path | None = None, client_id: str = "", warm: bool = False
    ) -> None:
        """Start a SuperNode.

        Parameters
        ----------
        name
            Of the process, and the client-id.
        key
            Whose key it has, if not its own.
        root
            The certificate of the authority that it trusts, if not the federation's.
        client_id
            What it calls itself, if not by its name.
        warm
            Whether its ClientApps are started by ``lethe executor``.
        """
        port = self._node_ports.setdefault(name, free_port())
        config = {"client-id": client_id or name, **self._node_config.get(name, {})}
        self._start(
            name,
            *(*self._supernode, "--superlink", f"127.0.0.1:{self.port}", "--port", str(port)),
            *("--root-certificates", str(root or self.keys / "ca.pem")),
            *("--auth-supernode-private-key", str(self.keys / "clients" / (key or name))),
            *("--node-config", " ".join(f"{k}={_toml(v)}" for k, v in config.items())),
            *(("--isolation", "process") if warm else ()),
        )
        executor = f"executor-{name}"
        if warm and executor not in self.processes:
            self._start(executor, "lethe", "executor", "--port", str(port))

    def wait_for(self, name: str) -> None:
        """Wait until a SuperNode is connected."""
        self._until(lambda: "SuperNode ID" in self.output(name), f"node {name} does not connect", name)

    def run(self, config: Mapping[str, Scalar], name: str = "run", timeout: float = 300.0) -> str:
        """Run the app to its end; return what it logged.

        Raises
        ------
        LetheError
            If it takes too long.
        """
        process = self.start_run(config, name)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill(name)
            raise LetheError(f"{name} took more than {timeout:g} s: {self.output(name)[-2000:]}") from None
        return self.output(name)

    def start_run(self, config: Mapping[str, Scalar], name: str = "run") -> subprocess.Popen[bytes]:
        """Start a run of the app with some keys of its config replaced, and stream its log."""
        told = " ".join(f"{key}={_toml(value)}" for key, value in config.items())
        return self._start(name, "flwr", "run", str(self._app), NAME, "--stream", "--run-config", told)

    def resident_mb(self, program: str) -> float:
        """Return the resident memory of one of the SuperLink's processes; 0 where there is none (Linux)."""
        for pid in _tree_of(self.processes["superlink"].pid):
            if program.encode() in _read(Path(f"/proc/{pid}/cmdline")):
                pages = _read(Path(f"/proc/{pid}/statm")).split()
                return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if pages else 0.0
        return 0.0

    def output(self, name: str) -> str:
        """Return what a process has printed so far."""
        path = self._output_path(name)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def kill(self, name: str) -> None:
        """End a process and all that it started, at once."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        with suppress(ProcessLookupError):  # all of the group has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> None:
        """Ask a process to end, and wait for it; what it started ends with it."""
        self.processes[name].terminate()
        self.processes[name].wait(_READY_SECONDS)
        self.kill(name)

    def is_running(self, name: str) -> bool:
        """Return whether a process has been started and has not ended."""
        return name in self.processes and self.processes[name].poll() is None

    def pause(self, name: str) -> None:
        """Suspend a process and all that it started: it is there, but answers nothing."""
        os.killpg(self.processes[name].pid, signal.SIGSTOP)

    def unpause(self, name: str) -> None:
        """Have a suspended process go on."""
        os.killpg(self.processes[name].pid, signal.SIGCONT)

    def kill_server_app(self) -> None:
        """End the ServerApp's process at once, as a machine that runs out of memory would."""
        found = [
            pid
            for pid in _tree_of(self.processes["superlink"].pid)
            if b"flwr-serverapp" in _read(Path(f"/proc/{pid}/cmdline"))
        ]
        if not found:
            raise LetheError("no ServerApp runs")
        for pid in found:
            os.kill(pid, signal.SIGKILL)

    def _output_path(self, name: str) -> Path:
        return self.folder / "output" / f"{name}.txt"

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        path = self._output_path(name)
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as output:
            process = self._spawn(command, output)
        self.processes[name] = process
        return process

    def _spawn(self, command: tuple[str, ...], output: IO[bytes]) -> subprocess.Popen[bytes]:
        program = shutil.which(command[0], path=self.environment["PATH"])
        if program is None:
            raise LetheError(f"{command[0]}: not installed")
        return subprocess.Popen(
            [program, *command[1:]],
            cwd=self.folder,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _answers(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.keys / "ca.pem"))
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=1) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1"),
            ):
                return True
        except OSError:
            return False

    def _until(self, reached: Callable[[], bool], complaint: str, name: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not reached():
            if time.monotonic() > deadline or self.processes[name].poll() is not None:
                raise LetheError(f"{complaint}: {self.output(name)[-1000:]}")
            time.sleep(_LOOK_SECONDS)


def _tree_of(root: int) -> list[int]:
    """Return a process and all that descend from it (Linux).

    SuperExec leads a session of its own, so that the group of the SuperLink does not hold the ServerApp.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _read(entry / "stat").rpartition(b") ")[2].split()
        if len(fields) > 1:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _read(path: Path) -> bytes:
    """Return a file of /proc, or nothing if its process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _toml(value: Scalar) -> str:
    """Return a value as Flower's command line takes it.

    Examples
    --------
    >>> _toml("a"), _toml(True), _toml(0.5)
    ('"a"', 'true', '0.5')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
