"""The base of every section of the run config, and how a text holds a list."""

import re

from pydantic import BaseModel, ConfigDict

Scalar = int | float | bool | str
"""What a Flower run config may hold."""


def hyphenated(name: str) -> str:
    """Return the config key of a Python field name.

    >>> hyphenated("local_epochs")
    'local-epochs'
    """
    return name.replace("_", "-")


def split_list(text: str) -> tuple[str, ...]:
    """Split a comma-separated list, without surrounding blanks; the empty text is the empty list.

    Raises
    ------
    ValueError
        If an entry is empty or occurs twice.

    Examples
    --------
    >>> split_list("0, hospital-a")
    ('0', 'hospital-a')
    """
    if not text.strip():
        return ()
    entries = tuple(entry.strip() for entry in text.split(","))
    if not all(entries):
        raise ValueError("a comma-separated list without empty entries")
    if len(set(entries)) < len(entries):
        raise ValueError("a comma-separated list without repetitions")
    return entries


def whole_number_as_text(value: object) -> object:
    """Return a whole number as text: TOML and the command line give a list of one number as that number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def checked_list(value: str) -> str:
    """Return a text that is a comma-separated list; ValueError if it is none."""
    split_list(value)
    return value


def split_pairs(text: str, what: str, of: str = "client-id") -> dict[str, float]:
    """Return the numbers of ``client-id=number`` pairs separated by commas, by client-id.

    Parameters
    ----------
    text
        The pairs; the empty text has none.
    what, of
        What the numbers are, and what they are of, for messages.

    Raises
    ------
    ValueError
        If the text is something else.

    Examples
    --------
    >>> split_pairs("3=0.5, hospital-a=2", "weight")
    {'3': 0.5, 'hospital-a': 2.0}
    """
    pairs = [entry.rpartition("=") for entry in split_list(text)]
    try:
        numbers = {client_id.strip(): float(number) for client_id, _, number in pairs}
    except ValueError:
        raise ValueError(f"'{of}={what}' pairs separated by commas") from None
    if len(numbers) < len(pairs) or "" in numbers:
        raise ValueError(f"'{of}={what}' pairs, each with a {of} of its own")
    return numbers


def split_shares(text: str) -> dict[str, float]:
    """Return the shares of ``client-id=share`` pairs, each in (0, 1], by client-id.

    Raises
    ------
    ValueError
        If the text is something else.
    """
    shares = split_pairs(text, "share")
    if not all(0 < share <= 1 for share in shares.values()):
        raise ValueError("'client-id=share' pairs with every share in (0, 1]")
    return shares


def checked_side_by_side(value: object) -> str:
    """Return how many clients train side by side: ``off``, ``auto`` or a whole number of at least 2.

    Raises
    ------
    ValueError
        If it is something else.
    """
    text = str(value)
    if text not in {"off", "auto"} and not (re.fullmatch(r"[0-9]{1,6}", text) and int(text) > 1):
        raise ValueError("off, auto or a whole number of at least 2")
    return text


class Settings(BaseModel):
    """Base of every section: frozen, strict about types, closed to unknown keys, hyphens in its keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=hyphenated,
        validate_by_name=True,
        validate_by_alias=True,
    )
