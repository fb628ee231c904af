"""Runs of models with frozen parts, dropout, buffers and tied weights, from end to end."""

from pathlib import Path

import pytest
import torch

from app.workflows import audit, forget, train
from app.workflows.session import open_session
from strategies.client.evaluation import evaluate
from strategies.core.errors import BadInput
from strategies.log.update_log import UpdateLog
from strategies.runs.files import read_json
from strategies.runs.folder import MODEL, STAYING, RunFolder
from strategies.runs.tensor_file import read_sealed, write_sealed
from tests.app.conftest import CLIENT_2
from tests.app.own_networks import COUNTING, DROPOUT, FROZEN, ODD, SECURE, TIED, config
from tests.app.runs import flat_model, flat_of
from unlearning.audit.audit import AuditSettings
from unlearning.settings import ForgetSettings

SMALL = ("run.rounds=2", "data.train-limit=150")
TRAINED = ["2.weight", "2.bias", "4.weight", "4.bias"]
SIZE = (8 * 8 + 8) + (8 * 10 + 10)
pytestmark = pytest.mark.usefixtures("_own_networks")


def run(home: Path, name: str, network: int, *overrides: str) -> RunFolder:
    return train(config(home, name, network, *SMALL, *overrides))


@pytest.fixture(scope="module")
def half_frozen(home: Path) -> RunFolder:
    return run(home, "frozen", FROZEN)


def test_frozen_parts_are_not_sent_logged_or_counted(half_frozen: RunFolder) -> None:
    """Of 8·64 + 8 + 162 numbers, 162 travel: four bytes each, to three clients and back, in two rounds."""
    assert list(half_frozen.read_model()) == list(half_frozen.read_initial()) == TRAINED
    assert list(half_frozen.read_staying()) == ["1.0.weight", "1.0.bias"]
    log = UpdateLog.open(half_frozen.log_path)
    assert log.layout.size == SIZE
    traffic = half_frozen.read_summary()["traffic"]
    assert 0 <= traffic["bytes-up"] - 4 * SIZE * 3 * 2 < 2000
    assert half_frozen.read_summary()["model"] == {"name": "mlp", "parameters": 520 + SIZE, "frozen": 520}


def test_the_final_model_is_whole_with_what_stays(half_frozen: RunFolder) -> None:
    """Loaded from the folder, it has the accuracy that the run reports."""
    session = open_session(half_frozen)
    model = session.model()
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in half_frozen.read_staying().items())
    other = session.model_of(7)
    assert torch.equal(other.state_dict()["1.0.weight"], model.state_dict()["1.0.weight"])
    assert not torch.equal(other.state_dict()["2.weight"], model.state_dict()["2.weight"])
    model.load_state_dict(half_frozen.read_model(), strict=False)
    test = session.server_data.test
    assert test is not None
    assert evaluate(model, test).accuracy == pytest.approx(
        half_frozen.read_summary()["final"]["test-accuracy"]
    )


@pytest.mark.check
@pytest.mark.parametrize(
    "method",
    ["retrain", "finetune", "subtract", "federaser", "negate", "fisher", "influence", "ascent", "distill"],
)
def test_every_kind_of_method_forgets_beside_a_frozen_part(method: str, half_frozen: RunFolder) -> None:
    settings = ForgetSettings(method=method).with_own("influence", alphas="0.01, 0.1, 1")
    path = half_frozen.forget_folder(forget(half_frozen, CLIENT_2, settings))
    after = read_sealed(path / MODEL).tensors
    assert list(after) == TRAINED
    assert not all(torch.equal(t, after[name]) for name, t in half_frozen.read_model().items())


def test_an_audit_runs_beside_a_frozen_part(half_frozen: RunFolder) -> None:
    forget(half_frozen, CLIENT_2, ForgetSettings(method="subtract"))
    assert audit(half_frozen, CLIENT_2, ["subtract"], AuditSettings()).to_json()


def test_a_run_is_pruned_beside_a_frozen_part(half_frozen: RunFolder) -> None:
    settings = ForgetSettings(method="subtract", prune="omp", sparsity=0.5)
    forget(half_frozen, CLIENT_2, settings)
    (sparse,) = (half_frozen.path / "pruned").iterdir()
    masks = RunFolder(sparse).read_mask()
    assert masks is not None
    assert set(masks.tensors) <= {"2.weight", "4.weight"}


@pytest.mark.check
@pytest.mark.parametrize(
    "overrides",
    [
        ("privacy.unit=example", "privacy.noise-multiplier=1"),
        SECURE,
        ("compression.codec=top-k",),
        ("strategy.name=scaffold", "train.momentum=0"),
        ("strategy.name=gossip",),
        ("strategy.name=fedbuff", "strategy.buffer-size=2"),
        ("strategy.name=coded-gd",),
    ],
)
def test_whatever_wraps_the_training_leaves_a_frozen_part_alone(
    overrides: tuple[str, ...], home: Path, request: pytest.FixtureRequest
) -> None:
    made = run(home, f"wrapped-{abs(hash(request.node.name))}", FROZEN, "run.rounds=1", *overrides)
    assert list(made.read_model()) == TRAINED
    assert not flat_model(made).equal(flat_of(made.read_initial()))


