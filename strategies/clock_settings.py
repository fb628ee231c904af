"""How a text says how the speeds of clients are drawn."""

import math


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
