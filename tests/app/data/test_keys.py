"""app/data/keys.py: a key of the section data that nothing in use reads is refused."""

from pathlib import Path

import numpy as np
import pytest

from app.config.run_config import RunConfig
from app.data.keys import READERS, check_keys, in_use
from app.project import Workload
from strategies.core.errors import BadInput

SIMULATION = {"data.clients": 3}


def checked(values: dict[str, object]) -> None:
    config = RunConfig.from_flat(values)
    check_keys(config.to_flat(), RunConfig().to_flat(), in_use(config.data))


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("digits", "target", "ill", "csv files, parquet files$"),
        ("npz:a.npz", "target", "ill", "csv files, parquet files$"),
        (
            "folder:scans",
            "columns",
            "schema.json",
            "csv files, parquet files, a project's frames and images$",
        ),
        ("mnist", "targets", "numbers", "npz files, csv files, parquet files, folders of images$"),
        ("csv:a.csv", "size", 32, "digits, torchvision's data sets, npz files, folders of images, a project"),
        ("npz:a.npz", "lazy", "true", "folders of images$"),
        ("parquet:a.pq", "root", "/data", "torchvision's data sets$"),
        ("digits", "download", True, "torchvision's data sets$"),
        ("synthetic:1,1", "size", 32, "digits, torchvision's data sets, npz files"),
    ],
)
def test_each_source_reads_its_keys(name: str, key: str, value: object, said: str) -> None:
    with pytest.raises(
        BadInput,
        match=rf'^data\.{key}: given .*, which data\.name = "{name}" does not read; it is read by .*{said}',
    ):
        checked({**SIMULATION, "data.name": name, f"data.{key}": value})


@pytest.mark.parametrize(
    "values",
    [
        {"data.name": "csv:a.csv", "data.target": "ill", "data.columns": "s.json", "data.targets": "numbers"},
        {"data.name": "folder:scans", "data.size": 32, "data.lazy": "true", "data.targets": "classes"},
        {"data.name": "CIFAR-10", "data.root": "/data", "data.download": True, "data.classes": "cat, dog"},
        {"data.name": "digits", "data.public": "mnist", "data.root": "/data", "data.size": 32},
        {"data.name": "npz:a.npz", "data.public": "0", "data.test-share": 0.0, "data.per-class": 3},
        {"data.clients": 0, "data.target": "ill", "data.lazy": "true"},
    ],
)
def test_what_is_read_is_let_through(values: dict[str, object]) -> None:
    """The public data set's keys, too; of a deployment's nodes it is not known what they hold."""
    checked({**SIMULATION, **values})


def test_a_deployment_has_no_use_for_a_folder_of_torchvisions_data() -> None:
    with pytest.raises(
        BadInput, match=r"^data\.root: given \"/data\", which data\.name = \"digits\" does not"
    ):
        checked({"data.root": "/data"})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("target", "ill", "does not read; it is read by csv files"),
        ("partition", "dirichlet", "does not read; it is read by data that are spread over the clients"),
        ("train-limit", 5, "does not read; it is read by data of the server's or given together"),
        ("classes", "0, 1", "but the classes of all files together holds in its place"),
    ],
)
def test_files_of_clients(tmp_path: Path, key: str, value: object, said: str) -> None:
    """Each has its own, so nothing is spread, and the classes are those of all files together."""
    for client in "ab":
        np.savez(tmp_path / f"{client}.npz", x=np.zeros((4, 2)), y=np.arange(4))
    values = {"data.clients": 2, "data.folder-of-clients": str(tmp_path)}
    checked(values)
    with pytest.raises(BadInput, match=rf"^data\.{key}: given .*{said}"):
        checked({**values, f"data.{key}": value})


def test_every_key_has_a_reader_and_every_reader_keys_that_exist() -> None:
    flat = RunConfig().to_flat()
    named = frozenset().union(*(reader.keys for reader in READERS.values()))
    assert named <= flat.keys()
    others = {"name", "clients", "without", "scale", "scale-range", "path", "folder-of-clients", "seed"}
    assert {key for key in flat if key.startswith("data.")} - named == {
        f"data.{key}" for key in others | {"local-test-share", "own-classes", "validation-share"}
    }


def test_classes_of_numbers() -> None:
    config = RunConfig.from_flat(
        {"data.name": "csv:a.csv", "data.classes": "a, b", "task.name": "regression"}
    )
    with pytest.raises(BadInput, match=r"^data\.classes: given 'a, b', but the targets are numbers"):
        Workload.of(config)


def test_a_run_that_was_begun_with_such_a_key_is_opened() -> None:
    config = RunConfig.from_flat({"data.target": "ill", "data.clients": 3})
    with pytest.raises(BadInput, match=r"^data\.target"):
        Workload.of(config)
    assert Workload.of(config, recorded=True).config == config
