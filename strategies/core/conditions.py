"""When a key of the run config has an effect: what the rules on contradictory keys are made of."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from strategies.core.errors import BadInput
from strategies.core.settings import Scalar


def shown(value: object) -> str:
    """Return a value as a TOML file would spell it, on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if text.isprintable() else json.dumps(value, default=str)


def refuse_changed(
    keys: Iterable[str], flat: Mapping[str, Scalar], defaults: Mapping[str, Scalar], needed: str
) -> None:
    """Refuse keys that were set although they have no effect.

    `needed` says what they would take, to follow "only with".

    Raises
    ------
    BadInput
        Naming the first key that is not at its default.
    """
    for key in keys:
        if flat[key] != defaults[key]:
            raise BadInput(f"{key}: given {shown(flat[key])}, which has an effect only with {needed}")


def refuse_beside(key: str, contradicts: bool, flat: Mapping[str, Scalar], other: str, reason: str) -> None:
    """Refuse a key that contradicts another one.

    `reason` says why the two do not go together.

    Raises
    ------
    BadInput
        Naming both with their values.
    """
    if contradicts:
        raise BadInput(
            f"{key}: given {shown(flat[key])}, but with {other} = {shown(flat[other])} {reason}; drop one of "
            "the two"
        )


def is_number(text: str) -> bool:
    """Say whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def lacks_public_data(flat: Mapping[str, Scalar]) -> bool:
    """Say whether the server holds no public data: neither a share of the training data, nor a data set."""
    public = str(flat["data.public"])
    return is_number(public) and float(public) == 0


@dataclass(frozen=True)
class Condition:
    """Keys that have an effect only where another key holds a certain value."""

    keys: tuple[str, ...]
    on: str
    holds: Callable[[Scalar], bool]
    words: str


def only_with(keys: str, on: str, *values: Scalar) -> Condition:
    """Return the condition that the key `on` has one of some values, for keys separated by blanks."""
    words = f"{on} = {' or '.join(shown(value) for value in values)}"
    return Condition(tuple(keys.split()), on, lambda given: given in values, words)
