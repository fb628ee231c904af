"""unlearning/methods/negate.py: the server negates a layer, the remaining clients train on."""

from dataclasses import replace

import pytest

from strategies.core.errors import BadInput
from tests.unlearning.methods.slow import (
    CLIENT,
    REQUESTS,
    federation_of,
    flat_of,
    forgotten,
    loss_on,
    model_at,
    part_of_all,
)
from unlearning.central.negate import negate
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

# by hand


@pytest.mark.parametrize(
    ("layers", "negated"), [("", slice(0, 40)), ("2", slice(40, 67)), ("0, 2", slice(0, 67))]
)
def test_without_a_pass_only_signs_change(run: TrainedRun, layers: str, negated: slice) -> None:
    """The first layer, unless others are named; its weights and its bias."""
    expected = run.final.clone()
    expected[negated] *= -1
    found = forgotten("negate", run, federation_of(), CLIENT, epochs=0, layers=layers)
    assert found.flat.equal(expected)


# against another way


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.kind)
def test_it_is_fine_tuning_from_the_negated_model(run: TrainedRun, request_: ForgetRequest) -> None:
    federation = federation_of()
    negated = negate(model_at(federation, run.final))
    turned = replace(run, final=flat_of(federation, negated))
    found = forgotten("negate", run, federation, request_, epochs=2)
    assert found.flat.equal(forgotten("finetune", turned, federation, request_, epochs=2).flat)


# properties


def test_training_repairs_what_negation_broke(run: TrainedRun) -> None:
    federation = federation_of()
    stays = part_of_all(federation, CLIENT)[1]
    losses = [
        loss_on(federation, forgotten("negate", run, federation, CLIENT, epochs=n).flat, stays)
        for n in (0, 3, 10)
    ]
    assert losses[0] > losses[1] > losses[2]


# errors


def test_an_unknown_layer_is_refused_before_any_round(run: TrainedRun) -> None:
    federation = federation_of()
    with pytest.raises(
        BadInput, match=r"forget\.negate\.layers: no layer .* is named 'conv1'; known are 0, 2"
    ):
        forgotten("negate", run, federation, CLIENT, layers="conv1")
    assert {kind for kind, _ in federation.asked} == {"query.describe"}
