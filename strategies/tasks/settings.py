"""Settings of what is learned: the section ``task`` of the run config."""

from typing import Literal

from pydantic import Field, field_validator

from strategies.core.settings import Settings, checked_list, split_list, split_pairs


class TaskSettings(Settings):
    """What is learned, and by which figures it is judged.

    Attributes
    ----------
    name
        ``classification``, ``multi-label``, ``regression``, ``segmentation``, or ``auto``: the project's
        own, else classification.
    metric
        The headline: the score (``accuracy`` in classification), or one of the task's metrics; neutral empty:
        the task's own choice.
    metrics
        Further figures, separated by commas; ``none``, ``all`` that the task has, or ``auto``: all, but none
        with plain classification, which then loads no library for them.
    class_weights
        ``classification``: factors on the losses of classes, as ``label=weight`` pairs separated by commas,
        each above 0; neutral empty: all 1. Means stay arithmetic ones.
    label_smoothing
        ``classification``: share of each label in [0, 1) that is spread over all classes; neutral 0.
    outputs
        ``regression``: numbers that are predicted of each example, at least 1.
    squared_error
        ``regression``: whether the loss is ``half`` the squared residual or the ``full`` one.
    scale
        ``regression``: residual, in units of the target, from which on the score is 0, above 0; 0: the
        standard deviation of the targets that `scale_from` names.
    scale_from
        ``regression``: whose targets the scale is taken from: ``server``, its own test or public data, or
        ``federated``, all clients' training data by secure sums, with noise if ``analytics.epsilon`` is
        given.
    scale_range
        ``federated``: largest absolute value that a target may have, above 0 and at most 1e9; beyond it a
        client refuses, or with noise cuts off.
    ignore
        ``segmentation``: label of pixels that count neither way, at least 0.
    """

    name: Literal["auto", "classification", "multi-label", "regression", "segmentation"] = "auto"
    metric: str = ""
    metrics: str = "auto"
    class_weights: str = ""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    outputs: int = Field(default=1, ge=1)
    squared_error: Literal["half", "full"] = "half"
    scale: float = Field(default=0.0, ge=0)
    scale_from: Literal["server", "federated"] = "server"
    scale_range: float = Field(default=1e6, gt=0, le=1e9)
    ignore: int = Field(default=255, ge=0)

    @property
    def weights(self) -> dict[int, float]:
        """``class_weights``, parsed, by label."""
        pairs = split_pairs(self.class_weights, "weight", "label")
        return {int(label): weight for label, weight in pairs.items()}

    @property
    def wanted(self) -> tuple[str, ...]:
        """``metrics``, parsed."""
        return split_list(self.metrics)

    _metrics_parse = field_validator("metrics")(checked_list)

    @field_validator("class_weights")
    @classmethod
    def _weights_parse(cls, value: str) -> str:
        pairs = split_pairs(value, "weight", "label")
        if not all(label.isdecimal() and 0 < weight < float("inf") for label, weight in pairs.items()):
            raise ValueError("'label=weight' pairs, labels from 0 on, every weight above 0")
        return value
