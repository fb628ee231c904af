"""Encrypted updates from end to end in one process tree: train, retrain, prune, and what is refused."""

from pathlib import Path

import pytest
import torch
from flwr.app import Message

from app.client.encryption_key import make_key, secret_in
from app.config.run_config import RunConfig
from app.workflows import forget, resume, train
from benchmarks.inline import InlineGrid
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.layers.encryption.ckks import Secret
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from tests.app.runs import flat_model
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "run.rounds=1",
    "run.workers=1",
    "data.clients=3",
    "data.train-limit=300",
    "data.test-limit=200",
    "model.name=mlp",
    "model.hidden=128",
    "log.enabled=false",
)
PRUNED = ("strategy.name=pruned-dp", "strategy.score=ordered", "strategy.keep=0.25")


def config(home: Path, *overrides: str) -> RunConfig:
    return RunConfig().with_overrides([f"run.home={home}", *SMALL, *overrides])


def encrypted(home: Path, *overrides: str) -> RunConfig:
    key = f"privacy.encryption-key={home}/keys/ckks.key"
    return config(home, "privacy.encryption=ckks", key, *overrides)


@pytest.fixture(scope="module")
def finished(home: Path) -> RunFolder:
    return train(encrypted(home, "run.name=encrypted"))


def test_the_model_is_that_of_a_plain_run_within_the_schemes_precision(
    home: Path, finished: RunFolder
) -> None:
    torch.testing.assert_close(flat_model(finished), flat_model(train(config(home))), rtol=0, atol=1e-4)


def test_pruned_clients_encrypt_their_part_alone_and_learn_what_plain_ones_do(
    home: Path, finished: RunFolder
) -> None:
    pruned = train(encrypted(home, *PRUNED))
    torch.testing.assert_close(
        flat_model(pruned), flat_model(train(config(home, *PRUNED))), rtol=0, atol=1e-4
    )
    whole, part = (folder.read_metrics()[0]["bytes-up"] for folder in (finished, pruned))
    assert part < 0.75 * whole


def test_the_key_is_the_clients_alone_and_nothing_of_it_is_in_the_run(
    home: Path, finished: RunFolder
) -> None:
    path = home / "keys" / "ckks.key"
    assert path.stat().st_mode & 0o777 == 0o600
    key = path.read_bytes()
    assert len(key) > 1000
    for file in (file for file in finished.path.rglob("*") if file.is_file()):
        assert key[500:564] not in file.read_bytes()


def test_a_client_is_forgotten_by_encrypted_retraining_and_by_nothing_that_answers_in_the_clear(
    finished: RunFolder,
) -> None:
    request = ForgetRequest(clients=("1",))
    before = flat_model(finished)
    name = forget(finished, request, ForgetSettings(method="retrain"))
    state = read_sealed(finished.forget_folder(name) / "model.safetensors").tensors
    assert not wire.Layout.of(state).flatten(state).equal(before)
    with pytest.raises(BadInput, match="finetune has clients answer for themselves"):
        forget(finished, request, ForgetSettings(method="finetune"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("log.enabled=true",), "log.enabled: given true"),
        (("strategy.name=flwr:FedAdam",), "strategy.name: given"),
        (("compression.codec=sign",), "compression.codec: given"),
        (("privacy.secure-aggregation=true",), "privacy.secure-aggregation: given true"),
        (("run.federated-evaluation=true",), "run.federated-evaluation: given true"),
        (("selection.method=oort",), "selection.method: given"),
        (("privacy.unit=client-central", "privacy.noise-multiplier=1"), "privacy.unit: given"),
        ((*PRUNED, "strategy.score=random"), "strategy.score: given"),
        ((*PRUNED, "strategy.keeps=1=0.5"), "strategy.keeps: given"),
        ((*PRUNED, "strategy.score=magnitude"), "strategy.refresh: given 5"),
    ],
)
def test_what_the_server_could_not_add_up_is_refused(
    tmp_path: Path, keys: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        encrypted(tmp_path, *keys)


def test_a_key_alone_has_no_effect_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"privacy\.encryption-key"):
        config(tmp_path, "privacy.encryption-key=/elsewhere")


def test_without_the_library_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.client.encryption_key.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"TenSEAL is not installed: pip install 'lethe-fl\[ckks\]'"):
        train(encrypted(tmp_path))


def test_a_run_of_clients_without_a_key_fails_before_the_first_round(tmp_path: Path) -> None:
    wanted = encrypted(tmp_path)
    with pytest.raises(BadInput, match=r"^every client says: privacy\.encryption-key: there is no such key"):
        train(wanted, None, InlineGrid(wanted))


def test_a_run_whose_first_sum_nobody_decrypts_fails_and_is_resumed_once_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = encrypted(tmp_path, "run.name=kept")
    make_key(tmp_path / "keys" / "ckks.key")
    with monkeypatch.context() as patch:
        patch.setattr("app.client_app.decrypted_reply", refused)
        with pytest.raises(
            LetheError, match=r"the first round could use no client's update \(client 0: refused"
        ):
            train(wanted, None, InlineGrid(wanted))
    folder = RunFolder.open(tmp_path / "kept")
    assert (folder.read_checkpoint(), folder.read_metrics()) == (None, [])
    resume(folder, None, InlineGrid(wanted))
    assert folder.read_metrics()[0]["accepted"] == ["0", "1", "2"]


def refused(message: Message, client_id: str, _: Secret) -> Message:
    return wire.reply_to(message, client_id, {}, config={wire.REFUSED: "the key is gone"})


def test_clients_whose_key_is_missing_or_open_to_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ckks.key"
    with pytest.raises(BadInput, match=r"there is no such key; make one with lethe keys FOLDER --encryption"):
        secret_in(path)
    assert make_key(path)
    assert not make_key(path)
    path.chmod(0o644)
    with pytest.raises(BadInput, match="others may read the key"):
        secret_in(path)
    path.write_bytes(b"nonsense")
    path.chmod(0o600)
    with pytest.raises(BadInput, match="no CKKS key"):
        secret_in(path)


def test_a_run_whose_clients_cannot_encrypt_does_not_begin(tmp_path: Path) -> None:
    key = tmp_path / "keys" / "ckks.key"
    key.parent.mkdir()
    key.write_bytes(b"nonsense")
    key.chmod(0o600)
    with pytest.raises(LetheError):
        train(encrypted(tmp_path))
