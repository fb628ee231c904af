"""Whose model is used: everybody's, or a client's own, after the run and after a forgetting."""

from pathlib import Path

import pytest
import torch

from app.data.unlabelled import Unlabelled
from app.use import open_subject, rows_of
from app.use.subject import Subject
from app.workflows import forget, train
from app.workflows.session import open_session
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from tests.app import own_networks, test_batch_norm, test_fedmd
from tests.app.test_fedmd import config
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def answers(subject: Subject) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = subject.model(X)
    return found


@pytest.fixture(scope="module")
def own_models(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    home = tmp_path_factory.mktemp("own")
    key = f"run.certificate-key={home / 'key.pem'}"
    folder = train(config(home, "run.name=own", "run.rounds=1", key))
    forget(folder, ForgetRequest(clients=("2",)), ForgetSettings(method="redistill"))
    return folder


def test_each_client_has_a_model_of_its_own(own_models: RunFolder) -> None:
    first, second = open_subject(own_models, client="0"), open_subject(own_models, client="1")
    for client, subject in (("0", first), ("1", second)):
        test = open_session(own_models).server_data.test
        assert test is not None
        found = [int(row["prediction"]) for row in rows_of(subject, Unlabelled(test))]
        right = 100 * float((torch.tensor(found) == test.targets()).float().mean())
        reported = own_models.read_summary()["client-models"][client]["accuracy"]
        assert right == pytest.approx(reported)
    sizes = [sum(p.numel() for p in subject.model.parameters()) for subject in (first, second)]
    assert sizes[0] != sizes[1]
    again = open_subject(own_models, "client-2-redistill", client="0")
    assert not torch.equal(answers(first), answers(again))
    with pytest.raises(BadInput, match=r"fedmd gives every client a model of its own.*give --client ID"):
        open_subject(own_models)
    with pytest.raises(BadInput, match="--client 9: no such client; known clients: 0, 1, 2"):
        open_subject(own_models, client="9")
    with pytest.raises(BadInput, match="--client 2: it has no model after client-2-redistill"):
        open_subject(own_models, "client-2-redistill", client="2")


def test_a_client_of_ditto_has_the_shared_model_and_its_own(tmp_path: Path) -> None:
    keys = (f"run.home={tmp_path}", "strategy.name=ditto", "data.clients=2", "run.rounds=1", "run.workers=1")
    small = ("model.name=mlp", "model.hidden=8", "data.train-limit=100", "data.test-limit=20")
    folder = train(test_fedmd.RunConfig().with_overrides([*keys, *small]))
    shared, own = open_subject(folder), open_subject(folder, client="1")
    assert shared.notes == ["this is the model that all clients share; --client takes the one of a client"]
    assert not torch.equal(answers(shared), answers(own))
    assert own.notes == []


def test_local_layers_are_the_clients(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        own_networks.use(patch)
        folder = train(test_batch_norm.config(tmp_path, "local", "local", "run.rounds=1"))
        with pytest.raises(BadInput, match=r'"local" leaves layers with each client.*give --client ID'):
            open_subject(folder)
        first, second = (open_subject(folder, client=client).model.state_dict() for client in "01")
    for name in ("2.running_mean", "2.weight"):
        assert not torch.equal(first[name], second[name])
    assert torch.equal(first["1.weight"], second["1.weight"])


def test_a_client_that_keeps_none_is_refused(small: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"--client 1: it keeps no model of its own in this run"):
        open_subject(small, client="1")
