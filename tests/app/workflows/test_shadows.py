"""Shadow models of a small run: on the same data, made once, gone on with where they stopped, or refused."""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, RecordDict

from app.config.run_config import RunConfig
from app.forgettings.folder import read_audit
from app.forgettings.names import AUDIT, CERTIFICATE
from app.forgettings.verify import verify
from app.simulation.grid import LocalGrid
from app.workflows import ComparisonPlan, audit, compare, forget, purge, shadows, train
from app.workflows.observer import Quiet
from app.workflows.opened import OpenedRun
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.log.update_log import UpdateLog
from strategies.runs.files import read_json
from strategies.runs.folder import MODEL, RunFolder
from strategies.runs.tensor_file import read_sealed
from strategies.server.cohort import Cohort
from strategies.server.grids import GridWrapper
from tests.app.conftest import CLIENT_2, SMALL
from unlearning.audit import gathering, own_attack
from unlearning.audit.evidence import AuditAnswer
from unlearning.audit.margins import Margins
from unlearning.audit.measurement import measure
from unlearning.audit.shadow_attack import ShadowFindings
from unlearning.forget_spec import ForgetSpec
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

THREE = AuditSettings(seeds=1, shadows=3)
SUMS = THREE.model_copy(update={"answers": "aggregate"})


def audited(folder: RunFolder, settings: AuditSettings = THREE, **options: object) -> dict[str, object]:
    audit(folder, CLIENT_2, ["subtract"], settings, **options)  # type: ignore[arg-type]
    found = read_audit(folder.path / "forget" / "client-2-subtract")
    assert found is not None
    return found


def models_in(folder: RunFolder) -> dict[str, float]:
    """Return when each file with a model of a shadow was written."""
    return {
        str(path.relative_to(folder.path)): path.stat().st_mtime_ns
        for path in sorted((folder.path / shadows.FOLDER).rglob("*.safetensors"))
        if path.name == MODEL or path.parent.name == shadows.MODELS
    }


def test_shadows_are_runs_on_the_same_data_and_their_retraining_is_the_audit_s(small: RunFolder) -> None:
    found = audited(small)["shadows"]
    assert isinstance(found, dict)
    assert found["forgotten"]["pairs"] == 3
    assert found["outcome"] == "undecided"
    assert "needs at least 8" in found["text"]
    assert {each["client"] for each in found["most-exposed"]} == {"2"}
    known = read_json(small.path / "summary.json")["clients"]
    flats = []
    for seed in (1, 2, 3):
        shadow = RunFolder(small.path / shadows.FOLDER / f"seed-{seed}")
        config = RunConfig.from_toml(shadow.path / "config.toml")
        assert (config.run.seed, config.data_seed, config.run.rounds) == (seed, 0, 3)
        assert read_json(shadow.path / "summary.json")["clients"] == known
        flats.append(torch.cat([t.flatten() for t in read_sealed(shadow.path / MODEL).tensors.values()]))
    assert not torch.equal(flats[0], flats[1])
    shadow = RunFolder(small.path / shadows.FOLDER / "seed-1")
    again = shadow.path / "forget" / forget(shadow, CLIENT_2, ForgetSettings(method="retrain")) / MODEL
    kept = small.path / "forget" / "client-2-retrain" / "retrain-seed-1.safetensors"
    ours, theirs = read_sealed(again).tensors, read_sealed(kept).tensors
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_was_made_is_kept_and_one_that_was_interrupted_goes_on(
    small: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Quiet):
        """Twice: where shadows are trained, which is side by side, and where they are retrained."""

        at = "seed-2: round 2"

        def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
            if message == self.at:
                raise KeyboardInterrupt

    interrupted = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        audited(small, observer=interrupted)
    assert models_in(small) == {}
    begun = [RunFolder(small.path / shadows.FOLDER / f"seed-{seed}") for seed in (1, 2, 3)]
    assert [len(shadow.read_metrics()) for shadow in begun] == [2, 2, 1]
    interrupted.at = "seed-3: 2 of 3"
    with pytest.raises(KeyboardInterrupt):
        audited(small, observer=interrupted)
    first = models_in(small)
    assert len(first) == 6
    assert [len(shadow.read_metrics()) for shadow in begun] == [3, 3, 3]
    audited(small)
    second = models_in(small)
    assert len(second) == 6
    assert first.items() <= second.items()
    monkeypatch.setattr(shadows, "train", None)
    document = audited(small)
    assert models_in(small) == second
    monkeypatch.undo()
    audited(small, AuditSettings(seeds=1, shadows=4))
    assert second.items() <= models_in(small).items()
    assert len(models_in(small)) == 8
    forget(small, CLIENT_2, ForgetSettings.of("subtract", form="renormalised"))
    other = audited(small)
    assert len(models_in(small)) == 11
    assert other["shadows"] != document["shadows"]


