"""The README's commands, run as they stand there, by a user with a fresh home."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.deployed.processes import free_port
from strategies.seeds import numpy_generator
from unlearning.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MNIST = ROOT.parent / "shared" / "data"


def commands(section: str) -> list[str]:
    """Return the shell commands below a heading, continuation lines joined, without comments."""
    text = README.split(f"### {section}\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in blocks.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Return the environment of a user with an empty home, and stop the SuperLink that `flwr run` leaves."""
    home = tmp_path_factory.mktemp("home")
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": path,
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    yield environment
    stop_processes_of(home)


def stop_processes_of(home: Path) -> None:
    """End every process whose environment names this home."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found = f"HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone by now, or not ours
        if found:
            os.kill(int(entry.name), 9)


def run(command: str, user: Mapping[str, str], folder: Path = ROOT) -> str:
    """Run a command as the user and return what it printed."""
    done = subprocess.run(
        command, shell=True, cwd=folder, env=user, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def test_in_one_process(user: Mapping[str, str]) -> None:
    """Train, forget with an audit, report, list."""
    lines = commands("In one process")
    assert lines[0] == ". .venv/bin/activate"
    printed = [run(line, user) for line in lines[1:]]
    assert len(printed) == 4
    assert "retrained" in printed[1]
    assert (Path(user["HOME"]) / ".lethe/runs/first/report.html").exists()
    assert "first" in printed[3]


def test_with_flwr_run(user: Mapping[str, str]) -> None:
    """Flower's own simulation leaves a run folder that `lethe forget` works on; its path is printed."""
    lines = [line for line in commands("With `flwr run`") if not line.startswith("export")]
    assert [line.split()[0] for line in lines] == ["flwr", "lethe"]
    printed = run(lines[0], user)
    assert f"run folder: {user['HOME']}/.lethe/runs/virtual" in printed
    run(lines[1], user)
    assert (
        Path(user["HOME"]) / ".lethe/runs/virtual/forget/client-3-fast-distill/model.safetensors"
    ).exists()


def test_with_your_own_data(user: Mapping[str, str], tmp_path: Path) -> None:
    """A table in an npz file, and folders of images."""
    rng = numpy_generator(0, "readme")
    table = {"x": rng.normal(size=(300, 6)).astype(np.float32), "y": rng.integers(0, 3, 300)}
    arrays = {f"{k}_train": v[:240] for k, v in table.items()} | {
        f"{k}_test": v[240:] for k, v in table.items()
    }
    np.savez(tmp_path / "patients.npz", allow_pickle=False, **arrays)
    for part, count in (("train", 30), ("test", 6)):
        for label in ("healthy", "ill"):
            folder = tmp_path / "scans" / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / f"{i}.png")
    lines = commands("With your own data")
    assert len(lines) == 3
    for line in lines[:2]:
        run(f"{line} --set run.rounds=2", user, tmp_path)


@pytest.mark.skipif(not MNIST.is_dir(), reason="the shared copy of MNIST is not here")
def test_a_named_data_set(user: Mapping[str, str]) -> None:
    """The third line, with the data at hand instead of a download."""
    line = commands("With your own data")[2]
    assert line == "lethe train --set data.name=mnist --set data.root=/data --set data.download=true"
    line = line.replace("/data", str(MNIST), 1).replace("data.download=true", "data.download=false")
    run(f"{line} --set run.rounds=1 --set data.train-limit=400 --set data.test-limit=100", user)


def test_the_table_of_methods_is_complete() -> None:
    """One row for each method, with the requests that it serves."""
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]*) \|", README, re.MULTILINE))
    assert {name: rows.get(name) for name in METHODS} == {
        name: ", ".join(sorted(method.serves)) for name, method in METHODS.items()
    }
