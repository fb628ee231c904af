"""unlearning/isolation.py: forgetting in the groups that hold it, as in runs of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.models.ensemble import members_of
from strategies.settings import StrategySettings
from tests.unlearning.methods.federation import Federation
from tests.unlearning.methods.slow import CLASS, DATA, LAST, federation_of, finished, forgotten
from unlearning.forgetting import forget
from unlearning.holdings import Holdings
from unlearning.isolation import concerned_groups
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.traits.base import GROUPS

CLIENT_2 = ForgetRequest(clients=("2",))
EVEN, ODD = ("0", "2"), ("1", "3")


def apart(federation: Federation, folder: Path, groups: int = 2) -> TrainedRun:
    """Return a run whose groups were trained apart."""
    return federation.trained(folder / "log", LAST, groups=groups)


def part(federation: Federation, clients: tuple[str, ...]) -> Federation:
    """Return a federation of some of the clients."""
    return federation.but(data={i: federation.data[i] for i in clients})


def pieces(flat: Tensor, groups: int = 2) -> list[Tensor]:
    """Return the groups' models."""
    return list(members_of(flat, groups))


def same(found: Tensor, expected: Tensor) -> bool:
    """Whether two models are the same to the bit."""
    return found.equal(expected)


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi"])
def test_a_group_is_retrained_as_a_run_without_the_client_would_have_trained_it(
    strategy: str, tmp_path: Path
) -> None:
    """The slow way: a whole training without the client. What a server remembers is its group's own."""
    federation = federation_of().but(strategy=StrategySettings(name=strategy))
    run = apart(federation, tmp_path)
    result = forgotten("retrain", run, federation, CLIENT_2)
    without = apart(part(federation, ("0", "1", "3")), tmp_path / "without")
    assert same(result.flat, without.final)
    assert same(pieces(result.flat)[1], pieces(run.final)[1])
    assert not same(pieces(result.flat)[0], pieces(run.final)[0])
    assert {client for kind, client in federation.asked if kind == "train"} == {"0"}
    assert result.details[GROUPS] == {"of": 2, "concerned": [0]}
    assert result.notes[0].startswith("worked on group 0 of 2 alone")


@pytest.mark.parametrize("method", ["subtract", "federaser", "finetune", "ascent"])
def test_every_method_works_on_the_group_as_on_a_run_of_its_own(method: str, tmp_path: Path) -> None:
    """With the log, with the remaining clients, and with the forgotten one."""
    federation, own = federation_of(), {"epochs": 1} if method == "ascent" else {}
    result = forgotten(method, apart(federation, tmp_path), federation, CLIENT_2, **own)
    alone = part(federation, EVEN)
    expected = forgotten(method, alone.trained(tmp_path / "alone", LAST), alone, CLIENT_2, **own)
    assert same(pieces(result.flat)[0], expected.flat)


def test_a_class_is_forgotten_in_every_group_that_holds_it(tmp_path: Path) -> None:
    federation = federation_of()
    run = apart(federation, tmp_path)
    result = forgotten("retrain", run, federation, CLASS)
    for number, clients in enumerate((EVEN, ODD)):
        alone = part(federation, clients)
        expected = forgotten("retrain", finished(alone, tmp_path / str(number)), alone, CLASS)
        assert same(pieces(result.flat)[number], expected.flat)
    assert result.details[GROUPS]["concerned"] == [0, 1]


def test_a_request_about_two_groups_is_served_in_each(tmp_path: Path) -> None:
    federation = federation_of()
    both = ForgetRequest(clients=("2", "3"))
    run = apart(federation, tmp_path)
    result = forgotten("retrain", run, federation, both)
    assert same(result.flat, apart(part(federation, ("0", "1")), tmp_path / "without").final)
    assert result.notes[0] == "worked on all 2 groups"


def test_samples_are_forgotten_in_their_clients_groups(tmp_path: Path) -> None:
    federation = federation_of()
    run = apart(federation, tmp_path)
    result = forgotten("retrain", run, federation, ForgetRequest(samples={"3": (0, 1)}))
    assert result.details[GROUPS]["concerned"] == [1]
    assert same(pieces(result.flat)[0], pieces(run.final)[0])
    assert not same(pieces(result.flat)[1], pieces(run.final)[1])


@pytest.mark.parametrize("method", ["retrain", "subtract"])
def test_a_group_that_nobody_is_left_of_has_no_model(method: str, tmp_path: Path) -> None:
    """With four groups of one client each it is the same as a run without the client; no client works."""
    federation = federation_of()
    run = apart(federation, tmp_path, groups=4)
    result = forgotten(method, run, federation, CLIENT_2)
    assert same(result.flat, apart(part(federation, ("0", "1", "3")), tmp_path / "without", 4).final)
    assert not pieces(result.flat, 4)[2].any()
    assert not [kind for kind, _ in federation.asked if kind == "train"]
    assert result.notes[1] == "no client is left in group 2: its model is no part of the ensemble"


@pytest.mark.parametrize("method", ["retrain", "finetune"])
def test_a_group_that_no_example_is_left_of_has_no_model(method: str, tmp_path: Path) -> None:
    """All examples of client 2, which is a group of its own, are named: to the others it is as if it left."""
    federation = federation_of()
    run = apart(federation, tmp_path, groups=4)
    every = ForgetRequest(samples={"2": tuple(range(len(DATA["2"])))})
    settings, emptied = ForgetSettings(method=method), Holdings(clients_without_retained=("2",))
    result = forget(run, every, method, settings, federation.cohort(), holdings=emptied)
    assert same(result.flat, apart(part(federation, ("0", "1", "3")), tmp_path / "without", 4).final)
    assert result.notes[1] == "no client is left in group 2: its model is no part of the ensemble"


def test_what_is_retrained_where_the_others_models_are_not_exact(tmp_path: Path) -> None:
    """After an approximate method, or with another seed: all groups, and the reference only."""
    federation = federation_of()
    run = replace(apart(federation, tmp_path), final=torch.zeros(2 * federation.layout.size), all_groups=True)
    result = forgotten("retrain", run, federation, CLIENT_2)
    assert same(result.flat, apart(part(federation, ("0", "1", "3")), tmp_path / "without").final)
    assert concerned_groups(run, CLIENT_2, Holdings(), whole=False) == [0]


def test_groups_that_hold_nothing_of_a_class_are_left_alone(tmp_path: Path) -> None:
    run = apart(federation_of(), tmp_path)
    holdings = Holdings(clients_without_forgotten=EVEN)
    assert concerned_groups(run, CLASS, holdings, whole=True) == [1]
    gone = replace(run, forgotten=(ForgetRequest(clients=ODD),))
    assert concerned_groups(gone, CLASS, Holdings(), whole=True) == [0]


def test_only_clients_of_the_group_are_missed(tmp_path: Path) -> None:
    """Client 3 is offline, and client 0 is needed."""
    federation = federation_of()
    run = apart(federation, tmp_path)
    away = federation.but(offline=frozenset({"3"}))
    assert not any("not connected" in note for note in forgotten("retrain", run, away, CLIENT_2).notes)
    more = federation_of({**DATA, "4": DATA["0"]})
    run = apart(more, tmp_path / "more")
    result = forgotten("retrain", run, more.but(offline=frozenset({"4"})), CLIENT_2)
    assert "client 4 of the run did not take part: not connected" in result.notes
