"""data.local-test-share: what a client holds out is measured on, and nowhere trained on or forgotten."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.config.run_config import RunConfig
from app.config.settings import DataSettings
from app.data.partition import partition_indices
from app.workflows import audit, forget, train
from strategies.client.holdout import held_out
from strategies.core.errors import BadInput
from strategies.runs.folder import MODEL, RunFolder
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

CLIENTS, EACH, SHARE = 2, 60, 0.4
RETRAIN = ForgetSettings(method="retrain")
FINETUNE = ForgetSettings.of("finetune", epochs=1)


def write_data(path: Path, spoil: bool = False) -> None:
    """Write two classes; with `spoil`, what the clients hold out is something else, of the other class."""
    generator = np.random.default_rng(5)
    y = np.arange(CLIENTS * EACH) % 2
    x = generator.normal(size=(len(y), 4)).astype(np.float32) + 2 * y[:, None]
    test = {"x_test": x[:10].copy(), "y_test": y[:10].copy()}
    if spoil:
        parts = partition_indices(y, DataSettings(partition="iid"), CLIENTS, 0)
        aside = np.concatenate([part[held_out(SHARE, str(i), EACH).numpy()] for i, part in enumerate(parts)])
        x[aside], y[aside] = generator.normal(size=(len(aside), 4)) * 50, 1 - y[aside]
    np.savez(path, x_train=x, y_train=y, **test)


def trained(home: Path, name: str, *overrides: str, spoil: bool = False) -> RunFolder:
    """Return a run of two clients."""
    write_data(home / "data.npz", spoil)
    keys = (
        f"run.home={home}",
        f"run.name={name}",
        f"run.certificate-key={home / 'key.pem'}",
        f"data.name=npz:{home / 'data.npz'}",
        f"data.local-test-share={SHARE}",
        "data.public=0",
        f"data.clients={CLIENTS}",
        "run.rounds=2",
        "run.workers=1",
        "model.name=mlp",
        "model.hidden=4",
    )
    return train(RunConfig().with_overrides([*keys, *overrides]))


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("strategy.name=coded-gd", "strategy.stragglers=1"),
        ("privacy.unit=example", "privacy.noise-multiplier=1", "privacy.randomness=seeded"),
        ("strategy.name=ditto",),
    ],
    ids=["fedavg", "coded-gd", "private", "ditto"],
)
def test_what_is_held_out_has_no_part_in_the_model(more: tuple[str, ...], tmp_path: Path) -> None:
    """Other held-out examples, the same bits; and the clients' counts are those of the rest."""
    honest = trained(tmp_path, "honest", *more)
    spoiled = trained(tmp_path, "spoiled", *more, spoil=True)
    assert (honest.path / MODEL).read_bytes() == (spoiled.path / MODEL).read_bytes()
    aside = [int(held_out(SHARE, str(i), EACH).sum()) for i in range(CLIENTS)]
    counts = [known["num-examples"] for known in honest.read_summary()["clients"].values()]
    assert counts == [EACH - number for number in aside]


def test_federated_evaluation_measures_what_is_held_out(tmp_path: Path) -> None:
    """Where the held-out examples are wrong on purpose, it sees that; the server's own test does not."""
    told = []
    for spoil in (False, True):
        run = trained(
            tmp_path,
            f"run-{spoil}",
            "run.federated-evaluation=true",
            "run.rounds=8",
            "train.local-epochs=5",
            "train.learning-rate=0.1",
            spoil=spoil,
        )
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
        told.append(json.loads(lines[-1]))
    good, bad = (line["client-accuracy"] for line in told)
    assert good > 85
    assert bad < 75
    assert not any(line.get("failures") for line in told)


def test_an_audit_asks_about_nothing_that_is_held_out(tmp_path: Path) -> None:
    """The audit's figures of the forgotten and retained examples are the same whatever was held out."""
    kept = (~held_out(SHARE, "0", EACH)).nonzero().flatten().tolist()
    for request in (ForgetRequest(samples={"0": tuple(kept[-3:])}), ForgetRequest(clients=("1",))):
        found = []
        for spoil in (False, True):
            run = trained(tmp_path, f"{request.kind}-{spoil}", spoil=spoil)
            forget(run, request, FINETUNE)
            report = audit(run, request, ["finetune"], AuditSettings(seeds=0)).to_json()
            found.append(report["comparisons"]["finetune"]["gaps"])
        assert found[0] == found[1]


def test_positions_count_over_all_of_a_clients_data(tmp_path: Path) -> None:
    """Retraining without one position gives what a file without that example gives."""
    aside = held_out(SHARE, "0", EACH)
    position = int((~aside).nonzero().flatten()[-1])
    assert position > int((~aside).sum())  # Beyond what counting the trained ones alone could name
    run = trained(tmp_path, "run")
    name = forget(run, ForgetRequest(samples={"0": (position,)}), RETRAIN)
    certificate = json.loads((run.forget_folder(name) / "certificate.json").read_bytes())["certificate"]
    assert certificate["request"]["samples"] == {"0": [position]}
    assert (run.forget_folder(name) / MODEL).read_bytes() != (run.path / MODEL).read_bytes()


def test_an_example_that_was_held_out_is_not_forgotten(tmp_path: Path) -> None:
    """In one line before any work, and no folder is left."""
    run = trained(tmp_path, "run")
    position = int(held_out(SHARE, "0", EACH).nonzero()[0])
    with pytest.raises(BadInput, match=f"example {position} of client 0 was held out"):
        forget(run, ForgetRequest(samples={"0": (position,)}), RETRAIN)
    with pytest.raises(BadInput, match="client 0 has at most"):
        forget(run, ForgetRequest(samples={"0": (10**15,)}), RETRAIN)
    assert not list(run.path.glob("forget/*"))
