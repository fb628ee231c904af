"""The file of a sweep: what is tried, how often, and by which figure; the rest of it is a run config."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import mul
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from app.config.run_config import (
    RunConfig,
    allowed_values,
    check_key,
    check_value,
    field_of,
    is_union,
    read_toml,
)
from strategies.core.conditions import shown
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar, Settings, hyphenated

TEST = "test-"
"""Begins the name of a metric that is measured on the data of the report."""
_SECTION = "sweep."
_SPACE = "sweep.space."
_PRIVATE = (
    "sweep: every trial of a private run spends of the same clients' privacy budgets, which no account "
    'covers; allowed with privacy.unit = "none" and without noise on what clients answer'
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


class SweepSettings(Settings):
    """How a sweep searches.

    Attributes
    ----------
    name
        Of the sweep, which its runs' names begin with; empty: the file's.
    metric
        A figure of the task, or ``loss``, measured on ``data.validation-share``; one that begins with
        ``test-`` is measured on the data of the report. Empty: the run's headline.
    direction
        ``maximize`` or ``minimize``; ``auto``: as the metric has it.
    trials
        How many runs, at least 1; of a grid at most as many as it has.
    sampler
        ``tpe`` learns from the trials before, ``random`` does not, ``grid`` takes all combinations.
    seed
        Of the sampler.
    pruning
        ``median`` ends a trial that is worse than most were after as many rounds; neutral ``none``.
    """

    name: str = ""
    metric: str = ""
    direction: Literal["auto", "maximize", "minimize"] = "auto"
    trials: int = Field(default=20, ge=1)
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    seed: int = Field(default=0, ge=0, lt=2**32)
    pruning: Literal["none", "median"] = "none"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log`: evenly over their logarithms."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Sweep:
    """A sweep as its file has it.

    Parameters
    ----------
    space
        Key of the run config -> the values that are tried.
    base
        The keys of the run config that the file gives, the same in every trial.
    """

    settings: SweepSettings
    space: Mapping[str, tuple[Scalar, ...] | Range]
    base: Mapping[str, Scalar]

    def with_base(self, values: Mapping[str, Scalar]) -> "Sweep":
        """Return the same with some keys of the run config replaced; BadInput if a key is tried as well."""
        if both := sorted(set(self.space) & set(values)):
            raise BadInput(
                f"{_SPACE}{both[0]}: given as a key of the run config as well; leave out one of them"
            )
        return replace(self, base={**self.base, **values})

    @property
    def name(self) -> str:
        """Of the sweep."""
        return self.settings.name

    @property
    def trials(self) -> int:
        """How many runs there are at most."""
        lists = [values for values in self.space.values() if not isinstance(values, Range)]
        whole: int = reduce(mul, map(len, lists), 1)
        return min(self.settings.trials, whole) if self.settings.sampler == "grid" else self.settings.trials

    @property
    def digest(self) -> str:
        """SHA-256 of all that makes trials comparable: everything but how many there are."""
        searched = {
            key: values if isinstance(values, tuple) else vars(values) for key, values in self.space.items()
        }
        how = self.settings.model_dump(exclude={"trials"})
        base = {key: value for key, value in self.base.items() if key not in {"run.home", "run.workers"}}
        text = json.dumps([how, searched, base], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_sweep(path: Path) -> Sweep:
    """Return the sweep in a file.

    Raises
    ------
    BadInput
        For what cannot be read, an unknown key, or a value that a run would refuse.
    """
    document = read_toml(path)
    base = {key: value for key, value in document.items() if not key.startswith(_SECTION)}
    for key, value in base.items():
        check_key(key, value)
    own = {key: value for key, value in document.items() if key not in base and not key.startswith(_SPACE)}
    settings = _settings({key.removeprefix(_SECTION): value for key, value in own.items()}, path)
    space = _space({k.removeprefix(_SPACE): v for k, v in document.items() if k.startswith(_SPACE)})
    if not space:
        raise BadInput(
            f"{path}: nothing to try; give keys in [sweep.space], such as train.learning-rate = [0.01, 0.1]"
        )
    ranges = [key for key, values in space.items() if isinstance(values, Range)]
    if settings.sampler == "grid" and ranges:
        raise BadInput(f"{_SPACE}{ranges[0]}: given a range, but a grid needs a list of values")
    return Sweep(settings, space, {}).with_base(base)


def check_values(sweep: Sweep, base: RunConfig) -> None:
    """Refuse a value that is no value of its key, and private runs.

    Raises
    ------
    BadInput
        Naming the key, what was given and what is allowed.
    """
    refuse_private(base)
    for key, values in sweep.space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            check_value(key, int(value) if isinstance(values, Range) and values.whole else value)
            if key == "privacy.unit" and value != base.privacy.unit:
                raise BadInput(_PRIVATE)


def refuse_private(config: RunConfig) -> None:
    """Refuse a private run: each trial would spend of the same clients' budgets, and so would the choice."""
    if config.privacy.unit != "none" or config.strategy.adds_noise:
        raise BadInput(_PRIVATE)


