"""docs/deploy.md's ten steps, pasted into shells of this machine: each does what the page promises.

Replaced is only what a reader replaces as well (names, ports, places), and how much is trained.
"""

import json
import re
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from app.forgettings.verify_run import verify_run
from benchmarks.deployed.processes import ROOT, Processes, answers_over_tls, free_port
from strategies.runs.folder import RunFolder

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").partition("\n## ")[0]
STEPS = {
    int(number): re.findall(r"```(?:sh|toml)\n(.*?)```", text, re.DOTALL)
    for number, text in re.findall(r"^\*\*(\d+)\. (.*?)(?=^\*\*\d+\. |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}
HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
ELSEWHERE = r"example\.org|0\.0\.0\.0|\b8443\b|\b9094\b|/srv|/var|/data/|/path"
"""What would leave the reader's folder or this machine, or be in others' way."""


class Reader(Processes):
    """Somebody who copies the steps: all machines are this one, and its folder is the root of their disks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.node_ports = {name: free_port() for name in HOSPITALS}

    def replaced(self, hospital: str) -> Mapping[int, Mapping[str, str]]:
        """Return what a reader replaces in each step: all of it must stand there."""
        superlink = {"superlink.example.org:8443": f"localhost:{self.port}"}
        runs = {"/srv/lethe/runs": str(self.folder / "runs")}
        return {
            2: {"superlink.example.org": "localhost"},
            3: {"0.0.0.0": "127.0.0.1", "8443": str(self.port)},
            4: {**superlink, "/path/to": str(self.folder)},
            5: {},
            6: {
                **superlink,
                "hospital-a": hospital,
                "9094": str(self.node_ports[hospital]),
                "/data/scans.npz": str(self.folder / f"{hospital}.npz"),
                "/var/lib/lethe": str(self.folder / f"state-{hospital}"),
            },
            7: {
                **runs,
                "run.rounds=15": "run.rounds=2 model.name='mlp' model.hidden=16",
                "/srv/lethe/scans.npz": str(self.folder / "server.npz"),
            },
            8: {**runs, "forget.method='finetune'": "forget.method='finetune' forget.finetune.epochs=1"},
            9: runs,
            10: runs,
        }

    def block(self, step: int, hospital: str = HOSPITALS[0]) -> str:
        """Return a step's one block of code, for this machine."""
        (block,) = STEPS[step]
        table = self.replaced(hospital)[step]
        assert [old for old in table if old not in block] == []
        assert re.findall(ELSEWHERE, re.sub("|".join(map(re.escape, table)) or "$^", "", block)) == []
        return (
            re.sub("|".join(map(re.escape, table)), lambda found: table[found[0]], block) if table else block
        )

    def paste(self, step: int, hospital: str = HOSPITALS[0], place: Path | None = None) -> str:
        """Paste a step into a shell; return the name of its process."""
        name = f"step-{step}-{hospital}"
        self.begin(name, "sh", "-c", self.block(step, hospital), place=place)
        return name

    def carry_out(self, step: int, place: Path | None = None) -> str:
        """Paste a step and wait for its end, which must be a good one; return what it printed."""
        name = self.paste(step, place=place)
        assert self.finish(name) == 0, self.output(name)
        return self.output(name)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Return a reader with the data of three hospitals and of the server: parts of digits."""
    folder = tmp_path_factory.mktemp("steps")
    digits = load_digits()
    x, y = digits.images.astype(np.uint8) * 15, digits.target
    for i, name in enumerate(HOSPITALS):
        np.savez(folder / f"{name}.npz", x_train=x[i:240:3], y_train=y[i:240:3])
    np.savez(
        folder / "server.npz", x_train=x[240:320], y_train=y[240:320], x_test=x[320:400], y_test=y[320:400]
    )
    with Reader(folder) as found:
        yield found


@pytest.fixture(scope="module")
def superlink(reader: Reader) -> str:
    """Return the name of the SuperLink's process, after steps 2 to 4."""
    reader.carry_out(2)
    name = reader.paste(3)
    answers = partial(answers_over_tls, "localhost", reader.port, reader.folder / "keys" / "ca.pem")
    reader.until(answers, "the SuperLink does not answer", name)
    home = Path(reader.environment["FLWR_HOME"])
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(reader.block(4), encoding="utf-8")
    return name


@pytest.fixture(scope="module")
def connected(reader: Reader, superlink: str) -> str:
    """Return what registering printed, when all hospitals' nodes are connected: steps 5 and 6."""
    printed = reader.carry_out(5)
    for hospital in HOSPITALS:
        (reader.folder / f"state-{hospital}").mkdir(mode=0o700)
    names = [reader.paste(6, hospital) for hospital in HOSPITALS]
    for name in names:
        reader.wait_for(name)
    assert reader.is_running(superlink)
    return printed


@pytest.fixture(scope="module")
def trained(reader: Reader, connected: str) -> RunFolder:
    """Return the run of step 7."""
    assert "run folder: " in (printed := reader.carry_out(7, ROOT)), printed
    return RunFolder.open("first", reader.folder / "runs")


@pytest.fixture(scope="module")
def forgotten(reader: Reader, trained: RunFolder) -> Path:
    """Return the folder of what step 8 made."""
    assert "run folder: " in (printed := reader.carry_out(8, ROOT)), printed
    (folder,) = (trained.path / "forget").glob("*-finetune")
    return folder


def test_there_are_ten_steps_and_nothing_is_fetched_or_reported(reader: Reader) -> None:
    """What step 1 exports is what the processes of these tests have."""
    assert list(STEPS) == list(range(1, 11))
    (line,) = [line for line in STEPS[1][0].splitlines() if line.startswith("export ")]
    exported = dict(word.split("=") for word in line.split()[1:])
    assert exported.items() <= reader.environment.items()


def test_steps_2_to_4_start_a_superlink_with_keys_that_are_its_owner_s(
    reader: Reader, superlink: str
) -> None:
    keys = reader.folder / "keys"
    private = [keys / "ca.key", keys / "server.key", *(keys / "clients" / name for name in HOSPITALS)]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600] * 5
    assert all((keys / "clients" / f"{name}.pub").is_file() for name in HOSPITALS)
    assert (reader.folder / "state.db").is_file()
    assert reader.is_running(superlink)


def test_steps_5_and_6_connect_the_clients(connected: str) -> None:
    assert connected.count("registered successfully") == len(HOSPITALS)


def test_step_7_trains_with_all_of_them_on_their_own_data(reader: Reader, trained: RunFolder) -> None:
    summary = trained.read_summary()
    assert list(summary["clients"]) == list(HOSPITALS)
    assert [client["num-examples"] for client in summary["clients"].values()] == [80] * 3
    assert summary["faults"] == []
    assert summary["completed-rounds"] == 2
    assert trained.read_model()
    assert str(trained.path) in reader.output(f"step-7-{HOSPITALS[0]}")


def test_step_8_forgets_and_certifies_it(
    reader: Reader, trained: RunFolder, forgotten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is checked by who has signed it, whatever key lies in this user's own home."""
    assert (forgotten / "model.safetensors").is_file()
    monkeypatch.setenv("HOME", reader.environment["HOME"])
    checks = verify_run(trained)
    assert "failed" not in {check.status for check in checks}
    assert any("certificate" in check.name for check in checks)


def test_step_9_compares_with_retraining(reader: Reader, forgotten: Path) -> None:
    assert "run folder: " in (printed := reader.carry_out(9, ROOT)), printed
    audit = json.loads((forgotten / "audit.json").read_text(encoding="utf-8"))
    for model in ("before", "after", "retrain"):
        assert audit[model]["num_forget"] == audit[model]["num_test"] == 80
        assert 0 <= audit[model]["unlearning_accuracy"] <= 100
    assert Path(str(forgotten).replace("-finetune", "-retrain"), "model.safetensors").is_file()


def test_step_10_lists_reports_and_forgets_on_the_superlink_s_machine(
    reader: Reader, forgotten: Path
) -> None:
    printed = reader.carry_out(10)
    assert re.search(r"first .*finished", printed), printed
    assert printed.count(str(forgotten.parents[1] / "report.html")) == 2  # Also of the forgetting
    assert Path(str(forgotten).replace("-finetune", "-subtract"), "model.safetensors").is_file()
