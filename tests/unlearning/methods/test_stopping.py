"""unlearning/methods/stopping.py: over clients as with all examples in one place, by each method."""

from dataclasses import replace

import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import TensorExamples
from strategies.task import CLASSIFICATION
from tests.unlearning.methods.federation import Federation, blobs
from tests.unlearning.methods.slow import (
    CLASS,
    CLIENT,
    DATA,
    assert_same,
    federation_of,
    finished,
    flat_of,
    forgotten,
    loss_on,
    model_at,
    part_of_all,
    parts,
)
from unlearning.central.ascent import ascend_until, project
from unlearning.central.fedosd import unlearning_step
from unlearning.central.gradients import Objective, gradient_sum
from unlearning.central.influence import InfluenceSettings, influence_until
from unlearning.central.parameters import flat_parameters
from unlearning.central.stopping import Goal, Standing, StepSettings, shortened, stepped, unsaturated
from unlearning.methods.ascent import GRADIENT, radius_around, reference_from_log
from unlearning.methods.base import ForgetJob
from unlearning.methods.fedosd import ACTION
from unlearning.methods.stopping import MEASURE, STANDING, goal_of, told
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

PUBLIC = blobs(60, seed=50)
KINDS = ["client", "class", "sample"]
STEPS = {"step_share": 0.02}


@pytest.fixture(scope="module")
def federation() -> Federation:
    """Return clients that learn their examples by heart."""
    return federation_of(local_epochs=25, learning_rate=0.3)


