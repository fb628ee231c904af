"""When a key of the run config has an effect: what the rules on contradictory keys are made of."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from strategies.settings import Scalar


def shown(value: object) -> str:
    """Return a value as a TOML file would spell it, on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if text.isprintable() else json.dumps(value, default=str)


@dataclass(frozen=True)
class Condition:
    """Keys that have an effect only where another key holds a certain value."""

    keys: tuple[str, ...]
    on: str
    holds: Callable[[Scalar], bool]
    words: str


def only(keys: str, on: str, *values: Scalar) -> Condition:
    """Return the condition that the key `on` has one of some values, for keys separated by blanks."""
    words = f"{on} = {' or '.join(shown(value) for value in values)}"
    return Condition(tuple(keys.split()), on, lambda given: given in values, words)