def _settings(values: Mapping[str, Any], path: Path) -> SweepSettings:
    known = {hyphenated(name): field for name, field in SweepSettings.model_fields.items()}
    for key in values:
        if key not in known:
            raise BadInput(
                f"{_SECTION}{key}: unknown key; known keys: {', '.join(known)}, and the table space"
            )
    try:
        found = SweepSettings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        allowed = allowed_values(known[hyphenated(key)])
        raise BadInput(f"{_SECTION}{key}: given {shown(first['input'])}, allowed {allowed}") from None
    name = found.name or path.stem
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{_SECTION}name: given {shown(name)}, allowed 1 to 60 letters, digits, '.', '-' and '_'"
        )
    return found.model_copy(update={"name": name})


def _space(values: Mapping[str, Any]) -> dict[str, tuple[Scalar, ...] | Range]:
    """Return what is tried, by key, from values by dotted key in which a range's bounds stand apart."""
    found: dict[str, tuple[Scalar, ...] | Range] = {}
    bounds: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        head, _, last = key.rpartition(".")
        if last in {"low", "high", "log"} and field_of(key) is None:
            bounds.setdefault(head, {})[last] = value
        else:
            check_key(key, value)
            found[key] = _listed(key, value)
    for key, table in bounds.items():
        check_key(key, table)
        found[key] = _range(key, table)
    return found


def _listed(key: str, value: Any) -> tuple[Scalar, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise BadInput(f"{_SPACE}{key}: given {shown(value)}, allowed a list of values or {{low, high, log}}")
    if not all(isinstance(each, int | float | str) for each in value) or len(set(map(repr, value))) < len(
        value
    ):
        raise BadInput(f"{_SPACE}{key}: given {shown(value)}, allowed a list of different values")
    return tuple(value)


def _range(key: str, table: Mapping[str, Any]) -> Range:
    field = field_of(key)
    low, high, log = table.get("low"), table.get("high"), table.get("log", False)
    given = shown(dict(table))
    if field is None or is_union(field) or isinstance(field.default, bool | str):
        raise BadInput(f"{_SPACE}{key}: given {given}, but the key holds no number; allowed a list of values")
    whole = isinstance(field.default, int)
    kind = int if whole else int | float
    numbers = isinstance(low, kind) and isinstance(high, kind) and isinstance(log, bool)
    if not numbers or not low < high or (log and low <= 0):  # type: ignore[operator]
        raise BadInput(
            f"{_SPACE}{key}: given {given}, allowed {{low, high, log}} with low below high, both "
            f"{'integers' if whole else 'numbers'}, and above 0 with log = true"
        )
    return Range(low, high, log, whole)  # type: ignore[arg-type]
