"""unlearning/methods/ascent.py: up the loss on what is to be forgotten, by the clients that hold it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from strategies.server.settings import SelectionSettings
from tests.unlearning.methods.federation import Federation
from tests.unlearning.methods.slow import (
    CLASS,
    CLIENT,
    DATA,
    LAST,
    SAMPLE,
    assert_same,
    draws,
    federation_of,
    finished,
    flat_of,
    forgotten,
    loss_on,
    mean_of,
    model_at,
    part_of_all,
    parts,
)
from tests.unlearning.runs import Rounds, logged_run
from unlearning.central.ascent import (
    AscentSettings,
    ProjectedAscentSettings,
    ascend,
    ball_radius,
    projected_ascent,
    reference_model,
)
from unlearning.methods.ascent import ASCENT, PROJECTED, radius_around, reference_from_log, shuffled
from unlearning.methods.base import ForgetJob
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

TWO = ForgetRequest(clients=("1", "2"))
EQUAL = {str(i): TensorExamples(d.x[:20], d.y[:20]) for i, d in DATA.items()}


def job_of(run: TrainedRun, federation: Federation, request: ForgetRequest = CLIENT) -> ForgetJob:
    return ForgetJob(run, request, ForgetSettings(), federation.cohort(), lambda done, total, values: None)


def reference(run: TrainedRun, federation: Federation, *leaving: str) -> Tensor:
    """Return w_ref without some clients."""
    others = [i for i in federation.data if i not in leaving]
    found = reference_from_log(job_of(run, federation), federation.cohort().without(others))
    assert found is not None
    return found


# by hand


def test_the_reference_by_hand(tmp_path: Path) -> None:
    """One parameter, w = 0 before the last round, in which a moves by 4 and b by −2, with 1 and 3 examples.

    Then w = (1·4 − 3·2)/4 = −1/2. Without b, only a's model is left, 4; without a, b's, −2.
    """
    last = {"a": (1.0, torch.tensor([4.0])), "b": (3.0, torch.tensor([-2.0]))}
    rounds: Rounds = [last]
    run = logged_run(tmp_path / "log", rounds, initial=torch.zeros(1))
    assert run.final.tolist() == [-0.5]
    federation = Federation({"a": DATA["0"], "b": DATA["1"]})
    assert reference(run, federation, "b").tolist() == [4.0]
    assert reference(run, federation, "a").tolist() == [-2.0]


def test_the_reference_of_a_client_that_was_not_in_the_last_round_is_the_model(tmp_path: Path) -> None:
    """The average of that round is already one of the others."""
    rounds: Rounds = [
        {"a": (1.0, torch.tensor([4.0])), "b": (3.0, torch.tensor([-2.0]))},
        {"a": (1.0, torch.tensor([1.5]))},
    ]
    run = logged_run(tmp_path / "log", rounds, initial=torch.zeros(1))
    federation = Federation({"a": DATA["0"], "b": DATA["1"]})
    assert reference(run, federation, "b").tolist() == [1.0]


# against the papers' formulas


def test_with_equal_clients_the_reference_is_the_papers(tmp_path: Path) -> None:
    """(N·w − w_i) / (N − 1), w_i made again by the client's own training in the last round."""
    federation = federation_of(EQUAL)
    run = finished(federation, tmp_path)
    assert run.log is not None
    steps = [e.weight * run.log.delta(LAST, e.client_id).double() for e in run.log.entries(LAST)]
    before = (run.final.double() - sum(steps, torch.zeros(()))).float()
    own = before + run.log.delta(LAST, "2")
    assert_same(reference(run, federation, "2"), reference_model(run.final, own, num_clients=4))


def test_without_a_log_the_client_trains_a_round(tmp_path: Path) -> None:
    """w_i is then what client 2 makes of w in one more round, and w_ref the paper's."""
    federation = federation_of(EQUAL)
    run = replace(finished(federation, tmp_path), log=None)
    found = forgotten("ascent", run, federation, CLIENT, epochs=0, recovery_rounds=0)
    one_round = federation.cohort().without(["0", "1", "3"])
    asked = [each for each in federation.asked if each[0] != wire.DESCRIBE]
    assert asked == [(wire.TRAIN, "2"), (PROJECTED, "2")]
    own = trained_once(run, one_round)
    assert_same(found.flat, reference_model(run.final, own, num_clients=4))


