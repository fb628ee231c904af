"""unlearning/suspects: clients are ranked from a log, and one is named only on evidence."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples
from strategies.log.index import Entry
from strategies.log.update_log import UpdateLog
from tests.counting import check_growth
from tests.unlearning.runs import OneParameter, Rounds, linear_model, logged_run
from unlearning.run import TrainedRun
from unlearning.suspects import from_log, left_out as left_out_module
from unlearning.suspects.from_log import ClientSums, directions, lengths
from unlearning.suspects.left_out import largest_rise, left_out
from unlearning.suspects.outliers import Values, scores_of
from unlearning.suspects.signs import Sign, together
from unlearning.suspects.suspects import NO_INTERVAL, Suspect, find_suspects

ONE = TensorExamples(torch.tensor([[1.0]]), torch.tensor([0]))


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def by_client(found: Sequence[Suspect]) -> dict[str, Suspect]:
    return {suspect.client_id: suspect for suspect in found}


def drawn_rounds(seed: int, clients: int, rounds: int = 6, bad: int | None = None, size: int = 9) -> Rounds:
    """Return updates that have a direction in common, and noise; the bad client's has another direction."""
    draw = torch.Generator().manual_seed(seed)
    common, other = torch.randn(2, size, generator=draw)
    return [
        {
            str(k): (10.0, (other if k == bad else common) + torch.randn(size, generator=draw))
            for k in range(clients)
        }
        for _ in range(rounds)
    ]


def drawn_run(path: Path, rounds: Rounds, retention: str = "full") -> TrainedRun:
    run = logged_run(
        path,
        rounds,
        initial=torch.zeros(9),
        build_model=linear_model,
        retention=retention,
        clients=sorted(rounds[0]),
    )
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(5))
    return replace(run, test=TensorExamples(x, torch.arange(30) % 3), num_groups=3)


# by hand


def test_two_clients_and_one_parameter(tmp_path: Path) -> None:
    """M_1 = 0; a adds 3 and 1, b adds −1 and 1, half each: M_F = 2. Lengths: 3 : 1 and 1 : 1, the median of
    a round is 2 and 1: a has √(3/2 · 1), b √(1/2 · 1). Cosines: −1 in the first round, 1 in the second.
    Without a: S_a = 2, (2 − 2) / ½ = 0; loss log 2. Without b: S_b = 0, 2 / ½ = 4; loss log(1 + e⁻⁴).
    """
    rounds: Rounds = [
        {"a": (1.0, vector(3.0)), "b": (1.0, vector(-1.0))},
        {"a": (1.0, vector(1.0)), "b": (1.0, vector(1.0))},
    ]
    run = replace(logged_run(tmp_path / "log", rounds, initial=vector(0.0)), test=ONE)
    found = by_client(find_suspects(run).clients)
    values = {
        i: {name: figures["value"] for name, figures in each.signs.items()} for i, each in found.items()
    }
    now = math.log(1 + math.exp(-2))
    assert values["a"]["length"] == pytest.approx(math.sqrt(1.5))
    assert values["b"]["length"] == pytest.approx(math.sqrt(0.5))
    assert values["a"]["direction"] == values["b"]["direction"] == pytest.approx(0.0)
    assert values["a"]["loss"] == pytest.approx(math.log(2) - now, rel=1e-5)
    assert values["b"]["loss"] == pytest.approx(math.log(1 + math.exp(-4)) - now, rel=1e-4)
    # Logits (w, 0), less their mean: (w/2, −w/2). With a instead of without: ±1; b: ∓1; the median is 0.
    assert values["a"]["class"] == values["b"]["class"] == pytest.approx(1.0, rel=1e-5)
    assert [each.p for each in found.values()] == [1.0, 1.0]


def test_two_cannot_be_told_apart_and_that_is_said(tmp_path: Path) -> None:
    rounds: Rounds = [{"a": (1.0, vector(1e6)), "b": (1.0, vector(-1e-6))}]
    found = find_suspects(logged_run(tmp_path / "log", rounds, initial=vector(0.0)))
    assert found.standing_out == []
    assert found.notes == ["of 2 clients none can be told from the others; that takes 4", NO_INTERVAL]
    assert {each.interval for each in found.clients} == {
        None
    }  # Of a single round there is nothing to draw anew
    assert found.not_judged["loss"] == found.not_judged["class"] == "the server has no data of its own"


# slow reference


