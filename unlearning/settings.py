"""Settings of forgetting and of its audit: the sections ``forget`` and ``audit`` of the run config.

Each forgetting method owns its settings: a key ``forget.distill.temperature`` is the field ``temperature`` of
the class that the traits of `distill` name, and is imported only where one of its keys is given. The section
itself holds which method works, and what is pruned before it does.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from strategies.core.settings import Scalar, Settings, checked_side_by_side, hyphenated, split_list
from unlearning.registry import names, settings_of, traits_of

S = TypeVar("S", bound=Settings)

AuditAnswers = Literal["auto", "refuse", "aggregate", "examples"]

AUTO = "auto"
"""In place of a method's name: the best that can serve (`unlearning.default_method`)."""

Auto = Literal["auto"]
"""In place of a number: what the docstring of the field says."""
LEAST_SHADOWS = 3
AtLeastZero = Annotated[float, Field(ge=0)] | Auto
Positive = Annotated[float, Field(gt=0)] | Auto
Count = Annotated[int, Field(ge=0)] | Auto
Size = Annotated[int, Field(ge=1)] | Auto

_Values = tuple[tuple[str, Scalar], ...]

FLAT: Mapping[str, Scalar] = {
    "epochs": -1,
    "learning-rate": 0.0,
    "batch-size": 0,
    "subtract-form": "lazy",
    "start": "subtract",
    "temperature": 3.0,
    "hard-label-weight": 0.1,
    "teacher-filter": 0.0,
    "redistill-start": "transferred",
    "redistill-rounds": 0,
    "post-training-rounds": 0,
    "skew-alpha": -1.0,
    "skew-theta": 1.0,
    "interval": 2,
    "ratio": 0.5,
    "interval-factor": False,
    "gamma": -1.0,
    "clip-norm": 5.0,
    "stop-accuracy": 12.0,
    "recovery-rounds": -1,
    "unlearning-rounds": 10,
    "negate-layers": "",
    "damping": 1e-3,
    "fisher-examples": 256,
    "fisher-tolerance": 1e-3,
    "alpha-search": "0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20",
    "max-retain-drop": 2.0,
    "fisher-alpha": 1e-6,
    "fisher-max-inverse": 1e3,
}
"""The keys that all methods shared in runs of version 0.1, with the value that left each alone."""


class ForgetSettings(Settings):
    """How a forgetting method works.

    Attributes
    ----------
    method
        A name of ``unlearning.methods``; neutral ``auto``: the best that can serve the request on the run.
    prune
        What comes before the method: ``none``, ``omp`` (magnitude, in one step), ``synflow`` (no data) or
        ``imp`` (iterative magnitude).
    sparsity
        Share of the weights to prune, in [0, 1); neutral 0.
    prune_iterations
        SynFlow: pruning steps, at least 1.
    prune_round_share
        Iterative magnitude pruning: share of the remaining weights pruned in a round, in (0, 1).
    given
        The keys of single methods that are not at their default, by method; no key of its own.
    """

    method: str = Field(default=AUTO, min_length=1)
    prune: Literal["none", "omp", "synflow", "imp"] = "none"
    sparsity: float = Field(default=0.95, ge=0, lt=1)
    prune_iterations: int = Field(default=100, ge=1)
    prune_round_share: float = Field(default=0.2, gt=0, lt=1)
    given: tuple[tuple[str, _Values], ...] = Field(default=(), exclude=True)

    @staticmethod
    def of(method: str, **values: Any) -> "ForgetSettings":
        """Return the settings of a method with some of its own keys, by the names of its fields.

        Examples
        --------
        >>> ForgetSettings.of("finetune", epochs=3).model_dump(by_alias=True)["finetune"]
        {'epochs': 3}
        """
        return ForgetSettings.model_validate({"method": method, method: values})

    def own(self, method: str, kind: type[S]) -> S:
        """Return a method's own settings, of class `kind`."""
        return kind.model_validate(dict(dict(self.given).get(method, ())))

    def with_own(self, method: str, **values: Any) -> "ForgetSettings":
        """Return these settings with some keys of a method changed, by the names of its fields."""
        mine = {**dict(dict(self.given).get(method, ())), **{hyphenated(k): v for k, v in values.items()}}
        return ForgetSettings.model_validate({**self.model_dump(by_alias=True), method: mine})

    def written_out(self, method: str) -> dict[str, Any]:
        """Return the section as plain data, with every key of a method's own."""
        own = self.own(method, settings_of(method)).model_dump(by_alias=True)
        return {**self.model_dump(by_alias=True), **({method: own} if own else {})}

    @staticmethod
    def stored(values: Mapping[str, Any]) -> "ForgetSettings":
        """Return the settings that a finished run or result holds, those of version 0.1 included."""
        return ForgetSettings.model_validate(renamed(values))

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        """Put the keys of single methods, dotted or in tables, where they belong; check each by its class."""
        if not isinstance(values, Mapping):
            return values
        general = {hyphenated(name) for name in cls.model_fields}
        rest = {key: value for key, value in values.items() if hyphenated(str(key)) in general}
        tables: dict[str, dict[str, Any]] = {}
        for key, value in ((key, value) for key, value in values.items() if key not in rest):
            method, dot, name = str(key).partition(".")
            table = {name: value} if dot or not isinstance(value, Mapping) else value
            tables.setdefault(method, {}).update(table)
        if unknown := sorted(set(tables) - set(names())):
            raise ValueError(f"{unknown[0]}: no key of the section and no method")
        if not tables:
            return rest
        changed = {method: changed_values(settings_of(method), tables[method]) for method in sorted(tables)}
        kept = tuple((method, tuple(own.items())) for method, own in changed.items() if own)
        return {**rest, "given": kept}

    @model_serializer(mode="wrap")
    def _by_method(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**write(self), **{method: dict(values) for method, values in self.given}}


