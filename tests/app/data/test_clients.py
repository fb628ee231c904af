"""app/data/clients.py: a folder holds a file for each client, named by its client-id."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.config.settings import DataSettings
from app.data import load_client_data, load_client_test, load_server_data
from app.data.clients import clients_in, survey
from app.data.reading import Reading
from strategies.core.errors import BadInput
from tests.app.data.test_folder import save


def settings(folder: Path, **more: object) -> DataSettings:
    """Return the settings of a simulation of two clients with a file each."""
    return DataSettings(folder_of_clients=str(folder), clients=2, **more)  # type: ignore[arg-type]


def two_npz(folder: Path) -> None:
    """Client a has labels 3 and 5, and a test example; client b has label 9."""
    np.savez(folder / "a.npz", x_train=np.eye(2), y_train=[3, 5], x_test=np.ones((1, 2)), y_test=[5])
    np.savez(folder / "b.npz", x=np.zeros((1, 2)), y=[9])


def test_arrays_by_hand(tmp_path: Path) -> None:
    """The classes are those of all files, 3, 5 and 9; each client has its own file, and its own test."""
    two_npz(tmp_path)
    data = settings(tmp_path)
    server = load_server_data(data, 0)
    assert (server.class_names, server.num_groups, server.input_shape) == (("3", "5", "9"), 3, (2,))
    assert (server.test, server.public) == (None, None)
    a, b = ({"client-id": i} for i in "ab")
    assert load_client_data(data, 0, a, server.terms).targets().tolist() == [0, 1]
    assert load_client_data(data, 0, b).targets().tolist() == [2]
    test = load_client_test(data, a, server.terms)
    assert test is not None
    assert test.targets().tolist() == [1]
    assert load_client_test(data, b, server.terms) is None


def test_tables_have_one_schema(tmp_path: Path) -> None:
    """Oslo is with one client alone; both make columns for Oslo and Rome, and impute the mean over both."""
    pd.DataFrame({"city": ["Oslo"], "age": [20.0], "ill": ["no"]}).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"city": ["Rome", "Rome"], "age": [None, 40.0], "ill": ["yes", "no"]}).to_csv(
        tmp_path / "b.csv", index=False
    )
    data = settings(tmp_path, target="ill")
    server = load_server_data(data, 0)
    assert (server.class_names, server.input_shape) == (("no", "yes"), (4,))
    parts = [load_client_data(data, 0, {"client-id": i}, server.terms).x.tolist() for i in "ab"]
    assert parts == [[[20, 0, 1, 0]], [[30, 1, 0, 1], [40, 0, 0, 1]]]


def test_images(tmp_path: Path) -> None:
    """A folder for each client, which may lack a class and have a test folder."""
    save(tmp_path / "a" / "train" / "cat" / "0.png", 0)
    save(tmp_path / "a" / "test" / "dog" / "0.png", 0)
    save(tmp_path / "b" / "fox" / "0.png", 0)
    data = settings(tmp_path, size=6)
    server = load_server_data(data, 0)
    assert (server.class_names, server.input_shape) == (("cat", "dog", "fox"), (1, 6, 6))
    examples = load_client_data(data, 0, {"client-id": "b"}, server.terms)
    assert (examples.targets().tolist(), examples.input_shape) == ([2], (1, 6, 6))
    test = load_client_test(data, {"client-id": "a"}, server.terms)
    assert test is not None
    assert test.targets().tolist() == [1]


def test_a_server_with_data_of_its_own(tmp_path: Path) -> None:
    """Its own file says the classes and has the test data; a client's label that it lacks is refused."""
    (tmp_path / "clients").mkdir()
    two_npz(tmp_path / "clients")
    np.savez(tmp_path / "s.npz", x_train=np.eye(2), y_train=[3, 5], x_test=np.eye(2), y_test=[3, 5])
    data = settings(tmp_path / "clients", name=f"npz:{tmp_path / 's.npz'}", public="0")
    server = load_server_data(data, 0)
    assert server.class_names == ("3", "5")
    assert server.test is not None
    assert load_client_data(data, 0, {"client-id": "a"}, server.terms).targets().tolist() == [0, 1]
    with pytest.raises(BadInput, match=r"b\.npz: label 9 is no class of the run, which has 3, 5"):
        load_client_data(data, 0, {"client-id": "b"}, server.terms)


def test_order_and_other_files(tmp_path: Path) -> None:
    """Client-ids that are numbers come in their order; what is no data is left alone."""
    for name in ("10.npz", "9.npz", "b.csv", "notes.txt", ".hidden.npz"):
        (tmp_path / name).touch()
    assert list(clients_in(tmp_path)) == ["9", "10", "b"]


def test_wrong_folders(tmp_path: Path) -> None:
    """No folder, no data, no client-id, one twice, an unknown client, several kinds: one line each."""
    key = r"^data\.folder-of-clients: "
    with pytest.raises(BadInput, match=rf"{key}given .*none, no such folder on this machine$"):
        clients_in(tmp_path / "none")
    with pytest.raises(
        BadInput, match=rf"{key}.* holds no client's data; wanted a folder, or an npz, csv or"
    ):
        clients_in(tmp_path)
    for folder, names, said in (
        ("1", ["a b.npz"], r".*a b\.npz: its name, the client-id, is 'a b': expected 1 to 64 .*; rename it$"),
        ("2", ["a.csv", "a.npz"], r".*a\.csv and .*a\.npz are both of client 'a'$"),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
        with pytest.raises(BadInput, match=key + said):
            clients_in(tmp_path / folder)
    (tmp_path / "3").mkdir()
    two_npz(tmp_path / "3")
    with pytest.raises(BadInput, match=rf"{key}.* holds no data of client 'c'; it holds those of a, b$"):
        load_client_data(settings(tmp_path / "3"), 0, {"client-id": "c"})
    (tmp_path / "3" / "c.csv").touch()
    clients_in.cache_clear()
    with pytest.raises(BadInput, match=rf"{key}.*[ab]\.npz is a npz and .*c\.csv a table; wanted one kind$"):
        survey(tmp_path / "3", Reading())