def slow_cosines(rounds: Rounds, clients: Sequence[str]) -> Values:
    """Return the cosine to the weighted mean of the others, [rounds, clients]."""
    table = np.full((len(rounds), len(clients)), np.nan)
    for row, updates in enumerate(rounds):
        for column, client in enumerate(clients):
            others = [(w, u.double().numpy()) for i, (w, u) in updates.items() if i != client]
            if client in updates and others:
                own = updates[client][1].double().numpy()
                mean = sum(w * u for w, u in others) / sum(w for w, _ in others)
                table[row, column] = own @ mean / (np.linalg.norm(own) * np.linalg.norm(mean))
    return table


@pytest.mark.parametrize("held", [1 << 28, 0])
def test_directions_are_those_of_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """Whether a round's updates fit into memory or are read twice; clients miss rounds, or are alone."""
    monkeypatch.setattr(from_log, "_HELD_BYTES", held)
    whole = drawn_rounds(1, clients=5, rounds=4)
    rounds: Rounds = [
        {i: (w + int(i), u) for i, (w, u) in updates.items() if (int(i) + number) % 3}
        for number, updates in enumerate(whole)
    ]
    rounds = [*rounds, {"2": whole[0]["2"]}]
    run = drawn_run(tmp_path / "log", rounds)
    assert run.log is not None
    clients = run.log.clients()
    cosines = slow_cosines(rounds, clients)[:4]
    found = directions(run.log, clients)
    assert found.samples[..., 0] == pytest.approx(
        np.nanmedian(cosines, axis=1, keepdims=True) - cosines, abs=1e-6, nan_ok=True
    )
    assert list(found.shown) == pytest.approx(np.nanmean(cosines, axis=0).tolist(), abs=1e-6)


def test_a_client_is_left_out_as_subtraction_with_renormalised_weights_has_it(tmp_path: Path) -> None:
    """Where weights are the same in all rounds it is the sum of the others' renormalised means."""
    rounds = drawn_rounds(3, clients=4, rounds=3)
    run = drawn_run(tmp_path / "log", rounds)
    assert run.log is not None
    assert run.test is not None
    sums = ClientSums.of(run.log, run.log.clients(), run.final - run.initial)
    loss, _ = left_out(run, sums, run.test)
    x, y = run.test.batch(torch.arange(len(run.test)))

    def mean_loss(flat: Tensor) -> float:
        return float(nn.functional.cross_entropy(run.model(flat)(x).detach(), y))

    for k, client in enumerate(sums.clients):
        others = [u for updates in rounds for i, (_, u) in updates.items() if i != client]
        expected = mean_loss(torch.stack(others).sum(dim=0) / 3) - mean_loss(run.final)
        assert loss.shown[k] == pytest.approx(expected, abs=1e-4)


# what each retention allows


def test_a_log_of_sums_judges_by_sums_and_one_of_some_rounds_leaves_nobody_out(tmp_path: Path) -> None:
    rounds = drawn_rounds(2, clients=5, rounds=4)
    found = {
        kind: find_suspects(drawn_run(tmp_path / kind[:3], rounds, kind))
        for kind in ("full", "sum", "interval:3")
    }
    judged = {kind: list(each.clients[0].signs) for kind, each in found.items()}
    everything = ["length", "direction", "loss", "class"]
    assert judged == {"full": everything, "sum": everything, "interval:3": everything[:2]}
    assert "keeps no sum of all updates" in found["interval:3"].not_judged["loss"]
    assert [found[kind].clients[0].interval is None for kind in found] == [False, True, False]
    assert [NO_INTERVAL in found[kind].notes for kind in found] == [False, True, False]
    full, summed = (by_client(found[kind].clients) for kind in ("full", "sum"))
    for client in full:
        for name in ("length", "loss", "class"):
            assert summed[client].signs[name] == pytest.approx(full[client].signs[name], abs=1e-4)
        own, rest = (
            sum(u.double() for updates in rounds for i, (_, u) in updates.items() if (i == client) is wanted)
            for wanted in (True, False)
        )
        cosine = float(nn.functional.cosine_similarity(own, rest, dim=0))  # type: ignore[arg-type]
        assert summed[client].signs["direction"]["value"] == pytest.approx(cosine, abs=1e-5)


def test_a_strategy_that_did_not_average_leaves_the_log(tmp_path: Path) -> None:
    rounds = drawn_rounds(2, clients=5, rounds=2)
    run = logged_run(
        tmp_path / "log", rounds, initial=torch.zeros(9), build_model=linear_model, averaging=False
    )
    found = find_suspects(replace(run, test=ONE))
    assert list(found.clients[0].signs) == ["length", "direction"]
    assert found.not_judged["class"] == "fedavg did not add the average of the updates to the model"


