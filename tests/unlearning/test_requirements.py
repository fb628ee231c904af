"""unlearning/requirements.py: what is checked before a method starts, and what algorithms leave room for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.registry import all_traits
from strategies.settings import StrategySettings
from tests.strategies.other_tasks import Regression
from tests.unlearning.runs import logged_run
from unlearning.methods import METHODS
from unlearning.request import ForgetRequest
from unlearning.requirements import check_request, check_strategy
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

SETTINGS = ForgetSettings()
SAMPLED = [n for n, method in METHODS.items() if "sample" in method.serves and not method.prunes_anew]
ONLY_RETRAINING = [traits.name for traits in all_traits() if traits.only_retraining]


@pytest.fixture
def run(tmp_path: Path) -> TrainedRun:
    """Return a run of one round with clients a and b."""
    one = torch.ones(1)
    return logged_run(tmp_path / "log", [{"a": (1, one), "b": (1, 2 * one)}], initial=torch.zeros(1))


def test_every_method_says_what_it_is() -> None:
    """The table of methods has no empty cell, and a refused kind has its reason."""
    for name, method in METHODS.items():
        assert method.name == name
        assert all((method.summary, method.guarantee, method.cost, method.serves))
        assert method.refusal or method.serves == {"client", "class", "sample"}


def test_unknown_method(run: TrainedRun) -> None:
    """The known ones are listed."""
    with pytest.raises(BadInput, match="unknown method 'erase'; known methods: subtract, "):
        check_request(run, ForgetRequest(clients=("a",)), "erase", SETTINGS)


def test_unknown_client(run: TrainedRun) -> None:
    """The known ones are listed."""
    with pytest.raises(BadInput, match="unknown client '7'; known clients: a, b"):
        check_request(run, ForgetRequest(clients=("7",)), "subtract", SETTINGS)


def test_unknown_client_of_a_sample_request(run: TrainedRun) -> None:
    """Sample requests name clients, too."""
    with pytest.raises(BadInput, match="unknown client '7'"):
        check_request(run, ForgetRequest(samples={"7": (0,)}), "retrain", SETTINGS)


def test_unknown_class(run: TrainedRun) -> None:
    """The run has two classes."""
    with pytest.raises(BadInput, match="unknown class 2; the run has classes 0 to 1"):
        check_request(run, ForgetRequest(classes=(2,)), "retrain", SETTINGS)


LABELLED = TensorExamples(torch.zeros(2, 1), torch.tensor([0, -1]))


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [("ascent", "epochs", 2), ("influence", "alphas", "1"), ("fedosd", "unlearning-rounds", 2)],
)
def test_without_held_out_data_it_must_be_said_how_long_a_method_works(
    run: TrainedRun, method: str, key: str, value: object
) -> None:
    """They are the server's public data, with labels, that the run was not trained on."""
    client, whole_class = ForgetRequest(clients=("a",)), ForgetRequest(classes=(1,))
    said = f"^{method} works until .* but %s; or say how long it works: forget.{method}.{key}$"
    with pytest.raises(
        BadInput, match=said % "the server has none: set data.public to a share or the name .*"
    ):
        check_request(run, client, method, SETTINGS)
    unlabelled = replace(run, public=LABELLED.subset([1]))
    with pytest.raises(BadInput, match=said % r"those of this run have no labels of its classes \(.*\)"):
        check_request(unlabelled, client, method, SETTINGS)
    check_request(replace(run, public=LABELLED), client, method, SETTINGS)
    check_request(run, client, method, ForgetSettings.of(method, **{key: value}))
    check_request(run, whole_class, method, SETTINGS)


@pytest.mark.parametrize("method", SAMPLED)
def test_positions_that_a_client_does_not_have(run: TrainedRun, method: str) -> None:
    """By what the run's summary says of its clients; b was purged, so nothing is known of it."""
    counted = replace(run, num_examples={"a": 123}, public=LABELLED)
    with pytest.raises(BadInput, match="client a has 123 examples, at positions 0 to 122: got 9999"):
        check_request(counted, ForgetRequest(samples={"a": (2, 9999)}), method, SETTINGS)
    with pytest.raises(BadInput, match="got 123"):
        check_request(counted, ForgetRequest(samples={"a": (123,)}), method, SETTINGS)
    check_request(counted, ForgetRequest(samples={"a": (0, 122), "b": (9999,)}), method, SETTINGS)


@pytest.mark.parametrize("method", ["subtract", "distill"])
@pytest.mark.parametrize("request_", [ForgetRequest(classes=(1,)), ForgetRequest(samples={"a": (0,)})])
def test_client_methods_refuse_other_requests(run: TrainedRun, method: str, request_: ForgetRequest) -> None:
    """The reason is that the log holds one update per client."""
    with pytest.raises(
        BadInput, match=f"{method} does not serve a {request_.kind} request: .*one update per client"
    ):
        check_request(run, request_, method, SETTINGS)


def test_everyone_cannot_be_forgotten(run: TrainedRun) -> None:
    """Nobody would remain."""
    with pytest.raises(BadInput, match="names every client"):
        check_request(run, ForgetRequest(clients=("a", "b")), "subtract", SETTINGS)


def test_a_run_without_log(run: TrainedRun) -> None:
    """The key that would have kept one is named."""
    with pytest.raises(
        BadInput, match=r"subtract needs the update log, but the run was trained with log\.enabled = false"
    ):
        check_request(replace(run, log=None), ForgetRequest(clients=("a",)), "subtract", SETTINGS)


def test_some_leave_nothing_else() -> None:
    assert {"coded-gd", "one-shot", "gossip"} <= set(ONLY_RETRAINING)


@pytest.mark.parametrize("strategy", ONLY_RETRAINING)
def test_only_retraining_forgets(strategy: str) -> None:
    check_strategy(strategy, METHODS["retrain"], "client")
    for method in set(METHODS) - {"retrain"}:
        with pytest.raises(BadInput, match=f"{method} does not apply to {strategy}: .*; use retrain"):
            check_strategy(strategy, METHODS[method], "client")


@pytest.mark.parametrize("kind", ["class", "sample"])
def test_copies_are_not_reached_by_a_request_for_examples(kind: str) -> None:
    with pytest.raises(BadInput, match=f"coded-gd does not serve a {kind} request: other clients"):
        check_strategy("coded-gd", METHODS["retrain"], kind)
    check_strategy("gossip", METHODS["retrain"], kind)


def test_averages_are_left_alone() -> None:
    for method in METHODS.values():
        check_strategy("per-fedavg", method, "sample")


def test_what_the_strategy_does_not_allow_is_said_before_what_the_task_lacks(run: TrainedRun) -> None:
    """The reason about the task names finetune as the way out, which this strategy does not allow either."""
    other = replace(run, task=Regression())
    with pytest.raises(BadInput, match=r"^fedosd descends .* are no class labels; use another method, such"):
        check_request(other, ForgetRequest(clients=("a",)), "fedosd", SETTINGS)
    gossip = replace(other, plan=replace(run.plan, strategy=StrategySettings(name="gossip")))
    with pytest.raises(BadInput, match=r"^fedosd does not apply to gossip: .*; use retrain$"):
        check_request(gossip, ForgetRequest(clients=("a",)), "fedosd", SETTINGS)
