"""unlearning/methods/fisher.py: the noise over clients is the noise of the same examples in one place."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.core.examples import TensorExamples
from tests.unlearning.methods.federation import Federation, blobs, pooled
from tests.unlearning.runs import OneParameter, logged_run
from unlearning.central.fisher import fisher_forget
from unlearning.forgetting import ForgetResult, forget
from unlearning.methods.base import ForgetJob
from unlearning.methods.fisher import ACTION
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.traits.fisher import FisherSettings

DATA = {str(i): blobs(20 + 4 * i, seed=i) for i in (0, 1, 2, 10)}
CLIENT = ForgetRequest(clients=("2",))
CLASS = ForgetRequest(classes=(1,))
SAMPLES = ForgetRequest(samples={"0": (3, 7, 8), "10": (0,)})
SETTINGS = ForgetSettings.of("fisher", alpha=1e-3, max_inverse=50.0)


@pytest.fixture(scope="module")
def federation() -> Federation:
    return Federation(DATA)


@pytest.fixture(scope="module")
def run(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return federation.trained(tmp_path_factory.mktemp("run") / "log", rounds=3)


def served(
    run: TrainedRun,
    federation: Federation,
    request: ForgetRequest = CLIENT,
    settings: ForgetSettings = SETTINGS,
) -> ForgetResult:
    return forget(run, request, "fisher", settings, federation.cohort())


def job(run: TrainedRun, request: ForgetRequest) -> ForgetJob:
    return ForgetJob(run, request, SETTINGS, None, lambda done, total, values: None)


def masks(request: ForgetRequest) -> dict[str, Tensor]:
    """Return which examples of each client the request names, counted out here."""
    return {
        client_id: torch.tensor(
            [
                client_id in request.clients
                or int(y) in request.classes
                or position in request.samples.get(client_id, ())
                for position, y in enumerate(examples.y)
            ]
        )
        for client_id, examples in DATA.items()
    }


# by hand


def test_the_noise_by_hand(tmp_path: Path) -> None:
    """One parameter w = 0, logits (w·x, 0): p = ½ for both labels, ∂ log p = ±x/2, Σ_y p(∂ log p)² = x²/4.

    Retained are x = 1 with client a and x = 3 with b: H = (¼ + 9/4)/2 = 5/4. At α = 5 the deviation is
    sqrt(5 / (5/4)) = 2; the draw is the job's first.
    """
    a, b = (TensorExamples(torch.tensor([[x]]), torch.tensor([0])) for x in (1.0, 3.0))
    zero = torch.zeros(1)
    rounds = [dict.fromkeys("abc", (1.0, zero))]
    run = logged_run(tmp_path / "log", rounds, initial=zero, clients=("a", "b", "c"))
    request = ForgetRequest(clients=("c",))
    settings = ForgetSettings.of("fisher", alpha=5.0)
    result = served(run, Federation({"a": a, "b": b, "c": b}, OneParameter), request, settings)
    draw = torch.randn(1, generator=job(run, request).generator("fisher"), dtype=torch.float64)
    assert result.flat.tolist() == pytest.approx((2.0 * draw).tolist())
    assert result.details["examples"] == 2


# against the same examples in one place


@pytest.mark.parametrize("request_", [CLIENT, CLASS, SAMPLES], ids=lambda r: r.kind)
def test_equals_the_central_noise(federation: Federation, run: TrainedRun, request_: ForgetRequest) -> None:
    result = served(run, federation, request_)
    central = fisher_forget(
        run.model(run.final),
        pooled(federation, masks(request_))[1],
        FisherSettings(alpha=1e-3, max_inverse=50.0),
        job(run, request_).generator("fisher"),
        classes=request_.classes,
    )
    expected = run.layout.flatten(central.state_dict())
    torch.testing.assert_close(result.flat, expected, rtol=1e-6, atol=1e-7)
    assert not result.flat.allclose(run.final)


def head(run: TrainedRun, flat: Tensor) -> nn.Linear:
    *_, last = run.model(flat).modules()
    assert isinstance(last, nn.Linear)
    return last


def test_rows_of_the_head_go_only_with_a_whole_class(federation: Federation, run: TrainedRun) -> None:
    """Without noise, a class request clears row 1; one for all of client 0's examples of class 1 does not."""
    quiet = ForgetSettings.of("fisher", alpha=0.0)
    cleared = head(run, served(run, federation, CLASS, quiet).flat)
    before = head(run, run.final)
    assert not cleared.weight[1].any()
    assert cleared.bias[1] == 0.0
    assert cleared.weight[[0, 2]].equal(before.weight[[0, 2]])
    positions = tuple((DATA["0"].y == 1).nonzero().squeeze(1).tolist())
    kept = served(run, federation, ForgetRequest(samples={"0": positions}), quiet)
    assert kept.flat.equal(run.final)