def test_neurons_of_a_frozen_model_are_not_left_out(home: Path) -> None:
    with pytest.raises(BadInput, match=r"parameter '1\.0\.weight' is frozen, so no neurons can be left out"):
        run(home, "left-out", FROZEN, "strategy.name=pruned-dp", "strategy.keep=0.5")
    assert not (home / "left-out").exists()


def test_a_client_whose_frozen_part_is_another_is_refused(home: Path) -> None:
    """Its bias is made from the number of the process."""
    with pytest.raises(
        BadInput, match=r"every client says: model\.name: the parts of 'mlp' that do not travel are not"
    ):
        run(home, "odd", ODD)


def test_dropout_is_decided_by_run_client_and_round(home: Path) -> None:
    one = flat_model(run(home, "one-worker", DROPOUT))
    assert one.equal(flat_model(run(home, "two-workers", DROPOUT, "run.workers=2")))
    assert not one.equal(flat_model(run(home, "other-seed", DROPOUT, "run.seed=1")))


@pytest.mark.check
def test_dropout_in_private_training_is_as_well(home: Path) -> None:
    private = ("privacy.unit=example", "privacy.noise-multiplier=1", "privacy.randomness=seeded")
    one = flat_model(run(home, "private-one", DROPOUT, *private))
    assert one.equal(flat_model(run(home, "private-two", DROPOUT, *private, "run.workers=2")))


@pytest.mark.check
def test_a_forgetting_on_the_server_repeats_itself_with_dropout(home: Path) -> None:
    first, second = run(home, "first", DROPOUT), run(home, "second", DROPOUT)
    made = []
    for folder in (first, second):
        path = folder.forget_folder(forget(folder, CLIENT_2, ForgetSettings(method="distill")))
        made.append(flat_of(read_sealed(path / MODEL).tensors))
    assert made[0].equal(made[1])


def test_no_client_sees_another_ones_buffers(home: Path) -> None:
    """All three share the model of one worker; with three workers each has its own."""
    alone = run(home, "shared", COUNTING)
    assert flat_model(alone).equal(flat_model(run(home, "apart", COUNTING, "run.workers=3")))
    assert alone.read_staying()["seen"].item() == 0


def test_tied_weights_travel_once(home: Path) -> None:
    tied = run(home, "tied", TIED)
    assert list(tied.read_model()) == [
        "first.weight",
        "first.bias",
        "second.bias",
        "head.weight",
        "head.bias",
    ]
    assert not (tied.path / STAYING).exists()
    path = tied.forget_folder(forget(tied, CLIENT_2, ForgetSettings(method="finetune")))
    assert list(read_sealed(path / MODEL).tensors) == list(tied.read_model())


def test_a_run_begins_from_an_earlier_runs_model_and_a_certificate_says_so(home: Path) -> None:
    first = run(home, "began", FROZEN)
    second = run(home, "went-on", FROZEN, "model.weights=began", "run.seed=5")
    assert flat_of(second.read_initial()).equal(flat_model(first))
    assert flat_of(second.read_staying()).equal(flat_of(first.read_staying()))  # Of the other run's seed
    weights = second.read_summary()["model"]["weights"]
    assert weights["path"] == str(first.path / MODEL)
    path = second.forget_folder(forget(second, CLIENT_2, ForgetSettings(method="retrain")))
    statement = read_json(path / "certificate.json")["certificate"]
    assert statement["initial weights"] == weights["sha256"]
    assert any(
        "had seen of the forgotten data before is not forgotten" in each for each in statement["limits"]
    )


def test_a_run_is_forgotten_from_after_the_weights_file_is_gone(home: Path, tmp_path: Path) -> None:
    first = run(home, "lent", FROZEN)
    path = tmp_path / "w.safetensors"
    write_sealed(path, {**first.read_staying(), **first.read_model()})
    second = run(home, "borrowed", FROZEN, f"model.weights={path}", "run.seed=5")
    path.unlink()
    made = second.forget_folder(forget(second, CLIENT_2, ForgetSettings(method="retrain")))
    assert list(read_sealed(made / MODEL).tensors) == TRAINED


@pytest.mark.check
def test_hidden_sums_are_not_retrained_from_given_weights(home: Path) -> None:
    run(home, "open", FROZEN)
    secure = run(home, "hidden", FROZEN, "model.weights=open", *SECURE)
    with pytest.raises(BadInput, match=r"retrain begins from the weights that the run was given"):
        forget(secure, CLIENT_2, ForgetSettings(method="retrain"))


def test_weights_of_another_model_leave_nothing_behind(home: Path) -> None:
    run(home, "small", FROZEN)
    with pytest.raises(BadInput, match=r"model\.weights: .* is of another architecture than 'mlp': missing"):
        run(home, "large", DROPOUT, "model.weights=small")
    assert not (home / "large").exists()