def test_a_purged_client_is_not_judged_and_others_are(tmp_path: Path) -> None:
    run = drawn_run(tmp_path / "log", drawn_rounds(4, clients=6, rounds=2))
    with UpdateLog.open(tmp_path / "log", write=True) as log:
        log.purge(["2"])
    found = find_suspects(replace(run, log=UpdateLog.open(tmp_path / "log")))
    assert sorted(by_client(found.clients)) == ["0", "1", "3", "4", "5"]
    assert found.notes == ["client 2 is not judged: its updates were purged"]


# evidence


@pytest.mark.parametrize("retention", ["full", "sum", "interval:2"])
def test_a_planted_client_is_first_and_named(tmp_path: Path, retention: str) -> None:
    run = drawn_run(tmp_path / "log", drawn_rounds(0, clients=10, bad=7), retention)
    found = find_suspects(run)
    assert found.standing_out == ["7"]
    first = found.clients[0]
    assert (first.client_id, first.rank) == ("7", 1)
    assert "its updates point away from the others'" in first.reasons
    assert first.p < 0.02
    bounds = first.interval
    assert (bounds is None) == (retention == "sum")
    assert bounds is None or bounds[0] <= first.score <= bounds[1] * 1.5


def test_one_long_update_is_seen_by_its_length(tmp_path: Path) -> None:
    rounds = [
        {i: (w, (5.0 if i == "4" else 1.0) * u) for i, (w, u) in updates.items()}
        for updates in drawn_rounds(6, clients=8, rounds=4)
    ]
    found = find_suspects(drawn_run(tmp_path / "log", rounds))
    assert found.standing_out == ["4"]
    assert "its updates are longer than the others'" in found.clients[0].reasons


def hiding(how: str) -> Rounds:
    """Return the rounds of ten clients of which client 7, or four of them, know the rule and hide."""
    rounds = drawn_rounds(0, clients=10, rounds=6)
    bad = drawn_rounds(0, clients=10, rounds=6, bad=7)
    found: list[dict[str, tuple[float, Tensor]]] = []
    for number, (honest, attacked) in enumerate(zip(rounds, bad, strict=True)):
        mean = torch.stack([u for _, u in honest.values()]).mean(dim=0)
        update = attacked["7"][1]
        sent = {
            "median length": update / update.norm() * honest["1"][1].norm(),
            "mixed into the mean": mean + 0.3 * update,
            "one round of six": update if number == 3 else honest["7"][1],
            "four of ten": update,
        }[how]
        together = ("0", "1", "2") if how == "four of ten" else ()
        alike = {i: (10.0, update + 0.3 * honest[i][1]) for i in together}
        found.append({**honest, "7": (10.0, sent), **alike})
    return found


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ("median length", True),
        ("mixed into the mean", False),
        ("one round of six", False),
        ("four of ten", False),
    ],
)
def test_what_a_client_that_knows_the_rule_hides(tmp_path: Path, how: str, seen: bool) -> None:
    found = find_suspects(drawn_run(tmp_path / "log", hiding(how)))
    assert ("7" in found.standing_out) is seen


def test_a_tiny_update_does_not_hide_a_long_one(tmp_path: Path) -> None:
    factors = {"4": 5.0, "6": 1e-9}
    rounds = [
        {i: (w, factors.get(i, 1.0) * u) for i, (w, u) in updates.items()}
        for updates in drawn_rounds(6, clients=8, rounds=4)
    ]
    found = by_client(find_suspects(drawn_run(tmp_path / "log", rounds)).clients)
    assert "its updates are longer than the others'" in found["4"].reasons


