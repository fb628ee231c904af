"""Somebody who follows the documentation: a fresh home, data of their own, and a shell."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.deployed.processes import free_port
from strategies.core.seeds import numpy_generator

ROOT = Path(__file__).resolve().parents[1]
_LONGEST = 1800
"""Seconds after which a command hangs, however busy the machine is."""
_MOST_STARTS = 20


def blocks(text: str, *kinds: str) -> list[str]:
    """Return the contents of a page's blocks of code of these kinds, in order."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for kind, block in found if kind in kinds]


def commands(text: str) -> list[str]:
    """Return a page's shell commands in order, continuation lines joined, without comments."""
    joined = "\n".join(blocks(text, "sh")).replace("\\\n", " ")
    lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in joined.splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines if line]


def beginning(command: str, known: Mapping[str, object]) -> str | None:
    """Return the longest of the known beginnings that a command has."""
    return max((key for key in known if command.startswith(key)), key=len, default=None)


@dataclass(frozen=True)
class User:
    """Where a reader's home and their own data are, and what their shell sets."""

    home: Path
    folder: Path
    environment: dict[str, str]

    def ran(self, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a command line to its end.

        Flower gives the SuperLink that `flwr run` starts 15 s to come up. On a busy machine it takes more,
        and a reader, too, would give the command again; what is left of the first one holds its ports.
        """
        for _ in range(_MOST_STARTS):
            done = subprocess.run(
                line,
                shell=True,
                cwd=folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=_LONGEST,
                check=False,
            )
            if "Failed to start local SuperLink within" not in done.stderr:
                break
            _stop_processes_of(self.home)
            self.environment.update(_ports())
        return done


@contextmanager
def reading(home: Path, folder: Path) -> Iterator[User]:
    """Yield a user with this home; stop the SuperLink that `flwr run` leaves."""
    yield User(home, folder, environment_of(home))
    _stop_processes_of(home)


def environment_of(home: Path) -> dict[str, str]:
    """Return what the shell of somebody with this home sets."""
    return {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home / "flwr"),
        **_ports(),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }


def _ports() -> dict[str, str]:
    """Return where Flower's local SuperLink listens."""
    names = ("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "FLWR_LOCAL_CONTROL_API_PORT")
    return {name: str(free_port()) for name in names}


def _stop_processes_of(home: Path) -> None:
    """End every process whose environment names this home."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found = f"HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone by now, or not ours
        if found:
            os.kill(int(entry.name), 9)


def write_table(path: Path) -> None:
    """Write arrays of a table with labels (npz)."""
    rng = numpy_generator(0, "readme")
    table = {"x": rng.normal(size=(300, 6)).astype(np.float32), "y": rng.integers(0, 3, 300)}
    train = {f"{key}_train": values[:240] for key, values in table.items()}
    test = {f"{key}_test": values[240:] for key, values in table.items()}
    np.savez(path, allow_pickle=False, **train, **test)


def write_csv(path: Path) -> None:
    """Write a table whose column `ill` is to be predicted (csv)."""
    rng = numpy_generator(0, "readme", path.stem)
    rows = [
        f"{age:.1f},{city},{int(age > 50)}"
        for age, city in zip(rng.uniform(20, 80, 60), rng.choice(["Oslo", "Rome"], 60), strict=True)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["age,city,ill", *rows, ""]), encoding="utf-8")


def write_images(folder: Path, labels: tuple[str, str]) -> None:
    """Write images in a folder for each class."""
    rng = numpy_generator(0, "readme", "images")
    for part, count in (("train", 30), ("test", 6)):
        for label in labels:
            place = folder / part / label
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(place / f"{i}.png")
