"""What cannot be combined with masked or encrypted sums: anything about single clients."""

import math
from collections.abc import Callable, Mapping

from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, split_list
from strategies.registry import all_traits, traits_of

_Contradictions = tuple[tuple[str, Callable[[Scalar], bool], str], ...]
"""Keys, what they must not be, and why."""


def _algorithms_with(*hidden: str) -> str:
    """Return, in words, the algorithms that can work with what is hidden."""
    names = [shown(traits.shown_name) for traits in all_traits() if traits.hidden in hidden]
    return f"{', '.join(names[:-1])} and {names[-1]}"


_NOT_SECURE: _Contradictions = (
    ("log.enabled", bool, "the server sees no single update that it could log"),
    ("run.federated-evaluation", bool, "clients would tell their own accuracy and number of examples"),
    (
        "strategy.name",
        lambda name: traits_of(str(name)).hidden != "sum",
        f"only the sum of the updates is known, which {_algorithms_with('sum')} are content with",
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

_NOT_ENCRYPTED: _Contradictions = (
    ("log.enabled", bool, "the server cannot read the updates that it would log"),
    ("run.federated-evaluation", bool, "clients would tell their own accuracy in the clear"),
    (
        "strategy.name",
        lambda name: traits_of(str(name)).hidden == "none",
        f"only the mean of the updates is known, with which {_algorithms_with('sum', 'mean')} are content",
    ),
    (
        "privacy.unit",
        lambda unit: unit != "none",
        "the server can neither clip nor count what is spent",
    ),
    ("privacy.secure-aggregation", bool, "updates are hidden already"),
    ("compression.codec", lambda codec: codec != "none", "encoded updates cannot be added up"),
    (
        "selection.method",
        lambda method: method in {"power-of-choice", "oort"},
        "clients would tell their own loss",
    ),
)


def check_secure(flat: Mapping[str, Scalar]) -> None:
    """Refuse what would show the server a single client, or what a sum alone cannot serve.

    Raises
    ------
    BadInput
        Naming the key, what was given and why it is refused.
    """
    _refuse(flat, _NOT_SECURE, "privacy.secure-aggregation = true")
    _require_two(flat, "privacy.secure-aggregation = true", "the sum over one client is its update")


def check_encrypted(flat: Mapping[str, Scalar]) -> None:
    """Refuse what an encrypted sum cannot serve; raises as `check_secure` does."""
    setting = f"privacy.encryption = {shown(flat['privacy.encryption'])}"
    _refuse(flat, _NOT_ENCRYPTED, setting)
    _require_two(flat, setting, "two clients of a round must agree on what the sum is")


def _require_two(flat: Mapping[str, Scalar], setting: str, reason: str) -> None:
    """Refuse rounds of a single client, as they cannot be used."""
    clients = int(flat["data.clients"])
    clients = max(1, clients - len(split_list(str(flat["data.without"])))) if clients else 0
    share = math.ceil(float(flat["selection.fraction"]) * clients - 1e-9)
    if clients and min(clients, max(int(flat["selection.min-clients"]), share)) < 2:
        key = "data.clients" if clients < 2 else "selection.fraction"
        raise BadInput(
            f"{key}: given {shown(flat[key])}, so that one client takes part in a round, but with {setting} "
            f"{reason}; allowed what gives at least 2"
        )


def _refuse(flat: Mapping[str, Scalar], contradictions: _Contradictions, setting: str) -> None:
    for key, contradicts, reason in contradictions:
        if contradicts(flat[key]):
            raise BadInput(
                f"{key}: given {shown(flat[key])}, but with {setting} {reason}; drop one of the two"
            )