def test_an_audit_without_shadows_still_attacks_single_examples(small: RunFolder) -> None:
    found = audited(small, AuditSettings(seeds=1))
    assert found["shadows"] is None
    single = found["single-examples"]
    assert isinstance(single, dict)
    assert single["references"] == 1
    assert all(0 <= single[key] <= 1 for key in ("area", "before", "retrained"))
    assert not (small.path / shadows.FOLDER).exists()


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("privacy.unit=example", "privacy.noise-multiplier=1.0"), "the run is private, and its ε does not"),
        (("strategy.name=ditto",), "each client has a model, or layers, of its own"),
    ],
)
def test_runs_that_cannot_have_shadows_are_refused(
    overrides: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    more = (f"run.home={tmp_path}", f"run.certificate-key={tmp_path / 'key.pem'}", "audit.answers=examples")
    folder = train(RunConfig().with_overrides([*SMALL, *more, *overrides]))
    forget(folder, CLIENT_2, ForgetSettings(method="retrain"))
    with pytest.raises(
        BadInput, match=f"audit.shadows: client-2 cannot be attacked by shadow models: {reason}"
    ):
        audit(folder, CLIENT_2, ["retrain"], AuditSettings(shadows=8, seeds=0, answers="examples"))


@pytest.mark.parametrize("known", [True, False])
def test_clients_behind_a_grid_are_told_the_shadow_s_config_or_its_seed(
    known: bool, small: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were started with another one: if it is not known, that of the command that asks for the audit."""
    told: list[object] = []
    push = LocalGrid.push_messages

    def noting(grid: LocalGrid, messages: Iterable[Message]) -> list[str]:
        kept = list(messages)
        told.extend(
            (
                record.get(wire.SEED),
                json.loads(str(record.get(wire.RUN_CONFIG, "{}"))).get("run.seed"),
            )
            for message in kept
            if message.metadata.message_type == "train"
            for record in message.content.config_records.values()
        )
        return list(push(grid, kept))

    monkeypatch.setattr(LocalGrid, "push_messages", noting)
    opened = OpenedRun.of(small, Quiet())
    with opened.session.local_grid() as grid:
        behind = grid if known else GridWrapper(grid)
        shadows.trained_with(small, opened.session.config, 7, Quiet(), behind)
    assert len(told) >= 9  # Three clients or more in three rounds
    assert set(told) == {(7, None) if known else (None, 7)}


def test_an_audit_again_loses_nothing_that_an_earlier_one_found(small: RunFolder) -> None:
    """Else evidence against a forgetting could be taken out of its certificate."""
    first = audited(small, AuditSettings(seeds=1, shadows=3, rounding="8", relearn=2))
    files, again = models_in(small), audited(small, AuditSettings(seeds=1, rounding="4"))
    assert again["relearned"] == first["relearned"]
    assert first["relearned"]["most"] == 2  # type: ignore[index]
    single = again["single-examples"]
    assert isinstance(single, dict)
    assert single["references"] == 3  # Those of the shadows are there anyway
    assert isinstance(again["shadows"], dict)
    assert again["shadows"]["forgotten"]["pairs"] == 3
    assert set(again["rounded"]) == {"8", "4"}  # type: ignore[call-overload]
    assert models_in(small) == files
    sums = audited(small, AuditSettings(answers="aggregate"))
    assert isinstance(sums["shadows"], dict)
    assert sums["shadows"]["forgotten"]["pairs"] == 3
    assert models_in(small) == files


def test_what_was_found_against_a_forgetting_stays_when_its_client_does_not_answer_any_more(
    small: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has left: a later audit asks it in vain, and what it cannot measure is no improvement."""
    first = audited(small, AuditSettings(seeds=1, shadows=3, relearn=2))
    decode = gathering.decode_answer

    def unless_forgotten(content: RecordDict, spec: ForgetSpec, *rest: object) -> AuditAnswer:
        if spec.everything:
            raise ValueError("it has left")
        return decode(content, spec, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(gathering, "decode_answer", unless_forgotten)
    again = audited(small, AuditSettings(seeds=1))
    assert again["after"]["num_forget"] == 0  # type: ignore[index]
    assert (again["shadows"], again["relearned"]) == (first["shadows"], first["relearned"])
    said = [note for note in again["notes"] if "told nothing this time" in note]  # type: ignore[attr-defined]
    assert [note.partition(" told")[0] for note in said] == ["the attack with shadow models", "relearning"]
    limits = read_json(small.path / "forget" / "client-2-subtract" / CERTIFICATE)["certificate"]["limits"]
    assert not any("no attack with shadow models was made" in limit for limit in limits)


def test_clients_that_tell_sums_attack_their_own_examples(small: RunFolder) -> None:
    """One client holds all that is forgotten, so it finds what the server finds that is told everything."""
    told, own = (audited(small, settings)["shadows"] for settings in (THREE, SUMS))
    assert isinstance(told, dict)
    assert isinstance(own, dict)
    for name in ("forgotten", "nothing"):
        assert own[name] == {**told[name], "most_exposed": []}
    assert own["divergences"]["forget"] == told["divergences"]["forget"]
    assert (own["outcome"], own["text"], own["audited"]) == (told["outcome"], told["text"], told["audited"])
    assert own["most-exposed"] == []
    assert told["most-exposed"]
    assert set(own["by-client"]) == {"2"}
    assert own["by-client"]["2"]["area"] == own["forgotten"]["area"]
    assert own["retained"] is None  # The client keeps nothing


def test_a_class_that_several_clients_hold_is_attacked_by_each(small: RunFolder) -> None:
    request = ForgetRequest(classes=(1,))
    forget(small, request, ForgetSettings.of("finetune", epochs=1))
    audit(small, request, ["finetune"], SUMS)
    found = read_audit(small.path / "forget" / "class-1-finetune")
    assert found is not None
    own = found["shadows"]
    assert set(own["by-client"]) == {"0", "1", "2"}
    assert sum(each["examples"] for each in own["by-client"].values()) == found["after"]["num_forget"]
    assert own["forgotten"]["p_value"] == min(each["p_value"] for each in own["by-client"].values())
    assert "whose examples are told best of 3 attacked by themselves" in own["text"]
    assert "for 3 clients together needs at least 10" in own["text"]
    assert all(own["retained"][key] is not None for key in ("area", "p_value"))


def test_a_client_that_is_silent_about_the_shadows_keeps_its_part_of_the_class_from_passing(
    small: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers about the audited models, so it is known to hold some; about all shadows it says nothing."""
    request, told = ForgetRequest(classes=(1,)), []
    forget(small, request, ForgetSettings.of("finetune", epochs=1))
    under, without = shadows.margins_under, ShadowFindings.without_word_of

    def silenced(*given: object) -> Margins:
        made = under(*given)  # type: ignore[arg-type]
        return replace(
            made,
            **{
                part: {i: v for i, v in getattr(made, part).items() if i != "0"}
                for part in ("forgotten", "kept")
            },
        )

    def noting(found: ShadowFindings, clients: Collection[str]) -> ShadowFindings:
        told.append((found.clients, set(clients)))
        return without(found, clients)

    monkeypatch.setattr(shadows, "margins_under", silenced)
    monkeypatch.setattr(ShadowFindings, "without_word_of", noting)
    audit(small, request, ["finetune"], THREE)
    assert told == [(("1", "2"), {"0"})]


@pytest.mark.parametrize(
    ("request_", "silent"),
    [(ForgetRequest(classes=(1,)), {"4", "9"}), (ForgetRequest(clients=("4",)), {"4"})],
)
def test_who_never_answered_may_hold_some_of_a_class_and_is_named_otherwise(
    request_: ForgetRequest, silent: set[str], small: RunFolder
) -> None:
    opened = OpenedRun.of(small, Quiet())
    with opened.session.local_grid() as grid, opened.session.cohort(grid) as cohort:
        found = measure(opened.run, opened.run.final, request_, cohort, THREE)
    assert shadows._asked(request_, {"after": found}, []) - {"0", "1", "2"} <= {"4"}
    missing = replace(found, missing={"4": "no answer", "9": "no answer"})
    assert shadows._asked(request_, {"after": found, "before": missing}, []) >= silent
    assert "9" not in shadows._asked(ForgetRequest(clients=("4",)), {"before": missing}, [])


def test_clients_that_attack_by_themselves_get_no_more_models_in_a_message_than_fit(
    small: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten models, of which each is shown once, alone, and the attack finds the same."""
    whole = audited(small, SUMS)["shadows"]
    shown: list[int] = []
    ask = Cohort.ask

    def noted(*given: Any, **named: Any) -> Any:
        if given[-1] == "models shown for an attack":
            shown.append(len(given[2]("2").array_records))
        return ask(*given, **named)

    monkeypatch.setattr(Cohort, "ask", noted)
    monkeypatch.setattr(own_attack, "MESSAGE_BYTES", 1)
    assert audited(small, SUMS)["shadows"] == whole
    assert shown == [1] * 10


def test_clients_of_several_shadows_train_side_by_side_where_the_audit_says_so(small: RunFolder) -> None:
    """Near those that train one by one, as in a single run; 27 trainings and 24 retrainings."""
    noted: list[str] = []

    class Noting(Quiet):
        def note(self, text: str) -> None:
            noted.append(text)

    shutil.copytree(small.path, small.path.parent / "other")
    other = RunFolder(small.path.parent / "other")
    alone, beside = (
        audited(small),
        audited(other, THREE.model_copy(update={"vectorise": "9"}), observer=Noting()),
    )
    assert [text for text in noted if "vectorise" in text] == ["run.vectorise: 51 trainings side by side"]
    for name in models_in(small):
        ours, theirs = (read_sealed(folder.path / name).tensors for folder in (small, other))
        for entry, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[entry], rtol=1e-3, atol=1e-5)
    areas = [found["shadows"]["forgotten"]["area"]["value"] for found in (alone, beside)]  # type: ignore[index]
    assert areas[0] == pytest.approx(areas[1], abs=1e-3)


def test_shadows_of_a_pruned_run_are_pruned_by_its_rule_and_retrained_on_their_own_masks(
    small: RunFolder,
) -> None:
    pruned_by = ForgetSettings(method="subtract", prune="omp", sparsity=0.5)
    forget(small, CLIENT_2, pruned_by)
    sparse = RunFolder(small.path / "pruned" / "omp-0.5")
    found = audited(sparse)["shadows"]
    assert isinstance(found, dict)
    assert found["forgotten"]["pairs"] == 3
    assert not (sparse.path / shadows.FOLDER).exists()
    masks = []
    for seed in (1, 2, 3):
        shadow = RunFolder(small.path / shadows.FOLDER / f"seed-{seed}" / "pruned" / "omp-0.5")
        (mask,) = (kept.tensors for kept in [shadow.read_mask()] if kept is not None)
        left = sorted((shadow.path / shadows.MODELS).iterdir())
        assert [path.name.partition("-")[0] for path in left] == ["retrain", "subtract"]
        for path in left:
            for name, tensor in read_sealed(path).tensors.items():
                assert not bool(tensor[mask[name] == 0].any()) if name in mask else True
        masks.append(torch.cat([part.flatten() for part in mask.values()]))
    assert not torch.equal(masks[0], masks[1])
    dense = {name: at for name, at in models_in(small).items() if "pruned" not in name}
    audited(small)
    assert dense.items() <= models_in(small).items()  # The dense shadows are the same


def test_retraining_has_no_shadow_models(small: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"audit\.shadows: given 3, but retraining is what shadow"):
        audit(small, CLIENT_2, ["retrain"], THREE)


def test_who_was_purged_is_not_trained_with_again(small: RunFolder) -> None:
    """Neither for shadows nor for runs with other seeds: their logs would hold its updates anew."""
    audited(small)
    purge(small, "client-2-subtract")
    plan = ComparisonPlan(CLIENT_2, ("finetune",), relearn=False)
    for again in (
        lambda: audited(small, AuditSettings(seeds=1, shadows=4)),
        lambda: compare(small, plan, seeds=2),
    ):
        with pytest.raises(BadInput, match="client 2 is purged; to train with another seed would ask"):
            again()
    runs = [small.path, *(small.path / shadows.FOLDER).iterdir()]
    assert len(runs) == 4
    assert all(set(UpdateLog.open(run / "log").purged()) == {"2"} for run in runs)
    assert not (small.path / "seeds" / "seed-1").exists()


def test_a_purge_takes_the_positions_of_examples_out_of_audits_and_certificates(small: RunFolder) -> None:
    """Of another method's as well, and an audit after it does not name them again."""
    forget(small, CLIENT_2, ForgetSettings(method="fast-fedul"))
    audit(small, CLIENT_2, ["subtract", "fast-fedul"], THREE)
    paths = [small.path / "forget" / f"client-2-{method}" for method in ("subtract", "fast-fedul")]
    first = [(path / file).read_bytes() for path in paths for file in (AUDIT, CERTIFICATE)]
    assert all(b'"position"' in each for each in first)
    purge(small, paths[0].name)
    left = [path.read_bytes() for path in small.path.rglob("*") if path.is_file()]
    assert not any(b'"position"' in each for each in left)
    assert all(verify(path).failed == () for path in paths)
    assert read_json(paths[1] / AUDIT)["shadows"]["forgotten"]["pairs"] == 3
    assert audited(small)["shadows"]["most-exposed"] == []  # type: ignore[index]


def test_shadows_after_an_earlier_forgetting_are_refused(small: RunFolder) -> None:
    with pytest.raises(BadInput, match="a shadow would not repeat the earlier forgetting"):
        audit(small, ForgetRequest(classes=(3,)), ["retrain"], THREE, after="client-2-subtract")
    assert not (small.path / shadows.FOLDER).exists()
