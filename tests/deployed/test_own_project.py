"""A project of one's own on a SuperLink with SuperNodes: its code travels in the bundle, its data stay."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.cli.build import build_fab_from_disk

from app.templates.writing import write_project
from benchmarks.deployed.federation import Federation
from strategies.core.seeds import numpy_generator
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder

HOSPITALS = ("hospital-a", "hospital-b")
ROWS = {"hospital-a": 80, "hospital-b": 120}


def write_table(path: Path, rows: int) -> None:
    """Write a hospital's file as the template reads it."""
    table = numpy_generator(0, "ward", path.stem).normal(size=(rows, 4))
    ill = (1.5 * table[:, 0] + table[:, 1] * table[:, 2] > 0).astype(float)
    header = "age,pressure,glucose,cholesterol,ill"
    np.savetxt(path, np.column_stack([table, ill]), delimiter=",", header=header, comments="")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Return a federation of two hospitals; the first one's executor runs the ward's bundle alone."""
    folder = tmp_path_factory.mktemp("ward")
    project = write_project("ward", "tabular", folder)
    nodes = {}
    for name, rows in ROWS.items():
        write_table(folder / f"{name}.csv", rows)
        nodes[name] = {"data.path": str(folder / f"{name}.csv")}
    more = {"run.home": folder / "runs", "run.certificate-key": folder / "certificate" / "certificate.pem"}
    lines = [f'"{key}" = "{value}"' for key, value in more.items()]
    (folder / "more.toml").write_text("\n".join([*lines, '"train.batch-size" = 16\n']), encoding="utf-8")
    allowed = hashlib.sha256(build_fab_from_disk(project)).hexdigest()
    with Federation(folder, HOSPITALS, nodes, app=project) as started:
        started.allow("hospital-a", allowed)
        started.start(warm=True)
        yield started


def test_it_trains_on_the_hospitals_own_files_and_forgets_one(ward: Federation) -> None:
    more = {"run.config-file": str(ward.folder / "more.toml"), "data.clients": 0}
    printed = ward.run({**more, "run.name": "first", "run.rounds": 3}, "train")
    assert f"run folder: {ward.runs / 'first'}" in printed, printed
    summary = RunFolder.open("first", ward.runs).read_summary()
    assert {name: each["num-examples"] for name, each in summary["clients"].items()} == ROWS
    assert summary["final"]["test-accuracy"] > 60
    request = {"run.workflow": "forget", "request.run": "first", "request.clients": "hospital-b"}
    printed = ward.run({**more, **request, "forget.method": "retrain"}, "forget")
    assert f"run folder: {ward.runs / 'first'}" in printed, printed
    (gone,) = (ward.runs / "first" / "forget").glob("*-retrain")
    assert read_json(gone / "certificate.json")["certificate"]["request"]["clients"] == ["hospital-b"]


def test_a_node_refuses_the_bundle_once_its_code_has_changed(ward: Federation) -> None:
    """The other hospital allows any bundle, so that the run goes on with it alone."""
    file = ward.folder / "ward" / "ward" / "project.py"
    file.write_text(file.read_text(encoding="utf-8") + "\nCHANGED = True\n", encoding="utf-8")
    more = {"run.config-file": str(ward.folder / "more.toml"), "data.clients": 0}
    printed = ward.run({**more, "run.name": "second", "run.rounds": 1}, "changed")
    summary = RunFolder.open("second", ward.runs).read_summary()
    assert list(summary["clients"]) == ["hospital-b"], printed
    assert "is refused: this node allows" in ward.output("executor-hospital-a")
