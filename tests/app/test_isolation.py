"""Groups of clients that are trained apart, from end to end: train, resume, forget, audit, use."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.config.run_config import RunConfig
from app.forgettings.names import CERTIFICATE, RESULT
from app.use.exporting import export
from app.use.subject import open_subject
from app.workflows import audit, forget, resume, train
from app.workflows.session import Session
from app.workflows.suspecting import suspects
from strategies.core.errors import BadInput
from strategies.core.isolation import group_of
from strategies.log.update_log import UpdateLog
from strategies.models import travelling
from strategies.models.ensemble import Ensemble, members_of
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from tests.app.runs import StopAfter, Stopped, flat_model, flat_of
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

SMALL = (
    "run.rounds=2",
    "run.workers=1",
    "run.federated-evaluation=true",
    "data.clients=4",
    "data.local-test-share=0.2",
    "data.train-limit=240",
    "data.test-limit=80",
    "model.name=mlp",
    "model.hidden=8",
    "train.isolation=2",
)
CLIENT_2 = ForgetRequest(clients=("2",))


def config_of(home: Path, name: str, *more: str) -> RunConfig:
    """Return the config of a run of four clients in two groups."""
    key = f"run.certificate-key={home / 'keys' / 'certificate.pem'}"
    return RunConfig().with_overrides([f"run.home={home}", f"run.name={name}", key, *SMALL, *more])


@pytest.fixture(scope="module")
def folder(home: Path) -> RunFolder:
    """Return a run."""
    return train(config_of(home, "apart"))


@pytest.fixture(scope="module")
def forgotten(folder: RunFolder) -> Path:
    """Return where client 2 was forgotten, by the method that is chosen without a name."""
    return folder.forget_folder(forget(folder, CLIENT_2, ForgetSettings()))


def test_forgetting_retrains_one_group_to_the_bits_of_a_run_without_the_client(
    folder: RunFolder, forgotten: Path, home: Path
) -> None:
    result = read_json(forgotten / RESULT)
    assert result["method"] == "retrain"
    assert result["traffic"]["visits"] == 4  # Client 0 trains and measures, in two rounds
    after = flat_of(read_sealed(forgotten / "model.safetensors").tensors)
    without = train(config_of(home, "without", "data.without=2"))
    assert after.equal(flat_model(without))
    assert members_of(after, 2)[1].equal(members_of(flat_model(folder), 2)[1])


def test_its_certificate_says_what_exact_rests_on(forgotten: Path) -> None:
    statement = read_json(forgotten / CERTIFICATE)["certificate"]
    assert statement["method"]["guarantee"] == "exact"
    assert [text for text in statement["limits"] if text.startswith("exact rests on this: group 0 of the 2")]


def test_the_audit_finds_the_retrained_model(folder: RunFolder, forgotten: Path) -> None:
    report = audit(folder, CLIENT_2, ["retrain"], AuditSettings(seeds=0))
    assert report.comparisons["retrain"].disparity == 0
    assert report.measurements["retrain"].num_forget > 0


def test_each_groups_model_moved_by_what_the_log_says(folder: RunFolder) -> None:
    log = UpdateLog.open(folder.log_path)
    moved = flat_model(folder) - flat_of(folder.read_initial())
    for group, step in enumerate(members_of(moved, 2)):
        clients = [i for i in log.clients() if group_of(i, 2) == group]
        said = sum((log.weighted_sum(i) for i in clients), torch.zeros(()))
        torch.testing.assert_close(said, step, rtol=1e-4, atol=1e-5)


def test_a_killed_run_goes_on_to_the_same_model(folder: RunFolder, home: Path) -> None:
    with pytest.raises(Stopped):
        train(config_of(home, "killed"), StopAfter(1))
    assert flat_model(resume(RunFolder.open(home / "killed"))).equal(flat_model(folder))


def test_the_model_answers_by_the_mean_of_its_members(
    folder: RunFolder, forgotten: Path, tmp_path: Path
) -> None:
    subject = open_subject(folder, forgotten.name)
    inputs = torch.rand(5, 1, 8, 8)
    assert isinstance(subject.model, Ensemble)
    said = [member(inputs).softmax(dim=1) for member in subject.model.members]
    torch.testing.assert_close(subject.model(inputs).softmax(dim=1), (said[0] + said[1]) / 2)
    made = export(subject, "torch", tmp_path / "out")
    loaded = torch.export.load(made.path / "model.pt2").module()
    torch.testing.assert_close(loaded(inputs), subject.model(inputs))
    assert made.description["compared"] is True


def test_the_clients_measured_the_ensemble(folder: RunFolder) -> None:
    """Its loss on what the clients hold out is less than that of a single member would be."""
    assert 0 < folder.read_summary()["final"]["client-loss"] < 3


def test_members_begin_with_weights_of_their_own_and_share_what_stays() -> None:
    session = Session.of(RunConfig().with_overrides(["data.clients=4", "data.train-limit=240", *SMALL[-2:]]))
    first, second = members_of(travelling.vector_of(session.model()), 2)
    assert first.equal(travelling.vector_of(session.member(session.config.run.seed)))
    assert not first.equal(second)
    assert session.staying == {}


def one_less(home: Path) -> Tensor:
    return flat_model(train(config_of(home, "one-less", "train.isolation=4", "data.without=1")))


def test_a_group_that_nobody_is_left_of_is_left_out(home: Path, tmp_path: Path) -> None:
    """Client 1 is a group by itself: nobody trains again, and the ensemble is one of three."""
    folder = train(config_of(home, "alone", "train.isolation=4"))
    name = forget(folder, ForgetRequest(clients=("1",)), ForgetSettings())
    after = flat_of(read_sealed(folder.forget_folder(name) / "model.safetensors").tensors)
    assert after.equal(one_less(home))
    model = open_subject(folder, name).model
    assert isinstance(model, Ensemble)
    assert len(model.members) == 3
    export(open_subject(folder, name), "torch", tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("strategy.name=scaffold", "train.isolation: given 2, which has an effect only with a strategy that"),
        (
            "strategy.name=fedbuff",
            "train.isolation: given 2, .* strategy that averages updates into one model",
        ),
        ("privacy.secure-aggregation=true", "train.isolation: .* privacy.secure-aggregation = false"),
        ("compression.codec=int8", 'train.isolation: .* compression.codec = "none"'),
        ("forget.prune=omp", 'train.isolation: .* forget.prune = "none"'),
        ("train.isolation=5", "train.isolation: given 5, allowed at most data.clients, which is 4"),
        ("train.isolation=0", "train.isolation: given 0, allowed an integer >= 1"),
    ],
)
def test_what_does_not_go_with_it_is_refused(home: Path, more: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        config_of(home, "refused", more)


def test_pruning_for_a_request_is_refused(folder: RunFolder) -> None:
    with pytest.raises(BadInput, match=r'forget\.prune: given "omp", but train\.isolation is 2'):
        forget(folder, CLIENT_2, ForgetSettings(method="retrain", prune="omp"))


def test_clients_of_different_models_are_not_compared(folder: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"train\.isolation: given 2, but suspects compares updates"):
        suspects(folder)
