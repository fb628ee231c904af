"""One request after another: whatever comes later leaves out what was forgotten before, by every method."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from strategies.core.errors import BadInput
from strategies.core.examples import Examples, TensorExamples
from strategies.log.update_log import UpdateLog
from tests.unlearning.methods.federation import Federation, blobs
from tests.unlearning.runs import GLOBAL_METHODS, SHORT as SETTINGS
from unlearning.default_method import default_method
from unlearning.forgetting import forget
from unlearning.methods import METHODS
from unlearning.methods.fast_fedul import round_shares
from unlearning.request import ForgetRequest
from unlearning.requirements import check_request
from unlearning.run import TrainedRun

DATA = {str(i): blobs(20 + 4 * i, seed=i) for i in (0, 1, 2, 10)}
CLIENT_1, CLIENT_2 = ForgetRequest(clients=("1",)), ForgetRequest(clients=("2",))
CLASS = ForgetRequest(classes=(1,))
SAMPLES = ForgetRequest(samples={"0": (3, 7, 8), "10": (0,)})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    run = Federation(DATA).trained(tmp_path_factory.mktemp("run") / "log", rounds=3)
    return replace(run, public=blobs(30, seed=9))


def after(run: TrainedRun, *requests: ForgetRequest) -> TrainedRun:
    """Return the run as it is once requests were served, by a method that moved the model a little."""
    return replace(run, final=run.final + 0.01, forgotten=requests)


def served(run: TrainedRun, request: ForgetRequest, method: str, federation: Federation) -> torch.Tensor:
    return forget(run, request, method, SETTINGS, federation.cohort()).flat


def without_values(data: Mapping[str, Examples], *requests: ForgetRequest) -> dict[str, Examples]:
    """Return the clients' data with other inputs in the place of those that requests name; labels stay."""
    changed = {}
    for client_id, examples in data.items():
        x = examples.x.clone()
        for request in requests:
            named = torch.isin(examples.y, torch.tensor(request.classes, dtype=torch.int64))
            named[list(request.samples.get(client_id, ()))] = True
            x[named | (client_id in request.clients)] = 77.0
        changed[client_id] = TensorExamples(x, examples.y)
    return changed


# one after the other equals both at once, where a method promises that


@pytest.mark.parametrize("earlier", [CLIENT_2, CLASS, SAMPLES], ids=lambda request: request.kind)
def test_retraining_is_that_without_all_of_them(run: TrainedRun, earlier: ForgetRequest) -> None:
    """As if the data had never been there: a federation without them, trained from the same start."""
    federation = Federation(DATA)
    never = {
        client_id: examples.split(
            torch.isin(examples.y, torch.tensor(earlier.classes, dtype=torch.int64))
            | torch.isin(torch.arange(len(examples)), torch.tensor(earlier.samples.get(client_id, (-1,))))
        )[1]
        for client_id, examples in DATA.items()
        if client_id not in (*earlier.clients, "1")
    }
    alone = replace(run, clients=tuple(never), forgotten=(), log=None)
    expected = forget(
        replace(alone, clients=(*never, "absent")),
        ForgetRequest(clients=("absent",)),
        "retrain",
        SETTINGS,
        Federation(never).cohort(),
    ).flat
    assert served(after(run, earlier), CLIENT_1, "retrain", federation).equal(expected)
    assert not served(run, CLIENT_1, "retrain", federation).equal(expected)


@pytest.mark.parametrize("method", ["retrain", "federaser"])
def test_the_order_is_irrelevant_to_who_starts_over(run: TrainedRun, method: str) -> None:
    federation = Federation(DATA)
    both = served(run, ForgetRequest(clients=("1", "2")), method, federation)
    assert served(after(run, CLIENT_1), CLIENT_2, method, federation).equal(both)
    assert served(after(run, CLIENT_2), CLIENT_1, method, federation).equal(both)


