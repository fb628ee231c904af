"""What the keys of local training contradict, key by key."""

import re

import pytest

from app.config.run_config import RunConfig
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar

ADAM: dict[str, Scalar] = {"train.optimizer": "adam"}
STEP: dict[str, Scalar] = {"train.schedule": "step"}
COSINE: dict[str, Scalar] = {"train.schedule": "cosine"}
ONE_MODEL = "a strategy that trains one model for all"
BF16: dict[str, Scalar] = {"run.precision": "bf16"}
APART: dict[str, Scalar] = {"train.isolation": 2}
NOT_APART: list[tuple[dict[str, Scalar], str]] = [
    ({"privacy.unit": "client-central"}, 'privacy.unit = "none"'),
    ({"privacy.secure-aggregation": True, "log.enabled": False}, "privacy.secure-aggregation = false"),
    ({"privacy.encryption": "ckks"}, 'privacy.encryption = "none"'),
    ({"compression.codec": "sign"}, 'compression.codec = "none"'),
    ({"selection.method": "oort", "selection.fraction": 0.5}, 'selection.method = "uniform"'),
    ({"selection.over-selection": 2.0, "selection.fraction": 0.5}, "selection.over-selection = 1.0"),
    ({"selection.speeds": "equal"}, 'selection.speeds = "none"'),
    ({"forget.prune": "omp"}, 'forget.prune = "none"'),
    ({"model.batch-norm": "local"}, 'model.batch-norm = "refuse" or "group" or "recalibrate"'),
]
"""What clients in groups apart do without."""
IDLE: list[tuple[dict[str, Scalar], str, str]] = [
    ({"train.local-steps": 5, "train.local-epochs": 3}, "train.local-epochs", "train.local-steps = 0"),
    (ADAM | {"train.momentum": 0.5}, "train.momentum", 'train.optimizer = "sgd"'),
    (ADAM | {"train.nesterov": True}, "train.nesterov", 'train.optimizer = "sgd"'),
    ({"train.nesterov": True, "train.momentum": 0.0}, "train.nesterov", "train.momentum above 0"),
    (COSINE | {"train.lr-decay": 0.9}, "train.lr-decay", 'train.schedule = "constant"'),
    (STEP | {"train.lr-decay": 0.9}, "train.lr-decay", 'train.schedule = "constant"'),
    ({"train.schedule-factor": 0.5}, "train.schedule-factor", 'train.schedule = "step"'),
    (COSINE | {"train.schedule-period": 2.0}, "train.schedule-period", 'train.schedule = "step"'),
    ({"train.schedule-rounds": 3}, "train.schedule-rounds", 'train.schedule = "step" or "cosine"'),
    (STEP | {"train.schedule-final": 0.5}, "train.schedule-final", 'train.schedule = "cosine"'),
    (
        {"privacy.unit": "example", "privacy.epsilon": 5.0, "train.max-gradient-norm": 1.0},
        "train.max-gradient-norm",
        'privacy.unit = "none" or "client-local" or "client-central"',
    ),
    *(
        ({"strategy.name": "fedmd", "data.public": "0.2", key: value}, key, ONE_MODEL)
        for key, value in {
            "train.schedule": "cosine",
            "train.warm-up": 1.0,
            "train.nesterov": True,
            "train.max-gradient-norm": 1.0,
        }.items()
    ),
    *(
        ({"strategy.name": "coded-gd", key: value}, key, "a strategy whose clients take local steps")
        for key, value in {
            "train.nesterov": True,
            "train.max-gradient-norm": 1.0,
            "run.precision": "bf16",
        }.items()
    ),
    (
        BF16 | {"privacy.unit": "example", "privacy.epsilon": 5.0},
        "run.precision",
        'privacy.unit = "none" or "client-local" or "client-central"',
    ),
    (
        APART | {"strategy.name": "ditto"},
        "train.isolation",
        "a strategy that averages updates into one model in rounds",
    ),
    *((APART | given, "train.isolation", words) for given, words in NOT_APART),
]


@pytest.mark.parametrize(("given", "key", "words"), IDLE)
def test_a_key_without_effect_is_refused(given: dict[str, Scalar], key: str, words: str) -> None:
    with pytest.raises(BadInput, match=f"^{re.escape(key)}: given .* only with {re.escape(words)}"):
        RunConfig.from_flat(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"train.warm-up": 5.0},
            "train.warm-up: given 5.0, .* allowed at most run.rounds, which is 4",
        ),
        (STEP | {"train.schedule-period": 4.0}, "train.schedule-period: given 4.0, .* less than run.rounds"),
        (
            STEP | {"train.schedule-rounds": 2, "train.schedule-period": 2.0},
            "train.schedule-period: given 2.0, .* less than train.schedule-rounds, which is 2",
        ),
        (
            {"train.schedule": "linear"},
            'train.schedule: given "linear", allowed one of constant, step',
        ),
        ({"train.max-gradient-norm": -1.0}, "train.max-gradient-norm: given -1.0"),
        ({"train.optimizer": "lion"}, "train.optimizer: given .*rmsprop"),
    ],
)
def test_a_schedule_that_does_not_fit_the_run_is_refused(given: dict[str, Scalar], message: str) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        RunConfig.from_flat({"run.rounds": 4, **given})


def test_what_fits_is_taken() -> None:
    """A warm-up of all rounds, a drop before the last ends; clipping beside noise on whole updates."""
    RunConfig.from_flat({"run.rounds": 4, "train.warm-up": 4.0, **STEP, "train.schedule-period": 3.9})
    central: dict[str, Scalar] = {"privacy.unit": "client-central", "privacy.epsilon": 2.0}
    RunConfig.from_flat({**central, "train.max-gradient-norm": 1.0})
    RunConfig.from_flat({"strategy.name": "coded-gd", **COSINE, "train.warm-up": 1.0})
