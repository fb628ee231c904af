"""Rules of the run config for strategies that do more, or less, than average what clients train."""

from collections.abc import Mapping

from app.config.conditions import Condition, lacks_public_data, only, shown
from strategies.core.errors import BadInput
from strategies.settings import Scalar

_PERSONAL = ("per-fedavg", "ditto")
_EVERYBODY = ("gossip",)
"""Strategies in whose rounds every connected client has a place."""
_ONE_SHOT = (
    "strategy.ensemble strategy.student-start strategy.distil-epochs strategy.distil-learning-rate "
    "strategy.distil-batch-size strategy.distil-temperature"
)
_NOT_AVERAGING = ("gossip", "coded-gd")
_NO_LOCAL_STEPS = ("coded-gd",)
_LOCAL_STEPS = (
    "train.optimizer train.momentum train.weight-decay train.batch-size train.local-epochs train.local-steps"
)


def _other_than(keys: str, names: tuple[str, ...], words: str) -> Condition:
    return Condition(tuple(keys.split()), "strategy.name", lambda name: name not in names, words)


STRATEGY_CONDITIONS = (
    only("strategy.meta-gradient strategy.inner-rate strategy.personal-steps", "strategy.name", "per-fedavg"),
    only("strategy.ditto-lambda", "strategy.name", "ditto"),
    only("strategy.topology", "strategy.name", "gossip"),
    only("strategy.edge-probability", "strategy.topology", "random"),
    _other_than(
        "selection.fraction selection.method selection.over-selection selection.speeds",
        _EVERYBODY,
        "a strategy that can leave clients out of a round",
    ),
    only("strategy.stragglers", "strategy.name", "coded-gd"),
    _other_than(_LOCAL_STEPS, _NO_LOCAL_STEPS, "a strategy whose clients take local steps"),
    _other_than("compression.codec forget.prune", _NOT_AVERAGING, "a strategy that averages updates"),
    _other_than(
        "privacy.unit",
        (*_PERSONAL, *_NOT_AVERAGING),
        "a strategy of which nothing leaves a client but noised updates",
    ),
    only(_ONE_SHOT, "strategy.name", "one-shot"),
    _other_than("privacy.unit forget.prune", ("one-shot",), "a strategy that averages updates"),
)


def check_strategy(flat: Mapping[str, Scalar]) -> None:
    """Refuse what contradicts the strategy.

    Parameters
    ----------
    flat
        Every key of the run config.

    Raises
    ------
    BadInput
        Naming the key, what was given and what is allowed.
    """
    if flat["strategy.name"] == "coded-gd":
        _check_coded(flat)
    if flat["strategy.name"] == "one-shot":
        _check_one_shot(flat)


def _check_coded(flat: Mapping[str, Scalar]) -> None:
    if flat["data.path"]:
        raise BadInput(
            f"data.path: given {shown(flat['data.path'])}, but with coded-gd every client holds copies of "
            "others' data, which must lie in one place; allowed a data set that is partitioned"
        )
    clients = int(flat["data.clients"])
    if 0 < clients <= int(flat["strategy.stragglers"]):
        raise BadInput(
            f"strategy.stragglers: given {flat['strategy.stragglers']}, allowed fewer than data.clients, "
            f"which is {clients}"
        )


def _check_one_shot(flat: Mapping[str, Scalar]) -> None:
    if flat["run.rounds"] != 1:
        raise BadInput(
            f"run.rounds: given {flat['run.rounds']}, but one-shot has a single round; allowed 1 "
            "(train.local-epochs says how long clients train in it)"
        )
    if lacks_public_data(flat):
        raise BadInput(
            "data.public: given 0, but one-shot distils on public data: a share or the name of a data set"
        )
