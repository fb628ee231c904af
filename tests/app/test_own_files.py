"""Clients with files of their own, from end to end: what each reads, one scale for all, and forgetting."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from app.config.run_config import RunConfig
from app.simulation import LocalGrid
from app.workflows import forget, train
from app.workflows.local_clients import CLIENT_APP
from app.workflows.session import open_session
from strategies.client.holdout import held_out
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import in_memory
from strategies.runs.folder import SCALE, RunFolder
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

CLIENTS = ("a", "b", "north-1")


def table(seed: int, rows: int = 30) -> pd.DataFrame:
    """Return rows of two columns of very different size, and of a city."""
    generator = np.random.default_rng(seed)
    ill = np.arange(rows) % 2
    return pd.DataFrame(
        {
            "size": 5000 * generator.random(rows) * (1 + ill),
            "dose": 0.001 * generator.random(rows),
            "city": np.where(generator.random(rows) < 0.5, "Rome", "Oslo"),
            "ill": ill,
        }
    )


def tables(folder: Path, form: str = "csv") -> dict[str, pd.DataFrame]:
    """Write a table for each client; return them."""
    folder.mkdir()
    made = {client: table(i) for i, client in enumerate(CLIENTS)}
    for client, frame in made.items():
        if form == "csv":
            frame.to_csv(folder / f"{client}.csv", index=False)
        else:
            frame.to_parquet(folder / f"{client}.parquet")
    return made


def config(home: Path, *overrides: str) -> RunConfig:
    """Return a small run."""
    keys = (
        f"run.home={home}",
        f"run.certificate-key={home / 'key.pem'}",
        "run.name=r",
        "run.rounds=2",
        "run.workers=1",
        "model.name=mlp",
        "model.hidden=4",
    )
    return RunConfig().with_overrides([*keys, *overrides])


def of_clients(home: Path, *more: str) -> RunConfig:
    """Return a run of clients with a table each, on a scale that they agree on."""
    return config(
        home, f"data.folder-of-clients={home / 'clients'}", "data.target=ill", "data.scale=federated", *more
    )


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_on_one_scale_and_a_client_forgotten(tmp_path: Path, form: str) -> None:
    """The scale is scikit-learn's over all rows; it is kept after forgetting, and the certificate says so."""
    made = tables(tmp_path / "clients", form)
    folder = train(of_clients(tmp_path, "data.local-test-share=0.2", "run.federated-evaluation=true"))
    summary = folder.read_summary()
    assert sorted(summary["clients"]) == sorted(CLIENTS)
    assert not summary["faults"]
    scale = json.loads((folder.path / SCALE).read_text())
    kept = [frame[~held_out(0.2, client, len(frame)).numpy()] for client, frame in made.items()]
    pooled = pd.concat(kept)
    inputs = np.stack([pooled["size"], pooled["dose"], pooled.city == "Oslo", pooled.city == "Rome"], axis=1)
    known = StandardScaler().fit(inputs.astype(np.float32).astype(np.float64))
    assert scale["means"] == pytest.approx(known.mean_.tolist(), rel=1e-12)
    assert scale["deviations"] == pytest.approx(known.scale_.tolist(), rel=1e-9)
    result = forget(folder, ForgetRequest(clients=("b",)), ForgetSettings(method="retrain"))
    certificate = json.loads((folder.path / "forget" / result / "certificate.json").read_text())[
        "certificate"
    ]
    assert any("part of what was forgotten is still in them" in limit for limit in certificate["limits"])


def test_a_run_without_a_scale_says_nothing_of_one(tmp_path: Path) -> None:
    """The limit stands only where it holds."""
    tables(tmp_path / "clients")
    folder = train(of_clients(tmp_path, "data.scale=none"))
    result = forget(folder, ForgetRequest(clients=("b",)), ForgetSettings(method="retrain"))
    certificate = json.loads((folder.path / "forget" / result / "certificate.json").read_text())[
        "certificate"
    ]
    assert not any("means and deviations" in limit for limit in certificate["limits"])


def accuracies(folder: RunFolder) -> list[float]:
    """Return the clients' accuracy in each round."""
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    return [
        value
        for line in lines
        for key, value in json.loads(line).items()
        if "client" in key and "accuracy" in key
    ]


def test_own_test_data_are_measured_on_and_not_trained_on(tmp_path: Path) -> None:
    """Each client's test arrays are what it is measured on: other labels, other figures, one model."""
    runs = {}
    for flip in (0, 1):
        home = tmp_path / str(flip)
        (home / "clients").mkdir(parents=True)
        for i, client in enumerate(CLIENTS):
            x = np.random.default_rng(i).normal(size=(20, 3))
            y = (x[:, 0] > 0).astype(int)
            np.savez(
                home / "clients" / f"{client}.npz", x_train=x, y_train=y, x_test=x, y_test=np.abs(y - flip)
            )
        runs[flip] = train(
            config(
                home,
                f"data.folder-of-clients={home / 'clients'}",
                "run.federated-evaluation=true",
                "run.rounds=5",
                "train.learning-rate=0.2",
            )
        )
    models = [runs[flip].read_model() for flip in (0, 1)]
    assert all(tensor.equal(models[1][name]) for name, tensor in models[0].items())
    right, wrong = (accuracies(runs[flip])[-1] for flip in (0, 1))
    assert right > 60
    assert wrong == pytest.approx(100 - right)
    assert {info["num-examples"] for info in runs[0].read_summary()["clients"].values()} == {20}


