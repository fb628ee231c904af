"""The schemas of a run folder's documents, checked whenever one is read.

Numbers that were not finite are null. A document may hold more than is named here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from strategies.core.errors import RunCorrupt
from strategies.runs.files import read_json

_MOST = 2**62
Count = Annotated[int, Field(ge=0, le=_MOST)]
"""How many of something, or how much of it."""
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
"""A number that can be shown and drawn."""
Figures = dict[str, Number | None]
"""Numbers by name."""


def check(document: type[BaseModel], found: Mapping[str, Any], where: str) -> None:
    """Check what was read.

    Parameters
    ----------
    where
        The file, and its line where it has several; the error begins with it.

    Raises
    ------
    RunCorrupt
        Naming the first field that is missing or wrong.
    """
    try:
        document.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"])).encode(errors="replace").decode()
        raise RunCorrupt(
            f"{where}: damaged at '{key[:_LONGEST]}' ({first['msg'][:_LONGEST]}); restore it from a copy"
        ) from None


def read_checked(path: Path, document: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON object in a file; RunCorrupt if it is missing or not what it must be."""
    found = read_json(path)
    check(document, found, str(path))
    return found


_LONGEST = 100


class Document(BaseModel):
    """A document, or an object in one: of these types, and never converted to them."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Fault(Document):
    client: str
    scope: str
    reason: str


class Round(Document):
    """A line of ``metrics.jsonl`` on a round; every other key of it is a number."""

    __pydantic_extra__: Figures

    round: Annotated[int, Field(ge=0, le=2**31)]
    seconds: Number | None = None
    bytes_up: Count = Field(default=0, alias="bytes-up")
    bytes_down: Count = Field(default=0, alias="bytes-down")
    clients: dict[str, Figures] = {}
    selected: list[str] = []
    accepted: list[str] = []
    faults: list[_Fault] = []
    epsilons: Figures = {}
    epsilons_unamplified: Figures = Field(default={}, alias="epsilons-unamplified")


class _Client(Document):
    """What a summary says of a client; nothing where it hides it or was purged."""

    num_examples: Count = Field(default=1, alias="num-examples")
    label_counts: list[Count] = Field(default=[], alias="label-counts")


class Traffic(Document):
    """What an exchange took."""

    bytes_up: Count = Field(alias="bytes-up")
    bytes_down: Count = Field(alias="bytes-down")
    visits: Count | None = None


class _Data(Document):
    input_shape: list[Count] = Field(default=[], alias="input-shape")
    class_names: list[str] = Field(default=[], alias="class-names")
    public_examples: Count | None = Field(default=None, alias="public-examples")
    test_examples: Count | None = Field(default=None, alias="test-examples")


class _Weights(Document):
    sha256: str


class _Model(Document):
    parameters: Count = 0
    weights: _Weights | None = None


class _Log(Document):
    bytes: Count = 0


class _Labels(Document):
    bins: list[Number]
    counts: list[int]
    epsilon: Number | None = None

    @model_validator(mode="after")
    def _is_a_histogram(self) -> Self:
        if len(self.bins) != len(self.counts):
            raise ValueError("one count for each bin")
        return self


class _Budget(Document):
    budget: Number | None
    epsilon: Number | None
    noise_multiplier: Number | None = Field(alias="noise-multiplier")
    refused_rounds: Count = Field(alias="refused-rounds")
    unreported_rounds: Count = Field(alias="unreported-rounds")
    reason: str


class _Privacy(Document):
    unit: str
    neighbours: str
    noise_by: str = Field(alias="noise-by")
    delta: Number
    clip_norm: Number = Field(alias="clip-norm")
    sampling: str
    accountant: str
    randomness: str
    clients: dict[str, _Budget]


class Pruned(Document):
    """``pruning.json``."""

    prune: str
    sparsity: Number


class _Group(Document):
    group: Count
    examples: Count
    score: Number


class _Evaluation(Document):
    """The figures of a model, measured in one place."""

    examples: Count
    headline: str
    higher_is_better: bool = Field(alias="higher-is-better")
    figures: Figures
    tables: dict[str, list[Number | None] | list[Any]] = {}
    groups: list[_Group] = []
    clients: dict[str, Figures] = {}


class _Judged(Document):
    keep: str
    by: str
    round: Count
    trained: Count
    best: Count
    value: Number | None
    validation_examples: Count = Field(alias="validation-examples")


def rounds_in(summary: Mapping[str, Any]) -> int:
    """Return how many rounds are in the model of a finished run.

    >>> rounds_in({"rounds": 5, "completed-rounds": 2}), rounds_in({"rounds": 5})
    (2, 5)
    """
    kept = summary.get("completed-rounds")
    return int(summary["rounds"] if kept is None else kept)


class Summary(Document):
    """``summary.json``."""

    strategy: str
    rounds: Count
    completed_rounds: Count | None = Field(default=None, alias="completed-rounds")
    seconds: Number
    final: Figures
    clients: dict[str, _Client]
    faults: list[_Fault] = []
    notes: list[str] = []
    traffic: Traffic | None = None
    data: _Data | None = None
    model: _Model | None = None
    log: _Log | None = None
    analytics: _Labels | None = None
    privacy: _Privacy | None = None
    evaluations: dict[str, _Evaluation] = {}
    judged: _Judged | None = None