@pytest.fixture(scope="module")
def run(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return replace(finished(federation, tmp_path_factory.mktemp("run")), public=PUBLIC)


@pytest.fixture(scope="module")
def requests(run: TrainedRun, federation: Federation) -> dict[str, ForgetRequest]:
    """Return requests by kind; of examples, those of clients 0 and 3 that the model knows best."""
    model = model_at(federation, run.final)
    known = {i: CLASSIFICATION.losses(model(d.x), d.y).argsort()[:6] for i, d in federation.data.items()}
    samples = {i: tuple(sorted(known[i].tolist())) for i in ("0", "3")}
    return {"client": CLIENT, "class": CLASS, "sample": ForgetRequest(samples=samples)}


@pytest.fixture
def sample(requests: dict[str, ForgetRequest]) -> ForgetRequest:
    """Return the request of examples."""
    return requests["sample"]


def job_of(run: TrainedRun, federation: Federation, request: ForgetRequest) -> ForgetJob:
    return ForgetJob(run, request, ForgetSettings(), federation.cohort(), lambda done, total, values: None)


def goal(run: TrainedRun, request: ForgetRequest) -> Goal:
    """Return the goal, made here of the model before and the public data."""
    return Goal.of(run.model(run.final), PUBLIC, 3, request.classes, CLASSIFICATION)


# against all examples in one place


@pytest.mark.parametrize("kind", ["class", "sample"])
def test_ascent_equals_the_central_form(
    run: TrainedRun, federation: Federation, requests: dict[str, ForgetRequest], kind: str
) -> None:
    request_ = requests[kind]
    forget, _ = part_of_all(federation, request_)
    central = ascend_until(
        model_at(federation, run.final), forget, goal(run, request_), StepSettings(step_share=0.02)
    )
    found = forgotten("ascent", run, federation, request_, **STEPS)
    assert found.details["steps"] == central.steps > 0
    assert found.details["goal-met"]
    assert found.notes == ()
    assert_same(found.flat, flat_of(federation, central.model))


def test_a_leaving_client_steps_in_the_ball_by_itself(run: TrainedRun, federation: Federation) -> None:
    """And is asked once more where its data stand then."""
    job = job_of(run, federation, CLIENT)
    start = reference_from_log(job, federation.cohort().without(["0", "1", "3"]))
    assert start is not None
    radius = radius_around(job, start)
    central = ascend_until(
        model_at(federation, start),
        DATA["2"],
        goal(run, CLIENT),
        StepSettings(step_share=0.02),
        within=lambda flat: project(flat, start, radius),
    )
    federation.asked.clear()
    found = forgotten("ascent", run, federation, CLIENT, recovery_rounds=0, **STEPS)
    assert found.details["steps"] == central.steps
    assert_same(found.flat, flat_of(federation, central.model))
    assert [kind for kind, i in federation.asked if i == "2"][-2:] == ["train.ascent_until", MEASURE]


@pytest.mark.parametrize("kind", KINDS)
def test_fedosd_equals_steps_of_pooled_gradients(
    run: TrainedRun, federation: Federation, requests: dict[str, ForgetRequest], kind: str
) -> None:
    request_ = requests[kind]
    forget, _ = part_of_all(federation, request_)
    objective, wanted = Objective(loss=unsaturated(CLASSIFICATION)), goal(run, request_)
    before = flat = run.final
    steps = 0
    while not Standing.of(model_at(federation, flat), forget, wanted, CLASSIFICATION).met and steps < 60:
        model = model_at(federation, flat)
        rows = [
            gradient_sum(model, keep).mean for _, keep in parts(federation, request_).values() if len(keep)
        ]
        against = unlearning_step(gradient_sum(model, forget, objective).mean, rows)
        before, flat, steps = flat, stepped(flat, against, 0.02).float(), steps + 1
    flat, _ = shortened(
        before,
        flat,
        Standing(),
        lambda point: Standing.of(model_at(federation, point), forget, wanted, CLASSIFICATION),
    )
    found = forgotten("fedosd", run, federation, request_, recovery_rounds=0, max_steps=60, **STEPS)
    assert found.details["steps"] == steps > 0
    assert_same(found.flat, flat)


@pytest.mark.parametrize("kind", KINDS)
def test_influence_equals_the_central_form(
    run: TrainedRun, federation: Federation, requests: dict[str, ForgetRequest], kind: str
) -> None:
    """The shortest length is found by the clients' sums as by the examples in one place."""
    request_ = requests[kind]
    found = forgotten("influence", run, federation, request_, damping=0.1, tolerance=1e-12)
    central = influence_until(
        model_at(federation, run.final),
        part_of_all(federation, request_)[::-1],
        goal(run, request_),
        InfluenceSettings(damping=0.1, fisher_examples=1000),
        job_of(run, federation, request_).generator("influence"),
    )
    assert found.details["alpha"] == pytest.approx(central.alpha) != 0.0
    assert found.details["goal-met"] == central.met
    assert_same(found.flat, flat_of(federation, central.model))


# what it is for


@pytest.mark.parametrize("method", ["ascent", "fedosd"])
def test_what_was_learnt_by_heart_is_as_unknown_as_public_data(
    run: TrainedRun, federation: Federation, sample: ForgetRequest, method: str
) -> None:
    """The loss on two clients' examples rises to what public data have, and no higher than a step more."""
    forget, _ = part_of_all(federation, sample)
    wanted = Standing.of(model_at(federation, run.final), forget, goal(run, sample), CLASSIFICATION)
    assert wanted.loss < wanted.wanted / 2
    found = forgotten(method, run, federation, sample, recovery_rounds=0, **STEPS)
    after = loss_on(federation, found.flat, forget)
    assert wanted.wanted / wanted.count <= after + 1e-9
    assert after < 3 * wanted.wanted / wanted.count


def test_an_influence_step_that_cannot_do_it_says_so(
    run: TrainedRun, federation: Federation, sample: ForgetRequest
) -> None:
    """Its direction is made of gradients of the cross-entropy, which next to nothing is left of."""
    found = forgotten("influence", run, federation, sample)
    assert not found.details["goal-met"]
    (note,) = found.notes
    assert note.startswith("influence: the cap of ")
    assert "(a step as long as the parameters) ended it, not the held-out data: mean loss" in note


def test_a_label_that_nobody_else_has_is_to_be_unknown(run: TrainedRun, federation: Federation) -> None:
    """Only client 2 has label 1; then nothing but what is right counts, of those examples."""
    alone = {
        i: d if i == "2" else TensorExamples(d.x[d.y != 1], d.y[d.y != 1]) for i, d in federation.data.items()
    }
    found, notes = goal_of(job_of(run, federation.but(data=alone), CLIENT))
    assert [loss == torch.inf for loss in found.losses] == [False, True, False]
    assert notes == []
    assert goal_of(job_of(run, federation, CLIENT))[0] == goal(run, CLIENT)


def test_the_cap_is_noted(run: TrainedRun, federation: Federation, sample: ForgetRequest) -> None:
    found = forgotten("ascent", run, federation, sample, max_steps=1, step_share=1e-4)
    (note,) = found.notes
    assert note.startswith(
        "ascent: the cap of 1 (forget.ascent.max-steps) ended it, not the held-out data: mean"
    )
    assert not found.details["goal-met"]


def test_why_it_ended_is_said_of_the_model_that_is_measured() -> None:
    """Clients that leave take their steps apart, 5 on average; none of them looks at their mean."""
    below = Standing(1.0, 4.0, 2.0)
    alone, made = (told("ascent", "k", 100, 5, below, made=made)[0] for made in (False, True))
    assert alone == [
        "ascent: that no direction was left ended it, not the held-out data: " + below.in_words()
    ]
    assert made == [
        "ascent: the model that the server made of the clients' does not meet the goal of their steps: "
        + below.in_words()
    ]
    (capped,) = told("ascent", "k", 5, 5, below, made=True)[0]
    assert capped.startswith("ascent: the cap of 5 (k) ended it")


def test_no_step_is_no_change(run: TrainedRun, federation: Federation) -> None:
    found = forgotten("fedosd", run, federation, CLIENT, max_steps=0, recovery_rounds=0)
    assert found.flat.equal(run.final)


# clients that lie


def changed(federation: Federation, client_id: str, kind: str, standing: Tensor) -> Federation:
    """Return the federation with a client that says that its data stand otherwise."""

    def spoil(who: str, what: str, content: RecordDict) -> RecordDict:
        if (who, what) == (client_id, kind):
            sums = content.array_records[wire.ARRAYS]
            content[wire.ARRAYS] = ArrayRecord({**sums, STANDING: Array(standing.numpy())})
        return content

    return federation.but(change=spoil)


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        ([1.0, 1.0, 9.0, 0.0, 0.0], "tells of 9 and 0 examples, 0 of these right, expected 6 in all"),
        ([1.0, 1.0, 6.0, 5.0, 0.0], "tells of 6 and 0 examples, 5 of these right, expected 6 in all"),
    ],
)
def test_a_standing_that_cannot_be_is_a_fault_of_its_client(
    run: TrainedRun, federation: Federation, sample: ForgetRequest, standing: list[float], reason: str
) -> None:
    lying = changed(federation, "0", GRADIENT, torch.tensor(standing, dtype=torch.float64))
    found = forgotten("ascent", run, lying, sample, max_steps=1)
    (warning,) = found.warnings
    assert warning.startswith("client 0, of the request, failed in 2 of 2 visits")
    assert reason in warning


def test_if_nobody_answers_usefully_there_is_no_result(run: TrainedRun, federation: Federation) -> None:
    lying = changed(federation, "2", ACTION, torch.full((5,), torch.nan, dtype=torch.float64))
    with pytest.raises(LetheError, match="client-2: no client answered usefully that holds what is to be"):
        forgotten("fedosd", run, lying, CLIENT)


def test_the_models_before_are_left_as_they_are(
    run: TrainedRun, federation: Federation, sample: ForgetRequest
) -> None:
    before = run.final.clone()
    forgotten("ascent", run, federation, sample, **STEPS)
    assert run.final.equal(before)
    assert not flat_parameters(run.model(run.final)).isnan().any()