def trained_once(run: TrainedRun, cohort: object) -> Tensor:
    """Return the model after one more round of a cohort."""
    from strategies.plan import Start
    from strategies.rounds import train

    plan = replace(run.plan, rounds=LAST + 1)
    arrays = train(plan, cohort, Start(wire.FlatRecord(run.final, run.layout), LAST))  # type: ignore[arg-type]
    return wire.flat_of(arrays, run.layout)


def test_the_radius_is_a_third_of_the_distance_to_random_models(run: TrainedRun) -> None:
    generator = torch_generator(0, "forget", CLIENT.name, "radius")
    random = [shuffled(run.initial, run.layout, generator) for _ in range(10)]
    expected = ball_radius(run.final, random)
    assert radius_around(job_of(run, federation_of()), run.final) == pytest.approx(expected)


def test_a_shuffled_model_has_the_entries_of_each_tensor(run: TrainedRun) -> None:
    """And in another order."""
    drawn = shuffled(run.initial, run.layout, torch_generator(3, "x"))
    assert not drawn.equal(run.initial)
    for mine, theirs in zip(
        run.layout.unflatten(drawn).values(), run.layout.unflatten(run.initial).values(), strict=True
    ):
        assert mine.flatten().sort().values.equal(theirs.flatten().sort().values)


@pytest.mark.parametrize("request_", [CLIENT, TWO], ids=lambda r: r.name)
def test_leaving_equals_the_central_form_at_each_client(run: TrainedRun, request_: ForgetRequest) -> None:
    """Projected ascent from w_ref at each leaving client, averaged by examples."""
    federation = federation_of()
    start = reference(run, federation, *request_.clients)
    radius = radius_around(job_of(run, federation, request_), start)
    settings = ProjectedAscentSettings(learning_rate=0.05, epochs=3)
    ends = {}
    for i in request_.clients:
        generator = draws(federation, i, LAST + 1)
        end = projected_ascent(model_at(federation, start), DATA[i], start, radius, settings, generator)
        ends[i] = (len(DATA[i]), flat_of(federation, end))
    found = forgotten("ascent", run, federation, request_, recovery_rounds=0, epochs=3, learning_rate=0.05)
    assert_same(found.flat, mean_of(ends))
    assert found.details["radius"] == pytest.approx(radius)


@pytest.mark.parametrize("request_", [CLASS, SAMPLE], ids=lambda r: r.kind)
def test_ascent_equals_central_passes_averaged(run: TrainedRun, request_: ForgetRequest) -> None:
    """Only those that hold some of D_f are asked, whatever share of clients the run drew."""
    federation, flat = federation_of(), run.final
    one_pass = AscentSettings(epochs=1, learning_rate=0.01)
    for number in (LAST + 1, LAST + 2):
        ends = {}
        for i, (forget, _) in parts(federation, request_).items():
            if len(forget):
                end = ascend(model_at(federation, flat), forget, one_pass, draws(federation, i, number))
                ends[i] = (len(forget), flat_of(federation, end))
        flat = mean_of(ends)
    drawing = replace(run, plan=replace(run.plan, selection=SelectionSettings(fraction=0.1)))
    found = forgotten("ascent", drawing, federation, request_, epochs=2, learning_rate=0.01, stop_accuracy=0)
    assert_same(found.flat, flat)
    assert [i for kind, i in federation.asked if kind == ASCENT] == 2 * list(ends)


# identities


def test_no_pass_and_no_round_is_the_reference_or_the_model(run: TrainedRun) -> None:
    federation = federation_of()
    leaving = forgotten("ascent", run, federation, CLIENT, epochs=0, recovery_rounds=0)
    assert leaving.flat.equal(reference(run, federation, "2"))
    assert forgotten("ascent", run, federation, CLASS, epochs=0, recovery_rounds=0).flat.equal(run.final)


