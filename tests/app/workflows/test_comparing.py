"""app/workflows/comparing.py: methods over seeds, each measured as an audit measures it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from app.config.run_config import RunConfig
from app.workflows import ComparisonPlan, audit, compare, forget, train
from app.workflows.measured import method_audit
from strategies.core.errors import BadInput, LetheError
from strategies.runs.files import read_json
from strategies.runs.folder import RunFolder
from strategies.task import CLASSIFICATION
from unlearning.methods import METHODS
from unlearning.methods.base import ForgetJob, Outcome
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

SMALL = (
    "run.name=study",
    "run.seed=4",
    "run.rounds=2",
    "run.workers=1",
    "data.clients=3",
    "data.train-limit=240",
    "data.test-limit=80",
    "data.public=0.2",
    "model.name=mlp",
    "model.hidden=16",
    "attack.kind=backdoor",
    "attack.clients=2",
)
CLIENT_2 = ForgetRequest(clients=("2",))
PLAN = ComparisonPlan(CLIENT_2, ("subtract", "distill"), audit=AuditSettings(seeds=1))


class Phases:
    """Notes what is done."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def phase(self, title: str, total: int) -> None:
        self.titles.append(title)

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        pass

    def answered(self, scope: str, done: int, total: int) -> None:
        """Take no note."""

    def note(self, text: str) -> None:
        pass


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(RunConfig().with_overrides([f"run.home={tmp_path_factory.mktemp('runs')}", *SMALL]))


@pytest.fixture(scope="module")
def document(study: RunFolder) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    return compare(study, PLAN, seeds=2)


def test_the_document_is_what_is_stored(study: RunFolder, document: dict[str, object]) -> None:
    assert read_json(study.path / "compare" / "client-2.json") == document
    assert document["seeds"] == [4, 5]
    guessed = [note for note in document["notes"] if "attacker only guesses" in note]
    assert document["mia_counts"] is (not guessed)
    assert document["request"] == CLIENT_2.to_json()


def test_every_figure_has_mean_and_spread(document: dict[str, dict[str, dict[str, object]]]) -> None:
    """Of the run before, retrained, of every method, and of retrainings that differ by chance."""
    assert list(document["methods"]) == ["subtract", "distill", "retrain-other-seed"]
    for figures in (document["before"], document["retrain"], *document["methods"].values()):
        for name in ("unlearning_accuracy", "test_accuracy_gap", "disparity", "seconds", "seconds_ratio"):
            spread = figures[name]
            assert isinstance(spread, dict)
            assert [len(found) for found in spread["values"]] == [1, 1]
            known = [spread[key] is not None for key in ("mean", "std", "low", "high")]
            assert known == [not spread["listed"]] * 4
    for figures, visits in ((document["methods"]["subtract"], 0.0), (document["retrain"], 4.0)):
        found = figures["client_visits"]
        assert (found["mean"], found["std"], found["values"]) == (visits, 0.0, [[visits], [visits]])


def test_what_is_decided_is_in_the_document_and_in_words(document: dict[str, Any]) -> None:
    """Two methods against doing nothing, the floor and each other, by the disparity that counts."""
    found = document["decisions"]
    assert [each["method"] for each in found["nothing"]] == ["subtract", "distill"]
    assert {each["against"] for each in found["floor"]} == {"retrain-other-seed"}
    (pair,) = found["pairs"]
    key = "disparity" if document["mia_counts"] else "disparity_without_mia"
    both = [document["methods"][name][key]["values"] for name in ("subtract", "distill")]
    expected = [one[0] - other[0] for one, other in zip(*both, strict=True)]
    assert pair["values"] == pytest.approx(expected)
    assert document["conclusions"][-1].startswith("Decided means: a paired t-test over 2 training seeds")


def test_poisoned_and_clean_examples_stand_apart(document: dict[str, Any]) -> None:
    figures = document["methods"]["distill"]
    for name in ("unlearning_accuracy_poisoned", "unlearning_accuracy_clean_gap"):
        assert len(figures[name]["values"]) == 2


def test_several_forgettings_differ_by_their_seed_and_begin_with_the_runs_own(
    study: RunFolder, document: dict[str, Any]
) -> None:
    """Distillation draws its batches; subtraction draws nothing, and retraining is made once."""
    found = compare(study, replace(PLAN, relearn=False, forgettings=2, audit=AuditSettings(seeds=0)))
    for method in ("subtract", "distill"):
        ((first, second),) = found["methods"][method]["output_distance_test"]["values"]
        assert [first] == document["methods"][method]["output_distance_test"]["values"][0]
        assert (first == second) == (method == "subtract")
    assert len(found["retrain"]["test_accuracy"]["values"][0]) == 1
    assert (found["forgettings"], found["conclusions"]) == (
        2,
        ["One training seed decides nothing: lethe compare --seeds 5 trains on four more."],
    )