class MemoryLog:
    """What `directions` and `lengths` read of a log, without a disk."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self.layout = wire.Layout(("w",), ((len(next(iter(rounds[0].values()))[1]),),))

    def rounds(self) -> list[int]:
        return list(range(1, len(self._rounds) + 1))

    kept_rounds = rounds

    def updates(self, number: int) -> Iterator[tuple[Entry, Tensor]]:
        for i, (weight, update) in self._rounds[number - 1].items():
            yield Entry(number, i, 1, weight, float(update.norm()), None), update

    def entries(self) -> list[Entry]:
        return [entry for number in self.rounds() for entry, _ in self.updates(number)]


def test_honest_clients_are_rarely_named() -> None:
    """150 logs; the level of both signs together is 5 %, three standard deviations are allowed for."""
    alarms, clients = 0, [str(k) for k in range(8)]
    for seed in range(150):
        log = cast(Any, MemoryLog(drawn_rounds(seed, clients=8, rounds=3, size=20)))
        p = [2 * sign(log, clients).p.min() for sign in (directions, lengths)]
        alarms += min(p) <= 0.05
    assert alarms <= 0.05 * 150 + 3 * math.sqrt(0.05 * 0.95 * 150)


def test_who_took_part_rarely_counts_for_less() -> None:
    """One sample of 3 beside sixteen of each other client: √(1/16) of its distance from the median counts."""
    samples = np.full((16, 5, 1), np.nan)
    samples[:, :4, 0] = np.tile([-1.0, 1.0, -0.5, 0.5], (16, 1))
    samples[0, 4, 0] = 3.0
    found = Sign("direction", "round", samples, [], "").values
    assert found == pytest.approx([-1.0, 1.0, -0.5, 0.5, 0.5 + (3.0 - 0.5) / 4])


def test_two_signs_together_rank_a_client_that_is_out_by_both() -> None:
    """Each sign has another client in front; the sixth is second in both, whatever the scale."""
    first = np.array([0.0, 0.4, -0.5, 0.1, 2.6, 2.5, -0.2, 0.2])
    second = 1000 * np.array([0.1, 2.6, 0.3, -0.4, 0.0, 2.5, 0.2, -0.3])
    assert (first.argmax(), second.argmax(), together([first, second]).argmax()) == (4, 1, 5)
    assert together([first]) == pytest.approx(scores_of(first))


def test_signs_that_cancel_each_other_make_no_score_of_thousands() -> None:
    """In their own deviations (−1, 0, 1, 9) and (1, 0, −1, 9): the sums (0, 0, 0, 18) have no spread.

    With a deviation of 1 the last is 18 / √(1 + ⅓) out, which a sign of 9 / √(1 + ⅓) alone bears out.
    """
    found = together([np.array([0.0, 1.0, 2.0, 10.0]), np.array([2.0, 1.0, 0.0, 10.0])])
    assert found.tolist() == pytest.approx([0.0, 0.0, 0.0, 18 / math.sqrt(4 / 3)])


def test_a_client_of_which_nothing_was_used_is_named_as_such(tmp_path: Path) -> None:
    """One whose replies were all refused is in no log, and must not look as if it were cleared."""
    run = drawn_run(tmp_path / "log", drawn_rounds(1, 5))
    found = find_suspects(replace(run, clients=(*run.clients, "9")))
    assert "client 9 is not judged: no update of it was used in any round" in found.notes
    assert "9" not in by_client(found.clients)


def test_a_class_counts_by_its_rise_over_the_median_client() -> None:
    shifts = np.array([[[0.0, 4.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.2, 0.2]]])
    # Medians 0.2 and 0.5; rises (−0.2, 3.5), (0.8, −0.5), (−0.2, 0.5), (0.3, 0), (0, −0.3)
    assert largest_rise(shifts)[0] == pytest.approx(np.log([3.5, 0.8, 0.5, 0.3, 0.125]))


def test_the_same_seed_ranks_alike_and_the_order_of_clients_does_not_matter(tmp_path: Path) -> None:
    rounds = drawn_rounds(9, clients=6, rounds=3)
    turned = [dict(reversed(updates.items())) for updates in rounds]
    first, again = (
        find_suspects(drawn_run(tmp_path / str(n), each)) for n, each in enumerate([rounds, turned])
    )
    assert first == again


# speed and errors


def test_work_grows_with_the_number_of_clients_and_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_out_module, "MOST_EXAMPLES", 1)
    made = iter(range(100))

    def prepare(clients: int, rounds: int) -> Any:
        updates = {str(k): (1.0, vector(1.0 + k)) for k in range(clients)}
        log = tmp_path / str(next(made))
        run = replace(logged_run(log, rounds * [updates], initial=vector(0.0), clients=()), test=ONE)
        return lambda: find_suspects(run)

    check_growth(lambda n: prepare(n, 2), (6, 12, 24))
    check_growth(lambda n: prepare(3, n), (4, 8, 16))


def test_what_cannot_be_ranked_is_refused(tmp_path: Path) -> None:
    run = logged_run(tmp_path / "log", [{"a": (1.0, vector(1.0))}], initial=vector(0.0))
    with pytest.raises(BadInput, match="suspects compares clients with each other, but the log holds 1 of"):
        find_suspects(run)
    with pytest.raises(BadInput, match=r"suspects needs the update log, but .* log.enabled = false"):
        find_suspects(replace(run, log=None))
    assert isinstance(run.build_model(), OneParameter)
