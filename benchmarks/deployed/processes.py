"""Processes of one folder: started in it, with their output kept, and ended by their groups."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from strategies.core.errors import LetheError

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 900.0
_LOOK_SECONDS = 0.05
_QUIET = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers_over_tls(host: str, port: int, authority: Path) -> bool:
    """Return whether a host answers with a certificate that the authority signed for it."""
    context = ssl.create_default_context(cafile=str(authority))
    try:
        with (
            socket.create_connection((host, port), timeout=1) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except OSError:
        return False


class Processes:
    """Processes that belong together; a context manager that ends them.

    Each leads a process group of its own and is ended by that.

    Parameters
    ----------
    folder
        Their home, in which they are started; their output lies in it.

    Attributes
    ----------
    environment : dict[str, str]
        Of each process: without what Flower would fetch or report.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self.environment = {
            **os.environ,
            **_QUIET,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "FLWR_HOME": str(folder / "flwr"),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.processes):
            self.kill(name)

    def begin(self, name: str, *command: str, place: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command.

        Parameters
        ----------
        name
            Of the process, by which it is known from now on.
        command
            A program of the environment's and its arguments.
        place
            Folder that it is started in, if not the processes' own.

        Raises
        ------
        LetheError
            If there is no such program.
        """
        path = self._output_path(name)
        path.parent.mkdir(exist_ok=True)
        program = shutil.which(command[0], path=self.environment["PATH"])
        if program is None:
            raise LetheError(f"{command[0]}: not installed")
        with path.open("wb") as output:
            self.processes[name] = subprocess.Popen(
                [program, *command[1:]],
                cwd=place or self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self.processes[name]

    def finish(self, name: str, timeout: float = 1800.0) -> int:
        """Wait for a process to end; return its exit status.

        Raises
        ------
        LetheError
            If it takes too long.
        """
        try:
            return self.processes[name].wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill(name)
            raise LetheError(f"{name} took more than {timeout:g} s: {self.output(name)[-2000:]}") from None

    def until(self, reached: Callable[[], bool], complaint: str, name: str) -> None:
        """Wait for something that a process is to do.

        Raises
        ------
        LetheError
            With the complaint and the end of its output, if it ends before or takes too long.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not reached():
            if time.monotonic() > deadline or self.processes[name].poll() is not None:
                raise LetheError(f"{complaint}: {self.output(name)[-1000:]}")
            time.sleep(_LOOK_SECONDS)

    def wait_for(self, name: str) -> None:
        """Wait until a SuperNode is connected."""
        self.until(lambda: "SuperNode ID" in self.output(name), f"node {name} does not connect", name)

    def output(self, name: str) -> str:
        """Return what a process has printed so far."""
        path = self._output_path(name)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def kill(self, name: str) -> None:
        """End a process and all that it started, at once."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        descendants = tree_of(process.pid)  # SuperExec leads a group of its own
        with suppress(ProcessLookupError):  # all of the group has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        for pid in descendants:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> None:
        """Ask a process to end, and wait for it; what it started ends with it."""
        self.processes[name].terminate()
        self.processes[name].wait(READY_SECONDS)
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

    def _output_path(self, name: str) -> Path:
        return self.folder / "output" / f"{name}.txt"


def tree_of(root: int) -> list[int]:
    """Return a process and all that descend from it (Linux).

    SuperExec leads a session of its own, so that the group of the SuperLink does not hold the ServerApp.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = read_proc(entry / "stat").rpartition(b") ")[2].split()
        if len(fields) > 1:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def read_proc(path: Path) -> bytes:
    """Return a file of /proc, or nothing if its process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
