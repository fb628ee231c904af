"""unlearning/methods/sifu.py: the round that is gone back to, the noise, and what is refused."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.gaussian_mechanism import largest_ratio, least_delta
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.noise import grid_step
from strategies.server.settings import SelectionSettings
from strategies.tasks.segmentation import Segmentation
from tests.unlearning.methods.federation import Federation, blobs
from tests.unlearning.methods.slow import CLIENT, DATA, forgotten
from tests.unlearning.runs import Rounds, logged_run
from unlearning.central.sifu import Kept
from unlearning.forgetting import ForgetResult, forget
from unlearning.holdings import Holdings
from unlearning.methods.base import ForgetJob
from unlearning.methods.sifu import ACTION, kept_round
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

ROUNDS = 4
CONVEX = TrainSettings(local_epochs=1, batch_size=8, momentum=0.0, learning_rate=0.05, weight_decay=0.01)

BOUNDS = {i: 0.5 * float(part.x.square().sum(dim=1).max() + 1) for i, part in DATA.items()}
"""β of the cross-entropy, by client-id."""


def linear() -> nn.Module:
    """Return a linear model in float64, always with the same weights."""
    model = nn.Linear(4, 3, dtype=torch.float64)
    generator = torch_generator(0, "test weights")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def convex() -> Federation:
    return Federation(DATA, build_model=linear, settings=CONVEX)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Return a run of a linear model of clients 0 to 3."""
    return convex().trained(tmp_path_factory.mktemp("run") / "log", ROUNDS)


def served(run: TrainedRun, federation: Federation | None = None, **settings: object) -> ForgetResult:
    return forgotten("sifu", run, federation or convex(), CLIENT, **settings)


def job_of(run: TrainedRun, *clients: str) -> ForgetJob:
    request = ForgetRequest(clients=clients)
    return ForgetJob(run, request, ForgetSettings(method="sifu"), None, lambda done, total, values: None)


# by hand


def one(value: float) -> Tensor:
    return torch.tensor([value])


def by_hand(folder: Path, *, decay: float) -> TrainedRun:
    """Return the run of θ ← θ − ½ (θ − y) with y_a = 1, y_b = 3 from θ = 0: 1, 1.5, 1.75.

    Without b it is ½, ¾ and ⅞. Client b is not there in the first of four rounds, in which θ stays 0.
    """
    rounds: Rounds = [
        {"a": (1, one(0.0))},
        {"a": (1, one(0.5)), "b": (1, one(1.5))},
        {"a": (1, one(0.0)), "b": (1, one(1.0))},
        {"a": (1, one(-0.25)), "b": (1, one(0.75))},
    ]
    train = TrainSettings(learning_rate=0.5, momentum=0, batch_size=1, local_epochs=1, weight_decay=decay)
    found = logged_run(
        folder / "log", rounds, initial=one(0.0), build_model=lambda: nn.Linear(1, 1, bias=False)
    )
    return replace(found, train=train)


@pytest.mark.parametrize(
    ("decay", "smoothness", "expected"),
    [
        # ℓ = −yθ with λ = 1, so β = 0: B = ½, and ψ is the distance itself
        (1.0, 0.0, [0.0, 0.5, 0.75, 0.875]),
        # ℓ = ½ (θ − y)², so β = 1 and λ = 0: B = 1, and ψ is a bound on it
        (0.0, 1.0, [0.0, 0.5, 1.0, 1.5]),
    ],
)
def test_the_sensitivity_by_hand(
    tmp_path: Path, decay: float, smoothness: float, expected: list[float]
) -> None:
    run = by_hand(tmp_path, decay=decay)
    for last, (psi, theta) in enumerate(zip(expected, [0.0, 1.0, 1.5, 1.75], strict=True), start=1):
        kept = kept_round(job_of(run, "b"), {"a": smoothness}, psi)
        assert kept == Kept(last, kept.flat, pytest.approx(psi))
        assert kept.flat.tolist() == pytest.approx([theta])
    assert kept_round(job_of(run, "b"), {"a": smoothness}, 0.49).round == 1


def test_who_tells_no_bound_ends_what_can_be_kept(tmp_path: Path) -> None:
    """Round 2 needs none, as nothing had come apart before it; round 3 does."""
    assert kept_round(job_of(by_hand(tmp_path, decay=0.0), "b"), {}, math.inf).round == 2


# against trainings without the client


@pytest.mark.parametrize("leaving", ["0", "2", "3"])
def test_the_bound_holds_in_every_round(run: TrainedRun, tmp_path: Path, leaving: str) -> None:
    """Other clients' batches are the same without it; ψ is at least the distance, and not 100 times it."""
    for last in range(1, ROUNDS + 1):
        log = run.log
        assert log is not None
        without = convex().but(offline=frozenset((leaving,))).trained(tmp_path / f"{last}", last).final
        with_it = convex().trained(tmp_path / f"{last}-all", last)
        kept = kept_round(job_of(with_it, leaving), BOUNDS, math.inf)
        assert kept.round == last
        torch.testing.assert_close(kept.flat, with_it.final)
        distance = float((with_it.final.double() - without.double()).norm())
        assert 0 < distance <= kept.sensitivity + 1e-6 < 100 * distance


def test_two_clients_are_bounded_together(run: TrainedRun, tmp_path: Path) -> None:
    without = convex().but(offline=frozenset("12")).trained(tmp_path / "log", ROUNDS).final
    after = replace(run, forgotten=(ForgetRequest(clients=("1",)),))
    kept = kept_round(job_of(after, "2"), BOUNDS, math.inf)
    assert float((run.final.double() - without.double()).norm()) <= kept.sensitivity
    assert kept.sensitivity > kept_round(job_of(run, "2"), BOUNDS, math.inf).sensitivity