def test_with_one_seed_it_is_the_audit_of_the_run(study: RunFolder) -> None:
    """The same figures, whether audited one by one or compared."""
    plan = ComparisonPlan(CLIENT_2, ("subtract",), relearn=False)
    found = compare(study, plan)["methods"]["subtract"]
    forget(study, CLIENT_2, ForgetSettings(method="subtract"))
    report = audit(study, CLIENT_2, ["subtract"], AuditSettings())
    audited = method_audit(report, "subtract", CLASSIFICATION)
    for name in ("unlearning_accuracy", "test_accuracy", "mia_efficacy", "output_distance_test"):
        assert found[name]["mean"] == pytest.approx(audited["after"][name])
    assert found["disparity"]["mean"] == pytest.approx(audited["disparity"])
    assert found["parameter_distance"]["mean"] == pytest.approx(audited["comparison"]["parameter_distance"])
    assert found["attack_success_rate_gap"]["mean"] == pytest.approx(audited["gaps"]["attack_success_rate"])
    assert (found["relearn_rounds"]["mean"], found["relearn_rounds"]["std"]) == (None, None)


def test_runs_with_other_seeds_are_made_once(study: RunFolder, document: dict[str, object]) -> None:
    """And are runs like this one but for the seed."""
    other = RunFolder.open(study.path / "seeds" / "seed-5")
    configs = [RunConfig.from_toml(folder.path / "config.toml").to_flat() for folder in (study, other)]
    changed = {key for key in configs[0] if configs[0][key] != configs[1][key]}
    assert changed == {"run.home", "run.name", "run.seed"}
    phases = Phases()
    compare(study, replace(PLAN, methods=("subtract",), audit=AuditSettings(), relearn=False), 2, phases)
    assert not any(title.startswith("train") for title in phases.titles)


def test_on_pruned_runs(study: RunFolder) -> None:
    """The sparse run of each seed is compared; the file is named after it."""
    settings = ForgetSettings(prune="omp", sparsity=0.5)
    compare(study, ComparisonPlan(CLIENT_2, ("subtract",), settings, relearn=False))
    stored = read_json(study.path / "compare" / "client-2-omp-0.5.json")
    assert stored["settings"]["prune"] == "omp"
    assert stored["retrain"]["disparity"]["mean"] == 0.0
    sparse = RunFolder.open(study.path / "pruned" / "omp-0.5")
    with pytest.raises(BadInput, match=r"run 'omp-0\.5' is pruned; compare the run it came from"):
        compare(sparse, PLAN)


def test_without_names_every_method_that_serves_the_request(
    study: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class request is not served by those that subtract updates; retraining is the reference."""
    unchanged = {
        name: replace(method, run=lambda job: Outcome(job.run.final)) for name, method in METHODS.items()
    }
    for name, method in unchanged.items():
        if name != "retrain":
            monkeypatch.setitem(METHODS, name, method)
    found = compare(study, ComparisonPlan(ForgetRequest(classes=(3,)), relearn=False))["methods"]
    expected = [n for n, m in METHODS.items() if "class" in m.serves and n not in {"retrain", "reprune"}]
    assert list(found) == [*expected, "retrain-other-seed"]
    assert "finetune" in expected
    assert "subtract" not in expected


def test_a_method_that_fails_is_noted_and_has_no_figures(
    study: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(job: ForgetJob) -> Outcome:
        raise LetheError("the solution is not finite")

    monkeypatch.setitem(METHODS, "fast-fedul", replace(METHODS["fast-fedul"], run=fails))
    found = compare(study, ComparisonPlan(CLIENT_2, ("fast-fedul", "subtract"), relearn=False))
    assert found["methods"]["fast-fedul"] == {}
    assert found["methods"]["subtract"]["disparity"]["mean"] is not None
    assert "seed 4: fast-fedul failed: the solution is not finite" in found["notes"]


def test_what_cannot_be_served_is_refused_before_any_work(study: RunFolder) -> None:
    phases = Phases()
    with pytest.raises(BadInput, match="subtract does not serve a class request"):
        compare(study, ComparisonPlan(ForgetRequest(classes=(3,)), ("finetune", "subtract")), 3, phases)
    with pytest.raises(BadInput, match="unknown method 'hope'"):
        compare(study, ComparisonPlan(CLIENT_2, ("hope",)), 3, phases)
    assert phases.titles == []
