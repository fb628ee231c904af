"""What a user can set of a benchmark: options that several have in common, and what their texts say.

Each benchmark has a class ``Options``, whose fields are its options with their defaults.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from app.config.run_config import allowed_values
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import split_list


class BenchmarkOptions(BaseModel):
    """The options of a benchmark; a text may be given as a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    @classmethod
    def of(cls, benchmark: str, given: Mapping[str, Any]) -> Self:
        """Return the options that a benchmark is given.

        Raises
        ------
        BadInput
            If there is no such option, or it takes no such value.
        """
        if unknown := sorted(set(given) - set(cls.model_fields)):
            known = ", ".join(cls.model_fields)
            raise BadInput(f"benchmark {benchmark}: unknown option '{unknown[0]}'; its options are {known}")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            allowed = allowed_values(cls.model_fields[name])
            told = f"{name}: given {shown(given[name])}, allowed {allowed}"
            raise BadInput(f"benchmark {benchmark}: {told}") from None

    def settings(self, *names: str) -> dict[str, Any]:
        """Return the options with these names; all of them if none is given."""
        return self.model_dump(include=set(names) or None)


class SeedsOptions(BenchmarkOptions):
    """Options of a benchmark over seeds."""

    seeds: int = 3
    """Number of seeds, from 0."""


class DataOptions(BenchmarkOptions):
    """Options of a benchmark on one of torchvision's data sets."""

    data_root: str = ""
    """Where torchvision's data sets, such as MNIST, lie (``data.root``)."""


class DigitsOptions(DataOptions):
    """Options of a benchmark on two data sets of digits."""

    data: str = ""
    """Names of the data sets, ``digits`` and ``mnist``, with commas between them; empty: both."""

    def data_sets(self, mnist_examples: int = 2000) -> dict[str, list[str]]:
        """Return the data sets as keys of the run config, MNIST with so many training examples."""
        limits = [f"data.train-limit={mnist_examples}", "data.test-limit=2000"]
        mnist = ["data.name=mnist", f"data.root={self.data_root}", *limits]
        known = {"digits": ["data.name=digits"], "mnist": mnist}
        return {name: known[name] for name in chosen("data", self.data, known)}


class RunOptions(DataOptions):
    """Options of a benchmark that trains federations to the end."""

    train_examples: int = 6_000
    """Size of the training data before a public share is held out; 0 for all."""
    rounds: int = 15
    """Of training."""
    seeds: int = 3
    """Number of seeds, from 0, or from ``first_seed`` where there is that option."""

    def keys(self) -> list[str]:
        """Return where the data lie, how many there are, and the rounds, as keys of the run config."""
        return [
            f"data.root={self.data_root}",
            f"data.train-limit={self.train_examples}",
            f"run.rounds={self.rounds}",
        ]


def chosen(
    option: str, given: str, known: Mapping[str, object], separator: str = ",", always: str = ""
) -> list[str]:
    """Return the known names that an option gives, in their own order; all if it is empty.

    Parameters
    ----------
    option, given
        The option's name and its text.
    known
        By name.
    separator
        Between names.
    always
        A name that is chosen in any case, such as that of what others are compared with.

    Raises
    ------
    BadInput
        If there is no such name.
    """
    names = {name.strip() for name in given.split(separator) if name.strip()}
    if unknown := sorted(names - set(known)):
        raise BadInput(f"{option}: got '{unknown[0]}', allowed some of {', '.join(known)}")
    return [name for name in known if not names or name in {*names, always}]


def numbers(option: str, given: str) -> list[float]:
    """Return the numbers that an option gives, separated by commas.

    Raises
    ------
    BadInput
        If there is none, or one is no number.
    """
    try:
        found = [float(each) for each in split_list(given)]
    except ValueError:
        found = []
    if not found:
        raise BadInput(f"{option}: expected numbers separated by commas, got '{given}'")
    return found


def separate_keys(overrides: str) -> list[str]:
    """Return the keys of a run config that have a semicolon between them; none if there is no text."""
    return [key for key in overrides.split(";") if key]
