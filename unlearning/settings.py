"""Settings of forgetting and of its audit: the sections ``forget`` and ``audit`` of the run config.

One ``forget`` section serves every method, because ``lethe compare`` runs several methods from one config: a
method reads the fields that concern it and leaves the others alone.
"""

from typing import Literal

from pydantic import Field

from strategies.settings import Settings


class ForgetSettings(Settings):
    """How a forgetting method works.

    Attributes
    ----------
    method
        A name of ``unlearning.methods``.
    subtract_form
        Subtraction of the logged updates: ``lazy`` (the client sent nothing) or ``renormalised`` (the others'
        weights are scaled up to 1 in every round).
    temperature
        Distillation: T of both softmaxes, above 0; neutral 1.
    epochs
        Distillation: passes over the public data, at least 0; neutral 0, which is subtraction alone.
    learning_rate
        Distillation: step size, above 0.
    batch_size
        Distillation: public examples per step, at least 1.
    hard_label_weight
        Distillation: weight of the cross-entropy on the public labels, at least 0; neutral 0, which ignores
        labels.
    teacher_filter
        Distillation: share of the public data left out, in [0, 1), where teacher and student disagree most;
        neutral 0.
    post_training_rounds
        Federated rounds of the remaining clients afterwards, at least 0; neutral 0.
    """

    method: str = Field(default="distill", min_length=1)
    subtract_form: Literal["lazy", "renormalised"] = "lazy"
    temperature: float = Field(default=3.0, gt=0)
    epochs: int = Field(default=20, ge=0)
    learning_rate: float = Field(default=0.01, gt=0)
    batch_size: int = Field(default=32, ge=1)
    hard_label_weight: float = Field(default=0.1, ge=0)
    teacher_filter: float = Field(default=0.0, ge=0, lt=1)
    post_training_rounds: int = Field(default=0, ge=0)


class AuditSettings(Settings):
    """How completely a forgetting is measured.

    Attributes
    ----------
    mia_c
        Penalty C of the membership attacker's support vector machine, above 0.
    mia_examples
        Most members, and most non-members, that the attacker is trained and checked on, at least 2: its time
        grows with the square of it (2,500 take about a second per model).
    seeds
        Retrainings with other seeds, at least 0, whose distance to each other gives the scale of the
        parameter distance; neutral 0: the distance is reported without a scale.
    """

    mia_c: float = Field(default=3.0, gt=0)
    mia_examples: int = Field(default=2500, ge=2)
    seeds: int = Field(default=0, ge=0)
