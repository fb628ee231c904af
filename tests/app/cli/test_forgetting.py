"""app/cli/forgetting.py: requests and settings reach the workflow, and results reach the user."""

import json
from pathlib import Path

import pytest

from app.cli import output
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from tests.app.cli.conftest import Command, Workflows
from tests.app.report.run_folders import VERDICT, add_forgetting, add_rounds, finish, judged, new_run
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings
from unlearning.traits.rounds import RoundSettings


@pytest.fixture
def study(tmp_path: Path, workflows: Workflows) -> RunFolder:
    folder = new_run(tmp_path)
    add_rounds(folder)
    finish(folder)
    return folder


def test_clients(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    assert lethe("forget", "study", "--client", "1", "--client", "hospital-a").status == 0
    ((_, request, settings),) = workflows.calls
    assert request == ForgetRequest(clients=("1", "hospital-a"))
    assert settings.method == "fast-distill"


def test_classes(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    lethe("forget", "study", "--class", "7", "--class", "2")
    assert workflows.calls[0][1] == ForgetRequest(classes=(2, 7))


def test_samples(lethe: Command, workflows: Workflows, study: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "samples.json"
    file.write_text('{"1": [4, 2]}')
    lethe("forget", "study", "--samples", str(file))
    assert workflows.calls[0][1] == ForgetRequest(samples={"1": (2, 4)})


def test_method_and_settings(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    lethe(
        "forget", "study", "--client", "1", "--method", "retrain", "--set", "forget.distill.temperature=2.5"
    )
    settings = workflows.calls[0][2]
    assert settings == ForgetSettings(method="retrain").with_own("distill", temperature=2.5)


def test_a_run_is_found_by_path_as_well(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    assert lethe("forget", str(study.path), "--client", "1", home=False).status == 0


def test_forgetting_in_words(lethe: Command, study: RunFolder) -> None:
    lines = lethe("forget", "study", "--client", "1").out.splitlines()
    folder = study.path / "forget" / "client-1-fast-distill"
    assert lines == [
        "client 1 of run study, forgotten by fast-distill in 0.50 s with 0 client visits",
        "note: a note of the method",
        "not audited: how close it came to retraining is not known; --audit measures it",
        f"model: {folder / 'model.safetensors'}",
        f"certificate: {folder / 'certificate.json'}",
        f"report: {study.path / 'report.html'}",
    ]


def test_forgetting_as_json(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    """The workflow prints and reports progress; none of it reaches stdout."""
    ended = lethe("forget", "study", "--client", "1", "--json")
    document = json.loads(ended.out)
    assert document["forgetting"] == "client-1-fast-distill"
    assert document["result"]["method"] == "fast-distill"
    assert document["audit"] is None
    assert "a library that prints" in ended.err


def test_forgetting_with_audit(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    arguments = ["--set", "audit.mia-draws=15", "--set", "forget.finetune.epochs=2"]
    ended = lethe("forget", "study", "--client", "1", "--audit", *arguments, "--json")
    assert [call[0] for call in workflows.calls] == ["forget", "audit"]
    assert workflows.calls[0][2].own("finetune", RoundSettings).epochs == 2
    assert workflows.calls[1][2] == ["fast-distill"]
    assert workflows.calls[1][3].mia_draws == 15
    assert json.loads(ended.out)["audit"]["disparity"] == 0.625


def test_audit_takes_the_methods_that_were_used(
    lethe: Command, workflows: Workflows, study: RunFolder
) -> None:
    for method in ("distill", "retrain", "subtract"):
        add_forgetting(study, method)
    other = {"kind": "client", "clients": ["0"], "classes": [], "samples": {}}
    add_forgetting(study, "negate", other)
    lethe("audit", "study", "--client", "1")
    assert workflows.calls[0][2] == ["distill", "subtract"]


def test_audit_of_a_retraining_alone(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    """The model before is compared with it, although nothing else was made."""
    add_forgetting(study, "retrain")
    assert lethe("audit", "study", "--client", "1").status == 0
    assert workflows.calls[0][2] == ["retrain"]


def test_audit_of_some_methods_as_json(lethe: Command, workflows: Workflows, study: RunFolder) -> None:
    methods = ["--method", "subtract", "--method", "distill", "--method", "subtract"]
    document = json.loads(lethe("audit", "study", "--client", "1", *methods, "--json").out)
    assert list(document["audits"]) == ["subtract", "distill"]
    assert document["audits"]["distill"]["gaps"]["test_accuracy"] == -1.0
    assert document["request"] == {"kind": "client", "clients": ["1"], "classes": [], "samples": {}}
    assert Path(document["report"]).exists()


def test_audit_in_words(lethe: Command, study: RunFolder) -> None:
    add_forgetting(study)
    lines = lethe("audit", "study", "--client", "1").out.splitlines()
    assert lines[0] == "client 1, forgotten by distill:"
    assert lines[1].split() == ["model", "TA", "RA", "UA", "MIA", "ASR", "seconds"]
    assert [line.split()[0] for line in lines[2:5]] == ["before", "after", "retrained"]
    assert lines[5] == "note: the backdoor did not take: no conclusion"
    assert lines[6] == "disparity: 0.6 points (mean distance to the retrained model)"


def test_the_verdict_is_said_and_counts_without_a_guessing_attacker(
    study: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = add_forgetting(study)
    judged(path)
    output.print_audit(read_json(path / "audit.json"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4:7] for line in lines[1:4]] == [["3.0", "±", "1.2"]] * 3
    assert lines[5] == "disparity: 0.8 points (mean distance to the retrained model)"
    assert lines[6] == f"verdict: {VERDICT['text']}"


def test_pruning_reaches_the_settings_and_its_answer_is_found(
    lethe: Command, workflows: Workflows, study: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer lies in the folder of the sparse run, and so do its audit and report."""
    sparse = new_run(study.path / "pruned", "omp-0.9")
    add_rounds(sparse)
    finish(sparse)
    monkeypatch.setattr(workflows, "answers_in", sparse)
    arguments = ["--client", "1", "--prune", "omp", "--sparsity", "0.9", "--audit", "--json"]
    document = json.loads(lethe("forget", "study", *arguments).out)
    assert (workflows.calls[0][2].prune, workflows.calls[0][2].sparsity) == ("omp", 0.9)
    assert document["path"] == str(sparse.path)
    assert document["audit"]["disparity"] == 0.625


def test_sparsity_without_pruning_has_no_effect_and_is_refused(lethe: Command, study: RunFolder) -> None:
    ended = lethe("forget", "study", "--client", "1", "--sparsity", "0.9")
    assert ended.status == 2
    assert "forget.sparsity: given 0.9, which has an effect only with forget.prune" in ended.err


def test_what_was_forgotten_before_reaches_the_workflow(
    lethe: Command, workflows: Workflows, study: RunFolder
) -> None:
    """With an audit, too; that of an answer that is not there is refused."""
    earlier = ["--after", "client-0-distill", "--method", "subtract"]
    ended = lethe("forget", "study", "--client", "1", *earlier)
    assert workflows.calls[0][3] == "client-0-distill"
    assert ended.status == 0
    ended = lethe("audit", "study", "--client", "1", "--after", "client-0-distill")
    assert ended.status == 2
    assert "client-1 was not forgotten yet" in ended.err


def test_a_purge_is_checked_before_and_made_after(
    lethe: Command, workflows: Workflows, study: RunFolder
) -> None:
    ended = lethe("forget", "study", "--client", "1", "--audit", "--purge")
    assert [call[0] for call in workflows.calls] == ["check_purge", "forget", "audit", "purge"]
    assert workflows.calls[-1] == ("purge", study.path, "client-1-fast-distill")
    assert "client 1 purged from log, 2026-01-01T00:00:00Z" in ended.out.splitlines()
    document = json.loads(lethe("forget", "study", "--client", "1", "--purge", "--json").out)
    assert [each["log"] for each in document["purged"]] == ["log"]


def test_an_interrupted_purge_is_all_that_is_left_to_do(
    lethe: Command, workflows: Workflows, study: RunFolder
) -> None:
    """The updates may be gone, so the forgetting is not repeated."""
    workflows.served = add_forgetting(study).name
    assert lethe("forget", "study", "--client", "1", "--audit", "--purge").status == 0
    assert [call[0] for call in workflows.calls] == ["check_purge", "audit", "purge"]
