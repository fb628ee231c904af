"""Settings of the server: the section ``selection`` of the run config, and the length of its steps."""

import math
from typing import Literal

from pydantic import Field, field_validator

from strategies.core.settings import Settings


class ServerRate(Settings):
    """What strategies share whose server may step further than the mean update, or less far.

    Attributes
    ----------
    server_learning_rate
        Factor on the server's step, above 0; neutral 1.
    """

    server_learning_rate: float = Field(default=1.0, gt=0)


class SelectionSettings(Settings):
    """Which clients take part in a round.

    Attributes
    ----------
    fraction
        Share of the connected clients drawn per round, in (0, 1]; neutral 1.
    min_clients
        Clients that must be connected, and are drawn at the least, per round; at least 1.
    method
        How they are drawn: ``uniform``, ``power-of-choice``, ``oort`` or ``budgeted`` (see
        `strategies.server.selection_methods`).
    candidates
        ``power-of-choice``: how many are drawn, of which those with the largest loss take part; 0: twice as
        many as take part.
    explore
        ``oort``: share of the places for clients that were never asked, in [0, 1].
    budget
        ``budgeted``: rounds in which a client is asked at most, at least 1.
    over_selection
        How many times as many clients are asked as are waited for, at least 1; neutral 1.
    deadline
        Seconds on the simulated clock after which replies count no more, at least 0; neutral 0: no deadline.
    speeds
        The simulated clock: ``equal``, ``lognormal:<sigma>`` or ``pareto:<shape>``, how the clients' speeds
        are drawn; neutral ``none``: no clock.
    """

    fraction: float = Field(default=1.0, gt=0, le=1)
    min_clients: int = Field(default=1, ge=1)
    method: Literal["uniform", "power-of-choice", "oort", "budgeted"] = "uniform"
    candidates: int = Field(default=0, ge=0)
    explore: float = Field(default=0.1, ge=0, le=1)
    budget: int = Field(default=5, ge=1)
    over_selection: float = Field(default=1.0, ge=1)
    deadline: float = Field(default=0.0, ge=0)
    speeds: str = "none"

    @field_validator("speeds")
    @classmethod
    def _speeds_parse(cls, value: str) -> str:
        return check_speeds(value)


def check_speeds(text: str) -> str:
    """Return a text that says how speeds are drawn.

    Raises
    ------
    ValueError
        If it does not.

    Examples
    --------
    >>> check_speeds("pareto:1.2")
    'pareto:1.2'
    """
    kind, colon, parameter = text.partition(":")
    good = text in {"none", "equal"}
    if colon and kind in {"lognormal", "pareto"}:
        try:
            good = 0 < float(parameter) < math.inf
        except ValueError:
            good = False
    if not good:
        raise ValueError("'none', 'equal', 'lognormal:<sigma>' or 'pareto:<shape>' with a number above 0")
    return text
