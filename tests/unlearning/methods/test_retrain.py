"""unlearning/methods/retrain.py: the run again, from its first round, as if the data had never been."""

from pathlib import Path

import pytest

from strategies.core.errors import BadInput
from tests.unlearning.methods.slow import (
    CLIENT,
    DATA,
    REQUESTS,
    federation_of,
    finished,
    forgotten,
    parts,
)
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_equals_a_run_that_never_had_the_data(
    run: TrainedRun, request_: ForgetRequest, tmp_path: Path
) -> None:
    """To the bit: trained on clients that hold nothing but D_r."""
    federation = federation_of()
    left = {i: retain for i, (_, retain) in parts(federation, request_).items() if len(retain)}
    never = finished(federation_of(left), tmp_path)
    assert forgotten("retrain", run, federation, request_).flat.equal(never.final)
    assert not never.final.equal(run.final)


def test_twice_is_once(run: TrainedRun) -> None:
    results = [forgotten("retrain", run, federation_of(), CLIENT).flat for _ in range(2)]
    assert results[0].equal(results[1])


def test_an_unknown_client_is_refused(run: TrainedRun) -> None:
    with pytest.raises(BadInput, match="unknown client '9'; known clients: 0, 1, 2, 3"):
        forgotten("retrain", run, federation_of(DATA), ForgetRequest(clients=("9",)))
