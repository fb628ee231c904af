"""app/workflows/other_seeds.py: retrainings that differ by chance alone, and what an audit makes of them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from flwr.serverapp import Grid

from app.config.run_config import RunConfig
from app.models.built_in import build_model
from app.workflows import audit, forget, train
from app.workflows.other_seeds import seeds_of, with_seed
from app.workflows.session import Session, open_session
from app.workflows.trained import open_trained_run
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from unlearning import forgetting
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

SMALL = (
    "run.seed=5",
    "run.rounds=2",
    "run.workers=1",
    "data.clients=3",
    "data.train-limit=240",
    "data.test-limit=80",
    "model.name=mlp",
    "model.hidden=16",
)
CLIENT_2 = ForgetRequest(clients=("2",))


@pytest.fixture(scope="module")
def grid() -> Iterator[Grid]:
    with Session.of(RunConfig().with_overrides(SMALL)).local_grid() as started:
        yield started


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, grid: Grid) -> RunFolder:
    home = tmp_path_factory.mktemp("runs")
    folder = train(RunConfig().with_overrides([f"run.home={home}", "run.name=r", *SMALL]), grid=grid)
    forget(folder, CLIENT_2, ForgetSettings(method="subtract"), grid=grid)
    audit(folder, CLIENT_2, ["subtract"], AuditSettings(seeds=2), grid=grid)
    return folder


def test_the_seeds_follow_the_runs_own(audited: RunFolder) -> None:
    run = open_trained_run(audited, open_session(audited))
    assert seeds_of(run, 2) == [6, 7]
    assert seeds_of(run, 0) == []


def test_another_seed_begins_with_other_weights(audited: RunFolder) -> None:
    session = open_session(audited)
    run = open_trained_run(audited, session)
    other = with_seed(run, session, 6)
    shape, classes = session.server_data.input_shape, session.server_data.num_groups
    expected = build_model(session.config.model, shape, classes, 6).state_dict()
    assert other.initial.equal(run.layout.flatten(expected))
    assert other.plan.seed == 6
    assert with_seed(run, session, 5).initial.equal(run.initial)


def test_a_pruned_run_keeps_its_initial_weights(audited: RunFolder) -> None:
    """A mask fits the weights it was found with."""
    session = open_session(audited)
    run = open_trained_run(audited, session)
    pruned = replace(run, mask=torch.ones(run.layout.size, dtype=torch.bool))
    assert with_seed(pruned, session, 6).initial.equal(run.initial)
    assert with_seed(pruned, session, 6).plan.seed == 6


def test_the_audit_gives_the_scale(audited: RunFolder) -> None:
    """Two retrainings with other seeds are as far from the retrained model as chance puts them."""
    document = read_json(audited.path / "forget" / "client-2-subtract" / "audit.json")
    assert list(document["scale"]) == ["retrain-seed-6", "retrain-seed-7"]
    for found in document["scale"].values():
        assert found["parameter_distance"] > 0
        assert found["disparity"] >= 0


def test_the_clients_draw_from_the_other_seed(audited: RunFolder, grid: Grid) -> None:
    """From the same initial weights, selection and data, another seed still gives another model."""
    session = open_session(audited)
    run = open_trained_run(audited, session)
    with session.cohort(grid) as cohort:
        plain = [
            forgetting.forget(run, CLIENT_2, "retrain", session.config.forget, view).flat
            for view in (cohort, cohort.seeded(5), cohort.seeded(6))
        ]
    assert plain[0].equal(plain[1])
    assert not plain[0].equal(plain[2])


def test_they_are_made_once(audited: RunFolder, grid: Grid) -> None:
    """And kept beside the retrained model, with the time that they took; a later audit finds them."""
    path = audited.path / "forget" / "client-2-retrain" / "retrain-seed-6.safetensors"
    assert float(read_sealed(path).metadata["seconds"]) > 0
    before = path.stat().st_mtime_ns
    audit(audited, CLIENT_2, ["subtract"], AuditSettings(seeds=1), grid=grid)
    assert path.stat().st_mtime_ns == before
    document = read_json(audited.path / "forget" / "client-2-subtract" / "audit.json")
    assert list(document["scale"]) == ["retrain-seed-6", "retrain-seed-7"]