# identities


@pytest.mark.parametrize("request_", [CLIENT, SAMPLES], ids=lambda r: r.kind)
def test_at_alpha_zero_the_model_comes_back(
    federation: Federation, run: TrainedRun, request_: ForgetRequest
) -> None:
    assert served(run, federation, request_, ForgetSettings.of("fisher", alpha=0.0)).flat.equal(run.final)


def test_pruned_weights_get_no_noise(federation: Federation, run: TrainedRun) -> None:
    mask = torch.arange(run.layout.size) % 2 == 0
    result = served(replace(run, mask=mask, final=run.final * mask), federation)
    assert not result.flat[~mask].any()
    assert (result.flat != run.final)[mask].all()


# properties


def test_arrival_does_not_matter(federation: Federation, run: TrainedRun) -> None:
    assert served(run, federation).flat.equal(served(run, federation.but(backwards=True)).flat)


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


def test_the_noise_comes_from_the_runs_seed_and_the_request(federation: Federation, run: TrainedRun) -> None:
    first = served(run, federation).flat
    torch.rand(3)
    assert served(run, federation).flat.equal(first)
    other = replace(run, plan=replace(run.plan, seed=1))
    assert not served(other, federation).flat.allclose(first)


def test_only_clients_that_keep_data_are_asked(run: TrainedRun) -> None:
    federation = Federation({**DATA, "1": TensorExamples(DATA["1"].x, torch.ones_like(DATA["1"].y))})
    served(run, federation, CLASS)
    assert [i for kind, i in federation.asked if kind == ACTION] == ["0", "2", "10"]
    federation.asked.clear()
    served(run, federation, CLIENT)
    assert [i for kind, i in federation.asked if kind == ACTION] == ["0", "1", "10"]


# clients that fail


def test_a_client_that_does_not_answer_is_not_in_the_diagonal(
    federation: Federation, run: TrainedRun
) -> None:
    result = served(run, federation.but(failing={"1": (ACTION,)}))
    assert result.warnings == (
        "client 1 failed in 1 of 1 visits (error: out of memory): no answer of it is in the result",
    )
    without = {i: examples for i, examples in DATA.items() if i != "1"}
    assert result.flat.equal(served(run, federation.but(data=without)).flat)


def test_nobody_answers(federation: Federation, run: TrainedRun) -> None:
    failing = dict.fromkeys(DATA, (ACTION,))
    with pytest.raises(LetheError, match="fisher: no client that keeps data answered usefully"):
        served(run, federation.but(failing=failing))


def test_clients_are_needed(run: TrainedRun) -> None:
    with pytest.raises(BadInput, match="fisher needs the remaining clients online"):
        forget(run, CLIENT, "fisher", SETTINGS)


# a damaged answer


def test_the_square_of_a_summed_gradient_would_be_noticed(federation: Federation, run: TrainedRun) -> None:
    """The released code squares the gradient of a batch; per example it is another diagonal."""
    retained = pooled(federation, masks(CLIENT))[1]
    model = run.model(run.final)
    log_p = model(retained.x).log_softmax(dim=1)
    total = torch.zeros(run.layout.size, dtype=torch.float64)
    for label in range(3):
        weight = log_p[:, label].exp().detach().sqrt()
        pieces = torch.autograd.grad(
            (weight * log_p[:, label]).sum(), list(model.parameters()), retain_graph=True
        )
        total += torch.cat([piece.reshape(-1) for piece in pieces]).square()
    noise = served(run, federation).flat.double() - run.final.double()
    draw = torch.randn(len(total), generator=job(run, CLIENT).generator("fisher"), dtype=torch.float64)
    scale = (1e-3 * (total / len(retained)).reciprocal().clamp(max=50.0)).sqrt()
    assert not torch.allclose(noise, scale * draw, rtol=0.1)
    assert math.isfinite(float(noise.norm()))
