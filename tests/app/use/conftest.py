"""A run on a table whose columns are brought to one scale; its file is gone by the time that it is used."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.config.run_config import RunConfig
from app.workflows import train
from strategies.runs.folder import RunFolder


def table(seed: int, rows: int = 90) -> pd.DataFrame:
    """Return rows of two columns of very different size, of a city, and of who is ill."""
    generator = np.random.default_rng(seed)
    ill = np.arange(rows) % 2
    return pd.DataFrame(
        {
            "size": 5000 + 900 * generator.random(rows) + 600 * ill,
            "dose": 0.001 * generator.random(rows),
            "city": np.where(generator.random(rows) < 0.5, "Rome", "Oslo"),
            "ill": np.where(ill, "yes", "no"),
        }
    )


@pytest.fixture(scope="session")
def on_table(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run on a table, whose file was removed."""
    home = tmp_path_factory.mktemp("tables")
    table(0).to_csv(home / "all.csv", index=False)
    keys = (
        f"run.home={home}",
        f"run.certificate-key={home / 'key.pem'}",
        f"data.name=csv:{home / 'all.csv'}",
        "data.target=ill",
        "data.scale=standard",
        "data.clients=3",
        "run.rounds=8",
        "train.learning-rate=0.1",
        "run.workers=1",
        "model.name=mlp",
        "model.hidden=8",
    )
    folder = train(RunConfig().with_overrides(list(keys)))
    Path(home, "all.csv").unlink()
    return folder
