"""app/config/rules.py: keys that have no effect with an algorithm, or contradict it, by its traits."""

import re
from typing import Literal, get_args, get_origin

import pytest

from app.config.rules import CONDITIONS
from app.config.run_config import RunConfig, known_fields
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.core.traits import Traits
from strategies.registry import all_traits
from tests.app.config.test_rules import IDLE as OTHERS
from tests.app.config.test_training_rules import IDLE as TRAINING

WITHOUT_NOISE = "a strategy of which nothing leaves a client but noised updates"
PARTIAL: dict[str, Scalar] = {
    "selection.fraction": 0.5,
    "selection.method": "oort",
    "selection.over-selection": 2.0,
    "selection.speeds": "equal",
}
LOCAL: dict[str, Scalar] = {
    "train.optimizer": "adam",
    "train.momentum": 0.5,
    "train.weight-decay": 0.5,
    "train.batch-size": 8,
    "train.local-epochs": 3,
    "train.local-steps": 2,
}
AVERAGED: dict[str, Scalar] = {"compression.codec": "sign", "forget.prune": "omp"}
DISTILLED: dict[str, Scalar] = {
    "strategy.ensemble": "logits",
    "strategy.student-start": "average",
    "strategy.distil-epochs": 3,
    "strategy.distil-learning-rate": 0.5,
    "strategy.distil-batch-size": 8,
    "strategy.distil-temperature": 2.0,
}
QUESTION: dict[str, Scalar] = {
    "statistic": "mean",
    "column": "brightness",
    "quantile": 0.25,
    "low": -1.0,
    "high": 2.0,
    "bins": 5,
    "top": 2,
}
ASKING: dict[str, Scalar] = {"run.workflow": "analytics"}
ONE_SHOT: dict[str, Scalar] = {"strategy.name": "one-shot", "run.rounds": 1}
IDLE: list[tuple[dict[str, Scalar], str, str]] = [
    *(
        (
            {"task.name": "multi-label", f"task.{key}": value},
            f"task.{key}",
            f'task.name = "{owner}" or "auto"',
        )
        for key, value, owner in (
            ("class-weights", "1=2", "classification"),
            ("label-smoothing", 0.1, "classification"),
            ("outputs", 2, "regression"),
            ("squared-error", "full", "regression"),
            ("scale", 2.0, "regression"),
            ("scale-from", "federated", "regression"),
            ("ignore", 0, "segmentation"),
        )
    ),
    ({"strategy.meta-gradient": "first-order"}, "strategy.meta-gradient", 'strategy.name = "per-fedavg"'),
    ({"strategy.inner-rate": 0.5}, "strategy.inner-rate", 'strategy.name = "per-fedavg"'),
    ({"strategy.personal-steps": 2}, "strategy.personal-steps", 'strategy.name = "per-fedavg"'),
    ({"strategy.ditto-lambda": 2.0}, "strategy.ditto-lambda", 'strategy.name = "ditto"'),
    ({"strategy.topology": "torus"}, "strategy.topology", 'strategy.name = "gossip"'),
    ({"strategy.edge-probability": 0.2}, "strategy.edge-probability", 'strategy.name = "gossip"'),
    (
        {"strategy.name": "gossip", "strategy.edge-probability": 0.2},
        "strategy.edge-probability",
        'strategy.topology = "random"',
    ),
    *(
        ({"strategy.name": "gossip", key: value}, key, "a strategy that can leave clients out of a round")
        for key, value in PARTIAL.items()
    ),
    ({"strategy.stragglers": 2}, "strategy.stragglers", 'strategy.name = "coded-gd"'),
    *(
        ({"strategy.name": "coded-gd", key: value}, key, "a strategy whose clients take local steps")
        for key, value in LOCAL.items()
    ),
    *(
        ({"strategy.name": "gossip", key: value}, key, "a strategy that averages updates")
        for key, value in AVERAGED.items()
    ),
    ({"strategy.name": "ditto", "privacy.unit": "example"}, "privacy.unit", WITHOUT_NOISE),
    *(({key: value}, key, 'strategy.name = "one-shot"') for key, value in DISTILLED.items()),
    ({**ONE_SHOT, "privacy.unit": "example"}, "privacy.unit", "a strategy that averages updates"),
    ({**ONE_SHOT, "forget.prune": "omp"}, "forget.prune", "a strategy that averages updates"),
    *(
        ({f"analytics.{key}": value}, f"analytics.{key}", 'run.workflow = "analytics"')
        for key, value in QUESTION.items()
    ),
    ({**ASKING, "analytics.enabled": True}, "analytics.enabled", 'run.workflow = "train"'),
    ({**ASKING, "analytics.quantile": 0.25}, "analytics.quantile", 'analytics.statistic = "quantile"'),
    ({**ASKING, "analytics.top": 2}, "analytics.top", 'analytics.statistic = "heavy-hitters"'),
    *(
        ({**ASKING, f"analytics.{key}": value}, f"analytics.{key}", 'analytics.column = "brightness"')
        for key, value in QUESTION.items()
        if key in {"low", "high", "bins"}
    ),
]


