"""The section ``strategy`` of the run config, put together from the settings of all algorithms.

A field ``step_size`` is the key ``strategy.step-size`` everywhere outside Python. Defaults are not
repeated in the docstrings of settings; each says the unit and, where there is one, the neutral value: the
value at which the setting changes nothing.
"""

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from strategies.core.settings import Settings
from strategies.core.traits import Traits
from strategies.registry import all_traits, traits_of

Own = TypeVar("Own", bound=Settings)


class NamedStrategy(Settings):
    """Which algorithm trains.

    Attributes
    ----------
    name
        A name of `strategies.registry`; one that ends with a colon there stands for all that begin with it.
    """

    name: str = Field(default="fedavg", min_length=1)

    @property
    def traits(self) -> Traits:
        """What the named algorithm can be combined with."""
        return traits_of(self.name)

    @property
    def adds_noise(self) -> bool:
        """Whether the algorithm's clients add noise of their own to what they answer."""
        key = self.traits.noise_key
        return bool(key) and self.model_dump(by_alias=True)[key.partition(".")[2]] > 0

    def own(self, kind: type[Own]) -> Own:
        """Return the section as the class that holds an algorithm's settings."""
        if not isinstance(self, kind):
            raise TypeError(f"{kind.__name__} is not among the settings of the registry's algorithms")
        return self


def _parts() -> tuple[type[Settings], ...]:
    """Return the algorithms' settings, the last first: pydantic begins with the fields of the last base."""
    found = dict.fromkeys(traits.settings for traits in all_traits() if traits.settings is not None)
    return tuple(reversed(found))


if TYPE_CHECKING:

    class StrategySettings(NamedStrategy):
        """The algorithm's name and every algorithm's settings, which `own` gives access to."""

        def __init__(self, **values: Any) -> None: ...

else:
    StrategySettings = type(
        "StrategySettings",
        (*_parts(), NamedStrategy),
        {"__module__": __name__, "__doc__": "The algorithm's name and every algorithm's settings."},
    )
