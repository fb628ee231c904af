"""The base of every section of the run config, and how a text holds a list."""

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