@pytest.mark.parametrize(("given", "key", "words"), IDLE)
def test_a_key_without_effect_is_refused(given: dict[str, Scalar], key: str, words: str) -> None:
    with pytest.raises(BadInput, match=f"^{re.escape(key)}: given .* only with {re.escape(words)}"):
        RunConfig.from_flat(given)


def test_every_condition_has_a_case_above() -> None:
    cases = [(key, words) for _, key, words in (*IDLE, *OTHERS, *TRAINING)]
    missing = [
        (key, condition.words)
        for condition in CONDITIONS
        for key in condition.keys
        if not condition.words.startswith("strategy.name = ")  # Those are tested below, by ownership
        and not any(key == named and condition.words.startswith(words) for named, words in cases)
    ]
    assert missing == []


NUMBERS = [
    (traits, key)
    for traits in all_traits()
    for key in traits.keys
    if known_fields()[key].annotation in {int, float, bool} or get_origin(known_fields()[key].annotation)
]


def other_value(key: str) -> Scalar:
    """Return an allowed value that is not the default."""
    field = known_fields()[key]
    if field.annotation is bool:
        return not field.default
    if get_origin(field.annotation) is Literal:
        return str(next(value for value in get_args(field.annotation) if value != field.default))
    return field.default + 1 if field.annotation is int else (field.default or 1.0) / 2


@pytest.mark.parametrize(("traits", "key"), NUMBERS, ids=lambda part: getattr(part, "name", part))
def test_a_key_of_another_algorithm_is_refused(traits: Traits, key: str) -> None:
    """With plain averaging, which reads none of them; the line names who does."""
    with pytest.raises(BadInput, match=rf"^{key}: given .*only with strategy\.name = .*{traits.shown_name}"):
        RunConfig.from_flat({key: other_value(key)})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data.path": "a.npz"}, 'data.path: given "a.npz", but with coded-gd every client holds copies'),
        ({"data.clients": 3, "strategy.stragglers": 3}, "strategy.stragglers: given 3, allowed fewer than"),
    ],
)
def test_a_code_needs_copies_and_more_clients_than_stragglers(given: dict[str, Scalar], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        RunConfig.from_flat({"strategy.name": "coded-gd", **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run.rounds": 2}, "run.rounds: given 2, but one-shot has a single round; allowed 1"),
        ({"data.public": "0.0"}, "data.public: given 0, but one-shot distils on public data"),
    ],
)
def test_one_shot_has_one_round_and_needs_public_data(given: dict[str, Scalar], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        RunConfig.from_flat({**ONE_SHOT, **given})


@pytest.mark.parametrize(
    "given",
    [
        {**ONE_SHOT, **DISTILLED, "compression.codec": "int8"},
        {"strategy.name": "per-fedavg", "strategy.inner-rate": 0.5, "strategy.meta-gradient": "first-order"},
        {"strategy.name": "ditto", "strategy.ditto-lambda": 2.0},
        {"strategy.name": "gossip", "strategy.topology": "random", "strategy.edge-probability": 0.2},
    ],
)
def test_with_their_strategy_they_are_taken(given: dict[str, Scalar]) -> None:
    assert RunConfig.from_flat(given).to_flat().items() >= given.items()
