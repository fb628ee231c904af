"""A deployed federation on loopback: SuperLink, SuperNodes and runs as docs/deploy.md starts them.

TLS, SuperNode authentication and a database are as in earnest; ports, home and keys are its own.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from app.deployment.federation_keys import make_keys
from app.simulation.launch import partition_configs
from benchmarks.deployed.processes import (
    READY_SECONDS,
    ROOT,
    Processes,
    answers_over_tls,
    free_port,
    read_proc,
    tree_of,
)
from strategies.core.errors import LetheError
from strategies.core.settings import Scalar

NAME = "loopback"
"""Of the SuperLink in Flower's config."""
_IMPATIENT = """\
from flwr.common import constant
constant.HEARTBEAT_DEFAULT_INTERVAL = {seconds}
from flwr.supernode.cli import flower_supernode
flower_supernode()
"""
_SHORT_POLL = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05"}


class Federation(Processes):
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
        super().__init__(folder)
        self.keys, self.runs = folder / "keys", folder / "runs"
        self.clients = tuple(clients)
        self._node_config = node_config or {}
        self._app = app
        self._allow: dict[str, str] = {}
        self._supernode: tuple[str, ...] = ("flower-supernode",)
        if heartbeat_seconds is not None:
            self._supernode = (sys.executable, "-c", _IMPATIENT.format(seconds=heartbeat_seconds))
        self.port = free_port()
        self._node_ports: dict[str, int] = {}
        if short_poll:
            self.environment |= _SHORT_POLL
        make_keys(self.keys, ["localhost", "127.0.0.1"], (*self.clients, *spare))
        self._write_flower_config()

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

    def allow(self, client_id: str, sha256: str) -> None:
        """Have the executor of a client's node, started from now on, run one bundle alone."""
        self._allow[client_id] = sha256

    def start_superlink(self) -> None:
        """Start the SuperLink on its database and wait until it answers."""
        keys = self.keys
        self.begin(
            "superlink",
            *("flower-superlink", "--port", str(self.port), "--enable-supernode-auth"),
            *("--database", str(self.folder / "state.db")),
            *("--ssl-certfile", str(keys / "server.pem"), "--ssl-keyfile", str(keys / "server.key")),
            *("--ssl-ca-certfile", str(keys / "ca.pem")),
        )
        answers = partial(answers_over_tls, "127.0.0.1", self.port, keys / "ca.pem")
        self.until(answers, "the SuperLink does not answer", "superlink")

    def register(self, clients: Iterable[str]) -> None:
        """Register clients' public keys with the SuperLink, as `flwr supernode register` does."""
        begun = [
            (i, self.begin(f"register-{i}", "flwr", "supernode", "register", str(self._public(i)), NAME))
            for i in clients
        ]
        for client_id, process in begun:
            if process.wait(READY_SECONDS):
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
        self.begin(
            name,
            *(*self._supernode, "--superlink", f"127.0.0.1:{self.port}", "--port", str(port)),
            *("--root-certificates", str(root or self.keys / "ca.pem")),
            *("--auth-supernode-private-key", str(self.keys / "clients" / (key or name))),
            *("--node-config", " ".join(f"{k}={_toml(v)}" for k, v in config.items())),
            *(("--isolation", "process") if warm else ()),
        )
        executor = f"executor-{name}"
        if warm and executor not in self.processes:
            allowed = (f"--allow={self._allow[name]}",) if name in self._allow else ()
            self.begin(executor, "lethe", "executor", "--port", str(port), *allowed)

    def run(self, config: Mapping[str, Scalar], name: str = "run", timeout: float = 1800.0) -> str:
        """Run the app to its end; return what it logged.

        Raises
        ------
        LetheError
            If it takes too long.
        """
        self.start_run(config, name)
        self.finish(name, timeout)
        return self.output(name)

    def start_run(self, config: Mapping[str, Scalar], name: str = "run") -> subprocess.Popen[bytes]:
        """Start a run of the app with some keys of its config replaced, and stream its log."""
        told = " ".join(f"{key}={_toml(value)}" for key, value in config.items())
        return self.begin(name, "flwr", "run", str(self._app), NAME, "--stream", "--run-config", told)

    def resident_mb(self, program: str) -> float:
        """Return the resident memory of one of the SuperLink's processes; 0 where there is none (Linux)."""
        for pid in self._running(program):
            pages = read_proc(Path(f"/proc/{pid}/statm")).split()
            return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if pages else 0.0
        return 0.0

    def kill_server_app(self) -> None:
        """End the ServerApp's process at once, as a machine that runs out of memory would."""
        found = self._running("flwr-serverapp")
        if not found:
            raise LetheError("no ServerApp runs")
        for pid in found:
            os.kill(pid, signal.SIGKILL)

    def _running(self, program: str) -> list[int]:
        """Return the SuperLink's processes that run a program."""
        tree = tree_of(self.processes["superlink"].pid)
        return [pid for pid in tree if program.encode() in read_proc(Path(f"/proc/{pid}/cmdline"))]


def nodes_of(clients: Sequence[str]) -> dict[str, Mapping[str, Scalar]]:
    """Return the config of each client's node where all share one data set, in their order."""
    return dict(zip(clients, partition_configs(len(clients)), strict=True))


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