@pytest.mark.parametrize("request_", [CLIENT, CLASS, SAMPLE], ids=lambda r: r.kind)
def test_the_loss_on_what_is_forgotten_rises(run: TrainedRun, request_: ForgetRequest) -> None:
    """The sign of ascent."""
    federation = federation_of()
    forget, _ = part_of_all(federation, request_)
    start = forgotten("ascent", run, federation, request_, epochs=0, recovery_rounds=0).flat
    end = forgotten("ascent", run, federation, request_, recovery_rounds=0, epochs=5).flat
    assert loss_on(federation, end, forget) > loss_on(federation, start, forget)


@pytest.mark.parametrize("learning_rate", [0.01, 10.0])
def test_a_leaving_client_stays_in_the_ball(run: TrainedRun, learning_rate: float) -> None:
    """However large its steps; those that would leave it end on its surface."""
    found = forgotten(
        "ascent",
        run,
        federation_of(),
        CLIENT,
        epochs=5,
        recovery_rounds=0,
        learning_rate=learning_rate,
        stop_accuracy=0,
    )
    radius, distance = found.details["radius"], found.details["distance"]
    assert distance <= radius * (1 + 1e-5)
    assert (distance > 0.9 * radius) == (learning_rate == 10.0)


def test_ascent_on_a_class_ends_before_it_destroys_the_rest(run: TrainedRun) -> None:
    """The model that comes back is the first whose accuracy on the class is below 50 %."""
    federation = federation_of()
    forget, _ = part_of_all(federation, CLASS)
    found = forgotten("ascent", run, federation, CLASS, epochs=50, stop_accuracy=50)
    rounds = found.details["rounds"]
    assert 0 < rounds < 50
    before, end = (
        forgotten("ascent", run, federation, CLASS, epochs=n, stop_accuracy=0).flat
        for n in (rounds - 1, rounds)
    )
    assert found.flat.equal(end)
    right = [
        float((model_at(federation, f)(forget.x).argmax(1) == forget.y).float().mean()) for f in (before, end)
    ]
    assert right[0] >= 0.5 > right[1]


def test_recovery_is_training_without_what_is_forgotten(run: TrainedRun) -> None:
    """Of the remaining clients, as the run trained, numbered on after the rounds of ascent."""
    federation = federation_of()
    up = forgotten("ascent", run, federation, CLIENT, recovery_rounds=0, epochs=5).flat
    federation.asked.clear()
    found = forgotten("ascent", run, federation, CLIENT, recovery_rounds=2, epochs=5)
    assert [i for kind, i in federation.asked if kind == wire.TRAIN] == 2 * ["0", "1", "3"]
    slow_way = replace(run, plan=replace(run.plan, rounds=LAST + 1), final=up)
    again = forgotten("finetune", slow_way, federation, CLIENT, epochs=2)
    assert_same(found.flat, again.flat)


# errors


def test_who_holds_it_must_be_online(run: TrainedRun) -> None:
    federation = federation_of().but(offline=frozenset({"2"}))
    with pytest.raises(BadInput, match="ascent needs client '2' online"):
        forgotten("ascent", run, federation, CLIENT, epochs=5)


def test_a_class_that_nobody_holds_is_an_error(run: TrainedRun) -> None:
    """Nothing can be moved up, so nothing is claimed."""
    none = {i: TensorExamples(d.x[d.y != 1], d.y[d.y != 1]) for i, d in DATA.items()}
    with pytest.raises(LetheError, match="class-1: no connected client holds an example of it"):
        forgotten("ascent", run, federation_of(none), CLASS)


def test_a_leaving_client_that_fails_is_an_error(run: TrainedRun) -> None:
    federation = federation_of().but(failing={"2": (PROJECTED,)})
    with pytest.raises(LetheError, match=r"no client took part \(client 2: error: out of memory\)"):
        forgotten("ascent", run, federation, CLIENT, epochs=5)