# the noise


def half_way(run: TrainedRun) -> float:
    """Return the noise by which about half of the rounds are kept, with ε = 2 and δ = 1e-4."""
    whole = kept_round(job_of(run, "2"), BOUNDS, math.inf).sensitivity
    return 0.6 * whole / largest_ratio(2.0, 1e-4)


def test_the_noise_hides_the_sensitivity_and_no_more_rounds_are_kept(run: TrainedRun) -> None:
    noise = half_way(run)
    found = served(run, noise=noise, epsilon=2.0, delta=1e-4).details["certified"]
    assert 0 < found["kept-round"] < ROUNDS
    ratios = [found["sensitivity"] / noise, found["allowed"] / noise]
    assert least_delta(2.0, ratios[0]) <= 1e-4 < least_delta(2.0, ratios[1] * 1.001)
    assert found["sensitivity"] <= found["allowed"]


def test_noise_is_drawn_anew_and_by_nothing_that_is_known(run: TrainedRun) -> None:
    """All rounds are kept, so that the result is the run's model and the noise alone."""
    first, second = (served(run, noise=10.0).flat for _ in range(2))
    assert not first.equal(second)
    noise = torch.cat([first - run.final, second - run.final])
    assert 5 < float(noise.std()) < 20
    assert (first / grid_step(10.0)).frac().count_nonzero() == 0
    assert served(run, noise=10.0).details["certified"]["rounds"] == 0


def test_without_a_round_to_keep_it_is_retraining(run: TrainedRun) -> None:
    found, again = served(run, noise=1e-6), forgotten("retrain", run, convex(), CLIENT)
    assert found.flat.equal(again.flat)
    certified = found.details["certified"]
    assert (certified["kept-round"], certified["noise"], certified["epsilon"]) == (0, 0.0, 0.0)
    assert found.notes[0] == (
        "went back to round 0 of 4, which nothing forgotten had a part in: no noise was needed, and none was "
        "added"
    )


def test_who_leaves_is_not_asked(run: TrainedRun) -> None:
    federation = convex()
    found = served(run, federation, noise=half_way(run), epsilon=2.0, delta=1e-4)
    rounds = found.details["certified"]["rounds"]
    assert federation.asked.count((ACTION, "0")) == 1
    assert {i for kind, i in federation.asked if kind in {ACTION, wire.TRAIN}} == set("013")
    assert sum(kind == wire.TRAIN for kind, _ in federation.asked) == 3 * rounds > 0


def test_more_or_fewer_rounds_may_follow(run: TrainedRun) -> None:
    federation = convex()
    assert served(run, federation, noise=10.0, rounds=2).details["certified"]["rounds"] == 2
    assert sum(kind == wire.TRAIN for kind, _ in federation.asked) == 6


def test_a_client_without_a_bound_is_named(run: TrainedRun) -> None:
    found = served(run, convex().but(failing={"3": (ACTION,)}), noise=10.0)
    assert found.details["certified"]["kept-round"] == 1
    assert "client 3 did not tell its largest input: no round of it could be kept" in found.notes


def test_of_a_client_whose_data_changed_no_round_is_kept(run: TrainedRun) -> None:
    """Its largest input today says nothing of those that it trained on."""
    federation, settings = convex(), ForgetSettings.of("sifu", noise=10.0)
    changed = Holdings(changed_clients=("3",))
    found = forget(run, CLIENT, "sifu", settings, federation.cohort(), holdings=changed)
    assert found.details["certified"]["kept-round"] == 1
    assert ("query.sifu", "3") not in federation.asked
    note = "client 3 has other data than in the run, which tell no bound: no round of it could be kept"
    assert note in found.notes


def test_a_client_that_never_took_part_changes_nothing(run: TrainedRun) -> None:
    wider = replace(run, clients=(*run.clients, "9"))
    federation = Federation({**DATA, "9": blobs(20, seed=9)}, build_model=linear, settings=CONVEX)
    found = forgotten("sifu", wider, federation, ForgetRequest(clients=("9",)))
    assert found.flat.equal(run.final)


# refusals


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train": CONVEX.model_copy(update={"momentum": 0.9})}, r"train\.momentum = 0\.9 may part"),
        ({"train": CONVEX.model_copy(update={"optimizer": "adam"})}, r'train\.optimizer = "adam" takes no'),
        ({"train": CONVEX.model_copy(update={"max_gradient_norm": 1.0})}, "clipped gradients"),
        ({"precision": "bf16"}, r'run\.precision = "bf16" are rounded'),
        ({"mask": torch.ones(15, dtype=torch.bool)}, "its mask was chosen"),
        ({"task": Segmentation()}, r"task \(segmentation\) is not known to be convex"),
        ({"build_model": lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))}, "more than one linear"),
    ],
)
def test_what_has_no_certificate_is_refused(run: TrainedRun, changes: dict[str, object], reason: str) -> None:
    federation = convex()
    with pytest.raises(BadInput, match=rf"^sifu: no certificate: .*{reason}"):
        served(replace(run, **changes), federation)  # type: ignore[arg-type]
    assert not [kind for kind, _ in federation.asked if kind != wire.DESCRIBE]


def test_who_is_chosen_by_data_is_refused(run: TrainedRun) -> None:
    plan = replace(run.plan, selection=SelectionSettings(method="power-of-choice"))
    with pytest.raises(BadInput, match="data decide who takes part"):
        served(replace(run, plan=plan))


def test_classes_are_refused(run: TrainedRun) -> None:
    with pytest.raises(BadInput, match="sifu does not serve a class request: the log holds one update"):
        forget(run, ForgetRequest(classes=(1,)), "sifu", ForgetSettings(), convex().cohort())
