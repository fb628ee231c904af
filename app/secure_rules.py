"""What does not go with secure aggregation: whatever needs, or tells, something of single clients."""

from collections.abc import Callable, Mapping

from app.conditions import shown
from strategies.errors import BadInput
from strategies.settings import Scalar

_NOT_SECURE: tuple[tuple[str, Callable[[Scalar], bool], str], ...] = (
    ("log.enabled", bool, "the server sees no single update that it could log"),
    ("run.federated-evaluation", bool, "clients would tell their own accuracy and number of examples"),
    (
        "strategy.name",
        lambda name: name not in {"fedavg", "fedprox"},
        'only the sum of the updates is known, which "fedavg" and "fedprox" are content with',
    ),
    (
        "privacy.encryption",
        lambda kind: kind != "none",
        "updates are masked, and the server sees none to add",
    ),
    ("compression.codec", lambda codec: codec != "none", "encoded updates cannot be added up"),
    (
        "privacy.unit",
        lambda unit: unit == "example",
        "the ε of an example tells how many examples its client has",
    ),
    ("selection.method", lambda method: method != "uniform", "clients would tell their own loss or size"),
    ("selection.over-selection", lambda times: float(times) > 1, "clients that are left out count as lost"),
    ("selection.speeds", lambda speeds: speeds != "none", "the clock needs each client's number of examples"),
)
"""Keys, what they must not be under secure aggregation, and why."""


def check_secure(flat: Mapping[str, Scalar]) -> None:
    """Refuse what would show the server a single client, or what a sum alone cannot serve.

    Parameters
    ----------
    flat
        Every key of the run config.

    Raises
    ------
    BadInput
        Naming the key, what was given and why it does not go.
    """
    for key, contradicts, reason in _NOT_SECURE:
        if contradicts(flat[key]):
            raise BadInput(
                f"{key}: given {shown(flat[key])}, but with privacy.secure-aggregation = true {reason}; "
                "drop one of the two"
            )
