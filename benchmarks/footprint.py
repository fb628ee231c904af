"""What a command's processes take: their memory at most, counted by the kernel, and the seconds.

Memory that several processes map is parted among them (PSS, proc(5)), so nothing is counted twice. A command
that starts workers has them two levels below itself: it starts a starter, which forks them.
"""

import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from strategies.core.errors import LetheError

_PROC = Path("/proc")
_PAUSE_SECONDS = 0.02
_KILOBYTE = 1024 / 1e6
_WORKER = 2


@dataclass(frozen=True)
class Footprint:
    """What a command took.

    Parameters
    ----------
    seconds
        Wall clock.
    server_mb
        Of the command's own process, at most.
    worker_mb
        Of that of its workers which took the most; 0 without workers.
    """

    seconds: float
    server_mb: float
    worker_mb: float


def measured(command: Sequence[str]) -> Footprint:
    """Run a command and measure it.

    Raises
    ------
    LetheError
        If it fails; the message holds the last line that it wrote.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    most = {0: 0.0, 1: 0.0, _WORKER: 0.0}
    while process.poll() is None:
        for depth, found in below(process.pid):
            most[min(depth, _WORKER)] = max(most[min(depth, _WORKER)], resident_mb(found))
        time.sleep(_PAUSE_SECONDS)
    seconds = time.perf_counter() - began
    written = process.stdout.read().strip().splitlines() if process.stdout else []
    if process.returncode:
        said = f"exit status {process.returncode}, {written[-1] if written else 'nothing written'}"
        raise LetheError(f"'{' '.join(command)}' failed: {said}")
    return Footprint(seconds, most[0], most[_WORKER])


def below(process: int, depth: int = 0) -> Iterator[tuple[int, int]]:
    """Yield a process and all that descend from it, with how many levels below it they are."""
    yield depth, process
    for listed in _PROC.glob(f"{process}/task/*/children"):
        for child in _read(listed).split():
            yield from below(int(child), depth + 1)


def resident_mb(process: int) -> float:
    """Return the resident memory of a process in MB, shared pages in parts; 0 if it is gone."""
    for line in _read(_PROC / str(process) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * _KILOBYTE
    return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # The process is gone
        return ""
