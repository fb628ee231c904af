"""Rules of the run config for federated analytics."""

from collections.abc import Mapping

from app.config.conditions import Condition, only, refuse_changed, shown
from strategies.core.errors import BadInput
from strategies.settings import Scalar

_ASKED = (
    "analytics.statistic analytics.column analytics.quantile analytics.low analytics.high analytics.bins "
    "analytics.top"
)
ANALYTICS_CONDITIONS: tuple[Condition, ...] = (
    only(_ASKED, "run.workflow", "analytics"),
    only("analytics.enabled", "run.workflow", "train", "resume", "forget", "audit"),
    only("analytics.quantile", "analytics.statistic", "quantile"),
    only("analytics.top", "analytics.statistic", "heavy-hitters"),
    only("analytics.low analytics.high analytics.bins", "analytics.column", "brightness"),
)


def check_analytics(flat: Mapping[str, Scalar], defaults: Mapping[str, Scalar]) -> None:
    """Refuse what protects an answer where nothing is asked, and a range that holds nothing.

    Parameters
    ----------
    flat
        Every key of the run config.
    defaults
        Every key's default.

    Raises
    ------
    BadInput
        Naming the key, what was given and what is allowed.
    """
    asks = flat["run.workflow"] == "analytics" or flat["analytics.enabled"]
    if not asks:
        refuse_changed(
            ("analytics.min-clients", "analytics.epsilon"),
            flat,
            defaults,
            'analytics.enabled = true or run.workflow = "analytics"',
        )
    if flat["analytics.enabled"] and flat["privacy.unit"] != "none":
        _check_beside_privacy(flat)
    clients = int(flat["data.clients"])
    if asks and 0 < clients < int(flat["analytics.min-clients"]):
        raise BadInput(
            f"analytics.min-clients: given {flat['analytics.min-clients']}, allowed at most data.clients, "
            f"which is {clients}"
        )
    if float(flat["analytics.low"]) >= float(flat["analytics.high"]):
        raise BadInput(
            f"analytics.low: given {shown(flat['analytics.low'])}, allowed below analytics.high, which is "
            f"{shown(flat['analytics.high'])}"
        )


def _check_beside_privacy(flat: Mapping[str, Scalar]) -> None:
    """Refuse an answer that the clients' accounts could not count, or that leaves nothing for training."""
    epsilon, budget = float(flat["analytics.epsilon"]), float(flat["privacy.epsilon"])
    unit = shown(flat["privacy.unit"])
    if flat["privacy.unit"] != "example":
        raise BadInput(
            "analytics.enabled: given true, whose noise hides one example, but privacy.unit is "
            f'{unit}; allowed with "example", or false'
        )
    if not epsilon:
        raise BadInput(
            "analytics.epsilon: given 0, which tells the labels without noise, but privacy.unit is "
            f"{unit}; allowed above 0, and counted in every client's ε, or analytics.enabled = false"
        )
    if budget and epsilon >= budget:
        raise BadInput(
            f"analytics.epsilon: given {shown(epsilon)}, allowed below privacy.epsilon, which is "
            f"{shown(budget)} and of which training needs the rest"
        )