def test_sums_of_both_are_subtracted_in_any_order(run: TrainedRun) -> None:
    """Up to float32's rounding of the model in between."""
    federation = Federation(DATA)
    both = served(run, ForgetRequest(clients=("1", "2")), "subtract", federation)
    for first, second in ((CLIENT_1, CLIENT_2), (CLIENT_2, CLIENT_1)):
        between = replace(run, final=served(run, first, "subtract", federation), forgotten=(first,))
        torch.testing.assert_close(served(between, second, "subtract", federation), both, rtol=0, atol=1e-6)


# nothing of what was forgotten before is read again


CASES = [
    (method, request, earlier)
    for method in map(METHODS.__getitem__, GLOBAL_METHODS)
    for request, earlier in ((CLIENT_1, CLIENT_2), (CLIENT_1, CLASS), (CLIENT_1, SAMPLES), (CLASS, CLIENT_2))
    if request.kind in method.serves and not (method.needs(SETTINGS).rebuilds and earlier.kind != "client")
]


@pytest.mark.parametrize(
    ("method", "request_", "earlier"),
    [(method.name, request, earlier) for method, request, earlier in CASES],
    ids=[f"{method.name}-{request.name}-after-{earlier.kind}" for method, request, earlier in CASES],
)
def test_values_that_were_forgotten_before_make_no_difference(
    run: TrainedRun, method: str, request_: ForgetRequest, earlier: ForgetRequest
) -> None:
    """Other inputs in their place give the same bits, and a client that was forgotten is not even asked."""
    honest, changed = Federation(DATA), Federation(without_values(DATA, earlier))
    results = [served(after(run, earlier), request_, method, each) for each in (honest, changed)]
    assert results[0].equal(results[1])
    asked = {client_id for kind, client_id in changed.asked if kind != "query.describe"}
    assert asked.isdisjoint(earlier.clients)


def test_training_on_after_distillation_leaves_out_what_was_forgotten_before(run: TrainedRun) -> None:
    settings = SETTINGS.model_copy(update={"post_training_rounds": 1})
    honest, changed = Federation(DATA), Federation(without_values(DATA, CLASS))
    results = [
        forget(after(run, CLASS), CLIENT_1, "distill", settings, each.cohort()).flat
        for each in (honest, changed)
    ]
    assert results[0].equal(results[1])


def test_what_a_forgotten_client_undid_is_not_counted(run: TrainedRun) -> None:
    """In a round the others of 1 are 0, 2 and 10, and once 2 was forgotten, 0 and 10."""
    assert run.log is not None
    for gone, others in (((), ("0", "2", "10")), (("2",), ("0", "10"))):
        shares = list(round_shares(run.log, ("1",), gone))
        for server_round, share in enumerate(shares, start=1):
            weights = {e.client_id: e.weight for e in run.log.entries(server_round)}
            assert share.remaining_weight == pytest.approx(sum(weights[i] for i in others))


def test_the_change_of_values_would_be_noticed(run: TrainedRun) -> None:
    """Where the data were not forgotten before, the same change shows in every method that asks clients."""
    for method in ("retrain", "finetune", "fisher", "influence", "fedosd", "federaser"):
        honest, changed = Federation(DATA), Federation(without_values(DATA, CLASS))
        results = [served(after(run), CLIENT_1, method, each) for each in (honest, changed)]
        assert not results[0].equal(results[1]), method


@pytest.mark.parametrize("method", GLOBAL_METHODS)
def test_a_method_starts_from_the_model_that_forgot_before(run: TrainedRun, method: str) -> None:
    """Or from the initial one: then what the model was in between makes no difference."""
    federation = Federation(DATA)
    models = [replace(after(run, CLIENT_2), final=run.final + shift) for shift in (0.01, 0.02)]
    results = [served(each, CLIENT_1, method, federation) for each in models]
    assert results[0].equal(results[1]) == (method in ("retrain", "federaser"))


# refused before any work


