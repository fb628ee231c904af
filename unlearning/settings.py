"""Settings of forgetting and of its audit: the sections ``forget`` and ``audit`` of the run config.

One ``forget`` section serves every method, because ``lethe compare`` runs several methods from one config: a
method reads the fields that concern it and leaves the others alone. Methods differ in how long and how fast
they train, so ``epochs``, ``learning-rate`` and the like have a value that stands for the method's own
default; `method_settings` turns the section into the settings of one method.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator

from strategies.client.settings import TrainSettings
from strategies.core.settings import Settings, split_list

S = TypeVar("S", bound=Settings)

AuditAnswers = Literal["auto", "refuse", "aggregate", "examples"]

OWN_DEFAULT: Mapping[str, float] = {
    "epochs": -1,
    "learning_rate": 0.0,
    "batch_size": 0,
    "gamma": -1.0,
    "recovery_rounds": -1,
    "skew_alpha": -1.0,
}
"""The values of the section ``forget`` that leave a setting at the method's own default."""

AUTO = "auto"
"""In place of a method's name: the best that can serve (`unlearning.default_method`)."""

_OF_TRAINING = ("momentum", "weight_decay")


class ForgetSettings(Settings):
    """How a forgetting method works.

    Attributes
    ----------
    method
        A name of ``unlearning.methods``; neutral ``auto``: the best that can serve the request on the run.
    epochs
        Passes over the data that the method trains on, at least 0; neutral 0, which trains nothing; -1: the
        method's own. For `distill` the public data, for `ascent` the forgotten, else the retained data, one
        federated round per pass.
    learning_rate
        Step size, above 0; 0: the method's own, for rounds of fine-tuning the run's.
    batch_size
        Examples per step, at least 1; 0: the method's own, for rounds of fine-tuning the run's.
    subtract_form
        Subtraction of the logged updates: ``lazy`` (the client sent nothing) or ``renormalised`` (the others'
        weights are scaled up to 1 in every round).
    start
        Distillation: the model it begins with, that of ``subtract`` or of ``fast-fedul``.
    temperature
        Distillation: T of both softmaxes, above 0; neutral 1.
    hard_label_weight
        Distillation: weight of the cross-entropy on the public labels, at least 0; neutral 0, which ignores
        labels.
    teacher_filter
        Distillation: share of the public data left out, in [0, 1), where teacher and student disagree most;
        neutral 0.
    redistill_start
        `redistill`: ``transferred``, the models of before the first round, or ``now``, the present ones.
    redistill_rounds
        `redistill`: how many of the last kept rounds are replayed, at least 0; 0: all.
    post_training_rounds
        Distillation: federated rounds of the remaining clients afterwards, at least 0; neutral 0.
    skew_alpha
        Fast-FedUL: share of a client's past influence that the others undo in a round, in [0, 1]; neutral 0,
        which is subtraction; -1: the method's own.
    skew_theta
        Fast-FedUL: share of the estimated influence that is subtracted, at least 0; neutral 1, all of it.
    interval
        FedEraser: Δt, rounds of the run from one replayed round to the next, at least 1; neutral 1, which
        replays every round.
    ratio
        FedEraser: r, share of a round's local training that a replayed round takes, in (0, 1]; neutral 1.
    interval_factor
        FedEraser: whether each calibrated update is taken Δt times, for the rounds that are left out.
    gamma
        l1-sparse: weight of the L1 penalty in the first pass, at least 0; neutral 0, which is fine-tuning;
        -1: the method's own, by learning rate and amount of data.
    clip_norm
        Projected ascent: largest norm of a batch's gradient, above 0.
    stop_accuracy
        Ascent: it ends once the accuracy on the forgotten data is below this, in percent; neutral 0, which
        never stops.
    recovery_rounds
        Ascent, FedOSD: rounds of the remaining clients afterwards, at least 0; neutral 0; -1: the method's
        own.
    unlearning_rounds
        FedOSD: steps along the orthogonal direction, at least 0, a visit to every client each; neutral 0.
    negate_layers
        NoT: names of the layers to negate, separated by commas; empty: the first layer with weights.
    damping
        Influence: λ, above 0, the curvature assumed where no retained example has a gradient.
    fisher_examples
        Influence: retained examples that the curvature is taken from, at least 1.
    fisher_tolerance
        Influence: residual, relative to the right-hand side, at which the system with the Fisher matrix
        counts as solved, in (0, 1); each further product with it is a visit to every client.
    alpha_search
        Influence: lengths of the step that are tried, each above 0, separated by commas.
    max_retain_drop
        Influence: percentage points of accuracy on the retained data that a length may cost, at least 0.
    fisher_alpha
        Fisher forgetting: variance of the noise where the Fisher information is 1, at least 0; neutral 0.
    fisher_max_inverse
        Fisher forgetting: largest factor on that variance where the information is small, above 0.
    prune
        What comes before the method: ``none``, ``omp`` (magnitude, in one step), ``synflow`` (no data) or
        ``imp`` (iterative magnitude).
    sparsity
        Share of the weights to prune, in [0, 1); neutral 0.
    prune_iterations
        SynFlow: pruning steps, at least 1.
    prune_round_share
        Iterative magnitude pruning: share of the remaining weights pruned in a round, in (0, 1).
    """

    method: str = Field(default=AUTO, min_length=1)
    epochs: int = Field(default=-1, ge=-1)
    learning_rate: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=0, ge=0)

    subtract_form: Literal["lazy", "renormalised"] = "lazy"
    start: Literal["subtract", "fast-fedul"] = "subtract"
    temperature: float = Field(default=3.0, gt=0)
    hard_label_weight: float = Field(default=0.1, ge=0)
    teacher_filter: float = Field(default=0.0, ge=0, lt=1)
    redistill_start: Literal["transferred", "now"] = "transferred"
    redistill_rounds: int = Field(default=0, ge=0)
    post_training_rounds: int = Field(default=0, ge=0)
    skew_alpha: float = Field(default=-1.0, ge=-1, le=1)
    skew_theta: float = Field(default=1.0, ge=0)
    interval: int = Field(default=2, ge=1)
    ratio: float = Field(default=0.5, gt=0, le=1)
    interval_factor: bool = False

    gamma: float = Field(default=-1.0, ge=-1)
    clip_norm: float = Field(default=5.0, gt=0)
    stop_accuracy: float = Field(default=12.0, ge=0, le=100)
    recovery_rounds: int = Field(default=-1, ge=-1)
    unlearning_rounds: int = Field(default=10, ge=0)
    negate_layers: str = ""

    damping: float = Field(default=1e-3, gt=0)
    fisher_examples: int = Field(default=256, ge=1)
    fisher_tolerance: float = Field(default=1e-3, gt=0, lt=1)
    alpha_search: str = "0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20"
    max_retain_drop: float = Field(default=2.0, ge=0)
    fisher_alpha: float = Field(default=1e-6, ge=0)
    fisher_max_inverse: float = Field(default=1e3, gt=0)

    prune: Literal["none", "omp", "synflow", "imp"] = "none"
    sparsity: float = Field(default=0.95, ge=0, lt=1)
    prune_iterations: int = Field(default=100, ge=1)
    prune_round_share: float = Field(default=0.2, gt=0, lt=1)

    @property
    def alphas(self) -> tuple[float, ...]:
        """``alpha_search``, parsed."""
        return _parse_alphas(self.alpha_search)

    @property
    def layers(self) -> tuple[str, ...]:
        """``negate_layers``, parsed."""
        return split_list(self.negate_layers)

    @field_validator("alpha_search", "negate_layers", mode="before")
    @classmethod
    def _may_be_one_number(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("alpha_search")
    @classmethod
    def _alphas_parse(cls, value: str) -> str:
        _parse_alphas(value)
        return value

    @field_validator("gamma", "skew_alpha")
    @classmethod
    def _not_below_zero(cls, value: float) -> float:
        if value < 0 and value != -1.0:
            raise ValueError("a number >= 0, or -1 for the method's own")
        return value

    @field_validator("negate_layers")
    @classmethod
    def _layers_parse(cls, value: str) -> str:
        split_list(value)
        return value


def _parse_alphas(text: str) -> tuple[float, ...]:
    try:
        alphas = tuple(float(entry) for entry in split_list(text))
    except ValueError:
        raise ValueError("numbers above 0 separated by commas, such as '0.5, 1, 2'") from None
    if not alphas or not all(0 < alpha < float("inf") for alpha in alphas):
        raise ValueError("numbers above 0 separated by commas, such as '0.5, 1, 2'")
    return alphas


def method_settings(
    kind: type[S], settings: ForgetSettings, train: TrainSettings | None = None, **keys: str
) -> S:
    """Return the settings of one method, as the section ``forget`` gives them.

    Parameters
    ----------
    kind
        The method's settings class. Each of its fields takes the value of the field of the same name, unless
        that stands for the method's own default; fields that the section does not have keep theirs.
    settings
        The section ``forget``.
    train
        The section ``train``, of which momentum and weight decay are taken; None leaves the method's own.
    keys
        Field of `kind` -> field or property of the section, where the names differ.

    Examples
    --------
    >>> from strategies.client.settings import TrainSettings
    >>> method_settings(TrainSettings, ForgetSettings(batch_size=8)).batch_size
    8
    >>> method_settings(TrainSettings, ForgetSettings(), momentum="ratio").momentum
    0.5
    """
    given: dict[str, Any] = {}
    for name in kind.model_fields:
        key = keys.get(name, name)
        value = getattr(settings, key) if name in keys else getattr(settings, key, None)
        if value is not None and value != OWN_DEFAULT.get(key):
            given[name] = value
    if train is not None:
        given |= {name: getattr(train, name) for name in _OF_TRAINING if name in kind.model_fields}
    return kind.model_validate(given)


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
        over the forgotten and the retained examples, of which no membership attack can be made) or ``refuse``
        (nothing). Both of the former are exact. Neutral ``auto``: ``examples``, but ``refuse`` where the
        clients of the run are promised privacy, masks or encryption.
    """

    mia_draws: int = Field(default=10, ge=10)
    mia_examples: int = Field(default=10_000, ge=2)
    seeds: int = Field(default=-1, ge=-1)
    answers: AuditAnswers = "auto"
