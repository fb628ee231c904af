"""What holds of every forgetting method; `redistill`, `reprune` and `sifu`, have files of their own."""

from dataclasses import replace

import pytest

from strategies.core.errors import LetheError
from tests.unlearning.methods.federation import Federation, blobs
from tests.unlearning.runs import SHORT as SETTINGS
from unlearning.forgetting import ForgetResult, forget
from unlearning.methods import METHODS
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

DATA = {str(i): blobs(20 + 4 * i, seed=i) for i in (0, 1, 2, 10)}
BYSTANDER = "10"
REQUESTS = {
    "client": ForgetRequest(clients=("1",)),
    "class": ForgetRequest(classes=(1,)),
    "sample": ForgetRequest(samples={"1": (3, 7, 8)}),
}
GENERAL = [name for name in METHODS if name not in {"redistill", "reprune", "sifu"}]
SERVED = [(name, kind) for name in GENERAL for kind in sorted(METHODS[name].serves)]
ASKING = [name for name in GENERAL if METHODS[name].needs(SETTINGS).remaining]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Return a run of three rounds, in none of which the bystander was there."""
    there = Federation(DATA, offline=frozenset((BYSTANDER,)))
    return replace(there.trained(tmp_path_factory.mktemp("run") / "log", 3), public=blobs(30, seed=9))


def served(run: TrainedRun, method: str, request: ForgetRequest, federation: Federation) -> ForgetResult:
    return forget(run, request, method, SETTINGS, federation.cohort())


@pytest.mark.parametrize(("method", "kind"), SERVED)
def test_forgetting_twice_equals_once(run: TrainedRun, method: str, kind: str) -> None:
    """To the bit, and the run is as it was; afterwards it is another model than before."""
    final, digest = run.final.clone(), run.log.sha256() if run.log else ""
    once, again = (served(run, method, REQUESTS[kind], Federation(DATA)) for _ in range(2))
    assert once.flat.equal(again.flat)
    assert not once.flat.equal(run.final)
    assert run.final.equal(final)
    assert run.log is not None
    assert run.log.sha256() == digest


@pytest.mark.parametrize("method", GENERAL)
def test_a_client_that_never_took_part_changes_nothing(run: TrainedRun, method: str) -> None:
    found = served(run, method, ForgetRequest(clients=(BYSTANDER,)), Federation(DATA))
    assert found.flat.equal(run.final)
    assert f"client {BYSTANDER} never took part in a round: nothing to forget" in found.notes


def all_failing(method: str, client_id: str) -> Federation:
    """Return the federation with a client that fails whatever the method asks of it."""
    return Federation(DATA, failing={client_id: (*METHODS[method].actions, "train", "train.finetune")})


@pytest.mark.parametrize("method", ASKING)
def test_a_client_that_always_fails_is_a_warning(run: TrainedRun, method: str) -> None:
    (warning,) = served(run, method, REQUESTS["client"], all_failing(method, "2")).warnings
    assert warning.startswith("client 2 failed in ")
    assert "(error: out of memory): no answer of it is in the result" in warning
    assert served(run, method, REQUESTS["client"], Federation(DATA)).warnings == ()


@pytest.mark.parametrize("method", [name for name in ASKING if "sample" in METHODS[name].serves])
def test_a_client_of_the_request_that_fails_is_a_warning(run: TrainedRun, method: str) -> None:
    """Another one of the request answers, so that there is something to go on with; influence ends."""
    request = ForgetRequest(samples={"1": (3, 7, 8), "2": (0, 1)})
    failing = all_failing(method, "1")
    if method == "influence":
        with pytest.raises(LetheError, match="client 1 is needed and failed"):
            served(run, method, request, failing)
        return
    (warning,) = served(run, method, request, failing).warnings
    assert warning.startswith("client 1, of the request, failed in ")