def changed_values(kind: type[Settings], values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the values that differ from the defaults of a class of settings, by key."""
    return kind.model_validate(dict(values)).model_dump(by_alias=True, exclude_defaults=True)


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section ``forget`` in which each flat key of version 0.1 is given to the methods that read it.

    A flat key at its default is left out.

    Examples
    --------
    >>> renamed({"method": "retrain", "temperature": 3.0})
    {'method': 'retrain'}
    >>> renamed({"temperature": 2.0})
    {'distill': {'temperature': 2.0}, 'fast-distill': {'temperature': 2.0}}
    """
    found: dict[str, Any] = {key: value for key, value in values.items() if key not in FLAT}
    for key, value in values.items():
        if key in FLAT and value != FLAT[key]:
            for method, name in owners(key):
                found.setdefault(method, {})[name] = value
    return found


@cache
def owners(flat: str) -> tuple[tuple[str, str], ...]:
    """Return the methods that read a flat key of version 0.1, each with its name for it."""
    found = []
    for method in names():
        former = traits_of(method).flat_keys
        key = former.get(flat, "" if flat in former.values() else flat)
        if key in map(hyphenated, settings_of(method).model_fields):
            found.append((method, key))
    return tuple(found)


class AuditSettings(Settings):
    """How completely a forgetting is measured.

    Attributes
    ----------
    mia_draws
        How often the membership attacker draws its members and non-members, at least 10; the figures are
        means over the draws, with their spread.
    mia_examples
        Most members, and most non-members, that the attacker is trained and checked on, at least 2.
    seeds
        Retrainings with other seeds, at least 0, whose distance to the one with the run's seed is the floor:
        no method can be expected to come closer. Neutral 0, which leaves the verdict without a floor; -1: one
        where all clients share a model, none where each has its own.
    answers
        What clients tell of the audited models: ``examples`` (three numbers per example), ``aggregate`` (sums
        over the forgotten and the retained examples, of which the server can make no membership attack; with
        shadow models each client attacks its own examples) or ``refuse`` (nothing). Both of the former are
        exact. Neutral ``auto``: ``examples``, but ``refuse`` where the clients of the run are promised
        privacy, masks or encryption.
    shadows
        Pairs of shadow models for the attack on single examples: so often is the run trained again with
        another seed, forgotten by the audited method, and retrained; 0, or at least 3; a verdict needs 8.
        Neutral 0: no such attack.
    vectorise
        How many clients of the shadow models train side by side in one process, of one shadow or several, as
        in ``run.vectorise``; neutral empty: as the run says.
    rounding
        Bits, from 2 to 8 and separated by commas, to which the models' weights are rounded, to see whether
        what was forgotten comes back; neutral empty.
    relearn
        Rounds of training with the forgotten data back, at most, until a model knows them as before, at least
        0; a model that only hides them takes fewer than the retrained one. Neutral 0: it is not tried.
    """

    mia_draws: int = Field(default=10, ge=10)
    mia_examples: int = Field(default=10_000, ge=2)
    seeds: int = Field(default=-1, ge=-1)
    answers: AuditAnswers = "auto"
    shadows: int = Field(default=0, ge=0, le=1000)
    vectorise: str = ""
    rounding: str = ""
    relearn: int = Field(default=0, ge=0)

    @property
    def rounding_bits(self) -> tuple[int, ...]:
        """``rounding``, parsed."""
        return tuple(map(int, split_list(self.rounding)))

    @field_validator("rounding")
    @classmethod
    def _rounding_parses(cls, value: str) -> str:
        if not all(bits in {str(b) for b in range(2, 9)} for bits in split_list(value)):
            raise ValueError("numbers of bits from 2 to 8, separated by commas")
        return value

    @field_validator("vectorise", mode="before")
    @classmethod
    def _clients_side_by_side(cls, value: object) -> str:
        return "" if value == "" else checked_side_by_side(value)

    @field_validator("shadows")
    @classmethod
    def _enough_shadows(cls, value: int) -> int:
        if 0 < value < LEAST_SHADOWS:
            raise ValueError(f"0, or at least {LEAST_SHADOWS}")
        return value