def test_refusals(tmp_path: Path) -> None:
    """Too few clients, a number of clients that is not theirs, an unknown category, a model of images."""
    tables(tmp_path / "clients")
    with pytest.raises(
        BadInput, match=r"^data\.clients: given 5, but data\.folder-of-clients holds those of 3; leave"
    ):
        train(of_clients(tmp_path, "data.clients=5"))
    (tmp_path / "clients" / "north-1.csv").unlink()
    from app.data.clients import clients_in

    clients_in.cache_clear()
    with pytest.raises(
        BadInput, match=r"^analytics\.min-clients: given 3, allowed at most data\.clients, which is 2$"
    ):
        train(of_clients(tmp_path))
    with pytest.raises(BadInput, match=r"^data\.scale: given .federated., whose means and deviations"):
        config(tmp_path, "data.scale=federated", "privacy.unit=example", "privacy.epsilon=1")
    with pytest.raises(BadInput, match=r'^data\.scale: given "federated", which is for tables'):
        train(config(tmp_path, "data.scale=federated", "data.clients=3", "data.train-limit=60"))
    assert not (tmp_path / "r").exists()


def test_a_category_of_one_client_alone(tmp_path: Path) -> None:
    """A server with a table of its own sends its schema: a client with another city is left out."""
    made = tables(tmp_path / "clients")
    table(9).to_csv(tmp_path / "server.csv", index=False)
    made["b"].assign(city="Bonn").to_csv(tmp_path / "clients" / "b.csv", index=False)
    folder = train(
        of_clients(tmp_path, f"data.name=csv:{tmp_path / 'server.csv'}", "data.scale=none", "data.public=0")
    )
    faults = folder.read_summary()["faults"]
    assert [fault["client"] for fault in faults] == ["b"]
    assert "'Bonn' is no category of column 'city' in the run, which has Oslo, Rome" in faults[0]["reason"]
    assert sorted(folder.read_summary()["clients"]) == ["a", "north-1"]
    with pytest.raises(LetheError, match=r"is connected|are connected|client"):
        train(of_clients(tmp_path, f"data.name=csv:{tmp_path / 'server.csv'}", "data.public=0", "run.name=s"))


def test_nodes_with_paths_of_their_own(tmp_path: Path) -> None:
    """Nodes name their files, the server's table says the columns: one scale, without the server's rows."""
    made = tables(tmp_path / "clients")
    table(9).to_csv(tmp_path / "server.csv", index=False)
    run = config(
        tmp_path,
        f"data.name=csv:{tmp_path / 'server.csv'}",
        "data.target=ill",
        "data.scale=federated",
        "data.public=0",
        "data.test-share=0.5",
    )
    nodes = [
        {"client-id": client, "data.path": str(tmp_path / "clients" / f"{client}.csv")} for client in CLIENTS
    ]
    with LocalGrid(CLIENT_APP, run.to_flat(), len(nodes), workers=1, node_configs=nodes) as grid:
        folder = train(run, grid=grid)
        assert not folder.read_summary()["faults"]
        pooled = pd.concat(made.values())
        scale = json.loads((folder.path / SCALE).read_text())
        assert scale["means"][0] == pytest.approx(
            pooled["size"].astype(np.float32).astype(float).mean(), rel=1e-12
        )
        again = open_session(folder)
        assert again.scale == (*scale["means"], *scale["deviations"])
        test = again.server_data.test
        assert test is not None
        assert abs(float(in_memory(test).x.mean())) < 1  # The server's rows are on the clients' scale


def test_a_regression_keeps_its_numbers(tmp_path: Path) -> None:
    """The task says that the target is a number: no classes, and one output."""
    table(3, 80).assign(dose=lambda frame: frame["size"] / 1e4).to_csv(tmp_path / "t.csv", index=False)
    folder = train(
        config(
            tmp_path,
            f"data.name=csv:{tmp_path / 't.csv'}",
            "data.target=dose",
            "task.name=regression",
            "data.clients=3",
            "data.scale=federated",
            "data.public=0",
            "train.learning-rate=0.01",
        )
    )
    summary = folder.read_summary()
    assert summary["data"]["class-names"] == []
    assert not summary["faults"]
    *_, last = folder.read_model().values()
    assert last.shape[0] == 1
    assert last.isfinite().all()
