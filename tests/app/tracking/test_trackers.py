"""TensorBoard, MLflow and Weights & Biases, offline: what was tracked is read back from their own files."""

import errno
import io
import json
import logging
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.tracking.tracker import Tracked, maker
from strategies.core.settings import Scalar

CONFIG: dict[str, Scalar] = {f"a.key-{number}": number for number in range(250)} | {"run.name": "study"}


@pytest.fixture(autouse=True)
def _nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name)


def work(folder: Path, completed: int = 0) -> Tracked:
    return Tracked("0f" * 16, "study", "train", folder / "track", config=CONFIG, completed=completed)


def track_all(kind: str, folder: Path) -> None:
    """Track two rounds, resume after the first with other figures, and forget."""
    make = maker(kind)
    assert make is not None
    tracker = make(work(folder))
    tracker.figures(1, {"test-loss": 2.0, "clients-failed": 1.0})
    tracker.figures(2, {"test-loss": 9.0})
    tracker.end("interrupted", {})
    tracker = make(work(folder, completed=1))
    tracker.figures(2, {"test-loss": 1.0})
    tracker.end("finished", {"seconds": 1.5, "report": "report.html"})
    child = make(Tracked("0f" * 16 + "-1", "forget client-3", "forget", folder / "track", "0f" * 16))
    child.figures(1, {"distill/loss": 0.5})
    child.end("finished", {"method": "distill"})


def test_tensorboard(tmp_path: Path) -> None:
    track_all("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "track" / "tensorboard" / "train"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("test-loss")] == [(1, 2.0), (2, 1.0)]
    assert [e.value for e in read.Scalars("summary/seconds")] == [1.5]
    (config,) = read.Tensors("config/text_summary")
    assert b"| a.key-249 | 249 |" in config.tensor_proto.string_val[0]
    texts = read.Tensors("summary/report/text_summary")
    assert texts[-1].tensor_proto.string_val[0] == b"report.html"
    read = EventAccumulator(str(tmp_path / "track" / "tensorboard" / "forget client-3"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("distill/loss")] == [(1, 0.5)]


@pytest.mark.check
def test_mlflow(tmp_path: Path) -> None:
    track_all("mlflow", tmp_path)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "track" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("lethe")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"study", "forget client-3"}
    run = runs["study"]
    losses = client.get_metric_history(run.info.run_id, "test-loss")
    assert [(m.step, m.value) for m in losses] == [(1, 2.0), (2, 9.0), (2, 1.0)]
    assert run.data.params["a.key-249"] == "249"
    assert len(run.data.params) == len(CONFIG)
    assert run.data.metrics["summary/seconds"] == 1.5
    assert run.data.tags["lethe-report"] == "report.html"
    assert run.info.status == "FINISHED"
    assert runs["forget client-3"].data.tags["mlflow.parentRunId"] == run.info.run_id
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.check
def test_wandb_stays_offline(tmp_path: Path) -> None:
    track_all("wandb", tmp_path)
    runs = sorted((tmp_path / "track" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 3
    records = [_finished(path) for path in runs]
    assert {kind for found in records for kind, _ in found} >= {"run", "history", "summary", "exit"}
    first, again, child = (dict(found)["run"] for found in records)
    assert first.run_id == again.run_id == "0f" * 16
    assert (child.run_group, child.job_type) == ("0f" * 16, "forget")
    config = {update.key: json.loads(update.value_json) for update in first.config.update}
    assert config["a.key-249"] == 249
    assert first.host == "lethe"  # Not the name of the machine
    losses = [_values(record).get("test-loss") for kind, record in records[0] if kind == "history"]
    assert losses == [2.0, 9.0]
    said = [_values(record, "update") for kind, record in records[1] if kind == "summary"]
    assert any(values.get("summary/report") == "report.html" for values in said)


def _values(record: Any, field: str = "item") -> dict[str, Any]:
    items = getattr(record, field)
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _finished(path: Path) -> list[tuple[str, Any]]:
    """Return a run's records once its last is there: W&B's service may write it after `finish` returns."""
    until = time.monotonic() + 30
    while "exit" not in dict(found := [*_records(path)]):
        assert time.monotonic() < until, f"no end in {path}: {[kind for kind, _ in found]}"
        time.sleep(0.05)
    return found


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Read W&B's file: blocks of 32 KiB of pieces, each with a checksum, its length and its kind."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # A whole record, or its last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            name = str(record.WhichOneof("record_type"))
            yield name, getattr(record, name)
            whole = b""


@pytest.mark.check
def test_an_unreachable_server_is_an_error_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    make = maker("mlflow")
    assert make is not None
    with pytest.raises(Exception, match=r"Max retries|refused"):
        make(work(tmp_path))


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_tensorboard_on_a_full_disk_is_an_error_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its writing thread ends with the error as well, and Python would print that one's traceback."""
    from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

    monkeypatch.setattr(LocalFileSystem, "_write", no_room)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    make = maker("tensorboard")
    assert make is not None
    for _ in range(2):
        with pytest.raises(OSError, match="No space left on device"):
            make(work(tmp_path))
    assert capfd.readouterr().err == ""
    other = threading.Thread(target=no_room)
    other.start()
    other.join()
    assert capfd.readouterr().err.count("Traceback") == 1


def test_wandb_on_a_full_disk_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each line of its own log would print a traceback, from before `wandb.init` returns."""
    import wandb

    class Run:
        summary: ClassVar[dict[str, object]] = {}

        def finish(self, exit_code: int) -> None:
            logging.getLogger("wandb.sdk").error("finishing")

    def init(**_: object) -> Run:
        logging.getLogger("wandb.sdk").error("starting")
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "write", no_room)
    full = logging.StreamHandler(stream)
    logging.getLogger("wandb").addHandler(full)
    try:
        make = maker("wandb")
        assert make is not None
        make(work(tmp_path)).end("finished", {})
    finally:
        logging.getLogger("wandb").removeHandler(full)
    assert capfd.readouterr().err == ""
    assert logging.raiseExceptions


def test_one_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tracking.tracker.find_spec", lambda name: None)
    assert maker("wandb") is None
