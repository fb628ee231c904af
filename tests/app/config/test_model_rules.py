"""What ``model.batch-norm`` cannot be combined with, each with its reason; and names of models."""

import re

import pytest

from app.config.run_config import RunConfig
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar

LOCAL: dict[str, Scalar] = {"model.batch-norm": "local"}
RECALIBRATE: dict[str, Scalar] = {"model.batch-norm": "recalibrate"}
PRIVATE: dict[str, Scalar] = {"privacy.unit": "example", "privacy.noise-multiplier": 1.0}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({**LOCAL, **PRIVATE}, 'cannot be trained with privacy.unit = "example"'),
        ({**RECALIBRATE, **PRIVATE}, 'cannot be trained with privacy.unit = "example"'),
        (
            {**LOCAL, "strategy.name": "one-shot", "run.rounds": 1},
            "one-shot runs clients' models on the server",
        ),
        ({**LOCAL, "strategy.name": "coded-gd"}, "the clients of coded-gd take no local steps"),
        ({**LOCAL, "forget.prune": "omp"}, "the server has no whole model to prune"),
        ({**RECALIBRATE, "data.public": "0"}, "the server sets the statistics from its public data"),
        (
            {**RECALIBRATE, "strategy.name": "gossip"},
            "with gossip clients use models that the server does not",
        ),
        ({**RECALIBRATE, "strategy.name": "ditto"}, "with ditto clients use models that the server does not"),
    ],
)
def test_a_policy_that_cannot_be_served_is_refused(given: dict[str, Scalar], reason: str) -> None:
    with pytest.raises(BadInput, match=rf"^model\.batch-norm: given .*{re.escape(reason)}"):
        RunConfig.from_flat(given)


@pytest.mark.parametrize(
    "given",
    [
        {**LOCAL, "strategy.name": "ditto"},
        {**LOCAL, "strategy.name": "gossip"},
        {**LOCAL, "data.public": "0"},
        {**LOCAL, "privacy.unit": "client-local", "privacy.noise-multiplier": 1.0},
        {**RECALIBRATE, "strategy.name": "fedprox"},
        {"model.batch-norm": "group", **PRIVATE},
    ],
)
def test_others_are_taken(given: dict[str, Scalar]) -> None:
    assert RunConfig.from_flat(given).to_flat().items() >= given.items()


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:resnet10t", "mlp"])
def test_models_are_named(name: str) -> None:
    assert RunConfig.from_flat({"model.name": name}).model.name == name


@pytest.mark.parametrize("name", ["vgg", "torchvision:", "keras:vgg", "torchvision:../x", "cnn:small"])
def test_other_names_are_refused(name: str) -> None:
    allowed = "one of linear, mlp, cnn, resnet18, or torchvision:<name> or timm:<name>"
    expected = f'model.name: given "{name}", allowed {allowed}'
    with pytest.raises(BadInput, match=re.escape(expected)):
        RunConfig.from_flat({"model.name": name})
