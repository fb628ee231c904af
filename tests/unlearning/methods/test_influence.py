"""unlearning/methods/influence.py: the step over clients is the step of the same examples in one place."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import Examples, TensorExamples, concatenated
from strategies.core.seeds import torch_generator
from tests.unlearning.methods.federation import Federation, blobs, pooled
from tests.unlearning.runs import OneParameter, logged_run
from unlearning.central.influence import InfluenceSettings, influence
from unlearning.forgetting import ForgetResult, forget
from unlearning.methods.base import ForgetJob
from unlearning.methods.influence import GRADIENTS, PRODUCT, TRIALS, draw_examples
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

DATA = {str(i): blobs(20 + 4 * i, seed=i) for i in (0, 1, 2, 10)}
CLIENT = ForgetRequest(clients=("2",))
CLASS = ForgetRequest(classes=(1,))
SAMPLES = ForgetRequest(samples={"0": (3, 7, 8), "10": (0,)})
SETTINGS = ForgetSettings.of("influence", damping=0.1, alphas="0.25, 0.5, 1, 2, 4", tolerance=1e-12)
LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


@pytest.fixture(scope="module")
def federation() -> Federation:
    return Federation(DATA)


@pytest.fixture(scope="module")
def run(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return federation.trained(tmp_path_factory.mktemp("run") / "log", rounds=6)


def served(
    run: TrainedRun,
    federation: Federation,
    request: ForgetRequest = CLIENT,
    settings: ForgetSettings = SETTINGS,
) -> ForgetResult:
    return forget(run, request, "influence", settings, federation.cohort())


def masks(request: ForgetRequest) -> dict[str, Tensor]:
    """Return which examples of each client the request names, counted out here."""
    found = {}
    for client_id, examples in DATA.items():
        positions = request.samples.get(client_id, ())
        found[client_id] = torch.tensor(
            [
                client_id in request.clients or int(y) in request.classes or position in positions
                for position, y in enumerate(examples.y)
            ]
        )
    return found


# by hand


def test_a_step_by_hand(tmp_path: Path) -> None:
    """One parameter w, logits (w·x, 0): at w = 0 the gradient of an example is ∓x/2 for the labels 0 and 1.

    D_f is x = 2, label 0: gradient −1. D_r is x = 1 and x = 1, label 1: gradients ½ each. Then v = (−1 −
    ½·1)/3 = −½, F = λ + ¼ = ½ at λ = ¼, the step α·(−1). Of the two lengths, 3 raises the loss on D_f most,
    and costs nothing on D_r, whose logits are right at w < 0: w = −3.
    """
    forget_set = TensorExamples(torch.tensor([[2.0]]), torch.tensor([0]))
    retained = TensorExamples(torch.tensor([[1.0]]), torch.tensor([1]))
    federation = Federation({"a": retained, "b": retained, "c": forget_set}, OneParameter)
    zero = torch.zeros(1)
    rounds = [dict.fromkeys("abc", (1.0, zero))]
    run = logged_run(tmp_path / "log", rounds, initial=zero, clients=("a", "b", "c"))
    settings = SETTINGS.with_own("influence", damping=0.25, alphas="1, 3")
    result = served(run, federation, ForgetRequest(clients=("c",)), settings)
    assert result.flat.tolist() == pytest.approx([-3.0])
    assert result.details["alpha"] == 3.0
    losses = [math.log(1 + math.exp(-2 * w)) for w in (0.0, -1.0, -3.0)]
    assert [trial[2] for trial in result.details["trials"]] == pytest.approx(losses)


def test_examples_are_drawn_as_if_in_one_place() -> None:
    """Clients of 3, 0 and 5 examples: the places 0 to 7 of a permutation, cut at 3."""
    drawn = torch.randperm(8, generator=torch_generator(4))[:5].tolist()
    chosen = draw_examples({"a": 3, "b": 0, "c": 5}, 5, torch_generator(4))
    assert chosen == {"a": [i for i in drawn if i < 3], "c": [i - 3 for i in drawn if i >= 3]}


def test_where_there_are_fewer_all_are_drawn() -> None:
    chosen = draw_examples({"a": 2, "b": 3}, 100, torch_generator(0))
    assert {i: sorted(places) for i, places in chosen.items()} == {"a": [0, 1], "b": [0, 1, 2]}


# against the same examples in one place


@pytest.mark.parametrize("request_", [CLIENT, CLASS, SAMPLES], ids=lambda r: r.kind)
@pytest.mark.parametrize("fisher_examples", [1000, 30])
def test_equals_the_central_step(
    federation: Federation, run: TrainedRun, request_: ForgetRequest, fisher_examples: int
) -> None:
    """WoodFisher there, conjugate gradients here; the same examples drawn, the same lengths tried."""
    settings = SETTINGS.with_own("influence", fisher_examples=fisher_examples)
    result = served(run, federation, request_, settings)
    forget_set, retained = pooled(federation, masks(request_))
    central = influence(
        run.model(run.final),
        retained,
        forget_set,
        InfluenceSettings(damping=0.1, fisher_examples=fisher_examples, alphas=LENGTHS),
        ForgetJob(run, request_, settings, None, lambda done, total, values: None).generator("influence"),
    )
    assert result.details["alpha"] == central.alpha != 0.0
    expected = run.layout.flatten(central.model.state_dict())
    torch.testing.assert_close(result.flat, expected, rtol=1e-6, atol=1e-7)
    for found, trial in zip(result.details["trials"], central.trials, strict=True):
        assert found == pytest.approx((trial.alpha, trial.retain_accuracy, trial.forget_loss), rel=1e-6)


def test_a_pruned_model_stays_pruned(federation: Federation, run: TrainedRun) -> None:
    mask = torch.arange(run.layout.size) % 2 == 0
    pruned = replace(run, mask=mask, final=run.final * mask)
    result = served(pruned, federation, settings=SETTINGS.model_copy(update={"max_retain_drop": 100.0}))
    assert not result.flat[~mask].any()
    assert not result.flat.allclose(pruned.final)


# properties


def test_arrival_does_not_matter(federation: Federation, run: TrainedRun) -> None:
    assert served(run, federation).flat.equal(served(run, federation.but(backwards=True)).flat)


def test_how_the_examples_lie_with_the_clients_does_not_matter(
    federation: Federation, run: TrainedRun
) -> None:
    """Client 2's data with two clients, the others' with one: the same sums."""
    ordered = ["0", "1", "10"]
    halves = DATA["2"].split(torch.arange(len(DATA["2"])) < 9)
    merged = {"0": concatenated(DATA[i] for i in ordered), "1": halves[0], "2": halves[1]}
    other = ForgetRequest(clients=("1", "2"))
    found = served(run, federation.but(data=merged), other)
    torch.testing.assert_close(found.flat, served(run, federation).flat, rtol=1e-6, atol=1e-7)


def test_forgetting_twice_equals_once_and_the_run_is_not_altered(
    federation: Federation, run: TrainedRun
) -> None:
    final = run.final.clone()
    assert served(run, federation).flat.equal(served(run, federation).flat)
    assert run.final.equal(final)


def test_a_client_that_never_took_part_changes_nothing(run: TrainedRun) -> None:
    federation = Federation({**DATA, "9": blobs(10, seed=9)})
    result = served(replace(run, clients=(*run.clients, "9")), federation, ForgetRequest(clients=("9",)))
    assert result.flat.equal(run.final)
    assert result.notes == (
        "client 9 never took part in a round: nothing to forget",
        "the model is unchanged",
    )
    assert all(kind == wire.DESCRIBE for kind, _ in federation.asked)


def test_the_drawn_examples_come_from_the_runs_seed(federation: Federation, run: TrainedRun) -> None:
    few = SETTINGS.with_own("influence", fisher_examples=10)
    first = served(run, federation, settings=few).flat
    torch.rand(3)
    assert served(run, federation, settings=few).flat.equal(first)
    other = replace(run, plan=replace(run.plan, seed=1))
    assert not served(other, federation, settings=few).flat.allclose(first)


def test_only_clients_of_drawn_examples_are_asked_for_products(run: TrainedRun) -> None:
    federation = Federation(DATA)
    result = served(run, federation, settings=SETTINGS.with_own("influence", fisher_examples=1))
    counts = [sum(kind == wanted for kind, _ in federation.asked) for wanted in (GRADIENTS, PRODUCT, TRIALS)]
    assert counts == [4, result.details["products"], 8]


def test_a_coarser_solution_takes_fewer_products(federation: Federation, run: TrainedRun) -> None:
    coarse = served(run, federation, settings=SETTINGS.with_own("influence", tolerance=0.1))
    assert coarse.details["products"] < served(run, federation).details["products"]


def test_no_length_that_is_bearable_leaves_the_model(federation: Federation, run: TrainedRun) -> None:
    settings = SETTINGS.with_own("influence", alphas="1e6", max_retain_drop=0.0)
    result = served(run, federation, settings=settings)
    assert result.flat.equal(run.final)
    assert result.notes == ("every length that was tried costs too much accuracy: the model is unchanged",)


# clients that fail


def test_a_remaining_client_that_does_not_answer_is_not_in_the_step(
    federation: Federation, run: TrainedRun
) -> None:
    result = served(run, federation.but(failing={"1": (GRADIENTS, PRODUCT, TRIALS)}))
    assert result.notes == (
        "client 1 failed, its data are not in the step: error: out of memory",
        "client 1 failed, its data are not in the choice of the step's length: error: out of memory",
    )
    without = {i: examples for i, examples in DATA.items() if i != "1"}
    assert result.flat.equal(served(run, federation.but(data=without)).flat)


def test_the_client_to_forget_must_answer(federation: Federation, run: TrainedRun) -> None:
    with pytest.raises(LetheError, match="influence: client 2 is needed and failed: error: out of memory"):
        served(run, federation.but(failing={"2": (GRADIENTS,)}))


def test_the_client_to_forget_must_be_online(federation: Federation, run: TrainedRun) -> None:
    with pytest.raises(
        BadInput, match="influence needs client '2' online, which holds what shall be forgotten"
    ):
        served(run, federation.but(offline=frozenset("2")))


def test_a_client_that_falls_silent_later_ends_the_work(federation: Federation, run: TrainedRun) -> None:
    with pytest.raises(LetheError, match="influence: client 1 is needed and failed: error: out of memory"):
        served(run, federation.but(failing={"1": (PRODUCT,)}))


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (np.float32, "'retain' has shape (67,) and dtype float32, expected (67,) and float64"),
        (lambda sums: sums[:-1], "'retain' has shape (66,) and dtype float64, expected (67,) and float64"),
        (lambda sums: sums * math.nan, "'retain' holds values that are not finite"),
    ],
)
def test_an_answer_that_is_no_sum_is_refused(
    federation: Federation, run: TrainedRun, spoilt: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    def spoil(client_id: str, kind: str, content: RecordDict) -> RecordDict:
        if (client_id, kind) == ("1", GRADIENTS):
            sums = content.array_records[wire.ARRAYS]
            content[wire.ARRAYS] = ArrayRecord({**sums, "retain": Array(spoilt(sums["retain"].numpy()))})
        return content

    result = served(run, federation.but(change=spoil))
    assert result.notes[0] == f"client 1 failed, its data are not in the step: {reason}"


# errors


def test_too_small_a_damping_says_so(
    federation: Federation, run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearning.methods.influence.MAX_PRODUCTS", 2)
    with pytest.raises(
        LetheError, match=r"after 2 products; raise the damping \(forget.influence.damping is 0.1\)"
    ):
        served(run, federation)


def test_nobody_holds_the_class(federation: Federation, run: TrainedRun) -> None:
    none_of_2 = {i: TensorExamples(e.x, e.y % 2) for i, e in DATA.items()}
    with pytest.raises(LetheError, match="class-2: no connected client holds an example of it"):
        served(run, federation.but(data=none_of_2), ForgetRequest(classes=(2,)))


# a damaged answer


def test_the_released_recurrence_would_be_noticed(federation: Federation, run: TrainedRun) -> None:
    """It never applies an inverse: its step is v, plus a multiple of one gradient. F⁻¹v is neither."""
    forget_set, retained = pooled(federation, masks(CLIENT))
    model = run.model(run.final)
    vector = _gradient(model, forget_set, len(retained)) - _gradient(model, retained, len(forget_set))
    step = served(run, federation).flat - run.final
    first = _gradient(model, retained.subset([0]), 1)
    basis = torch.stack([vector, first]).T
    explained = basis @ torch.linalg.lstsq(basis, step.double().unsqueeze(1)).solution.squeeze(1)
    assert float((step - explained).norm() / step.norm()) > 0.2


def _gradient(model: nn.Module, examples: Examples, factor: int) -> Tensor:
    loss = nn.functional.cross_entropy(model(examples.x), examples.y, reduction="sum")
    pieces: Mapping[int, Tensor] = dict(enumerate(torch.autograd.grad(loss, list(model.parameters()))))
    return factor * torch.cat([piece.reshape(-1) for piece in pieces.values()])
