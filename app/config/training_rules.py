"""The rules of local training: when the keys of the section ``train`` have an effect."""

from collections.abc import Mapping

from strategies.core.conditions import Condition, only_with, shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar

LOCAL_STEPS = (
    "train.optimizer train.momentum train.nesterov train.weight-decay train.batch-size train.local-epochs "
    "train.local-steps train.max-gradient-norm"
)
"""Keys of an algorithm whose clients take local steps."""
LEARNING_RATE = "train.learning-rate train.lr-decay train.schedule train.warm-up"
"""Keys of an algorithm that trains one model for all."""

CONDITIONS: tuple[Condition, ...] = (
    only_with("train.local-epochs", "train.local-steps", 0),
    only_with("train.momentum train.nesterov", "train.optimizer", "sgd"),
    Condition(
        ("train.nesterov",),
        "train.momentum",
        lambda momentum: float(momentum) > 0,
        "train.momentum above 0",
    ),
    only_with("train.lr-decay", "train.schedule", "constant"),
    only_with("train.schedule-factor train.schedule-period", "train.schedule", "step"),
    only_with("train.schedule-final", "train.schedule", "cosine"),
    only_with("train.schedule-rounds", "train.schedule", "step", "cosine"),
    only_with("train.isolation", "privacy.unit", "none"),
    only_with("train.isolation", "privacy.secure-aggregation", False),
    only_with("train.isolation", "privacy.encryption", "none"),
    only_with("train.isolation", "compression.codec", "none"),
    only_with("train.isolation", "selection.method", "uniform"),
    only_with("train.isolation", "selection.over-selection", 1.0),
    only_with("train.isolation", "selection.speeds", "none"),
    only_with("train.isolation", "forget.prune", "none"),
    only_with("train.isolation", "model.batch-norm", "refuse", "group", "recalibrate"),
    only_with("train.max-gradient-norm", "privacy.unit", "none", "client-local", "client-central"),
)
"""When keys have an effect."""


def check_isolation(flat: Mapping[str, Scalar]) -> None:
    """Refuse more groups of clients than there are clients; their number may not be known.

    Raises
    ------
    BadInput
        Naming both numbers.
    """
    groups, clients = int(flat["train.isolation"]), int(flat["data.clients"])
    if clients and groups > clients:
        raise BadInput(
            f"train.isolation: given {groups}, allowed at most data.clients, which is {clients}: every group "
            "needs a client"
        )


def check_schedule(flat: Mapping[str, Scalar]) -> None:
    """Refuse a schedule that lasts too short for its own keys.

    Raises
    ------
    BadInput
        Naming the key and how many rounds there are.
    """
    key = "train.schedule-rounds" if flat["train.schedule-rounds"] else "run.rounds"
    rounds = int(flat[key])
    if float(flat["train.warm-up"]) > rounds:
        raise BadInput(
            f"train.warm-up: given {shown(flat['train.warm-up'])}, so that the learning rate never "
            f"reaches its height; allowed at most {key}, which is {rounds}"
        )
    if float(flat["train.schedule-period"]) >= rounds:
        raise BadInput(
            f"train.schedule-period: given {shown(flat['train.schedule-period'])}, so that the learning rate "
            f"never drops; allowed less than {key}, which is {rounds}"
        )