@pytest.mark.parametrize(
    ("earlier", "request_", "message"),
    [
        (CLIENT_1, ForgetRequest(clients=("0", "1")), "client 1 was forgotten before"),
        (CLIENT_1, ForgetRequest(samples={"1": (2,)}), "client 1 was forgotten before"),
        (CLASS, ForgetRequest(classes=(0, 1)), "class 1 was forgotten before"),
        (SAMPLES, ForgetRequest(samples={"0": (1, 8)}), "example 8 of client 0 was forgotten before"),
        (ForgetRequest(clients=("0", "1", "2")), ForgetRequest(clients=("10",)), "nobody would remain"),
    ],
)
def test_what_was_forgotten_is_not_forgotten_again(
    run: TrainedRun, earlier: ForgetRequest, request_: ForgetRequest, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        check_request(after(run, earlier), request_, "retrain", SETTINGS)


def test_who_adds_logged_updates_to_the_model_cannot_follow_a_class(run: TrainedRun) -> None:
    """`leave-out` gives the model w times the others' mean, which knows the class: M' = M_F − Σ w (δ − δ̄)."""
    renormalised = SETTINGS.with_own("subtract", form="renormalised")
    for method, settings in (("federaser", SETTINGS), ("subtract", renormalised), ("leave-out", SETTINGS)):
        check_request(after(run, CLIENT_2), CLIENT_1, method, settings)
        with pytest.raises(BadInput, match=f"{method} cannot follow class-1: it makes the model of logged"):
            check_request(after(run, CLASS), CLIENT_1, method, settings)
    assert default_method(after(run, CLIENT_2), CLIENT_1, SETTINGS) == "leave-out"
    assert default_method(after(run, CLASS), CLIENT_1, SETTINGS) == "fast-distill"


@pytest.mark.parametrize("method", ["subtract", "fast-fedul"])
def test_who_only_takes_away_needs_nothing_of_the_others(run: TrainedRun, method: str) -> None:
    """M_F less the result is made of client 1's updates alone, so nothing forgotten comes back with it."""
    held = after(run, CLASS)
    assert held.log is not None
    away = (held.final - served(held, CLIENT_1, method, Federation(DATA))).double()
    own = torch.stack([held.log.delta(r, "1").double() for r in held.log.rounds()])
    left = away - torch.linalg.lstsq(own.T, away.unsqueeze(1)).solution.squeeze(1) @ own
    assert float(left.norm()) < 1e-5 * float(away.norm())


# after a purge


@pytest.fixture
def purged(tmp_path: Path) -> TrainedRun:
    """Return the run, client 2 purged from its log."""
    federation = Federation(DATA)
    run = federation.trained(tmp_path / "log", rounds=3)
    with UpdateLog.open(tmp_path / "log", write=True) as log:
        log.purge(["2"])
    return replace(run, log=UpdateLog.open(tmp_path / "log"), public=blobs(30, seed=9))


@pytest.mark.parametrize("method", GLOBAL_METHODS)
def test_every_method_serves_the_next_client_after_a_purge(
    run: TrainedRun, purged: TrainedRun, method: str
) -> None:
    """To the same model as before it: nothing of the purged client was needed."""
    federation = Federation(DATA)
    expected = served(after(run, CLIENT_2), CLIENT_1, method, federation)
    assert served(after(purged, CLIENT_2), CLIENT_1, method, federation).equal(expected)


@pytest.mark.parametrize("method", GLOBAL_METHODS)
def test_a_purged_client_is_forgotten_again_only_without_its_updates(purged: TrainedRun, method: str) -> None:
    if METHODS[method].needs(SETTINGS).log == "none":
        assert served(purged, CLIENT_2, method, Federation(DATA)).isfinite().all()
        return
    with pytest.raises(
        BadInput,
        match=rf"client 2 was forgotten and purged .*Z: {method} needs its updates, which are erased",
    ):
        check_request(purged, CLIENT_2, method, SETTINGS)


def test_a_model_that_holds_the_purged_client_cannot_be_made_anew(purged: TrainedRun) -> None:
    """The sum of client 1's updates is enough for the lazy form; the others need client 2's."""
    check_request(purged, CLIENT_1, "subtract", SETTINGS)
    for method in ("federaser", "fast-fedul"):
        with pytest.raises(BadInput, match=f"{method} needs the others' updates, but those of client 2 were"):
            check_request(purged, CLIENT_1, method, SETTINGS)
