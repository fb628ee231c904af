"""The documents of forgettings, audits and comparisons, checked when they are read.

As in `strategies.runs.documents`: a figure that was not measured is null, and a document may hold more than
is named here.
"""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from strategies.core.errors import BadInput
from strategies.runs.documents import Count, Document, Figures, Number, Traffic
from unlearning.request import ForgetRequest

Percent = Annotated[float, Field(ge=-0.01, le=100.01)]
"""A percentage; a mean of many may be off by a rounding error."""
Amount = Annotated[float, Field(ge=0, le=1e30)]
"""How much of something, where it may be a mean."""


class StoredRequest(Document):
    """A request as documents hold it."""

    kind: str
    clients: list[str]
    classes: list[Count]
    samples: dict[str, list[Count]]

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        try:
            ForgetRequest.from_json(self.model_dump())
        except BadInput as error:
            raise ValueError(str(error)) from None
        return self


class _Counted(Traffic):
    visits: Count


class _Details(Document):
    epsilon: Number | None = None


class Result(Document):
    """``result.json`` of a forgetting."""

    request: StoredRequest
    method: str
    settings: dict[str, bool | float | str | dict[str, bool | float | str] | None]
    seconds: Amount
    traffic: _Counted
    warnings: list[str] = Field(default=[])
    notes: list[str]
    details: _Details = _Details()
    after: str = ""
    forgotten: list[StoredRequest] = Field(default=[])


class _Part(Document):
    """Figures on one kind of the forgotten examples."""

    unlearning_accuracy: Percent | None = None
    mia_efficacy: Percent | None = None
    attack_success_rate: Percent | None = None
    num_forget: Count = 0


class _Measured(Document):
    """Figures of a model; other figures are shown if they are numbers."""

    test_accuracy: Percent | None = None
    retain_accuracy: Percent | None = None
    unlearning_accuracy: Percent | None = None
    mia_efficacy: Percent | None = None
    mia_efficacy_std: Amount | None = None
    attack_success_rate: Percent | None = None
    seconds: Amount | None = None
    apart: dict[str, _Part] = Field(default={})


class _Distance(Document):
    disparity: Percent | None = None
    parameter_distance: Number | None = None


class _Verdict(Document):
    outcome: str
    text: str
    disparity: Percent | None = None
    before: Percent | None = None
    floor: Percent | None = None


class Audit(Document):
    """``audit.json`` of a forgetting."""

    before: _Measured
    after: _Measured
    retrain: _Measured
    gaps: Figures
    disparity: Percent | None
    verdict: _Verdict | None = None
    comparison: dict[str, Any] = Field(default={})
    scale: dict[str, _Distance] = Field(default={})
    notes: list[str]


class _Suspect(Document):
    client: str
    score: Number
    interval: Annotated[list[Number], Field(min_length=2, max_length=2)] | None
    p: Annotated[float, Field(ge=0, le=1)]
    stands_out: bool = Field(alias="stands-out")
    reasons: list[str]
    signs: dict[str, Figures]


class Suspects(Document):
    """``suspects.json`` of a run."""

    level: Annotated[float, Field(gt=0, lt=1)]
    standing_out: list[str] = Field(alias="standing-out")
    clients: list[_Suspect]
    not_judged: dict[str, str] = Field(alias="not-judged")
    notes: list[str]


class _Spread(Document):
    mean: Number | None
    std: Amount | None
    low: Number | None = None
    high: Number | None = None
    values: list[list[Number]] = Field(default=[])
    listed: bool = False
    std_training: Amount | None = None
    std_forgetting: Amount | None = None


class _Percents(_Spread):
    mean: Percent | None


class _Costs(_Spread):
    mean: Amount | None


_NONE = _Percents(mean=None, std=None)
_FREE = _Costs(mean=None, std=None)


class _Compared(Document):
    """Figures of a model over the seeds: those that are drawn, and others."""

    __pydantic_extra__: dict[str, _Spread]

    unlearning_accuracy: _Percents = _NONE
    mia_efficacy: _Percents = _NONE
    retain_accuracy: _Percents = _NONE
    test_accuracy: _Percents = _NONE
    attack_success_rate: _Percents = _NONE
    disparity: _Percents = _NONE
    disparity_without_mia: _Percents = _NONE
    seconds: _Costs = _FREE


class _Settings(Document):
    prune: str
    sparsity: Number


class Comparison(Document):
    """A file under ``compare/``."""

    request: StoredRequest
    settings: _Settings
    seeds: Annotated[list[Count], Field(min_length=1)]
    forgettings: Annotated[Count, Field(ge=1)] = 1
    mia_counts: bool = True
    conclusions: list[str] = Field(default=[])
    before: _Compared
    retrain: _Compared
    methods: dict[str, _Compared]
    notes: list[str]
