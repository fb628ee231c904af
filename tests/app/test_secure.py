"""Secure aggregation from end to end in one process tree: train, interrupt, resume, forget, refuse."""

import json
from pathlib import Path

import pytest
import torch

from app.config.run_config import RunConfig
from app.workflows import audit, forget, resume, train
from app.workflows.fresh_seeds import STARTS, fresh_seed
from app.workflows.session import open_session
from strategies.core.errors import BadInput, LetheError
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import RunFolder
from strategies.runs.json_lines import read_lines
from strategies.runs.tensor_file import read_sealed
from tests.app.runs import StopAfter, Stopped, flat_model, flat_of
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

SMALL = (
    "run.rounds=3",
    "run.workers=1",
    "data.clients=4",
    "data.train-limit=400",
    "data.test-limit=100",
    "data.public=0",
    "model.name=mlp",
    "model.hidden=16",
    "log.enabled=false",
)
SECURE = ("privacy.secure-aggregation=true",)


def config(home: Path, *overrides: str) -> RunConfig:
    return RunConfig().with_overrides([f"run.home={home}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(config(tmp_path_factory.mktemp("runs"), "run.name=finished", *SECURE))


def test_the_model_is_that_of_plain_averaging(finished: RunFolder, tmp_path: Path) -> None:
    """Cut at 2^-32 of a weighted update, not at 2^-39, they agree to a rounding of float32 each round."""
    plain = train(config(tmp_path, "run.name=plain"))
    assert torch.allclose(flat_model(finished), flat_model(plain), rtol=0, atol=1e-6)
    lines, plain_lines = finished.read_metrics(), plain.read_metrics()
    assert [line["test-accuracy"] for line in lines] == [line["test-accuracy"] for line in plain_lines]
    assert [line["train-loss"] for line in lines] == pytest.approx([x["train-loss"] for x in plain_lines])


def test_nothing_of_a_single_client_is_written_down(finished: RunFolder) -> None:
    summary = finished.read_summary()
    assert summary["clients"] == {"0": {}, "1": {}, "2": {}, "3": {}}
    assert summary["faults"] == []
    assert summary["secure-aggregation"]["threshold"] == 0.67
    assert "num-steps" not in json.dumps(finished.read_metrics())
    assert not finished.log_path.exists()


def test_an_interrupted_run_resumes_with_fresh_randomness_of_its_clients(
    finished: RunFolder, tmp_path: Path
) -> None:
    """Round 3 may have been asked of others before; up to there the run is that which nothing interrupted."""
    with pytest.raises(Stopped):
        train(config(tmp_path, "run.name=cut", *SECURE), StopAfter(2))
    cut = RunFolder.open("cut", tmp_path)
    checkpoint = cut.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.round == 2
    resume(cut)
    seen = [[line["train-loss"] for line in run.read_metrics()] for run in (cut, finished)]
    assert seen[0][:2] == seen[1][:2]
    assert seen[0][2] != seen[1][2]
    starts = read_lines(cut.path / STARTS)
    assert [line["number"] for line in starts] == [0, 1]
    assert starts[0]["seed"] == 0 != starts[1]["seed"]


def test_a_plain_run_still_resumes_to_the_same_model(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(config(tmp_path, "run.name=cut"), StopAfter(2))
    again = resume(RunFolder.open("cut", tmp_path))
    assert flat_model(again).equal(flat_model(train(config(tmp_path, "run.name=whole"))))
    assert not (again.path / STARTS).exists()


def test_a_class_and_a_client_are_forgotten_by_masked_retraining(finished: RunFolder) -> None:
    for request in (ForgetRequest(clients=("1",)), ForgetRequest(classes=(3,))):
        path = finished.forget_folder(forget(finished, request, ForgetSettings(method="retrain")))
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
        assert result["warnings"] == []
        assert result["traffic"]["visits"] >= 3 * 3 * 4
        state = dict(read_sealed(path / "model.safetensors").tensors)
        assert not flat_of(state).equal(flat_model(finished))


HIDDEN = {
    "masked": SECURE,
    "ckks": ("privacy.encryption=ckks",),
}


def test_where_nobody_would_remain_nothing_is_certified(finished: RunFolder) -> None:
    """Masked clients hide what they hold, so it is seen when nobody adds anything to any sum."""
    everything = ForgetRequest(samples={str(i): tuple(range(100)) for i in range(4)})
    with pytest.raises(LetheError, match=r"no client took part in any round.*no client has an example left"):
        forget(finished, everything, ForgetSettings(method="retrain"))
    assert not (finished.path / "forget" / f"{everything.name}-retrain").exists()


@pytest.mark.parametrize("how", HIDDEN)
def test_two_sums_that_differ_by_a_client_do_not_tell_its_update(how: str, tmp_path: Path) -> None:
    """The server has both sums of a round, n θ: with the same seed and weights their difference is n_C δ_C.

    What client 1 sent is known from a plain run with a log, whose clients draw the same numbers. Each client
    has two of ten labels, so that the updates point their own ways; a sum of four has a cosine of about a
    half with each of them.
    """
    skewed = (
        "run.rounds=1",
        "data.partition=shards",
        "data.clients=5",
        f"privacy.encryption-key={tmp_path}/ckks.key",
    )
    ran = skewed if how == "ckks" else skewed[:3]
    hidden = train(config(tmp_path, f"run.name={how}", *ran, *HIDDEN[how]))
    plain = train(config(tmp_path, "run.name=plain", *skewed[:3], "log.enabled=true"))
    sizes = {i: known["num-examples"] for i, known in plain.read_summary()["clients"].items()}
    sent = UpdateLog.open(plain.log_path).delta(1, "1")
    for request in (
        ForgetRequest(clients=("1",)),
        ForgetRequest(samples={"1": tuple(range(sizes["1"] - 1))}),
    ):
        path = hidden.forget_folder(forget(hidden, request, ForgetSettings(method="retrain")))
        result = json.loads((path / "result.json").read_text(encoding="utf-8"))
        assert any("another seed" in note for note in result["notes"])
        began = flat_of(open_session(hidden).model_of(result["details"]["seed"]).state_dict())
        after = flat_of(dict(read_sealed(path / "model.safetensors").tensors))
        total = sum(sizes.values())
        left = total - (sizes["1"] if request.clients else sizes["1"] - 1)
        first = total * (flat_model(hidden) - flat_of(hidden.read_initial()))
        difference = first - left * (after - began)
        cosine = float(torch.cosine_similarity(difference, sent, dim=0))
        assert abs(cosine) < 0.5
        assert not began.equal(flat_of(hidden.read_initial()))


def test_every_training_of_hidden_sums_has_a_seed_of_its_own(finished: RunFolder) -> None:
    """However often the same is asked: another survivor would be the difference of two sums."""
    seeds = []
    for _ in range(2):
        name = forget(finished, ForgetRequest(clients=("3",)), ForgetSettings(method="retrain"))
        result = json.loads((finished.forget_folder(name) / "result.json").read_text(encoding="utf-8"))
        seeds.append(result["details"]["seed"])
        certificate = json.loads((finished.forget_folder(name) / "certificate.json").read_text())
        limits = certificate["certificate"]["limits"]
        assert any("the sums of two trainings over nearly the same clients" in limit for limit in limits)
    lines = read_lines(finished.path / STARTS)
    assert lines[0]["seed"] == 0
    assert {line["seed"] for line in lines} >= set(seeds)
    assert len({line["seed"] for line in lines}) == len(lines)


def test_seeds_of_trainings_repeat_with_the_history_and_never_within_it(tmp_path: Path) -> None:
    """A sparse run inside shares the count; a run with another seed has its own; one at a time takes one."""
    runs = [RunFolder.create(str(tmp_path), name, "", "fedavg") for name in ("one", "two")]
    inside = RunFolder.create(str(runs[0].path / "pruned"), "omp-0.9", "", "fedavg")
    given = [
        fresh_seed(runs[0], 7, "train", first=True),
        fresh_seed(inside, 7, "train", first=True),
        fresh_seed(runs[0], 7, "after the run"),
    ]
    assert given[0] == 7
    assert len(set(given)) == 3
    assert [fresh_seed(runs[1], 7, "train", first=True)] + [fresh_seed(runs[1], 7, "") for _ in "ab"] == given
    assert fresh_seed(runs[1], 8, "", first=True) == 8
    assert fresh_seed(RunFolder.create(str(tmp_path), "old", "", "fedavg"), 7, "after the run") == given[1]


def test_a_method_that_asks_clients_one_by_one_is_refused(finished: RunFolder) -> None:
    with pytest.raises(BadInput, match="trained under secure aggregation, where the server gets sums only"):
        forget(finished, ForgetRequest(classes=(3,)), ForgetSettings(method="fisher"))


def test_an_audit_of_masked_clients_is_refused_unless_their_answers_are_asked_for(
    finished: RunFolder,
) -> None:
    """Refused before any work; with sums there is no membership attack, and its figure is missing, not 0."""
    request = ForgetRequest(clients=("2",))
    with pytest.raises(
        BadInput, match=r'^audit\.answers: given "auto", but clients of a run with privacy\.sec'
    ):
        audit(finished, request, ["retrain"], AuditSettings())
    assert not list((finished.path / "forget").glob("*2-retrain"))
    forget(finished, request, ForgetSettings(method="retrain"))
    report = audit(finished, request, ["retrain"], AuditSettings(answers="aggregate"))
    before = report.measurements["before"]
    assert before.missing == {}
    assert before.sums_only == ("0", "1", "2", "3")
    assert before.unlearning_accuracy is not None
    assert before.mia_efficacy is None


def test_too_many_examples(tmp_path: Path) -> None:
    """Every client has 100 examples, 50 are allowed: all refuse, and the run fails with its first model."""
    with pytest.raises(
        LetheError, match=r"no reply .* \(client 0: .*more examples: privacy\.max-examples allows 50;"
    ):
        train(config(tmp_path, "run.name=many", "run.rounds=1", "privacy.max-examples=50", *SECURE))
    folder = RunFolder.open("many", tmp_path)
    reasons = {fault["reason"] for fault in folder.read_summary()["faults"] if fault["client"] == "0"}
    assert any("privacy.max-examples allows 50" in reason for reason in reasons)
    initial = folder.read_initial()
    assert flat_model(folder).equal(flat_of(initial))


def test_client_level_privacy_and_masks(tmp_path: Path) -> None:
    for unit in ("client-local", "client-central"):
        private = (f"privacy.unit={unit}", "privacy.noise-multiplier=0.2", "privacy.delta=0.01")
        folder = train(config(tmp_path, f"run.name={unit}", "run.rounds=2", *private, *SECURE))
        summary = folder.read_summary()
        assert summary["faults"] == []
        assert summary["privacy"]["epsilon"] > 0
        assert all(row["epsilon"] > 0 for row in summary["privacy"]["clients"].values())
