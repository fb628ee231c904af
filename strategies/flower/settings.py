"""Settings of Flower's own strategies, keys of the section ``strategy``."""

import tomllib

from pydantic import field_validator

from strategies.core.settings import Scalar, Settings
from strategies.core.traits import Traits

PREFIX = "flwr:"
"""What the name of one of Flower's own strategies begins with in ``strategy.name``."""


class FlowerSettings(Settings):
    """What ``flwr:<ClassName>`` reads.

    Attributes
    ----------
    options
        Arguments of its constructor as TOML pairs separated by commas: ``eta = 0.1, tau = 1e-3``; neutral
        empty.
    """

    options: str = ""

    @property
    def option_values(self) -> dict[str, Scalar]:
        """``options``, parsed: value by argument name."""
        return _parse_options(self.options)

    @field_validator("options")
    @classmethod
    def _options_parse(cls, value: str) -> str:
        _parse_options(value)
        return value


def _parse_options(text: str) -> dict[str, Scalar]:
    try:
        document = tomllib.loads(f"options = {{ {text} }}")
    except tomllib.TOMLDecodeError:
        raise ValueError("TOML pairs separated by commas, such as 'eta = 0.1, tau = 1e-3'") from None
    options = document.pop("options")
    if document or not all(isinstance(value, int | float | str) for value in options.values()):
        raise ValueError("TOML pairs on one line whose values are numbers, booleans or strings")
    return dict(options)


TRAITS = (Traits(PREFIX, FlowerSettings, adds_mean=False, hidden="none"),)
